//! Velocity fields that need no network.

mod given;
mod mixture;

pub use given::{Evaluate, Given, PullBack};
pub use mixture::{Mixture, MixtureDocument, MixtureField};
