//! Velocity fields that need no network.

mod mixture;

pub use mixture::{Mixture, MixtureDocument, MixtureField};
