//! Ground-truth paths: a pool of noises solved once and read at any time.

use crate::dopri5::{self, Dense, Tolerance};
use crate::error::Result;
use crate::noise::{self, Purpose};
use crate::samples::Conditioning;
use crate::tensor::Tensor;
use crate::velocity::{Condition, VelocityField};
use std::ops::Range;

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

impl PoolOptions {
    /// Which noises are solved together, batch by batch.
    pub(super) fn batches(&self) -> impl Iterator<Item = Range<usize>> {
        let (chunk, end) = (self.chunk, self.indices.end);
        self.indices.clone().step_by(chunk).map(move |first| first..(first + chunk).min(end))
    }

    /// The `i`th of [`PoolOptions::batches`].
    pub(super) fn batch(&self, i: usize) -> Range<usize> {
        let first = self.indices.start + i * self.chunk;
        first..(first + self.chunk).min(self.indices.end)
    }
}

/// The ground truth of one batch of a pool.
pub(super) struct Solved<T> {
    /// x(1), `[batch, elements]`.
    pub x1: T,
    /// x(t), where it is wanted.
    pub path: Option<Dense<T>>,
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
        let starts = starts(field, options)?;
        let each = |(i, x0)| solve_batch(field, conditioning, options, i, x0, &mut |_| ());
        let solved = starts.iter().enumerate().map(each).collect::<Result<Vec<_>>>()?;
        Self::assemble(conditioning, options, &starts, solved)
    }

    /// A pool of what was found for each of its batches.
    pub(super) fn assemble(
        conditioning: &Conditioning,
        options: &PoolOptions,
        starts: &[T],
        solved: Vec<Solved<T>>,
    ) -> Result<Self> {
        let ends: Vec<&T> = solved.iter().map(|solved| &solved.x1).collect();
        Ok(Self {
            x0: T::concatenate(&starts.iter().collect::<Vec<_>>())?,
            x1: T::concatenate(&ends)?,
            condition: conditioning.of(options.indices.clone())?,
            chunk: options.chunk,
            paths: solved.into_iter().filter_map(|solved| solved.path).collect(),
        })
    }

    /// Number of noises.
    pub fn size(&self) -> usize {
        self.x0.batch()
    }

    /// What the samples `rows` are conditioned on.
    ///
    /// # Errors
    /// [`crate::Error::Memory`].
    pub fn condition(&self, rows: &[usize]) -> Result<Condition> {
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

/// x(0) of every batch.
pub(super) fn starts<F: VelocityField>(field: &F, options: &PoolOptions) -> Result<Vec<F::Tensor>> {
    let start = |batch| field.start(&noise::normal(options.seed, options.purpose, batch, field.elements())?);
    options.batches().map(start).collect()
}

/// Solves batch `i` of a pool from its `x0`; `watch` gets the times that it comes to.
pub(super) fn solve_batch<F: VelocityField>(
    field: &F,
    conditioning: &Conditioning,
    options: &PoolOptions,
    i: usize,
    x0: &F::Tensor,
    watch: &mut dyn FnMut(f64),
) -> Result<Solved<F::Tensor>> {
    let condition = conditioning.of(options.batch(i))?;
    let found = dopri5::solve_watched(field, x0, &condition, options.tolerance, options.dense, watch)?;
    Ok(Solved { x1: found.x1, path: found.dense })
}
