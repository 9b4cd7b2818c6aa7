//! What moves the parameters.

mod adam;
mod gauss_newton;

use super::config::Optimizer;
pub use adam::{Adam, cosine_decay};
pub use gauss_newton::{GaussNewton, NormalEquations, Trial, weights as gauss_newton_weights};
use serde::{Deserialize, Serialize};

/// State of either optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

    /// Whether it is `optimizer`'s, for this many parameters.
    pub fn fits(&self, optimizer: Optimizer, parameters: usize) -> bool {
        match self {
            OptimizerState::Adam(adam) => optimizer == Optimizer::Adam && adam.fits(parameters),
            OptimizerState::GaussNewton(state) => optimizer == Optimizer::GaussNewton && state.fits(parameters),
        }
    }
}
