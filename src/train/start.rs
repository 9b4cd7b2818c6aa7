//! Where training starts.

use super::config::{Learn, TrainedFamily};
use super::parameters::{Parameters, Structure};
use crate::document::Notes;
use crate::error::{Error, Result};
use crate::ladder::Ladder;
use crate::path::GaussianPath;
use crate::reference::{Reference, Solver};
use crate::scheduler::Scheduler;
use crate::solvers::grid::Grid;
use crate::solvers::{NamedSolver, SolverName, classical};
use crate::theta::{Family, NsTable, Theta};
use std::path::Path;

/// What one rung can start from.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// These numbers.
    Given {
        /// What messages and notes call them.
        name: String,
        /// The numbers.
        parameters: Parameters,
        /// What the theta they come from was made for.
        model: Notes,
    },
    /// The best of these solvers, by name.
    BestOf(Vec<(String, Parameters)>),
    /// A theta of this structure, of `rk1` or `rk2`, that is trained first, from the best of these.
    Bespoke(Structure, Vec<(String, Parameters)>),
}

impl Start {
    /// Has only `learn` of it learned.
    pub(super) fn learning(&mut self, learn: Learn) {
        match self {
            Start::Given { parameters, .. } => parameters.learn = learn,
            Start::BestOf(solvers) | Start::Bespoke(_, solvers) => {
                solvers.iter_mut().for_each(|(_, parameters)| parameters.learn = learn)
            }
        }
    }
}

/// The parameters of the base solver on `path`: Euler for `rk1` and `ns`, midpoint for `rk2`.
///
/// On the model's own path this is [`Parameters::identity`].
///
/// # Errors
/// [`crate::Error::Invalid`] where the path makes no theta, as with a scale beyond what a number holds.
pub fn start_on_path(structure: Structure, path: &GaussianPath) -> Result<Parameters> {
    let family = match structure {
        Structure::Rk1(steps) => Family::Rk1(path.knots(steps)),
        Structure::Rk2(steps) => Family::Rk2(path.knots(2 * steps)),
        Structure::Ns(nfe) => {
            let euler = classical::euler(&classical::uniform_grid(nfe));
            Family::Ns(NsTable::compile(&path.transform(&euler)))
        }
    };
    Ok(Parameters::from_theta(&Theta::new(family)?))
}

/// Paths on which a base solver is often better than on the model's own.
const USUAL_PATHS: [Scheduler; 2] = [Scheduler::FmOt, Scheduler::Cosine];

/// The base solver on the field's own path, or on what `path` says. Where training may begin
/// `anywhere`, also on the usual paths.
pub(super) fn bases(
    structure: Structure,
    path: Option<&GaussianPath>,
    anywhere: bool,
) -> Result<Vec<(String, Parameters)>> {
    let name = match structure {
        Structure::Rk2(_) => format!("midpoint@{}", structure.nfe()),
        Structure::Rk1(_) | Structure::Ns(_) => format!("euler@{}", structure.nfe()),
    };
    let own = path.map_or_else(|| Ok(Parameters::identity(structure)), |path| start_on_path(structure, path))?;
    // A path that has no snr in common with the model's, or makes no theta, is no candidate.
    let on = |scheduler: &Scheduler| {
        let other = path.filter(|_| anywhere)?.on(scheduler.clone(), 1.0).ok().filter(|other| Some(other) != path)?;
        Some((format!("{name} on {}", scheduler.name()), start_on_path(structure, &other).ok()?))
    };
    let others: Vec<_> = USUAL_PATHS.iter().filter_map(on).collect();
    Ok(std::iter::once((name, own)).chain(others).collect())
}

/// One `init`, read.
pub(super) enum Init {
    /// A theta file, or a ladder.
    Thetas(String, Ladder),
    /// `NAME@NFE`.
    Named(NamedSolver),
    /// `published`.
    Published,
    /// `regridded`.
    Regridded,
    /// `rk1` or `rk2`.
    Bespoke(TrainedFamily),
}

impl Init {
    pub fn read(text: &str) -> Result<Self> {
        match text {
            "published" => return Ok(Init::Published),
            "regridded" => return Ok(Init::Regridded),
            "rk1" => return Ok(Init::Bespoke(TrainedFamily::Rk1)),
            "rk2" => return Ok(Init::Bespoke(TrainedFamily::Rk2)),
            _ => {}
        }
        // A ladder without an nfe has a start for each of its own.
        if let Reference::File { name, nfe_at_most: None } = Reference::on_disk(text)? {
            return Ok(Init::Thetas(text.to_owned(), Ladder::load(Path::new(name))?));
        }
        match Solver::parse(text)? {
            Solver::Theta(name, theta) => Ok(Init::Thetas(name.text, Ladder::new(vec![*theta])?)),
            Solver::Named(named) => Ok(Init::Named(named)),
            Solver::GroundTruth => Err(Error::invalid("init", "gt", "a solver with a fixed count of evaluations")),
        }
    }

