//! The path a model is sampled on: its own, or any other Gaussian path (BES Thm 2.3).
//!
//! Two Gaussian paths of the same data differ by scale and time only: with
//! snr_A(t_r) = snr_B(r) and s_r = |(alpha_B, sigma_B)|_r / |(alpha_A, sigma_A)|_{t_r}, the
//! trajectory of path B is xbar(r) = s_r x(t_r), and its field is (BES Eq. 16)
//!
//! ```text
//! ubar_r(xbar) = (s'_r / s_r) xbar + t'_r s_r u_{t_r}(xbar / s_r)
//! ```
//!
//! which is linear in (xbar, u). So a solver of path B's field *is* a table for the model's own:
//! [`GaussianPath::transform`] rewrites it, and nothing that evaluates a model has to know of
//! paths. This covers every use: a served solver, a reference at many evaluations, and, as
//! [`GaussianPath::knots`], the theta that training on path B starts from. x(1) is mapped back,
//! and the ground truth, being the same trajectory, is the model's own.

use crate::document::{self, Notes};
use crate::error::{Error, Result};
use crate::number::Number;
use crate::scheduler::{Output, Scheduler};
use crate::tableau::{Combination, Keep, Operand, Place, Stage, Tableau};
use crate::theta::Knots;
use num_dual::Dual64;
use serde_json::Value;
use std::str::FromStr;

/// What a scheduler may be called.
const SCHEDULERS: &str = "fm-ot, cosine, vp or edm";

/// A model's path in solver time [0, 1], and the path it is sampled on.
#[derive(Clone, Debug, PartialEq)]
pub struct GaussianPath {
    scheduler: Scheduler,
    end: f64,
    view: Option<View>,
}

/// Another path: `scheduler` with sigma times `sigma0`.
///
/// Where its snr starts above or ends below the model's (VP, EDM), no t_r would reach the ends of
/// the solve. The part of it that the two have in common is then stretched over [0, 1] on both
/// sides, linearly in their times: a smooth transformation with exact ends, that differs from
/// the path asked for by as little as the ranges do (its start is t = 0.0066 for VP, 0.012 for
/// EDM on an FM-OT model).
#[derive(Clone, Debug, PartialEq)]
struct View {
    scheduler: Scheduler,
    sigma0: f64,
    /// Start and width of the common part, in the other path's time.
    r: (f64, f64),
    /// The same in the model's solver time.
    tau: (f64, f64),
    /// s_0 before it is made 1.
    scale: f64,
}

/// alpha and sigma at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// The time, on whatever axis the caller's grid has.
    pub t: f64,
    /// Share of data.
    pub alpha: f64,
    /// Share of noise.
    pub sigma: f64,
}

impl Level {
    /// lambda = ln(alpha / sigma), half the log-snr of diffusion texts; infinite at a singular end.
    pub fn lambda(&self) -> f64 {
        self.alpha.ln() - self.sigma.ln()
    }

    /// sigma / alpha: EDM's noise level.
    pub fn nsr(&self) -> f64 {
        self.sigma / self.alpha
    }
}

impl GaussianPath {
    /// The path of a model trained on `scheduler`, whose solve ends at its time `end`, in (0, 1]
    /// (a card's `time.end`).
    ///
    /// # Errors
    /// [`Error::Invalid`] for another `end` or constants that make no scheduler.
    pub fn new(scheduler: Scheduler, end: f64) -> Result<Self> {
        scheduler.validate()?;
        if !(end > 0.0 && end <= 1.0) {
            return Err(Error::invalid("end", end, "a time in (0, 1]"));
        }
        Ok(Self { scheduler, end, view: None })
    }

