//! Schedulers alpha_t, sigma_t, their snr and its inverse, and model outputs as velocities.
//!
//! Everything is written over a generic number, so that dual numbers give exact derivatives.

mod betas;

pub use betas::{Betas, Steps, Training};

use crate::error::{Error, Result};
use crate::number::Number;
use serde::{Deserialize, Serialize};
use std::f64::consts::FRAC_PI_2;
use std::str::FromStr;

/// How close to an end that is singular for a kind of output the model is evaluated.
///
/// At that end the output says nothing about the velocity (0 / 0); this close to it, it still does.
pub const SINGULAR_MARGIN: f64 = 1e-4;

/// Where sampling on the VP path ends: 1e-3 of the time before sigma is 0, as in the literature.
const VP_END: f64 = 0.999;

/// The name of discrete training.
const BETAS: &str = "betas";

/// Exponent of the EDM noise levels over time (Karras et al. 2022, Eq. 5).
pub const KARRAS_RHO: f64 = 7.0;

/// A scheduler: x_t = alpha_t x1 + sigma_t x0, noise at t = 0, data at t = 1 (BES Eq. 22).
///
/// ```
/// use bespoke::scheduler::Scheduler;
///
/// let vp = Scheduler::from_name("vp")?;
/// let (alpha, sigma) = (vp.alpha(0.3), vp.sigma(0.3));
/// assert!((alpha * alpha + sigma * sigma - 1.0_f64).abs() < 1e-12);
/// // The time at which another scheduler has the same snr.
/// let t = Scheduler::FmOt.snr_inverse(vp.snr(0.3));
/// assert!((t - alpha / (alpha + sigma)).abs() < 1e-12);
/// # Ok::<(), bespoke::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Document", into = "Document")]
pub enum Scheduler {
    /// Conditional optimal transport: alpha = t, sigma = 1 - t.
    FmOt,
    /// alpha = sin(pi t / 2), sigma = cos(pi t / 2).
    Cosine,
    /// Variance preserving: alpha = exp(-T(1 - t) / 2), T(s) = s^2 (beta_max - beta_min) / 2 + s beta_min.
    Vp {
        /// Rate of noise at the data end.
        beta_min: f64,
        /// Rate of noise at the noise end.
        beta_max: f64,
    },
    /// Variance exploding with EDM's noise levels: alpha = 1, sigma from `sigma_max` to `sigma_min`,
    /// linear in sigma^(1/7). The model is given sigma in place of t; the solve starts at sigma_max x0.
    Edm {
        /// Noise level at the data end.
        sigma_min: f64,
        /// Noise level at the noise end.
        sigma_max: f64,
    },
    /// Discrete training: variance preserving, alpha at the steps by betas, between them by a smooth curve.
    Betas(Betas),
}

/// A scheduler as model cards write it.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    beta_min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beta_max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sigma_min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sigma_max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beta_start: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beta_end: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    betas: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alphas_cumprod: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rescale_zero_terminal_snr: Option<bool>,
}

impl Document {
    /// A key of discrete training that is there.
    fn discrete(&self) -> Option<&'static str> {
        let keys = [
            ("schedule", self.schedule.is_some()),
            ("beta_start", self.beta_start.is_some()),
            ("beta_end", self.beta_end.is_some()),
            ("steps", self.steps.is_some()),
            ("betas", self.betas.is_some()),
            ("alphas_cumprod", self.alphas_cumprod.is_some()),
            ("rescale_zero_terminal_snr", self.rescale_zero_terminal_snr.is_some()),
        ];
        keys.into_iter().find_map(|(key, there)| there.then_some(key))
    }

    /// A constant of the other schedulers that is there.
    fn continuous(&self) -> Option<(&'static str, f64)> {
        let keys = [
            ("beta_min", self.beta_min),
            ("beta_max", self.beta_max),
            ("sigma_min", self.sigma_min),
            ("sigma_max", self.sigma_max),
        ];
        keys.into_iter().find_map(|(key, value)| value.map(|value| (key, value)))
    }
}

impl TryFrom<Document> for Scheduler {
    type Error = Error;

