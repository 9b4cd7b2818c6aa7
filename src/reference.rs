//! What a user writes for a solver: a published one by name, a theta or ladder by its file, the ground truth.

use crate::error::{Error, Result};
use crate::ladder::Ladder;
use crate::path::GaussianPath;
use crate::solvers::{NamedSolver, SolverName};
use crate::tableau::Tableau;
use crate::theta::Theta;
use std::path::Path;

/// Any solver a user can ask for.
#[derive(Clone, Debug)]
pub enum Solver {
    /// A learned one, with the name its file was given by.
    Theta(String, Box<Theta>),
    /// A published one.
    Named(NamedSolver),
    /// The adaptive ground truth.
    GroundTruth,
}

impl Solver {
    /// Reads SOLVER: `NAME@NFE`, `NAME@NFE:GRID`, `gt`, the path of a theta file, or of a ladder:
    /// `LADDER@NFE` is its theta of the greatest nfe that is at most NFE, `LADDER` that of the greatest.
    ///
    /// A file goes before a published solver of the same name; `./NAME@NFE` is a ladder called like one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown name or an impossible nfe; a file's own error.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "gt" {
            return Ok(Solver::GroundTruth);
        }
        let theta = |theta: &Theta| Ok(Solver::Theta(text.to_owned(), Box::new(theta.clone())));
        if !Path::new(text).exists() {
            if let Some((file, nfe)) = text.rsplit_once('@')
                && is_file(file)
            {
                let whole = || Error::invalid("nfe", format!("{nfe:?}"), "a whole number, as in ladder.json@8");
                return theta(Ladder::load(Path::new(file))?.best(nfe.parse().map_err(|_| whole())?)?);
            }
            if text.contains('@') {
                return NamedSolver::parse(text).map(Solver::Named);
            }
            if SolverName::find(text).is_ok() {
                let expected = format!("a count of evaluations, as in {text}@12");
                return Err(Error::invalid("solver", format!("{text:?}"), expected));
            }
        }
        theta(Ladder::load(Path::new(text))?.best(usize::MAX)?)
    }

    /// The table for a model sampled on `path`, or `None` for the ground truth, which has none. A
    /// theta is a table of its own, whatever the path: that is part of what it has learned.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an impossible nfe.
    pub fn tableau(&self, path: &GaussianPath) -> Result<Option<Tableau<f64>>> {
        match self {
            Solver::Theta(_, theta) => Ok(Some(theta.tableau())),
            Solver::Named(named) => named.tableau(path).map(Some),
            Solver::GroundTruth => Ok(None),
        }
    }

    /// The solver as a theta: a named one compiled to `family: "ns"`, a theta as it is.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the ground truth, which has no table, and for more evaluations than a
    /// theta may have.
    pub fn theta(&self, path: &GaussianPath) -> Result<Theta> {
        match self {
            Solver::Theta(_, theta) => Ok(Theta::clone(theta)),
            Solver::Named(named) => named.theta(path),
            Solver::GroundTruth => Err(Error::invalid(
                "solver",
                "gt",
                "a solver with a fixed count of evaluations: the ground truth adapts",
            )),
        }
    }

    /// As the user wrote it.
    pub fn name(&self) -> String {
        match self {
            Solver::Theta(path, _) => path.clone(),
            Solver::Named(named) => named.to_string(),
            Solver::GroundTruth => "gt".into(),
        }
    }
}

/// Whether what stands before an `@` is a file, or meant to be one, and no solver's name.
fn is_file(text: &str) -> bool {
    let path = Path::new(text);
    SolverName::find(text).is_err() && (path.exists() || path.extension().is_some_and(|ext| ext == "json"))
}
