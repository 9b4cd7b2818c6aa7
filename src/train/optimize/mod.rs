//! What moves the parameters.

mod adam;
mod gauss_newton;

use super::config::Optimizer;
pub use adam::{Adam, cosine_decay};
pub use gauss_newton::{GaussNewton, Trial, weights as gauss_newton_weights};

/// State of either optimiser.
#[derive(Clone, Debug, PartialEq)]
pub enum OptimizerState {
    /// Adam's moments.
    Adam(Adam),
    /// Normal matrix and damping.
    GaussNewton(GaussNewton),
}

impl OptimizerState {
    /// At the first iteration, for this many parameters.
    pub fn new(optimizer: Optimizer, parameters: usize) -> Self {
        match optimizer {
            Optimizer::Adam => OptimizerState::Adam(Adam::new(parameters)),
            Optimizer::GaussNewton => OptimizerState::GaussNewton(GaussNewton::default()),
        }
    }
}