    /// What `structure` can start from, or `None` where this does not fit it. `path` is what published
    /// solvers sample on; without one, there are those that need no scheduler. `anywhere`: as in [`bases`].
    pub fn fit(&self, structure: Structure, path: Option<&GaussianPath>, anywhere: bool) -> Result<Option<Start>> {
        let ns = matches!(structure, Structure::Ns(_));
        Ok(match self {
            Init::Thetas(name, ladder) => {
                let parameters = |theta: &Theta| {
                    if ns { Parameters::from_tableau(&theta.tableau()) } else { Parameters::from_theta(theta) }
                };
                let fitting = |theta: &Theta| {
                    let parameters = parameters(theta);
                    let given = || Start::Given { name: name.clone(), parameters, model: theta.model.clone() };
                    (Structure::of(theta) == structure || ns && theta.nfe() == structure.nfe()).then(given)
                };
                ladder.rungs().iter().find_map(fitting)
            }
            Init::Named(named) if ns && named.nfe == structure.nfe() => {
                let tableau = match path {
                    Some(path) => named.tableau(path)?,
                    None if named.solver.needs_scheduler() => {
                        let expected = "a solver that needs no scheduler: a field of the caller has none";
                        return Err(Error::invalid("init", named, expected));
                    }
                    None => named.tableau(&GaussianPath::new(Scheduler::FmOt, 1.0)?)?,
                };
                let parameters = Parameters::from_tableau(&tableau);
                Some(Start::Given { name: named.to_string(), parameters, model: Notes::default() })
            }
            Init::Published if ns => Some(Start::BestOf(published(structure.nfe(), path)?)),
            Init::Regridded if ns => Some(Start::BestOf(regridded(structure.nfe(), path)?)),
            Init::Bespoke(TrainedFamily::Rk1) if ns => Some(bespoke(Structure::Rk1(structure.nfe()), path, anywhere)?),
            Init::Bespoke(_) if ns && structure.nfe().is_multiple_of(2) => {
                Some(bespoke(Structure::Rk2(structure.nfe() / 2), path, anywhere)?)
            }
            _ => None,
        })
    }

    /// Families and sizes that a file has.
    pub fn structures(&self) -> Vec<Structure> {
        match self {
            Init::Thetas(_, ladder) => ladder.rungs().iter().map(Structure::of).collect(),
            _ => Vec::new(),
        }
    }
}

/// A theta of this structure that is trained first.
fn bespoke(structure: Structure, path: Option<&GaussianPath>, anywhere: bool) -> Result<Start> {
    Ok(Start::Bespoke(structure, bases(structure, path, anywhere)?))
}

/// Multistep solvers that are tried on other grids than their own, and these grids: which end of the path asks for short
/// steps, and how short, is the model's, and at few evaluations a training ends in the valley that it starts in.
const REGRIDDED: [&str; 4] = ["ab2", "ab3", "ipndm", "unipc"];
const GRIDS: [Grid; 7] = [
    Grid::Quadratic,
    Grid::Power(0.75),
    Grid::Power(0.87),
    Grid::Power(1.15),
    Grid::Power(1.3),
    Grid::Power(1.45),
    Grid::Power(1.6),
];

/// Every published solver that can have `nfe` evaluations, on its usual grid.
pub(super) fn published(nfe: usize, path: Option<&GaussianPath>) -> Result<Vec<(String, Parameters)>> {
    compiled(SolverName::ALL.iter().map(|solver| NamedSolver { solver, nfe, grid: None }), path)
}

/// The multistep solvers of `nfe` evaluations on other grids.
pub(super) fn regridded(nfe: usize, path: Option<&GaussianPath>) -> Result<Vec<(String, Parameters)>> {
    let solvers = SolverName::ALL.iter().filter(|solver| REGRIDDED.contains(&solver.name));
    let on_each = |solver| GRIDS.iter().map(move |grid| NamedSolver { solver, nfe, grid: Some(grid.clone()) });
    compiled(solvers.flat_map(on_each), path)
}

/// Those of the `solvers` that there are on `path`; without one, those that need no scheduler.
fn compiled(
    solvers: impl Iterator<Item = NamedSolver>,
    path: Option<&GaussianPath>,
) -> Result<Vec<(String, Parameters)>> {
    let own = GaussianPath::new(Scheduler::FmOt, 1.0)?;
    let usable = solvers.filter(|named| path.is_some() || !named.solver.needs_scheduler());
    // A solver that cannot have this nfe, or whose table is not finite on this path, is no candidate.
    let table = |named: NamedSolver| {
        let theta = Theta::compile(&named.tableau(path.unwrap_or(&own)).ok()?).ok()?;
        Some((named.to_string(), Parameters::from_theta(&theta)))
    };
    Ok(usable.filter_map(table).collect())
}
