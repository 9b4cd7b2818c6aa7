//! Which noises samples start from.

use crate::error::{Error, Result};
use crate::memory;
use crate::noise::{self, Purpose};

/// Standard normal noises, by seed or given.
#[derive(Clone, Debug)]
pub enum Noises {
    /// This many of a seed.
    Seed {
        /// The seed.
        seed: u64,
        /// How many.
        count: usize,
    },
    /// These, `[count, elements]`.
    Given(Vec<f32>),
}

impl Noises {
    /// How many there are; given ones are of `elements` numbers each.
    pub fn count(&self, elements: usize) -> usize {
        match self {
            Noises::Seed { count, .. } => *count,
            Noises::Given(values) => values.len() / elements.max(1),
        }
    }

    /// The noises `indices`.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn read(&self, indices: impl ExactSizeIterator<Item = usize>, elements: usize) -> Result<Vec<f32>> {
        match self {
            Noises::Seed { seed, .. } => noise::normal(*seed, Purpose::Sample, indices, elements),
            Noises::Given(values) => {
                let mut read = memory::room(memory::numbers(indices.len(), elements)?)?;
                indices.for_each(|i| read.extend_from_slice(&values[i * elements..(i + 1) * elements]));
                Ok(read)
            }
        }
    }

    /// `elements` is 0 where samples are of several sizes.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there are none, or their numbers are not finite; where noises are given for samples
    /// of several sizes, which no one array has.
    pub fn validate(&self, elements: usize) -> Result<()> {
        if elements == 0 && matches!(self, Noises::Given(_)) {
            return Err(Error::invalid("noise", "there", "absent: the samples are of several sizes"));
        }
        if self.count(elements) == 0 {
            return Err(Error::invalid("count", 0, "at least 1"));
        }
        match self {
            Noises::Given(values) if !values.len().is_multiple_of(elements) => {
                Err(Error::invalid("noise", format!("{} numbers", values.len()), format!("a multiple of {elements}")))
            }
            Noises::Given(values) if !values.iter().all(|v| v.is_finite()) => {
                Err(Error::invalid("noise", "a NaN or an infinity", "finite numbers"))
            }
            _ => Ok(()),
        }
    }
}