    fn try_from(document: Document) -> Result<Self> {
        let absent = |name: &str| format!("absent: scheduler {name} has no such constant");
        if document.name == BETAS {
            return match document.continuous() {
                Some((key, value)) => Err(Error::invalid(key, value, absent(BETAS))),
                None => Betas::try_from(document).map(Scheduler::Betas),
            };
        }
        let mut scheduler = Scheduler::from_name(&document.name)?;
        if let Some(key) = document.discrete() {
            return Err(Error::invalid(key, "there", absent(scheduler.name())));
        }
        let Document { beta_min, beta_max, sigma_min, sigma_max, .. } = document;
        let mut set = |name: &str, value: Option<f64>| {
            let Some(value) = value else { return Ok(()) };
            let slot = match (&mut scheduler, name) {
                (Scheduler::Vp { beta_min, .. }, "beta_min") => beta_min,
                (Scheduler::Vp { beta_max, .. }, "beta_max") => beta_max,
                (Scheduler::Edm { sigma_min, .. }, "sigma_min") => sigma_min,
                (Scheduler::Edm { sigma_max, .. }, "sigma_max") => sigma_max,
                (other, _) => {
                    return Err(Error::invalid(name, value, absent(other.name())));
                }
            };
            *slot = value;
            Ok(())
        };
        set("beta_min", beta_min)?;
        set("beta_max", beta_max)?;
        set("sigma_min", sigma_min)?;
        set("sigma_max", sigma_max)?;
        scheduler.validate()?;
        Ok(scheduler)
    }
}

impl From<Scheduler> for Document {
    fn from(scheduler: Scheduler) -> Self {
        let name = scheduler.name().to_owned();
        let mut document = Document { name, ..Document::default() };
        match scheduler {
            Scheduler::Vp { beta_min, beta_max } => {
                (document.beta_min, document.beta_max) = (Some(beta_min), Some(beta_max));
            }
            Scheduler::Edm { sigma_min, sigma_max } => {
                (document.sigma_min, document.sigma_max) = (Some(sigma_min), Some(sigma_max));
            }
            Scheduler::Betas(betas) => betas.write(&mut document),
            Scheduler::FmOt | Scheduler::Cosine => {}
        }
        document
    }
}

impl Scheduler {
    /// The variance-preserving scheduler with the literature's rates, 0.1 and 20.
    pub const VP: Scheduler = Scheduler::Vp { beta_min: 0.1, beta_max: 20.0 };

    /// EDM's noise levels, 0.002 to 80.
    pub const EDM: Scheduler = Scheduler::Edm { sigma_min: 0.002, sigma_max: 80.0 };

