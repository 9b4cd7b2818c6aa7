//! Ground-truth paths: a pool of noises solved once and read at any time.

use crate::dopri5::{self, Dense, Tolerance};
use crate::error::Result;
use crate::noise::{self, Purpose};
use crate::samples::{Batch, Conditioning};
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

/// Noises and their ground-truth paths. Samples of one size are held together; each keeps its number.
pub struct Pool<T> {
    /// By size.
    groups: Vec<Group<T>>,
    /// Of each sample its group, and its row there.
    places: Vec<(usize, usize)>,
}

/// The samples of one size.
struct Group<T> {
    /// x(0), `[size, elements]`.
    x0: T,
    /// x(1), `[size, elements]`.
    x1: T,
    condition: Condition,
    /// Samples of each of the `paths`, but for the last.
    chunk: usize,
    paths: Vec<Dense<T>>,
}

impl PoolOptions {
    /// Which noises are solved together, batch by batch; `usual` is the numbers of a sample where the conditions do
    /// not say.
    pub(super) fn batches(&self, conditioning: &Conditioning, usual: usize) -> Vec<Batch> {
        conditioning.batches(self.indices.clone(), usual, self.chunk)
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
        let batches = options.batches(conditioning, field.elements());
        let starts = starts(field, options, &batches)?;
        let each = |(batch, x0)| solve_batch(field, conditioning, options, batch, x0, &mut |_| ());
        let solved = batches.iter().zip(&starts).map(each).collect::<Result<Vec<_>>>()?;
        Self::assemble(conditioning, options, &batches, &starts, solved)
    }

    /// A pool of what was found for each of its `batches`.
    pub(super) fn assemble(
        conditioning: &Conditioning,
        options: &PoolOptions,
        batches: &[Batch],
        starts: &[T],
        solved: Vec<Solved<T>>,
    ) -> Result<Self> {
        let mut places = vec![(0, 0); options.indices.len()];
        let mut groups = Vec::new();
        let mut rest = solved;
        let mut first = 0;
        for own in batches.chunk_by(|a, b| a.size == b.size) {
            let others = rest.split_off(own.len());
            let x1: Vec<&T> = rest.iter().map(|solved| &solved.x1).collect();
            let x0: Vec<&T> = starts[first..first + own.len()].iter().collect();
            let indices: Vec<usize> = own.iter().flat_map(Batch::samples).collect();
            for (row, index) in indices.iter().enumerate() {
                places[index - options.indices.start] = (groups.len(), row);
            }
            groups.push(Group {
                x0: T::concatenate(&x0)?,
                x1: T::concatenate(&x1)?,
                condition: conditioning.of(indices.into_iter())?,
                chunk: own[0].len(),
                paths: rest.into_iter().filter_map(|solved| solved.path).collect(),
            });
            rest = others;
            first += own.len();
        }
        Ok(Self { groups, places })
    }

    /// Number of noises.
    pub fn size(&self) -> usize {
        self.places.len()
    }

    /// Numbers of sample `row`, which must be one.
    pub fn elements(&self, row: usize) -> usize {
        self.groups[self.places[row].0].x0.elements()
    }

    /// The most that any sample has.
    pub fn most_elements(&self) -> usize {
        self.groups.iter().map(|group| group.x0.elements()).max().unwrap_or_default()
    }

    /// The samples `rows` with those of one size side by side, else in their order.
    pub fn by_size(&self, mut rows: Vec<usize>) -> Vec<usize> {
        rows.sort_by_key(|row| self.places[*row].0);
        rows
    }

    /// The first `count` samples, size by size.
    pub fn first(&self, count: usize) -> Vec<usize> {
        self.by_size((0..count.min(self.size())).collect())
    }

    /// Parts of `rows`, which are [`Pool::by_size`]: each of one size, and of no more samples than `most` has for
    /// their numbers.
    pub fn parts<'a>(&self, rows: &'a [usize], most: impl Fn(usize) -> usize) -> Vec<&'a [usize]> {
        let of_size = rows.chunk_by(|a, b| self.places[*a].0 == self.places[*b].0);
        of_size.flat_map(|own| own.chunks(most(self.elements(own[0])).max(1))).collect()
    }

    /// The group that the samples `rows`, of one size, are in, and their rows there.
    fn group(&self, rows: &[usize]) -> (&Group<T>, Vec<usize>) {
        let group = rows.first().map_or(0, |row| self.places[*row].0);
        (&self.groups[group], rows.iter().map(|row| self.places[*row].1).collect())
    }

    /// x(0) of the samples `rows`, which are of one size.
    ///
    /// # Errors
    /// The tensor's own.
    pub fn x0(&self, rows: &[usize]) -> Result<T> {
        let (group, own) = self.group(rows);
        picked(&group.x0, &own)
    }

    /// x(1) of the samples `rows`, which are of one size.
    ///
    /// # Errors
    /// The tensor's own.
    pub fn x1(&self, rows: &[usize]) -> Result<T> {
        let (group, own) = self.group(rows);
        picked(&group.x1, &own)
    }

    /// What the samples `rows`, which are of one size, are conditioned on.
    ///
    /// # Errors
    /// [`crate::Error::Memory`].
    pub fn condition(&self, rows: &[usize]) -> Result<Condition> {
        let (group, own) = self.group(rows);
        group.condition.select(&own)
    }

    /// x(t) of the samples `rows`, which must be of one size and in increasing order.
    ///
    /// # Errors
    /// The tensor's own.
    pub fn at(&self, t: f64, rows: &[usize]) -> Result<T> {
        let (group, rows) = self.group(rows);
        let mut parts = Vec::new();
        for (c, path) in group.paths.iter().enumerate() {
            let inside = c * group.chunk..(c + 1) * group.chunk;
            let own: Vec<usize> =
                rows.iter().filter(|row| inside.contains(row)).map(|row| row - inside.start).collect();
            if !own.is_empty() {
                parts.push(path.at(t, &own)?);
            }
        }
        T::concatenate(&parts.iter().collect::<Vec<_>>())
    }
}

/// The rows `rows` of `all`.
fn picked<T: Tensor>(all: &T, rows: &[usize]) -> Result<T> {
    match (rows.first(), rows.last()) {
        // Side by side, they need not be gathered.
        (Some(first), Some(last)) if rows.windows(2).all(|pair| pair[0] + 1 == pair[1]) => {
            all.narrow(*first..*last + 1)
        }
        _ => all.select(rows),
    }
}

/// x(0) of every batch.
pub(super) fn starts<F: VelocityField>(field: &F, options: &PoolOptions, batches: &[Batch]) -> Result<Vec<F::Tensor>> {
    let start = |batch: &Batch| {
        let noise = noise::normal(options.seed, options.purpose, batch.samples(), batch.elements)?;
        field.start(&noise, batch.elements)
    };
    batches.iter().map(start).collect()
}

/// Solves a batch of a pool from its `x0`; `watch` gets the times that it comes to.
pub(super) fn solve_batch<F: VelocityField>(
    field: &F,
    conditioning: &Conditioning,
    options: &PoolOptions,
    batch: &Batch,
    x0: &F::Tensor,
    watch: &mut dyn FnMut(f64),
) -> Result<Solved<F::Tensor>> {
    let condition = conditioning.of(batch.samples())?;
    let found = dopri5::solve_watched(field, x0, &condition, options.tolerance, options.dense, watch)?;
    Ok(Solved { x1: found.x1, path: found.dense })
}
