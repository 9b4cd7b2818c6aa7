//! Solvers as tables: the learned ones, the ones of the textbooks, and the published ones for
//! diffusion models. All are run by [`crate::sampler`]: nothing here touches a tensor.

pub mod bespoke;
pub mod classical;
pub mod diffusion;
pub mod grid;
mod lagrange;
mod named;

pub use named::{Allowed, NamedSolver, Solver, SolverName};