    /// The scheduler called `name` (`fm-ot`, `cosine`, `vp`, `edm`) with its usual constants.
    ///
    /// # Errors
    /// [`Error::Invalid`] for any other name, and for `betas`, which has no usual constants.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "fm-ot" => Ok(Scheduler::FmOt),
            "cosine" => Ok(Scheduler::Cosine),
            "vp" => Ok(Scheduler::VP),
            "edm" => Ok(Scheduler::EDM),
            BETAS => Err(Error::invalid("scheduler", format!("{name:?}"), "the card that says which betas")),
            other => Err(Error::invalid("scheduler", format!("{other:?}"), "fm-ot, cosine, vp, edm or betas")),
        }
    }

    /// `fm-ot`, `cosine`, `vp`, `edm` or `betas`.
    pub fn name(&self) -> &'static str {
        match self {
            Scheduler::FmOt => "fm-ot",
            Scheduler::Cosine => "cosine",
            Scheduler::Vp { .. } => "vp",
            Scheduler::Edm { .. } => "edm",
            Scheduler::Betas(_) => BETAS,
        }
    }

    /// Whether the constants make a scheduler.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the constant that does not.
    pub fn validate(&self) -> Result<()> {
        let ordered = |low: f64, high: f64| low > 0.0 && low < high && high.is_finite();
        match *self {
            Scheduler::Vp { beta_min, beta_max } if !ordered(beta_min, beta_max) => Err(Error::invalid(
                "scheduler.beta_min, beta_max",
                format!("{beta_min}, {beta_max}"),
                "0 < beta_min < beta_max",
            )),
            Scheduler::Edm { sigma_min, sigma_max } if !ordered(sigma_min, sigma_max) => Err(Error::invalid(
                "scheduler.sigma_min, sigma_max",
                format!("{sigma_min}, {sigma_max}"),
                "0 < sigma_min < sigma_max",
            )),
            _ => Ok(()),
        }
    }

    /// alpha_t, the share of data.
    pub fn alpha<D: Number>(&self, t: D) -> D {
        match self {
            Scheduler::FmOt => t,
            Scheduler::Cosine => (t * FRAC_PI_2).sin(),
            Scheduler::Vp { .. } => (-self.exponent(t) * 0.5).exp(),
            Scheduler::Edm { .. } => D::one(),
            Scheduler::Betas(betas) => -betas.lack(t) + 1.0,
        }
    }

    /// sigma_t, the share of noise.
    pub fn sigma<D: Number>(&self, t: D) -> D {
        match self {
            Scheduler::FmOt => -t + 1.0,
            // cos(pi t / 2), in the form that is exactly 0 at t = 1.
            Scheduler::Cosine => ((-t + 1.0) * FRAC_PI_2).sin(),
            Scheduler::Vp { .. } | Scheduler::Betas(_) => self.sigma_squared(t).sqrt(),
            Scheduler::Edm { sigma_min, sigma_max } => {
                let (low, high) = karras_roots(*sigma_min, *sigma_max);
                (t * (low - high) + high).powf(KARRAS_RHO)
            }
        }
    }

    /// sigma_t^2: differentiable at both ends even where sigma is not (VP and betas at t = 1).
    pub fn sigma_squared<D: Number>(&self, t: D) -> D {
        match self {
            Scheduler::Vp { .. } => -(-self.exponent(t)).exp_m1(),
            // 1 - alpha^2, in the form that keeps its digits where alpha is close to 1.
            Scheduler::Betas(betas) => {
                let lack = betas.lack(t);
                lack * (-lack + 2.0)
            }
            _ => self.sigma(t) * self.sigma(t),
        }
    }

    /// d alpha / dt.
    pub fn alpha_dot<D: Number>(&self, t: D) -> D {
        match self {
            Scheduler::FmOt => D::one(),
            Scheduler::Cosine => self.sigma(t) * FRAC_PI_2,
            Scheduler::Vp { .. } => self.alpha(t) * self.alpha_rate(t),
            Scheduler::Edm { .. } => D::zero(),
            Scheduler::Betas(betas) => -betas.lack_dot(t),
        }
    }

    /// sigma (d sigma / dt): finite at both ends even where d sigma / dt is not (VP at t = 1).
    pub fn sigma_sigma_dot<D: Number>(&self, t: D) -> D {
        match self {
            Scheduler::FmOt => t - 1.0,
            Scheduler::Cosine => -self.sigma(t) * self.alpha(t) * FRAC_PI_2,
            Scheduler::Vp { .. } | Scheduler::Betas(_) => -self.alpha(t) * self.alpha_dot(t),
            Scheduler::Edm { sigma_min, sigma_max } => {
                let (low, high) = karras_roots(*sigma_min, *sigma_max);
                let root = t * (low - high) + high;
                root.powf(2.0 * KARRAS_RHO - 1.0) * (KARRAS_RHO * (low - high))
            }
        }
    }

    /// d sigma / dt.
    pub fn sigma_dot<D: Number>(&self, t: D) -> D {
        match self {
            Scheduler::FmOt => -D::one(),
            Scheduler::Cosine => -(t * FRAC_PI_2).sin() * FRAC_PI_2,
            Scheduler::Vp { .. } | Scheduler::Edm { .. } | Scheduler::Betas(_) => {
                self.sigma_sigma_dot(t) / self.sigma(t)
            }
        }
    }

    /// snr_t = alpha_t / sigma_t, strictly increasing.
    pub fn snr<D: Number>(&self, t: D) -> D {
        self.alpha(t) / self.sigma(t)
    }

    /// The t at which alpha_t : sigma_t is `alpha` : `sigma`, both >= 0 and not both 0.
    ///
    /// The quotient of the larger parts is the accurate one, and differentiable at its end.
    pub fn time_at<D: Number>(&self, alpha: D, sigma: D) -> D {
        if alpha.re() < sigma.re() { self.snr_inverse(alpha / sigma) } else { self.nsr_inverse(sigma / alpha) }
    }

    /// The t at which snr_t = `snr` >= 0.
    pub fn snr_inverse<D: Number>(&self, snr: D) -> D {
        match self {
            Scheduler::FmOt => snr / (snr + 1.0),
            Scheduler::Cosine => snr.atan() / FRAC_PI_2,
            Scheduler::Vp { .. } | Scheduler::Edm { .. } => self.nsr_inverse(snr.recip()),
            Scheduler::Betas(betas) => betas.time_at(-(snr / (snr * snr + 1.0).sqrt()) + 1.0),
        }
    }

    /// The t at which 1 / snr_t = `nsr` >= 0.
    pub fn nsr_inverse<D: Number>(&self, nsr: D) -> D {
        match self {
            Scheduler::FmOt => (nsr + 1.0).recip(),
            Scheduler::Cosine => -(nsr.atan() / FRAC_PI_2) + 1.0,
            Scheduler::Vp { beta_min, beta_max } => {
                // alpha^2 = 1 / (1 + nsr^2), so T = ln(1 + nsr^2); then the quadratic for s.
                let exponent = (nsr * nsr).ln_1p();
                let slope = beta_max - beta_min;
                let root = (exponent * (2.0 * slope) + beta_min * beta_min).sqrt();
                // The conjugate form keeps its digits near s = 0, where root - beta_min cancels.
                -(exponent * 2.0 / (root + *beta_min)) + 1.0
            }
            Scheduler::Edm { sigma_min, sigma_max } => {
                let (low, high) = karras_roots(*sigma_min, *sigma_max);
                (nsr.powf(1.0 / KARRAS_RHO) - high) / (low - high)
            }
            Scheduler::Betas(betas) => {
                // 1 - alpha = 1 - 1 / norm, in the form that keeps its digits where it is small.
                let norm = (nsr * nsr + 1.0).sqrt();
                betas.time_at(nsr * nsr / (norm * (norm + 1.0)))
            }
        }
    }

    /// sqrt(alpha_t^2 + sigma_t^2), differentiable on all of [0, 1].
    pub fn norm<D: Number>(&self, t: D) -> D {
        match self {
            // sin^2 + cos^2; and VP's sigma has no derivative at t = 1, but its norm has.
            Scheduler::Cosine | Scheduler::Vp { .. } | Scheduler::Betas(_) => D::one(),
            Scheduler::FmOt | Scheduler::Edm { .. } => {
                let (alpha, sigma) = (self.alpha(t), self.sigma(t));
                (alpha * alpha + sigma * sigma).sqrt()
            }
        }
    }

    /// What the model is given as its time at t: t itself, or sigma_t for EDM.
    pub fn conditioning<D: Number>(&self, t: D) -> D {
        match self {
            Scheduler::Edm { .. } => self.sigma(t),
            _ => t,
        }
    }

    /// sigma_0, by which standard normal noise becomes the start of the solve. 1 but for EDM:
    /// that of VP and betas is a little less (VP's 1 - 2e-5), and taken for 1 as their users do.
    pub fn initial_scale(&self) -> f64 {
        match self {
            Scheduler::Edm { sigma_max, .. } => *sigma_max,
            _ => 1.0,
        }
    }

    /// Where sampling on this scheduler's path ends at the latest. The sigma of VP and betas ends like a square
    /// root, where no derivative by it is finite: their users stop short of it, at 1e-3 of the time or at step 0.
    pub fn last_time(&self) -> f64 {
        match self {
            Scheduler::Vp { .. } => VP_END,
            Scheduler::Betas(betas) => betas.first_step(),
            _ => 1.0,
        }
    }

    /// Whether sigma ends at 0 like a square root.
    fn ends_like_a_root(&self) -> bool {
        matches!(self, Scheduler::Vp { .. } | Scheduler::Betas(_))
    }

    /// (p, q) with x1hat = p x + q u: the data that the velocity u = alpha' x1hat + sigma' x0hat at x points to.
    pub fn data_coefficients(&self, t: f64) -> (f64, f64) {
        let (alpha, sigma) = (self.alpha(t), self.sigma(t));
        if sigma < f64::EPSILON {
            return (1.0 / alpha, 0.0);
        }
        let (alpha_dot, sigma_dot) = (self.alpha_dot(t), self.sigma_dot(t));
        let determinant = sigma_dot * alpha - sigma * alpha_dot;
        (sigma_dot / determinant, -sigma / determinant)
    }

    /// VP's T(1 - t).
    fn exponent<D: Number>(&self, t: D) -> D {
        let Scheduler::Vp { beta_min, beta_max } = self else { return D::zero() };
        let s = -t + 1.0;
        s * s * ((beta_max - beta_min) / 2.0) + s * *beta_min
    }

    /// (d alpha / dt) / alpha.
    fn alpha_rate<D: Number>(&self, t: D) -> D {
        match self {
            Scheduler::Vp { beta_min, beta_max } => ((-t + 1.0) * (beta_max - beta_min) + *beta_min) * 0.5,
            _ => self.alpha_dot(t) / self.alpha(t),
        }
    }
}

