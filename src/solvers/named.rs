//! Published solvers by name.

use super::classical::{adams_bashforth, euler, heun, midpoint, ralston, rk4};
use super::diffusion::{
    Bh, FEW_STEPS, Schedule, ddim, deis, dpm_solver, dpm_solver_pp, edm, ipndm, outer_steps, unipc,
};
use super::grid::Grid;
use crate::document::Notes;
use crate::error::{Error, Result};
use crate::path::GaussianPath;
use crate::tableau::Tableau;
use crate::theta::{MAX_STEPS, Theta};
use serde_json::json;

/// A published solver: what `bespoke solvers` lists.
#[derive(Debug)]
pub struct SolverName {
    /// As users write it.
    pub name: &'static str,
    /// What it is, in one line.
    pub description: &'static str,
    /// Order of convergence, where neither start nor end limits it: a first or last step of first
    /// order (multistep solvers' start, a path that ends at sigma = 0) leaves order 2 on grids
    /// that do not shorten it faster than the others.
    pub order: usize,
    /// Counts of evaluations it can have.
    pub nfe: Allowed,
    /// Where it was published.
    pub source: &'static str,
    /// The grid it is published with.
    pub grid: Grid,
    method: Method,
}

/// Counts of velocity evaluations that a solver can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Multiples of the stages of a step.
    Multiples(usize),
    /// 2n - 1 of n noise levels.
    Odd,
}

impl Allowed {
    /// The least count, the distance from one to the next, and the greatest.
    pub fn range(self) -> (usize, usize, usize) {
        match self {
            Allowed::Multiples(stages) => (stages, stages, MAX_STEPS * stages),
            Allowed::Odd => (1, 2, MAX_STEPS - 1),
        }
    }

    /// The least allowed count at or above `nfe`, and the greatest at or below it.
    fn neighbours(self, nfe: usize) -> (usize, usize) {
        let (lowest, unit, highest) = self.range();
        let below = nfe.clamp(lowest, highest).saturating_sub(lowest) / unit * unit + lowest;
        let above = if below >= nfe { below } else { below + unit };
        (below.clamp(lowest, highest), above.clamp(lowest, highest))
    }

    /// # Errors
    /// [`Error::Invalid`] naming the nearest counts that are allowed.
    fn check(self, name: &str, nfe: usize) -> Result<()> {
        let (below, above) = self.neighbours(nfe);
        if nfe == below {
            return Ok(());
        }
        let nearest = if below == above { below.to_string() } else { format!("{below} or {above}") };
        Err(Error::invalid("nfe", nfe, format!("{self} for {name}, such as {nearest}")))
    }
}

impl std::fmt::Display for Allowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (_, _, highest) = self.range();
        match self {
            Allowed::Multiples(1) => write!(f, "1 to {highest}"),
            Allowed::Multiples(stages) => write!(f, "a multiple of {stages} from {stages} to {highest}"),
            Allowed::Odd => write!(f, "an odd number from 1 to {highest}"),
        }
    }
}

/// How the table comes about.
#[derive(Clone, Copy, Debug)]
enum Method {
    /// On the field itself, from times: Runge-Kutta with as many stages.
    RungeKutta(usize, fn(&[f64]) -> Tableau<f64>),
    /// The same: Adams-Bashforth of an order.
    AdamsBashforth(usize),
    Ddim,
    DpmSolver(usize),
    DpmSolverPp(usize),
    UniPc(usize, Bh),
    Deis(usize),
    Ipndm,
    Edm,
}

const ANY: Allowed = Allowed::Multiples(1);
const HAIRER: &str = "Hairer, Norsett, Wanner 1993, II.1 and III.1";

macro_rules! solvers {
    ($($name:literal, $description:literal, $order:literal, $nfe:expr, $grid:ident, $method:expr, $source:expr;)*) => {
        [$(SolverName {
            name: $name, description: $description, order: $order, nfe: $nfe,
            grid: Grid::$grid, method: $method, source: $source,
        }),*]
    };
}

