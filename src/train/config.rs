//! What a training run can be told: one document for the command line's `--config` and for
//! `bespoke_train`.

use crate::dopri5::Tolerance;
use crate::error::{Error, Result};
use crate::theta::{Family, MAX_STEPS, Theta};
use crate::train::loss::Direct;
use crate::train::parameters::{Parameters, Shape};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A solver family that can be trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainedFamily {
    /// RK1-Bespoke: one evaluation a step.
    Rk1,
    /// RK2-Bespoke: two evaluations a step.
    Rk2,
    /// Non-stationary: a step is an evaluation.
    Ns,
}

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// The paper's bound of the RMSE (BES Eq. 26).
    RmseBound,
    /// The RMSE at the end of the solve (BES Eq. 6).
    Rmse,
    /// The logarithm of the mean square error at the end (BNS).
    LogMse,
}

impl Loss {
    /// The loss on the end of the solve, where it is one.
    pub fn direct(&self) -> Option<Direct> {
        match self {
            Loss::RmseBound => None,
            Loss::Rmse => Some(Direct::Rmse),
            Loss::LogMse => Some(Direct::LogMse),
        }
    }
}

/// How it is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// Adam with cosine decay.
    Adam,
    /// Sketched Gauss-Newton; direct losses only.
    GaussNewton,
}

/// A velocity field of the host, in place of a model card: what its functions do not say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldConfig {
    /// Shape of one sample.
    pub shape: Vec<usize>,
    /// What it is called in the theta's notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Number of classes; 0 for none.
    #[serde(default)]
    pub classes: i64,
    /// Least and greatest value of the data, for PSNR.
    #[serde(default = "unit_range")]
    pub data_range: [f64; 2],
    /// What its velocities are computed in, where it gives no vector-Jacobian product: differences
    /// of them choose their steps by it.
    #[serde(default)]
    pub precision: Precision,
}

fn unit_range() -> [f64; 2] {
    [-1.0, 1.0]
}

/// What a velocity is computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 24 bits.
    #[default]
    Float32,
    /// 11 bits.
    Float16,
    /// 8 bits.
    Bfloat16,
}

impl Precision {
    /// Relative accuracy.
    pub fn accuracy(self) -> f64 {
        match self {
            Precision::Float32 => f64::from(f32::EPSILON),
            Precision::Float16 => half::f16::EPSILON.to_f64(),
            Precision::Bfloat16 => half::bf16::EPSILON.to_f64(),
        }
    }
}

impl FieldConfig {
    /// Numbers per sample.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key at fault.
    pub fn validate(&self) -> Result<usize> {
        let elements = self.shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        let elements = elements.filter(|n| !self.shape.is_empty() && (1..1 << 31).contains(n)).ok_or_else(|| {
            let expected = "positive sizes whose product is below 2^31";
            Error::invalid("field.shape", format!("{:?}", self.shape), expected)
        })?;
        if !(0..=1 << 31).contains(&self.classes) {
            return Err(Error::invalid("field.classes", self.classes, "0 for none, or the number of classes"));
        }
        let [low, high] = self.data_range;
        if !(low < high && low.is_finite() && high.is_finite()) {
            return Err(Error::invalid("field.data_range", format!("[{low}, {high}]"), "two finite numbers in order"));
        }
        Ok(elements)
    }
}

/// A training run as a document. Absent keys take their defaults; unknown ones are refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Path of the model card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// The host's own velocity field in its place, where the caller gives one (`bespoke_train`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<FieldConfig>,
    /// `rk1`, `rk2` or `ns`. Default `rk2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<TrainedFamily>,
    /// Steps n, 1 to 1000. Default 5 for rk2, else 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// A theta file to start from, in place of the identity; `ns` starts from any family's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// The scheduler whose path training starts on, in place of the model's own (BES Thm 2.3).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// BNS's sigma0: training starts on the path whose noise is this many times larger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma0: Option<f64>,
    /// Where the theta file is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
    /// `rmse-bound`, `rmse` or `log-mse`. Default `log-mse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// `adam` or `gauss-newton`. Default: adam for `rmse-bound`, else gauss-newton.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<Optimizer>,
    /// Iterations. Default 1200 for adam, 60 for gauss-newton.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iterations: Option<usize>,
    /// Samples an iteration. Default 60 for adam, 400 for gauss-newton.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// Adam's first learning rate. Default 2e-2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// The velocity's Lipschitz constant L_tau as the bound takes it. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l_tau: Option<f64>,
    /// Classifier-free guidance; 1 is off. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_scale: Option<f64>,
    /// One class for all samples. Default: sample i gets class i mod classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<i64>,
    /// Seed of everything random. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// `cpu`, `cuda` or `cuda:INDEX`. Default `cpu`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Noises whose ground truth is solved for training. Default 1500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<usize>,
    /// Iterations after which the pool is drawn and solved anew; 0 for never. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_refresh: Option<usize>,
    /// Solve for a fresh batch at every iteration, as the paper does: a pool of one batch,
    /// refreshed each time. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolve: Option<bool>,
    /// Fresh noises for validation. Default 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<usize>,
    /// Iterations between validations. Default a twelfth of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validate_every: Option<usize>,
    /// Relative tolerance of the ground truth. Default 1e-5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtol: Option<f64>,
    /// Absolute tolerance of the ground truth. Default 1e-5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub atol: Option<f64>,
}

