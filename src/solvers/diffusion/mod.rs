//! Diffusion solvers as tables in (x, u).
//!
//! They are published for a noise or a data prediction; with x = alpha x1 + sigma x0 and
//! u = alpha' x1 + sigma' x0 both are linear in (x, u), with scalars of the evaluation's time:
//!
//! ```text
//! x1hat = (sigma u - sigma' x) / w,   x0hat = (alpha' x - alpha u) / w,   w = alpha' sigma - sigma' alpha
//! ```
//!
//! Each solver here is its published recurrence, played once on linear combinations of registers
//! ([`Combination`]) in place of tensors: what comes out is the table, and the one sampler runs it.
//! Singlestep solvers stand on the state at the start of the step and keep its velocity. Multistep
//! ones evaluate at the state, and keep as many of their last predictions as their order asks for.
//!
//! **Singular ends.** Where alpha is 0 at t = 0 (FM-OT, cosine), lambda is -infinity and no method
//! that divides by alpha can start. Published code evaluates the model a little later, on noise
//! as it is. Here the model is evaluated at t = 0, where the solve starts; its prediction, held
//! constant, gives the state at the level `START` (no evaluation more), and stands for the
//! prediction there. Where sigma is 0 at t = 1, the last step is of first order, x = alpha x1hat, as
//! published code does where its sigmas end at 0. No number of a table is ever infinite.

mod ddim;
mod deis;
mod dpm_solver;
mod dpm_solver_pp;
mod edm;
mod ipndm;
mod unipc;

pub use ddim::ddim;
pub use deis::deis;
pub use dpm_solver::{dpm_solver, outer_steps};
pub use dpm_solver_pp::dpm_solver_pp;
pub use edm::edm;
pub use ipndm::ipndm;
pub use unipc::{Bh, unipc};

use crate::path::{GaussianPath, Level};
use crate::solvers::grid::START;
use crate::solvers::history::History;
use crate::tableau::{Combination, Operand, Place, Stage, Tableau};

/// Below this count of evaluations multistep solvers lower the order of their last steps, as
/// published code does for stability ("lower_order_final").
pub const FEW_STEPS: usize = 15;

/// Where a solver evaluates, and how the predictions come out of (x, u) there.
#[derive(Clone, Copy, Debug)]
pub struct Knot {
    /// Solver time of the evaluation, in [0, 1].
    pub t: f64,
    /// The level that the solver takes the evaluation for.
    pub level: Level,
    /// The evaluation's own alpha and sigma.
    own: (f64, f64),
    /// x1hat = x1.0 x + x1.1 u.
    x1: (f64, f64),
    /// x0hat = x0.0 x + x0.1 u.
    x0: (f64, f64),
}

impl Knot {
    /// An evaluation at solver time `t`, where `level` and the rates (d alpha / dt, d sigma / dt) hold.
    /// sigma > 0, and alpha' sigma > sigma' alpha (snr increases).
    pub fn new(t: f64, level: Level, (alpha_dot, sigma_dot): (f64, f64)) -> Self {
        let Level { alpha, sigma, .. } = level;
        let w = alpha_dot * sigma - sigma_dot * alpha;
        let (x1, x0) = ((-sigma_dot / w, sigma / w), (alpha_dot / w, -alpha / w));
        Self { t, level, own: (alpha, sigma), x1, x0 }
    }

    /// Predictions from the velocity `u` at `y`.
    fn predict(&self, y: &Combination<f64>, u: &Combination<f64>) -> Prediction {
        Prediction {
            x1: Combination::sum([(self.x1.0, y), (self.x1.1, u)]),
            x0: Combination::sum([(self.x0.0, y), (self.x0.1, u)]),
        }
    }

    /// The state at this knot's level: `y` itself, or where the evaluation was at a singular start,
    /// what its prediction makes of it.
    fn state(&self, y: &Combination<f64>, prediction: &Prediction) -> Combination<f64> {
        if self.own == (self.level.alpha, self.level.sigma) { y.clone() } else { prediction.at(&self.level) }
    }
}

/// Data and noise as one evaluation sees them.
struct Prediction {
    x1: Combination<f64>,
    x0: Combination<f64>,
}

impl Prediction {
    /// The state at `level` if the prediction held all the way: a step of first order (DDIM).
    fn at(&self, level: &Level) -> Combination<f64> {
        Combination::sum([(level.alpha, &self.x1), (level.sigma, &self.x0)])
    }
}

/// The evaluations of a solver in order, and where it ends.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// One for each evaluation, at least one; levels of increasing snr.
    pub knots: Vec<Knot>,
    /// The last state's level; its sigma may be 0.
    pub end: Level,
}

