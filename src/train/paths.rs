//! Ground-truth paths: a pool of noises solved once and read at any time.

use crate::dopri5::{self, Dense, Tolerance};
use crate::error::Result;
use crate::noise::{self, Purpose};
use crate::tensor::Tensor;
use crate::velocity::{Condition, VelocityField};
use std::ops::Range;

/// How noises become samples: which class and guidance each index gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditioning {
    /// Number of classes; 0 for none.
    pub classes: i64,
    /// One class for all; `None`: sample i gets class i mod classes.
    pub class: Option<i64>,
    /// Guidance of all samples; 1 is off.
    pub guidance_scale: f64,
}

impl Conditioning {
    /// The condition of the samples `indices`.
    pub fn of(&self, indices: Range<usize>) -> Condition {
        let count = indices.len();
        let class = |i: usize| self.class.unwrap_or(i as i64 % self.classes);
        Condition {
            class: if self.classes > 0 { indices.map(class).collect() } else { Vec::new() },
            guidance_scale: if self.guidance_scale == 1.0 { Vec::new() } else { vec![self.guidance_scale; count] },
        }
    }
}

/// What a pool is made of.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// What the noises are for.
    pub purpose: Purpose,
    /// Their seed.
    pub seed: u64,
    /// Which of them.
    pub indices: Range<usize>,
    /// Samples solved at once.
    pub chunk: usize,
    /// How exactly.
    pub tolerance: Tolerance,
    /// Whether x(t) is wanted at any t, or x(1) alone.
    pub dense: bool,
}

/// Noises and their ground-truth paths.
pub struct Pool<T> {
    /// x(0), `[size, elements]`.
    pub x0: T,
    /// x(1), `[size, elements]`.
    pub x1: T,
    pub(super) condition: Condition,
    pub(super) chunk: usize,
    pub(super) paths: Vec<Dense<T>>,
}

impl<T: Tensor> Pool<T> {
    /// Solves for all noises.
    ///
    /// # Errors
    /// As [`dopri5::solve`].
    pub fn solve<F>(field: &F, conditioning: &Conditioning, options: &PoolOptions) -> Result<Self>
    where
        F: VelocityField<Tensor = T>,
    {
        let PoolOptions { purpose, seed, indices, chunk, tolerance, dense } = options.clone();
        let (mut starts, mut ends, mut paths) = (Vec::new(), Vec::new(), Vec::new());
        for first in indices.clone().step_by(chunk) {
            let part = first..(first + chunk).min(indices.end);
            let x0 = field.start(&noise::normal(seed, purpose, part.clone(), field.elements()))?;
            let solution = dopri5::solve(field, &x0, &conditioning.of(part.clone()), tolerance, dense)?;
            starts.push(x0);
            ends.push(solution.x1);
            paths.extend(solution.dense);
        }
        Ok(Self {
            x0: T::concatenate(&starts.iter().collect::<Vec<_>>())?,
            x1: T::concatenate(&ends.iter().collect::<Vec<_>>())?,
            condition: conditioning.of(indices),
            chunk,
            paths,
        })
    }

    /// Number of noises.
    pub fn size(&self) -> usize {
        self.x0.batch()
    }

    /// What the samples `rows` are conditioned on.
    pub fn condition(&self, rows: &[usize]) -> Condition {
        self.condition.select(rows)
    }

    /// x(t) of the samples `rows`, which must be in increasing order.
    ///
    /// # Errors
    /// The tensor's own.
    pub fn at(&self, t: f64, rows: &[usize]) -> Result<T> {
        let mut parts = Vec::new();
        for (c, path) in self.paths.iter().enumerate() {
            let inside = c * self.chunk..(c + 1) * self.chunk;
            let own: Vec<usize> =
                rows.iter().filter(|row| inside.contains(row)).map(|row| row - inside.start).collect();
            if !own.is_empty() {
                parts.push(path.at(t, &own)?);
            }
        }
        T::concatenate(&parts.iter().collect::<Vec<_>>())
    }
}