/// A training run with every choice made.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where training starts: family, size and numbers.
    pub start: Parameters,
    /// What is minimised.
    pub loss: Loss,
    /// How.
    pub optimizer: Optimizer,
    /// Iterations.
    pub iterations: usize,
    /// Samples an iteration.
    pub batch: usize,
    /// Adam's first learning rate.
    pub lr: f64,
    /// L_tau of the bound.
    pub l_tau: f64,
    /// Seed of everything random.
    pub seed: u64,
    /// Noises solved for training.
    pub pool: usize,
    /// Iterations after which the pool is drawn anew; 0 for never.
    pub pool_refresh: usize,
    /// Fresh noises for validation.
    pub validation: usize,
    /// Iterations between validations.
    pub validate_every: usize,
    /// Of the ground truth.
    pub tolerance: Tolerance,
    /// Greatest minus least value of the data, for PSNR.
    pub range: f64,
}

/// Iterations, batches and pools beyond this are mistakes.
const MOST: usize = 100_000_000;

impl TrainConfig {
    /// Makes every choice; `range` is the data's.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key at fault.
    pub fn settings(&self, range: f64) -> Result<Settings> {
        if self.init.is_some() && (self.path.is_some() || self.sigma0.is_some()) {
            return Err(Error::invalid("init", "given beside path or sigma0", "one start"));
        }
        let start = self.start()?;
        let loss = self.loss.unwrap_or(Loss::LogMse);
        let optimizer = match self.optimizer {
            Some(optimizer) => optimizer,
            None if loss.direct().is_none() => Optimizer::Adam,
            None => Optimizer::GaussNewton,
        };
        if optimizer == Optimizer::GaussNewton && loss.direct().is_none() {
            return Err(Error::invalid("optimizer", "gauss-newton", "adam for the rmse-bound loss"));
        }
        if loss == Loss::RmseBound && matches!(start.shape, Shape::Ns(_)) {
            return Err(Error::invalid("loss", "rmse-bound", "log-mse or rmse for family ns"));
        }
        let adam = optimizer == Optimizer::Adam;
        let iterations = self.iterations.unwrap_or(if adam { 1200 } else { 60 });
        let batch = self.batch.unwrap_or(if adam { 60 } else { 400 });
        let resolve = self.resolve.unwrap_or(false);
        if resolve && (self.pool.is_some() || self.pool_refresh.is_some()) {
            return Err(Error::invalid("resolve", true, "no pool and no pool_refresh beside it"));
        }
        let settings = Settings {
            start,
            loss,
            optimizer,
            iterations,
            batch,
            lr: self.lr.unwrap_or(2e-2),
            l_tau: self.l_tau.unwrap_or(1.0),
            seed: self.seed.unwrap_or(0),
            pool: if resolve { batch } else { self.pool.unwrap_or(1500.max(batch)) },
            pool_refresh: if resolve { 1 } else { self.pool_refresh.unwrap_or(0) },
            validation: self.validation.unwrap_or(1000),
            validate_every: self.validate_every.unwrap_or((iterations / 12).max(1)),
            tolerance: Tolerance { rtol: self.rtol.unwrap_or(1e-5), atol: self.atol.unwrap_or(1e-5) },
            range,
        };
        check_range("iterations", settings.iterations, 1, MOST)?;
        check_range("batch", settings.batch, 1, MOST)?;
        check_range("pool", settings.pool, settings.batch, MOST)?;
        check_range("validation", settings.validation, 1, MOST)?;
        check_range("validate_every", settings.validate_every, 1, MOST)?;
        check_positive("lr", settings.lr)?;
        check_positive("l_tau", settings.l_tau)?;
        settings.tolerance.validate()?;
        Ok(settings)
    }
}

impl TrainConfig {
    /// The parameters that training starts from.
    fn start(&self) -> Result<Parameters> {
        let init = self.init.as_deref().map(Theta::load).transpose()?;
        let own_family = init.as_ref().map(|theta| match theta.family {
            Family::Rk1(_) => TrainedFamily::Rk1,
            Family::Rk2(_) => TrainedFamily::Rk2,
            Family::Ns(_) => TrainedFamily::Ns,
        });
        let family = self.family.or(own_family).unwrap_or(TrainedFamily::Rk2);
        let own_steps =
            init.as_ref().map(|theta| if family == TrainedFamily::Ns { theta.nfe() } else { theta.steps() });
        let steps = self.steps.or(own_steps).unwrap_or(if family == TrainedFamily::Rk2 { 5 } else { 10 });
        check_range("steps", steps, 1, MAX_STEPS)?;
        let shape = match family {
            TrainedFamily::Rk1 => Shape::Rk1(steps),
            TrainedFamily::Rk2 => Shape::Rk2(steps),
            TrainedFamily::Ns => Shape::Ns(steps),
        };
        let Some(theta) = init else { return Ok(Parameters::identity(shape)) };
        let start = match family {
            TrainedFamily::Ns => Parameters::from_tableau(&theta.tableau()),
            _ => Parameters::from_theta(&theta),
        };
        if start.shape == shape {
            return Ok(start);
        }
        let value = format!("a theta of family {} with {} steps", theta.family_name(), theta.steps());
        Err(Error::invalid("init", value, format!("one that {steps} steps of the family asked for can start from")))
    }
}

fn check_range(field: &str, value: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(field, value, format!("{least} to {most}")))
}

fn check_positive(field: &str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::invalid(field, value, "a positive finite number"))
}