/// sigma^(1/rho) at both ends of EDM's noise levels.
// In a function of its own, since the compiler may else take the powers out of a match, and of
// whatever lies there for another scheduler: unused, but memory checkers object.
#[inline(never)]
fn karras_roots(sigma_min: f64, sigma_max: f64) -> (f64, f64) {
    (sigma_min.powf(1.0 / KARRAS_RHO), sigma_max.powf(1.0 / KARRAS_RHO))
}

/// What a network predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// u_t(x) itself.
    Velocity,
    /// The noise x0.
    Epsilon,
    /// The data x1 (a denoiser).
    X1,
    /// Salimans-Ho: alpha x0 - sigma x1.
    V,
    /// Minus the velocity: d x / d(1 - t), as models predict that count from data to noise.
    Flow,
}

impl FromStr for Output {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "velocity" => Ok(Output::Velocity),
            "epsilon" => Ok(Output::Epsilon),
            "x1" => Ok(Output::X1),
            "v" => Ok(Output::V),
            "flow" => Ok(Output::Flow),
            other => Err(Error::invalid("output", format!("{other:?}"), "velocity, epsilon, x1, v or flow")),
        }
    }
}

impl Output {
    /// The t in [0, 1] nearest to `t` at which the output determines the velocity.
    pub fn regular_time(&self, scheduler: &Scheduler, t: f64) -> f64 {
        match self {
            Output::Epsilon if scheduler.alpha(0.0) == 0.0 => t.max(SINGULAR_MARGIN),
            Output::Epsilon if scheduler.ends_like_a_root() => t.min(1.0 - SINGULAR_MARGIN),
            Output::X1 if scheduler.sigma(1.0) < f64::EPSILON => t.min(1.0 - SINGULAR_MARGIN),
            Output::V if scheduler.ends_like_a_root() => t.min(1.0 - SINGULAR_MARGIN),
            _ => t,
        }
    }

