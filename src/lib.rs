//! Bespoke solvers (Shaul et al., ICLR 2024): learned few-step samplers for flow and diffusion models.

pub mod capi;
pub mod document;
pub mod dopri5;
pub mod error;
pub mod evaluate;
pub mod fields;
pub mod model;
pub mod noise;
pub mod sampler;
pub mod scheduler;
pub mod solvers;
pub mod tableau;
pub mod tensor;
pub mod theta;
#[cfg(feature = "torch")]
pub mod torch;
pub mod train;
pub mod velocity;

pub use error::{Error, Result};
