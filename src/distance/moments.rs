//! Mean and covariance, batch by batch: memory does not grow with the number of samples.

use crate::error::{Error, Result};
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
        self.scatter += &columns * columns.transpose();
        let shift = mean - &self.mean;
        let (old, new) = (self.count as f64, batch as f64);
        self.scatter.ger(old * new / (old + new), &shift, &shift, 1.0);
        self.mean += shift * (new / (old + new));
        self.count += batch;
        Ok(())
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
