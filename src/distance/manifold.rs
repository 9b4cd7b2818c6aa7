//! Improved precision and recall (Kynkäänniemi et al. 2019).
//!
//! A set's manifold is the union of balls about its points, each as wide as the distance to the
//! point's k-th nearest neighbour in the set. Precision is the share of samples inside the
//! reference's manifold, recall the share of the reference inside the samples'.

use crate::error::{Error, Result};
use crate::threads;
use nalgebra::{DMatrix, DVector};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// k, as published.
pub const NEIGHBOURS: usize = 3;

/// Points whose distances are taken at once: memory does not grow with the square of the count.
const BLOCK: usize = 512;

/// Both shares, in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrecisionRecall {
    /// Share of the samples inside the reference's manifold.
    pub precision: f64,
    /// Share of the reference inside the samples' manifold.
    pub recall: f64,
}

/// Precision and recall of `samples` against `reference`, both `[count, features]`, with balls to the
/// `k`-th neighbour (the point itself not counted).
///
/// # Errors
/// [`Error::Invalid`] where either is no whole number of samples, or not more than `k`.
pub fn precision_recall(reference: &[f32], samples: &[f32], features: usize, k: usize) -> Result<PrecisionRecall> {
    let (reference, samples) = (Points::new(reference, features)?, Points::new(samples, features)?);
    for points in [&reference, &samples] {
        if k == 0 || points.count() <= k {
            return Err(Error::invalid("count", points.count(), format!("more than k = {k} samples, k at least 1")));
        }
    }
    let (reference_radii, sample_radii) = (reference.radii(k), samples.radii(k));
    Ok(PrecisionRecall {
        precision: samples.share_inside(&reference, &reference_radii),
        recall: reference.share_inside(&samples, &sample_radii),
    })
}

/// A column a point.
struct Points {
    columns: DMatrix<f64>,
    squares: DVector<f64>,
}

impl Points {
    fn new(values: &[f32], features: usize) -> Result<Self> {
        crate::tensor::check_length(values.len(), features)?;
        let columns = DMatrix::from_iterator(features, values.len() / features, values.iter().map(|v| f64::from(*v)));
        let squares = DVector::from_iterator(columns.ncols(), columns.column_iter().map(|c| c.norm_squared()));
        Ok(Self { columns, squares })
    }

    fn count(&self) -> usize {
        self.columns.ncols()
    }

    /// Squared distances from the points `first..` of a block to all of `other`: a row each of `other`.
    fn squared_distances(&self, first: usize, size: usize, other: &Points) -> DMatrix<f64> {
        let mut products = other.columns.tr_mul(&self.columns.columns(first, size));
        for (j, mut column) in products.column_iter_mut().enumerate() {
            let own = self.squares[first + j];
            for (product, square) in column.iter_mut().zip(other.squares.iter()) {
                *product = (own + square - 2.0 * *product).max(0.0);
            }
        }
        products
    }

    fn blocks(&self) -> impl ParallelIterator<Item = (usize, usize)> {
        let count = self.count();
        (0..count.div_ceil(BLOCK)).into_par_iter().map(move |b| (b * BLOCK, BLOCK.min(count - b * BLOCK)))
    }

    /// Squared distance of every point to its `k`-th neighbour.
    fn radii(&self, k: usize) -> Vec<f64> {
        let radius = |(first, size): (usize, usize)| {
            let distances = self.squared_distances(first, size, self);
            let of = |j: usize| {
                let mut to_others: Vec<f64> = distances.column(j).iter().copied().collect();
                to_others.swap_remove(first + j);
                *to_others.select_nth_unstable_by(k - 1, f64::total_cmp).1
            };
            (0..size).map(of).collect::<Vec<_>>()
        };
        let mut blocks: Vec<(usize, Vec<f64>)> =
            threads::shared(|| self.blocks().map(|block| (block.0, radius(block))).collect());
        blocks.sort_unstable_by_key(|(first, _)| *first);
        blocks.into_iter().flat_map(|(_, radii)| radii).collect()
    }

    /// Share of these points inside a ball about some point of `other`.
    fn share_inside(&self, other: &Points, radii: &[f64]) -> f64 {
        let inside = |(first, size): (usize, usize)| {
            let distances = self.squared_distances(first, size, other);
            let within = |column: &[f64]| column.iter().zip(radii).any(|(distance, radius)| distance <= radius);
            (0..size).filter(|j| within(distances.column(*j).as_slice())).count()
        };
        threads::shared(|| self.blocks().map(inside).sum::<usize>()) as f64 / self.count() as f64
    }
}
