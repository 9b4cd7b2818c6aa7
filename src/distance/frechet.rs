//! The Fréchet distance of two Gaussians (Dowson, Landau 1982; FID: Heusel et al. 2017).
//!
//! ```text
//! d = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1^(1/2) S2 S1^(1/2))^(1/2)
//! ```
//!
//! The matrix under the last root is symmetric and positive semidefinite, and so are its roots:
//! their eigenvalues are taken by a symmetric decomposition and cut at 0. The usual root of S1 S2,
//! which is not symmetric, may come out complex or not at all where a covariance is singular, as of
//! fewer samples than features.

use super::moments::Moments;
use crate::error::{Error, Result};
use nalgebra::{DMatrix, DVector, SymmetricEigen};

/// One side of the distance, its root taken once for all that are compared with it.
pub struct Reference {
    mean: DVector<f64>,
    trace: f64,
    root: DMatrix<f64>,
}

/// Iterations of an eigenvalue decomposition before it is given up; it takes a few for each eigenvalue.
const MAX_ITERATIONS: usize = 100_000;

impl Reference {
    /// Of the samples that `moments` has seen.
    ///
    /// # Errors
    /// [`Error::Invalid`] for fewer than two samples, [`Error::Numeric`] where the covariance has no
    /// eigenvalues.
    pub fn new(moments: &Moments) -> Result<Self> {
        let covariance = moments.covariance()?;
        let trace = covariance.trace();
        let eigen = SymmetricEigen::try_new(covariance, f64::EPSILON, MAX_ITERATIONS).ok_or_else(no_eigenvalues)?;
        let mut scaled = eigen.eigenvectors.clone();
        for (mut column, value) in scaled.column_iter_mut().zip(eigen.eigenvalues.iter()) {
            column *= value.max(0.0).sqrt();
        }
        Ok(Self { mean: moments.mean().clone(), trace, root: scaled * eigen.eigenvectors.transpose() })
    }

    /// The squared Fréchet distance to the samples of `other`: what is called FID.
    ///
    /// # Errors
    /// [`Error::Invalid`] for fewer than two samples or another number of features; [`Error::Numeric`].
    pub fn distance(&self, other: &Moments) -> Result<f64> {
        let covariance = other.covariance()?;
        if covariance.nrows() != self.mean.len() {
            return Err(Error::invalid("features", covariance.nrows(), format!("{} a sample", self.mean.len())));
        }
        let product = &self.root * &covariance * &self.root;
        let symmetric = (&product + product.transpose()) * 0.5;
        let eigen = SymmetricEigen::try_new(symmetric, f64::EPSILON, MAX_ITERATIONS).ok_or_else(no_eigenvalues)?;
        let root_trace: f64 = eigen.eigenvalues.iter().map(|value| value.max(0.0).sqrt()).sum();
        let distance = (&self.mean - other.mean()).norm_squared() + self.trace + covariance.trace() - 2.0 * root_trace;
        // Equal Gaussians may come out a rounding below 0.
        Ok(distance.max(0.0))
    }
}

fn no_eigenvalues() -> Error {
    Error::Numeric("the eigenvalues of a covariance were not found".into())
}

/// The squared Fréchet distance between the samples of `a` and `b`.
///
/// # Errors
/// As [`Reference::new`] and [`Reference::distance`].
pub fn frechet(a: &Moments, b: &Moments) -> Result<f64> {
    Reference::new(a)?.distance(b)
}
