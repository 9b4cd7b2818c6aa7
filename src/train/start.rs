//! Where training starts.

use super::config::{Learn, TrainedFamily};
use super::parameters::{Parameters, Shape};
use crate::document::Notes;
use crate::error::{Error, Result};
use crate::ladder::Ladder;
use crate::path::GaussianPath;
use crate::reference::{Reference, Solver};
use crate::scheduler::Scheduler;
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
    /// A theta of this shape, of `rk1` or `rk2`, that is trained first, from the best of these.
    Bespoke(Shape, Vec<(String, Parameters)>),
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
pub fn start_on_path(shape: Shape, path: &GaussianPath) -> Result<Parameters> {
    let family = match shape {
        Shape::Rk1(steps) => Family::Rk1(path.knots(steps)),
        Shape::Rk2(steps) => Family::Rk2(path.knots(2 * steps)),
        Shape::Ns(nfe) => {
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
pub(super) fn bases(shape: Shape, path: Option<&GaussianPath>, anywhere: bool) -> Result<Vec<(String, Parameters)>> {
    let name = match shape {
        Shape::Rk2(_) => format!("midpoint@{}", shape.nfe()),
        Shape::Rk1(_) | Shape::Ns(_) => format!("euler@{}", shape.nfe()),
    };
    let own = path.map_or_else(|| Ok(Parameters::identity(shape)), |path| start_on_path(shape, path))?;
    // A path that has no snr in common with the model's, or makes no theta, is no candidate.
    let on = |scheduler: &Scheduler| {
        let other = path.filter(|_| anywhere)?.on(*scheduler, 1.0).ok().filter(|other| Some(other) != path)?;
        Some((format!("{name} on {}", scheduler.name()), start_on_path(shape, &other).ok()?))
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
    /// `rk1` or `rk2`.
    Bespoke(TrainedFamily),
}

impl Init {
    pub fn read(text: &str) -> Result<Self> {
        match text {
            "published" => return Ok(Init::Published),
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

    /// What `shape` can start from, or `None` where this does not fit it. `path` is what published
    /// solvers sample on; without one, there are those that need no scheduler. `anywhere`: as in [`bases`].
    pub fn fit(&self, shape: Shape, path: Option<&GaussianPath>, anywhere: bool) -> Result<Option<Start>> {
        let ns = matches!(shape, Shape::Ns(_));
        Ok(match self {
            Init::Thetas(name, ladder) => {
                let parameters = |theta: &Theta| {
                    if ns { Parameters::from_tableau(&theta.tableau()) } else { Parameters::from_theta(theta) }
                };
                let fitting = |theta: &Theta| {
                    let parameters = parameters(theta);
                    let given = || Start::Given { name: name.clone(), parameters, model: theta.model.clone() };
                    (Shape::of(theta) == shape || ns && theta.nfe() == shape.nfe()).then(given)
                };
                ladder.rungs().iter().find_map(fitting)
            }
            Init::Named(named) if ns && named.nfe == shape.nfe() => {
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
            Init::Published if ns => Some(Start::BestOf(published(shape.nfe(), path)?)),
            Init::Bespoke(TrainedFamily::Rk1) if ns => Some(bespoke(Shape::Rk1(shape.nfe()), path, anywhere)?),
            Init::Bespoke(_) if ns && shape.nfe().is_multiple_of(2) => {
                Some(bespoke(Shape::Rk2(shape.nfe() / 2), path, anywhere)?)
            }
            _ => None,
        })
    }

    /// Families and sizes that a file has.
    pub fn shapes(&self) -> Vec<Shape> {
        match self {
            Init::Thetas(_, ladder) => ladder.rungs().iter().map(Shape::of).collect(),
            _ => Vec::new(),
        }
    }
}

/// A theta of this shape that is trained first.
pub(super) fn bespoke(shape: Shape, path: Option<&GaussianPath>, anywhere: bool) -> Result<Start> {
    Ok(Start::Bespoke(shape, bases(shape, path, anywhere)?))
}

/// Every published solver that can have `nfe` evaluations, on its usual grid.
fn published(nfe: usize, path: Option<&GaussianPath>) -> Result<Vec<(String, Parameters)>> {
    let own = GaussianPath::new(Scheduler::FmOt, 1.0)?;
    let usable = SolverName::ALL.iter().filter(|solver| path.is_some() || !solver.needs_scheduler());
    // A solver that cannot have this nfe, or whose table is not finite on this path, is no candidate.
    let compiled = usable.filter_map(|solver| {
        let tableau = solver.tableau(nfe, &solver.grid, path.unwrap_or(&own)).ok()?;
        let theta = Theta::compile(&tableau).ok()?;
        Some((format!("{}@{nfe}", solver.name), Parameters::from_theta(&theta)))
    });
    Ok(compiled.collect())
}