static ALL: [SolverName; 23] = {
    use Method::*;
    solvers![
        "euler", "Euler", 1, ANY, Uniform, RungeKutta(1, euler), HAIRER;
        "midpoint", "explicit midpoint", 2, Allowed::Multiples(2), Uniform, RungeKutta(2, midpoint), HAIRER;
        "heun", "Heun's trapezoid", 2, Allowed::Multiples(2), Uniform, RungeKutta(2, heun), HAIRER;
        "ralston", "Ralston's two-stage method", 2, Allowed::Multiples(2), Uniform, RungeKutta(2, ralston), "Ralston 1962";
        "rk4", "classical Runge-Kutta", 4, Allowed::Multiples(4), Uniform, RungeKutta(4, rk4), HAIRER;
        "ab2", "Adams-Bashforth, 2 velocities", 2, ANY, Uniform, AdamsBashforth(2), HAIRER;
        "ab3", "Adams-Bashforth, 3 velocities", 3, ANY, Uniform, AdamsBashforth(3), HAIRER;
        "ab4", "Adams-Bashforth, 4 velocities", 4, ANY, Uniform, AdamsBashforth(4), HAIRER;
        "ddim", "DDIM, eta = 0", 1, ANY, Uniform, Ddim, "Song, Meng, Ermon 2021, arXiv:2010.02502";
        "dpm-solver-2", "DPM-Solver-2, singlestep, noise prediction", 2, ANY, Logsnr, DpmSolver(2),
            "Lu et al. 2022, arXiv:2206.00927";
        "dpm-solver-3", "DPM-Solver-3, singlestep, noise prediction", 3, ANY, Logsnr, DpmSolver(3),
            "Lu et al. 2022, arXiv:2206.00927";
        "dpm++2m", "DPM-Solver++(2M), multistep, data prediction", 2, ANY, Uniform, DpmSolverPp(2),
            "Lu et al. 2022, arXiv:2211.01095";
        "dpm++3m", "DPM-Solver++(3M), multistep, data prediction; order 2 as published", 2, ANY, Uniform, DpmSolverPp(3),
            "Lu et al. 2022, arXiv:2211.01095";
        "unipc", "UniPC-2, B2(h), predictor and corrector", 2, ANY, Uniform, UniPc(2, Bh::Bh2),
            "Zhao et al. 2023, arXiv:2302.04867";
        "unipc-bh1", "UniPC-2, B1(h), predictor and corrector", 2, ANY, Uniform, UniPc(2, Bh::Bh1),
            "Zhao et al. 2023, arXiv:2302.04867";
        "unipc3", "UniPC-3, B2(h), predictor and corrector", 3, ANY, Uniform, UniPc(3, Bh::Bh2),
            "Zhao et al. 2023, arXiv:2302.04867";
        "unipc3-bh1", "UniPC-3, B1(h), predictor and corrector", 3, ANY, Uniform, UniPc(3, Bh::Bh1),
            "Zhao et al. 2023, arXiv:2302.04867";
        "deis1", "tAB1-DEIS, line through 2 noise predictions", 2, ANY, Quadratic, Deis(1),
            "Zhang, Chen 2023, arXiv:2204.13902";
        "deis2", "tAB2-DEIS, parabola through 3 noise predictions", 3, ANY, Quadratic, Deis(2),
            "Zhang, Chen 2023, arXiv:2204.13902";
        "deis3", "tAB3-DEIS, cubic through 4 noise predictions", 4, ANY, Quadratic, Deis(3),
            "Zhang, Chen 2023, arXiv:2204.13902";
        "deis", "tAB3-DEIS, its authors' default: deis3", 4, ANY, Quadratic, Deis(3),
            "Zhang, Chen 2023, arXiv:2204.13902";
        "ipndm", "iPNDM-4, 4 noise predictions", 2, ANY, Uniform, Ipndm,
            "Zhang, Chen 2023, App. H.2; Liu et al. 2022, arXiv:2202.09778";
        "edm", "EDM's Heun over the noise level", 2, Allowed::Odd, Karras, Edm, "Karras et al. 2022, arXiv:2206.00364";
    ]
};

impl SolverName {
    /// All of them.
    pub const ALL: &'static [SolverName] = &ALL;

    /// The solver called `name`.
    ///
    /// # Errors
    /// [`Error::Invalid`] listing the names there are.
    pub fn find(name: &str) -> Result<&'static SolverName> {
        ALL.iter().find(|known| known.name == name).ok_or_else(|| {
            let known = ALL.iter().map(|known| known.name).collect::<Vec<_>>().join(", ");
            Error::invalid("solver", format!("{name:?}"), format!("one of {known}"))
        })
    }

    /// Evaluations from which on the solvers that lower the order of their last steps do not.
    pub const FULL_LAST_ORDERS: usize = FEW_STEPS;

    /// Whether with `nfe` evaluations on `path` it lowers the order of its last steps, which it does
    /// not with more of them ("lower_order_final" of published code).
    pub fn lowers_last_orders(&self, nfe: usize, path: &GaussianPath) -> bool {
        let Method::DpmSolverPp(order) = self.method else { return false };
        // A step to sigma = 0 is of first order whatever the count.
        let free_end = path.level(1.0).sigma > 0.0;
        (2..FEW_STEPS).contains(&nfe) && (order > 2 || free_end)
    }

    /// Whether its table depends on the scheduler of the model.
    pub fn needs_scheduler(&self) -> bool {
        !matches!(self.method, Method::RungeKutta(..) | Method::AdamsBashforth(_))
    }

    /// The table with `nfe` evaluations of the velocity of a model sampled on `path`, on the times
    /// of `grid`: one interval for each step of a Runge-Kutta method, for each noise level of
    /// `edm`, and for each evaluation of any other. DPM-Solver takes every k-th of them for a step
    /// of order k (of `logsnr` and `karras`, as published, steps of their own) and puts its inner
    /// evaluations at equal distances in lambda.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the nearest nfe the method can have, or a grid that does not fit.
    pub fn tableau(&self, nfe: usize, grid: &Grid, path: &GaussianPath) -> Result<Tableau<f64>> {
        self.nfe.check(self.name, nfe)?;
        let schedule = |steps| Ok::<_, Error>(Schedule::new(path, &grid.times(path, steps)?));
        Ok(match self.method {
            Method::RungeKutta(stages, method) => path.transform(&method(&from_zero(grid.times(path, nfe / stages)?))),
            Method::AdamsBashforth(order) => {
                path.transform(&adams_bashforth(&from_zero(grid.times(path, nfe)?), order))
            }
            Method::Ddim => ddim(&schedule(nfe)?),
            Method::DpmSolver(order) => {
                let orders = outer_steps(nfe, order, path.level(1.0).sigma == 0.0);
                dpm_solver(&Schedule::new(path, &subdivided(grid, path, &orders)?), &orders)?
            }
            Method::DpmSolverPp(order) => dpm_solver_pp(&schedule(nfe)?, order),
            Method::UniPc(order, bh) => unipc(&schedule(nfe)?, order, bh)?,
            Method::Deis(degree) => deis(&schedule(nfe)?, degree, |r| path.level(r).nsr()),
            Method::Ipndm => ipndm(&schedule(nfe)?),
            Method::Edm => edm(&schedule(nfe.div_ceil(2))?),
        })
    }
}

