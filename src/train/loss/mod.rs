//! Losses of a solver on ground-truth paths, with their gradients by hand-derived adjoints; those of features through
//! the network's own.

mod adjoint;
mod bound;
mod differences;
mod direct;
mod features;
mod sensitivities;

pub use adjoint::{Gradients, Trace};
pub use bound::bound_loss;
pub use direct::{Direct, Residual, direct_loss, direct_residual};
pub use features::{Difference, feature_cotangents, feature_derivative, feature_difference, needed_features};
pub use sensitivities::Tangents;

use crate::ranks::Ranks;

/// A loss and its gradient by the parameters.
#[derive(Clone, Debug)]
pub struct LossGradient {
    /// Mean over the batch.
    pub loss: f64,
    /// By each parameter.
    pub gradient: Vec<f64>,
}

impl LossGradient {
    /// Of no samples, by so many parameters.
    pub fn zero(parameters: usize) -> Self {
        Self { loss: 0.0, gradient: vec![0.0; parameters] }
    }

    /// Adds the mean of other samples, the given `share` of all.
    pub fn add(&mut self, mean: &Self, share: f64) {
        self.loss += share * mean.loss;
        self.gradient.iter_mut().zip(&mean.gradient).for_each(|(sum, own)| *sum += share * own);
    }

    /// The mean over all ranks' samples, of which this is the mean of the given `share`.
    pub fn mean(&self, share: f64, ranks: &Ranks) -> Self {
        let mut all: Vec<f64> = std::iter::once(self.loss).chain(self.gradient.iter().copied()).collect();
        all.iter_mut().for_each(|value| *value *= share);
        ranks.sum(&mut all);
        let gradient = all.split_off(1);
        Self { loss: all[0], gradient }
    }
}