    /// The same model sampled on `path`, with its sigma times `sigma0` (1 leaves it; 5 to 10 is the
    /// preconditioning of BNS for high guidance).
    ///
    /// # Errors
    /// [`Error::Invalid`] for a `sigma0` that is not positive, constants that make no scheduler, or
    /// paths that have no snr in common.
    pub fn on(&self, path: Scheduler, sigma0: f64) -> Result<Self> {
        path.validate()?;
        if !(sigma0 > 0.0 && sigma0.is_finite()) {
            return Err(Error::invalid("sigma0", sigma0, "a positive finite number"));
        }
        if path == self.scheduler && sigma0 == 1.0 {
            return Ok(Self { view: None, ..self.clone() });
        }
        let model = &self.scheduler;
        let own = |t: f64| (model.alpha(t), model.sigma(t));
        let other = |r: f64| (path.alpha(r), sigma0 * path.sigma(r));
        // snr of a below that of b, whatever is 0.
        let below = |a: (f64, f64), b: (f64, f64)| a.0 * b.1 < b.0 * a.1;
        let to_other = |(alpha, sigma): (f64, f64)| path.time_at(alpha, sigma / sigma0);
        // Where sigma ends like a square root t'_r is infinite.
        let last = path.last_time();
        let r_start = if below(other(0.0), own(0.0)) { to_other(own(0.0)) } else { 0.0 };
        let r_end = if below(own(self.end), other(last)) { to_other(own(self.end)) } else { last };
        let to_own = |r: f64| model.time_at(other(r).0, other(r).1) / self.end;
        let (tau_start, tau_end) = (to_own(r_start), to_own(r_end));
        if !(r_start < r_end && tau_start < tau_end) {
            let expected = format!("a path that shares a range of snr with the model's {}", model.name());
            return Err(Error::invalid("path", path.name(), expected));
        }
        let (r, tau) = ((r_start, r_end - r_start), (tau_start, tau_end - tau_start));
        let mut seen = Self { view: Some(View { scheduler: path, sigma0, r, tau, scale: 1.0 }), ..self.clone() };
        let scale = seen.transformation(0.0).1;
        seen.view.iter_mut().for_each(|view| view.scale = scale);
        Ok(seen)
    }

    /// The same model sampled as the options `path` and `sigma0` say, its own path without either.
    ///
    /// `path` is the name of a scheduler with its usual constants, or with the model's own where
    /// they have the name in common.
    ///
    /// # Errors
    /// As [`GaussianPath::on`], and for an unknown name.
    pub fn on_named(&self, path: Option<&str>, sigma0: Option<f64>) -> Result<Self> {
        let scheduler = match path {
            Some(name) if name != self.scheduler.name() => {
                let named = Scheduler::from_name(name);
                named.map_err(|_| Error::invalid("path", format!("{name:?}"), SCHEDULERS))?
            }
            _ => self.scheduler.clone(),
        };
        self.on(scheduler, sigma0.unwrap_or(1.0))
    }

    /// The model's own scheduler.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Where the solve ends, in the time of the model's scheduler.
    pub fn end(&self) -> f64 {
        self.end
    }

    /// The solver time nearest to `tau` at which `output` determines the velocity.
    pub fn regular_time(&self, output: Output, tau: f64) -> f64 {
        output.regular_time(&self.scheduler, tau * self.end) / self.end
    }

    /// (p, q) with u = p x + q output, the velocity in solver time, at a regular `tau` on the
    /// model's own path.
    pub fn velocity_coefficients<D: Number>(&self, output: Output, tau: D) -> (D, D) {
        let (p, q) = output.velocity_coefficients(&self.scheduler, tau * self.end);
        (p * self.end, q * self.end)
    }

    /// Whether the model is sampled on its own path.
    pub fn is_own(&self) -> bool {
        self.view.is_none()
    }

    /// (t_r, s_r), both in solver time: 0 to 0, 1 to 1, s_0 = 1; the identity on the model's own path.
    pub fn transformation<D: Number>(&self, r: D) -> (D, D) {
        let Some(view) = &self.view else { return (r, D::one()) };
        let r = r * view.r.1 + view.r.0;
        let (alpha, sigma) = (view.scheduler.alpha(r), view.scheduler.sigma(r) * view.sigma0);
        let t = self.scheduler.time_at(alpha, sigma) / self.end;
        let tau = (t - view.tau.0) / view.tau.1;
        let norm = (alpha * alpha + sigma * sigma).sqrt();
        (tau, norm / self.scheduler.norm(tau * self.end) / view.scale)
    }

    /// The model's time in [0, 1] at `r`.
    pub fn solver_time(&self, r: f64) -> f64 {
        // Exact at the ends, where rounding could leave [0, 1].
        if r == 0.0 || r == 1.0 { r } else { self.transformation(r).0.clamp(0.0, 1.0) }
    }

    /// The model's own alpha and sigma at `r`, a time of the path it is sampled on.
    pub fn level(&self, r: f64) -> Level {
        let t = self.solver_time(r) * self.end;
        Level { t: r, alpha: self.scheduler.alpha(t), sigma: self.scheduler.sigma(t) }
    }

    /// d alpha / d tau and d sigma / d tau of the model's own path at `r`; sigma's may be infinite
    /// where sigma is 0.
    pub fn rates(&self, r: f64) -> (f64, f64) {
        let t = self.solver_time(r) * self.end;
        (self.scheduler.alpha_dot(t) * self.end, self.scheduler.sigma_dot(t) * self.end)
    }

