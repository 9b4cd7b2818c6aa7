//! Losses of a solver on ground-truth paths, with their gradients by hand-derived adjoints.

mod adjoint;
mod bound;
mod differences;
mod direct;

pub use adjoint::{Gradients, Trace};
pub use bound::bound_loss;
pub use direct::{Direct, direct_loss, direct_residual};

/// A loss and its gradient by the parameters.
#[derive(Clone, Debug)]
pub struct LossGradient {
    /// Mean over the batch.
    pub loss: f64,
    /// By each parameter.
    pub gradient: Vec<f64>,
}