impl Schedule {
    /// Evaluations at all of `times` on `path` but the last, which is 1. The first is made at 0, and
    /// taken for `times[0]`, or `START` where alpha is 0 there.
    pub fn new(path: &GaussianPath, times: &[f64]) -> Self {
        let (last, before) = (times.len() - 1, &times[..times.len() - 1]);
        let mut knots: Vec<Knot> =
            before.iter().map(|r| Knot::new(path.solver_time(*r), path.level(*r), path.rates(*r))).collect();
        let first = if path.level(times[0]).alpha == 0.0 { START.min(times[1] / 2.0) } else { times[0] };
        knots[0] = Knot { level: path.level(first), ..Knot::new(0.0, path.level(0.0), path.rates(0.0)) };
        Self { knots, end: path.level(times[last]) }
    }

    /// Level of knot `i`, or the end's.
    fn level(&self, i: usize) -> &Level {
        self.knots.get(i).map_or(&self.end, |knot| &knot.level)
    }

    /// Order of step `i` of a multistep solver: no more than evaluations so far; few at the end
    /// where there are few in all; 1 for a step to sigma = 0.
    fn multistep_order(&self, i: usize, order: usize) -> usize {
        let left = self.knots.len() - i;
        let last_steps = if self.knots.len() < FEW_STEPS { left } else { order };
        let singular = left == 1 && self.end.sigma == 0.0;
        if singular { 1 } else { order.min(i + 1).min(last_steps) }
    }
}

/// Evaluation `i` of a multistep solver, as it stands when the velocity has come in.
struct Multistep<'a> {
    i: usize,
    /// The state at the evaluation's level.
    x: Combination<f64>,
    /// What it predicts; of earlier evaluations, registers hold what the solver keeps.
    prediction: Prediction,
    /// The kind of prediction that is kept.
    kept: fn(&Prediction) -> &Combination<f64>,
    history: &'a History,
}

impl Multistep<'_> {
    /// The prediction of evaluation `j`, the present one or one before it.
    fn of(&self, j: usize) -> Combination<f64> {
        if j == self.i { (self.kept)(&self.prediction).clone() } else { self.history.before(j) }
    }
}

/// A multistep table: every evaluation is at the state, `next` makes the next one, and `kept` is what
/// the last `registers` evaluations leave.
fn multistep_table<E>(
    schedule: &Schedule,
    registers: usize,
    kept: fn(&Prediction) -> &Combination<f64>,
    mut next: impl FnMut(&Multistep<'_>) -> Result<Combination<f64>, E>,
) -> Result<Tableau<f64>, E> {
    let history = History::new(registers);
    let (y, u) = (Combination::of(Operand::State), Combination::of(Operand::Velocity));
    let stage = |(i, knot): (usize, &Knot)| {
        let prediction = knot.predict(&y, &u);
        let step = Multistep { i, x: knot.state(&y, &prediction), prediction, kept, history: &history };
        Ok(Stage {
            t: knot.t,
            next: next(&step)?,
            place: Place::State,
            keep: history.keep(i, kept(&step.prediction).clone()),
            ends_step: true,
        })
    };
    Ok(Tableau { stages: schedule.knots.iter().enumerate().map(stage).collect::<Result<_, E>>()? })
}

/// The first-order step of data prediction: (sigma_b / sigma_a) x + (alpha_b - sigma_b alpha_a / sigma_a) x1hat.
fn data_step(x: &Combination<f64>, x1: &Combination<f64>, from: &Level, to: &Level) -> Combination<f64> {
    let ratio = to.sigma / from.sigma;
    Combination::sum([(ratio, x), (to.alpha - ratio * from.alpha, x1)])
}

/// phi_k(z), with phi_0 = e^z and phi_{k+1} = (phi_k - 1/k!) / z.
fn phi(k: i32, z: f64) -> f64 {
    if z.abs() < 1.0 {
        // The recurrence cancels here; the series sum_n z^n / (n + k)! does not.
        let mut term = (1..=k).map(f64::from).product::<f64>().recip();
        let mut sum = term;
        for n in 1..=20 {
            term *= z / f64::from(n + k);
            sum += term;
        }
        return sum;
    }
    let mut value = z.exp();
    let mut factorial = 1.0;
    for i in 0..k {
        value = (value - 1.0 / factorial) / z;
        factorial *= f64::from(i + 1);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::phi;

    #[test]
    fn phi_is_continuous_where_its_two_forms_meet() {
        for k in 0..5 {
            for z in [-1.0, 1.0f64] {
                let (inside, outside) = (phi(k, z * (1.0 - 1e-12)), phi(k, z * (1.0 + 1e-12)));
                assert!((inside - outside).abs() < 1e-11, "phi_{k}({z}): {inside} and {outside}");
            }
        }
        assert!((phi(2, 2.0) - (2f64.exp() - 3.0) / 4.0).abs() < 1e-14);
    }
}