    /// (p, q) with u = p x + q output, at a regular time (from x1hat and x0hat by
    /// u = alpha' x1hat + sigma' x0hat).
    pub fn velocity_coefficients<D: Number>(&self, scheduler: &Scheduler, t: D) -> (D, D) {
        match self {
            Output::Velocity => (D::zero(), D::one()),
            Output::Flow => (D::zero(), -D::one()),
            Output::Epsilon => {
                // x1hat = (x - sigma eps) / alpha
                let rate = scheduler.alpha_rate(t);
                (rate, scheduler.sigma_dot(t) - rate * scheduler.sigma(t))
            }
            Output::X1 => {
                // x0hat = (x - alpha D) / sigma
                let rate = scheduler.sigma_dot(t) / scheduler.sigma(t);
                (rate, scheduler.alpha_dot(t) - rate * scheduler.alpha(t))
            }
            Output::V => {
                // x1hat = (alpha x - sigma v) / (alpha^2 + sigma^2), x0hat = (sigma x + alpha v) / (same)
                let (alpha, sigma) = (scheduler.alpha(t), scheduler.sigma(t));
                let (alpha_dot, sigma_dot) = (scheduler.alpha_dot(t), scheduler.sigma_dot(t));
                let norm = alpha * alpha + sigma * sigma;
                let p = alpha_dot * alpha + scheduler.sigma_sigma_dot(t);
                (p / norm, (sigma_dot * alpha - alpha_dot * sigma) / norm)
            }
        }
    }
}
