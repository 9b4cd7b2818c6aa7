//! Solvers as tables: the learned ones and the ones of the textbooks.

pub mod bespoke;
pub mod classical;
mod named;

pub use named::{Solver, SolverName};
