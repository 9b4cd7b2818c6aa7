//! What a user writes for a solver: a published one by name, a theta or ladder by its file, the ground truth.
//! The program, C, Python and the Triton backend all read it here.

use crate::error::{Error, Result};
use crate::ladder::Ladder;
use crate::path::GaussianPath;
use crate::solvers::{NamedSolver, SolverName};
use crate::tableau::Tableau;
use crate::theta::Theta;
use std::path::Path;

/// A reference taken apart, before any file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    /// `gt`
    GroundTruth,
    /// `FILE` or `FILE@NFE`: a theta or a ladder.
    File {
        /// The file.
        name: &'a str,
        /// The greatest nfe that is at most this is meant; the greatest of all where absent.
        nfe_at_most: Option<usize>,
    },
    /// `NAME@NFE` or `NAME@NFE:GRID`; for hosts that say the nfe elsewhere also `NAME` or `NAME:GRID`.
    Published {
        /// Which.
        name: &'a str,
        /// Evaluations.
        nfe: Option<usize>,
        /// The grid, where it is not the solver's own.
        grid: Option<&'a str>,
    },
}

/// Characters of a user's text that messages show at most.
const SHOWN: usize = 100;

impl<'a> Reference<'a> {
    /// Takes `text` apart; `is_file` says which names are files.
    ///
    /// `gt` is the ground truth always. Else a file goes before a published solver, and of the files
    /// `a@8` and `a`, `a@8` is the first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is neither, and for an nfe that is no whole number.
    pub fn parse(text: &'a str, is_file: impl Fn(&str) -> bool) -> Result<Self> {
        if text == "gt" {
            return Ok(Reference::GroundTruth);
        }
        if is_file(text) {
            return Ok(Reference::File { name: text, nfe_at_most: None });
        }
        if let Some((name, nfe)) = text.rsplit_once('@')
            && is_file(name)
        {
            return Ok(Reference::File { name, nfe_at_most: Some(count(nfe, "ladder.json@8")?) });
        }
        let (head, grid) = match (text.find('@'), text.find(':')) {
            (Some(at), Some(colon)) if colon < at => (text, None),
            (_, Some(colon)) => (&text[..colon], Some(&text[colon + 1..])),
            (_, None) => (text, None),
        };
        let (name, nfe) = head.split_once('@').map_or((head, None), |(name, nfe)| (name, Some(nfe)));
        if SolverName::find(name).is_err() {
            return Err(unknown(text));
        }
        let nfe = nfe.map(|nfe| count(nfe, &format!("{name}@12"))).transpose()?;
        Ok(Reference::Published { name, nfe, grid })
    }

    /// The same where files are those of the disk. What is no solver's name and looks like a file's
    /// is taken for one, so that opening it says what is wrong.
    ///
    /// # Errors
    /// As [`Reference::parse`].
    pub fn on_disk(text: &'a str) -> Result<Self> {
        let is_file = |name: &str| Path::new(name).exists() && !Path::new(name).is_dir();
        let parsed = Self::parse(text, is_file);
        let Err(unknown) = parsed else { return parsed };
        if text.rsplit_once('@').is_some_and(|(name, _)| is_file(name)) {
            return Err(unknown);
        }
        let (name, nfe) = match text.rsplit_once('@') {
            Some((name, nfe)) if nfe.bytes().all(|c| c.is_ascii_digit()) => (name, nfe.parse().ok()),
            _ => (text, None),
        };
        let published = text.split(['@', ':']).next().is_some_and(|name| SolverName::find(name).is_ok());
        let looks = !text.contains('@') || name.contains('/') || name.ends_with(".json");
        if looks && !published { Ok(Reference::File { name, nfe_at_most: nfe }) } else { Err(unknown) }
    }
}

fn count(text: &str, example: &str) -> Result<usize> {
    text.parse().map_err(|_| Error::invalid("nfe", shown(text), format!("a whole number, as in {example}")))
}

fn unknown(text: &str) -> Error {
    let names = SolverName::ALL.iter().map(|known| known.name).collect::<Vec<_>>().join(", ");
    Error::invalid("solver", shown(text), format!("a theta or ladder file, gt, or NAME@NFE of one of {names}"))
}

/// `text` in quotes, and no more of it than can be read.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() { format!("{short:?}...") } else { format!("{text:?}") }
}

/// A theta or ladder as the user named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThetaName {
    /// All of it, as in `ladder.json@8`.
    pub text: String,
    /// The file.
    pub file: String,
}

impl std::fmt::Display for ThetaName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Any solver a user can ask for.
/// ```
/// use bespoke::path::GaussianPath;
/// use bespoke::reference::Solver;
/// use bespoke::scheduler::Scheduler;
///
/// let path = GaussianPath::new(Scheduler::FmOt, 1.0)?;
/// let table = Solver::parse("rk4@12")?.tableau(&path)?;
/// assert_eq!(table.map(|table| table.nfe()), Some(12));
/// // The ground truth takes what it needs.
/// assert!(Solver::parse("gt")?.tableau(&path)?.is_none());
/// assert_eq!(Solver::parse_several("dpm++2m@8,10")?.len(), 2);
/// # Ok::<(), bespoke::Error>(())
/// ```
#[derive(Clone, Debug)]
pub enum Solver {
    /// A learned one.
    Theta(ThetaName, Box<Theta>),
    /// A published one.
    Named(NamedSolver),
    /// The adaptive ground truth.
    GroundTruth,
}

impl Solver {
    /// Reads SOLVER: `NAME@NFE`, `NAME@NFE:GRID`, `gt`, the path of a theta file, or of a ladder:
    /// `LADDER@NFE` is its theta of the greatest nfe that is at most NFE, `LADDER` that of the greatest.
    ///
    /// A file goes before a published solver of the same name; `./gt` is a file called like the ground truth.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown name or an impossible nfe; a file's own error.
    pub fn parse(text: &str) -> Result<Self> {
        match Reference::on_disk(text)? {
            Reference::GroundTruth => Ok(Solver::GroundTruth),
            Reference::File { name, nfe_at_most } => {
                let theta = Ladder::load(Path::new(name))?.best(nfe_at_most.unwrap_or(usize::MAX))?.clone();
                Ok(Solver::Theta(ThetaName { text: text.into(), file: name.into() }, Box::new(theta)))
            }
            Reference::Published { name, nfe: Some(nfe), grid } => NamedSolver::new(name, nfe, grid).map(Solver::Named),
            Reference::Published { name, nfe: None, .. } => {
                let expected = format!("a count of evaluations, as in {name}@12");
                Err(Error::invalid("solver", shown(text), expected))
            }
        }
    }

    /// Reads a reference that may be several: `midpoint@4,8,10` is three solvers, as `ladder.json@4,8` is two.
    ///
    /// # Errors
    /// As [`Solver::parse`].
    pub fn parse_several(text: &str) -> Result<Vec<Self>> {
        let one = || Ok(vec![Self::parse(text)?]);
        let Some((solver, rest)) = text.rsplit_once('@') else { return one() };
        // The times of a grid have commas, too.
        let (counts, grid) = rest.split_at(rest.find(':').unwrap_or(rest.len()));
        if !counts.contains(',') || Path::new(text).exists() {
            return one();
        }
        counts.split(',').map(|count| Self::parse(&format!("{solver}@{}{grid}", count.trim()))).collect()
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
            Solver::Theta(name, _) => name.to_string(),
            Solver::Named(named) => named.to_string(),
            Solver::GroundTruth => "gt".into(),
        }
    }
}
