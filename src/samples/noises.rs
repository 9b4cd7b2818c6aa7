//! Which noises samples start from.

use crate::error::{Error, Result};
use crate::memory;
use crate::noise::{self, Purpose};
use std::ops::Range;

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
    /// How many there are, of `elements` numbers each.
    pub fn count(&self, elements: usize) -> usize {
        match self {
            Noises::Seed { count, .. } => *count,
            Noises::Given(values) => values.len() / elements,
        }
    }

    /// The noises `indices`.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn read(&self, indices: Range<usize>, elements: usize) -> Result<Vec<f32>> {
        match self {
            Noises::Seed { seed, .. } => noise::normal(*seed, Purpose::Sample, indices, elements),
            Noises::Given(values) => memory::copied(&values[indices.start * elements..indices.end * elements]),
        }
    }

    /// # Errors
    /// [`Error::Invalid`] where there are none, or their numbers are not finite.
    pub fn validate(&self, elements: usize) -> Result<()> {
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
