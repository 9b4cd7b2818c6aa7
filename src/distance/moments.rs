//! Mean and covariance, batch by batch: memory does not grow with the number of samples.

use crate::error::{Error, Result};
use crate::ranks::Ranks;
use nalgebra::{DMatrix, DVector};

/// Count, mean and scatter of the features seen so far, in f64.
#[derive(Clone, Debug)]
pub struct Moments {
    count: usize,
    mean: DVector<f64>,
    /// Sum of (x - mean) (x - mean)^T.
    scatter: DMatrix<f64>,
}

impl Moments {
    /// Of nothing yet; `features` numbers a sample.
    pub fn new(features: usize) -> Self {
        Self { count: 0, mean: DVector::zeros(features), scatter: DMatrix::zeros(features, features) }
    }

    /// Takes in `[batch, features]` numbers (Chan, Golub, LeVeque 1979: batches joined by their means,
    /// without the cancellation of a sum of squares).
    ///
    /// # Errors
    /// [`Error::Invalid`] where they are no whole number of samples.
    pub fn add(&mut self, values: &[f32]) -> Result<()> {
        let features = self.mean.len();
        crate::tensor::check_length(values.len(), features)?;
        let batch = values.len() / features;
        if batch == 0 {
            return Ok(());
        }
        // A column a sample.
        let mut columns = DMatrix::from_iterator(features, batch, values.iter().map(|v| f64::from(*v)));
        let mean = columns.column_mean();
        columns.column_iter_mut().for_each(|mut column| column -= &mean);
        self.join(&Self { count: batch, mean, scatter: &columns * columns.transpose() });
        Ok(())
    }

    /// Takes in what another has seen, of as many features.
    fn join(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.scatter += &other.scatter;
        let shift = &other.mean - &self.mean;
        let (old, new) = (self.count as f64, other.count as f64);
        self.scatter.ger(old * new / (old + new), &shift, &shift, 1.0);
        self.mean += shift * (new / (old + new));
        self.count += other.count;
    }

    /// What all `ranks` have seen.
    pub(super) fn of_all(&self, ranks: &Ranks) -> Self {
        let features = self.mean.len();
        let mut all = Self::new(features);
        for root in 0..ranks.count() {
            let mut of_rank = self.clone();
            let mut count = [of_rank.count as u64];
            ranks.broadcast(root, &mut count);
            of_rank.count = count[0] as usize;
            ranks.broadcast(root, of_rank.mean.as_mut_slice());
            ranks.broadcast(root, of_rank.scatter.as_mut_slice());
            all.join(&of_rank);
        }
        all
    }

    /// Samples seen.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Their mean.
    pub fn mean(&self) -> &DVector<f64> {
        &self.mean
    }

    /// Their covariance, unbiased (divided by count - 1), as the Fréchet distance is usually taken.
    ///
    /// # Errors
    /// [`Error::Invalid`] for fewer than two samples.
    pub fn covariance(&self) -> Result<DMatrix<f64>> {
        if self.count < 2 {
            return Err(Error::invalid("count", self.count, "at least 2 samples for a covariance"));
        }
        Ok(&self.scatter / (self.count - 1) as f64)
    }
}