/// A method on the field itself starts at 0, whatever stands for it in the snr.
fn from_zero(mut times: Vec<f64>) -> Vec<f64> {
    times[0] = 0.0;
    times
}

/// Times of singlestep solvers: outer steps, each with its inner evaluations.
fn subdivided(grid: &Grid, path: &GaussianPath, orders: &[usize]) -> Result<Vec<f64>> {
    let outer = match grid {
        Grid::Logsnr | Grid::Karras => grid.times(path, orders.len())?,
        _ => {
            let fine = grid.times(path, orders.iter().sum())?;
            let ends = orders.iter().scan(0, |sum, order| {
                *sum += order;
                Some(fine[*sum])
            });
            std::iter::once(fine[0]).chain(ends).collect()
        }
    };
    let start = Schedule::new(path, &outer).knots[0].level.t;
    let mut times = vec![outer[0]];
    for (i, order) in orders.iter().enumerate() {
        let from = path.level(if i == 0 { start } else { outer[i] });
        let to = path.level(outer[i + 1]);
        for inner in 1..*order {
            let lambda = from.lambda() + (to.lambda() - from.lambda()) * inner as f64 / *order as f64;
            times.push(path.time_at_nsr((-lambda).exp()));
        }
        times.push(outer[i + 1]);
    }
    Ok(times)
}

/// A published solver with its count of evaluations and its grid.
#[derive(Clone, Debug)]
pub struct NamedSolver {
    /// Which.
    pub solver: &'static SolverName,
    /// Velocity evaluations.
    pub nfe: usize,
    /// The grid, where it is not the solver's own.
    pub grid: Option<Grid>,
}

impl NamedSolver {
    /// The solver `name` with `nfe` evaluations; `grid` as `bespoke solvers --help` has it, as in `0,0.1,0.3,0.6,1`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown name, an impossible nfe, or a grid that does not fit it.
    pub fn new(name: &str, nfe: usize, grid: Option<&str>) -> Result<Self> {
        let solver = Self { solver: SolverName::find(name)?, nfe, grid: grid.map(str::parse).transpose()? };
        solver.solver.nfe.check(name, nfe)?;
        if solver.grid.is_some() {
            // Whether the times fit does not depend on the path.
            solver.tableau(&GaussianPath::new(crate::scheduler::Scheduler::FmOt, 1.0)?)?;
        }
        Ok(solver)
    }

    /// The table for a model sampled on `path`.
    ///
    /// # Errors
    /// As [`SolverName::tableau`].
    pub fn tableau(&self, path: &GaussianPath) -> Result<Tableau<f64>> {
        self.solver.tableau(self.nfe, self.grid.as_ref().unwrap_or(&self.solver.grid), path)
    }

    /// The solver as a theta of `family: "ns"`, with notes that say what it came from.
    ///
    /// # Errors
    /// As [`SolverName::tableau`], and for more evaluations than such a theta may have.
    pub fn theta(&self, path: &GaussianPath) -> Result<Theta> {
        let theta = Theta::compile(&self.tableau(path)?)?;
        let (model, training) = self.notes(path);
        Ok(Theta { model, training, ..theta })
    }

    /// What it was made for, and what it is.
    pub fn notes(&self, path: &GaussianPath) -> (Notes, Notes) {
        let model = notes([("scheduler", json!(path.scheduler())), ("end", json!(path.end()))]);
        (model, notes([("solver", json!(self.to_string()))]))
    }
}

impl std::fmt::Display for NamedSolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.solver.name, self.nfe)?;
        self.grid.as_ref().map_or(Ok(()), |grid| write!(f, ":{grid}"))
    }
}

fn notes<const N: usize>(entries: [(&str, serde_json::Value); N]) -> Notes {
    Notes(entries.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())
}
