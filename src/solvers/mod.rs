//! The published solvers as tables: those of the textbooks, and those for diffusion models. All are
//! run by [`crate::sampler`]: nothing here touches a tensor.

pub mod classical;
pub mod diffusion;
pub mod grid;
mod history;
mod lagrange;
mod named;

pub use named::{Allowed, NamedSolver, SolverName};
