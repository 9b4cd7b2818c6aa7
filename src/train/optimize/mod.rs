//! What moves the parameters.

mod adam;
mod forward;
mod gauss_newton;

use super::config::Optimizer;
pub use adam::{Adam, cosine_decay};
pub use forward::{ForwardGaussNewton, Kept, Linear};
pub use gauss_newton::{GaussNewton, NormalEquations, Trial, weights as gauss_newton_weights};
use serde::{Deserialize, Serialize};

/// State of any optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerState {
    /// Adam's moments.
    Adam(Adam),
    /// Normal matrix and damping.
    GaussNewton(GaussNewton),
    /// Kept Jacobians and damping.
    ForwardGaussNewton(ForwardGaussNewton),
}

impl OptimizerState {
    /// At the first iteration, for this many parameters.
    pub fn new(optimizer: Optimizer, parameters: usize) -> Self {
        match optimizer {
            Optimizer::Adam => OptimizerState::Adam(Adam::new(parameters)),
            Optimizer::GaussNewton => OptimizerState::GaussNewton(GaussNewton::default()),
            Optimizer::ForwardGaussNewton => OptimizerState::ForwardGaussNewton(ForwardGaussNewton::default()),
        }
    }

    /// Drops what it keeps of single samples: the pool is another now, or it rests.
    pub fn forget_samples(&mut self) {
        if let OptimizerState::ForwardGaussNewton(state) = self {
            state.keep(0);
        }
    }

    /// Whether it is `optimizer`'s, for this many parameters.
    pub fn fits(&self, optimizer: Optimizer, parameters: usize) -> bool {
        match self {
            OptimizerState::Adam(adam) => optimizer == Optimizer::Adam && adam.fits(parameters),
            OptimizerState::GaussNewton(state) => optimizer == Optimizer::GaussNewton && state.fits(parameters),
            OptimizerState::ForwardGaussNewton(state) => {
                optimizer == Optimizer::ForwardGaussNewton && state.fits(parameters)
            }
        }
    }
}
