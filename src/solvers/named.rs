//! Solvers by name: `NAME@NFE`.

use super::classical::{euler, heun, midpoint, rk4, uniform_grid};
use crate::error::{Error, Result};
use crate::tableau::Tableau;
use crate::theta::{MAX_STEPS, Theta};
use std::path::Path;

/// A solver that has no learned numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SolverName {
    /// Euler, order 1.
    Euler,
    /// Explicit midpoint, order 2.
    Midpoint,
    /// Heun's trapezoid, order 2.
    Heun,
    /// Classical Runge-Kutta, order 4.
    Rk4,
}

impl SolverName {
    /// All of them.
    pub const ALL: [SolverName; 4] = [SolverName::Euler, SolverName::Midpoint, SolverName::Heun, SolverName::Rk4];

    /// As users write it.
    pub fn as_str(&self) -> &'static str {
        match self {
            SolverName::Euler => "euler",
            SolverName::Midpoint => "midpoint",
            SolverName::Heun => "heun",
            SolverName::Rk4 => "rk4",
        }
    }

    /// Evaluations of one step.
    pub fn evaluations_per_step(&self) -> usize {
        match self {
            SolverName::Euler => 1,
            SolverName::Midpoint | SolverName::Heun => 2,
            SolverName::Rk4 => 4,
        }
    }

    /// The table with `nfe` evaluations.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the nearest nfe the method can have.
    pub fn tableau(&self, nfe: usize) -> Result<Tableau<f64>> {
        let per_step = self.evaluations_per_step();
        let highest = MAX_STEPS * per_step;
        if nfe == 0 || !nfe.is_multiple_of(per_step) || nfe > highest {
            let below = (nfe / per_step * per_step).clamp(per_step, highest);
            let above = (below + per_step).min(highest);
            let expected = if below == above || nfe < per_step || nfe > highest {
                format!("a multiple of {per_step} from {per_step} to {highest} for {}, such as {below}", self.as_str())
            } else {
                format!("a multiple of {per_step} for {}, such as {below} or {above}", self.as_str())
            };
            return Err(Error::invalid("nfe", nfe, expected));
        }
        let times = uniform_grid(nfe / per_step);
        Ok(match self {
            SolverName::Euler => euler(&times),
            SolverName::Midpoint => midpoint(&times),
            SolverName::Heun => heun(&times),
            SolverName::Rk4 => rk4(&times),
        })
    }
}

/// Any solver a user can ask for.
#[derive(Clone, Debug)]
pub enum Solver {
    /// A learned one, with the name its file was given by.
    Theta(String, Box<Theta>),
    /// A textbook one with its count of evaluations.
    Named(SolverName, usize),
    /// The adaptive ground truth.
    GroundTruth,
}

impl Solver {
    /// Reads SOLVER: `NAME@NFE`, `gt`, or the path of a theta file.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown name or an impossible nfe; a file's own error.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "gt" {
            return Ok(Solver::GroundTruth);
        }
        if let Some((name, nfe)) = text.split_once('@')
            && !Path::new(text).exists()
        {
            let name = SolverName::ALL.into_iter().find(|known| known.as_str() == name).ok_or_else(|| {
                let known = SolverName::ALL.map(|known| known.as_str()).join(", ");
                Error::invalid(
                    "solver",
                    format!("{text:?}"),
                    format!("a theta file, gt, or NAME@NFE with NAME in {known}"),
                )
            })?;
            let nfe = nfe
                .parse()
                .map_err(|_| Error::invalid("nfe", format!("{nfe:?}"), "a whole number, as in midpoint@10"))?;
            name.tableau(nfe)?;
            return Ok(Solver::Named(name, nfe));
        }
        if SolverName::ALL.iter().any(|known| known.as_str() == text) && !Path::new(text).exists() {
            return Err(Error::invalid(
                "solver",
                format!("{text:?}"),
                format!("a count of evaluations, as in {text}@12"),
            ));
        }
        Ok(Solver::Theta(text.to_owned(), Box::new(Theta::load(Path::new(text))?)))
    }

    /// The table, or `None` for the ground truth, which has none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an impossible nfe.
    pub fn tableau(&self) -> Result<Option<Tableau<f64>>> {
        match self {
            Solver::Theta(_, theta) => Ok(Some(theta.tableau())),
            Solver::Named(name, nfe) => name.tableau(*nfe).map(Some),
            Solver::GroundTruth => Ok(None),
        }
    }

    /// As the user wrote it.
    pub fn name(&self) -> String {
        match self {
            Solver::Theta(path, _) => path.clone(),
            Solver::Named(name, nfe) => format!("{}@{nfe}", name.as_str()),
            Solver::GroundTruth => "gt".into(),
        }
    }
}
