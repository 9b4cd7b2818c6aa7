//! What moves the parameters.

mod adam;
mod gauss_newton;

pub use adam::{Adam, cosine_decay};
pub use gauss_newton::{GaussNewton, Trial, weights as gauss_newton_weights};