    /// The time r in [0, 1] nearest to where sigma / alpha is `nsr`, >= 0.
    pub fn time_at_nsr(&self, nsr: f64) -> f64 {
        let tau = self.scheduler.time_at(1.0, nsr) / self.end;
        let Some(view) = &self.view else { return tau.clamp(0.0, 1.0) };
        let t = (tau.clamp(0.0, 1.0) * view.tau.1 + view.tau.0) * self.end;
        let (alpha, sigma) = (self.scheduler.alpha(t), self.scheduler.sigma(t) / view.sigma0);
        ((view.scheduler.time_at(alpha, sigma) - view.r.0) / view.r.1).clamp(0.0, 1.0)
    }

    /// Knots of (t_r, s_r) and their exact derivatives: with K = `intervals`, RK1-Bespoke (K = n)
    /// is Euler on this path, RK2-Bespoke (K = 2n) midpoint.
    pub fn knots(&self, intervals: usize) -> Knots<f64> {
        let mut knots = Knots::identity(intervals);
        for i in 0..intervals {
            let (t, s) = self.transformation(Dual64::new(i as f64 / intervals as f64, 1.0));
            (knots.t[i], knots.t_dot[i]) = (t.re, t.eps);
            (knots.s[i], knots.s_dot[i]) = (s.re, s.eps);
        }
        (knots.t[0], knots.s[0]) = (0.0, 1.0);
        knots.s[intervals] = self.transformation(1.0).1;
        knots
    }

    /// A solver of this path's field as a solver of the model's own: `tableau`'s times are r, and
    /// its states xbar.
    ///
    /// State and point hold x = xbar / s of the time they belong to; what is kept stays as it is. So
    /// the new table has the registers of the old.
    pub fn transform(&self, tableau: &Tableau<f64>) -> Tableau<f64> {
        if self.is_own() {
            return tableau.clone();
        }
        // s of what the state holds; the point's is that of the present evaluation.
        let mut of_state = 1.0;
        let time = |k: usize| tableau.stages.get(k).map_or(1.0, |stage| stage.t);
        let stage = |(k, stage): (usize, &Stage<f64>)| {
            let (t, s) = self.transformation(Dual64::new(time(k), 1.0));
            let from = of_state;
            // xbar of a register, and the field ubar = s' x + t' s u.
            let over_x = |operand| Combination {
                terms: match operand {
                    Operand::State => vec![(operand, from)],
                    Operand::Point => vec![(operand, s.re)],
                    Operand::Kept(_) => vec![(operand, 1.0)],
                    Operand::Velocity => vec![(Operand::Point, s.eps), (operand, t.eps * s.re)],
                },
            };
            let scale = self.transformation(time(k + 1)).1;
            let mut next = stage.next.substitute(over_x);
            next.terms.iter_mut().for_each(|(_, c)| *c /= scale);
            let keep = match &stage.keep {
                Keep::Nothing => Keep::Nothing,
                Keep::Velocity(slot) => Keep::Combination(*slot, over_x(Operand::Velocity)),
                Keep::Combination(slot, what) => Keep::Combination(*slot, what.substitute(over_x)),
            };
            if stage.place == Place::State {
                of_state = scale;
            }
            Stage { t: self.solver_time(stage.t), next, place: stage.place, keep, ends_step: stage.ends_step }
        };
        Tableau { stages: tableau.stages.iter().enumerate().map(stage).collect() }
    }
}

impl FromStr for GaussianPath {
    type Err = Error;

    /// Reads a scheduler's name, or a JSON object: a card's `scheduler`, and beside its constants
    /// the card's `time.end` as `end`, 1 where absent. `{"name": "vp", "beta_max": 15, "end": 0.999}`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &dyn std::fmt::Display| {
            let expected = format!("{SCHEDULERS}, or a JSON object with such a name and its constants{why}");
            Error::invalid("scheduler", format!("{text:?}"), expected)
        };
        if !document::without_mark(text).trim_start().starts_with('{') {
            return Self::new(Scheduler::from_name(text).map_err(|_| wrong(&""))?, 1.0);
        }
        let mut object: Notes = document::parse(text, "scheduler").map_err(|e| wrong(&format!(" ({e})")))?;
        let end = match object.0.remove("end") {
            None => 1.0,
            Some(end) => end.as_f64().ok_or_else(|| Error::invalid("end", end, "a time in (0, 1]"))?,
        };
        let scheduler = serde_json::from_value(Value::Object(object.0)).map_err(|e| wrong(&format!(" ({e})")))?;
        Self::new(scheduler, end)
    }
}
