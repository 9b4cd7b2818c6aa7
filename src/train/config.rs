//! What a training run can be told: one document for the command line's `--config` and for
//! `bespoke_train`.

use crate::error::{Error, Result};
use crate::samples::GuidanceScale;
use crate::tensor::Compute;
use crate::train::loss::Direct;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
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

/// What of a theta is learned: the change of time, the scaling, or both (the paper's ablation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Learn {
    /// Both.
    #[default]
    #[serde(rename = "t,s")]
    Both,
    /// t_r; s_r stays as it was at the start.
    #[serde(rename = "t")]
    Time,
    /// s_r; t_r stays as it was at the start.
    #[serde(rename = "s")]
    Scale,
}

/// One value, or a list of them where several are meant; never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct OneOrMore<T>(Vec<T>);

impl<T> OneOrMore<T> {
    /// `None` for no values.
    pub fn new(values: Vec<T>) -> Option<Self> {
        (!values.is_empty()).then_some(Self(values))
    }

    /// The values, at least one.
    pub fn values(&self) -> &[T] {
        &self.0
    }
}

impl<T: Serialize> Serialize for OneOrMore<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            more => more.serialize(serializer),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let values = match Value::deserialize(deserializer)? {
            list @ Value::Array(_) => serde_json::from_value(list),
            one => serde_json::from_value(one).map(|one| vec![one]),
        };
        Self::new(values.map_err(D::Error::custom)?).ok_or_else(|| D::Error::custom("is an empty list"))
    }
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
    /// Steps n, 1 to 1000; several for a ladder. Default 5 for rk2, else 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<OneOrMore<usize>>,
    /// The same in evaluations: 2n for rk2, n for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nfe: Option<OneOrMore<usize>>,
    /// What training starts from: theta or ladder files and, for `ns`, `NAME@NFE`, `published`
    /// (the published solver that is best) and `rk1` or `rk2` (a theta of that family that is
    /// trained first). Of several the best is kept. Default: the identity; for `ns`, `rk2`, or
    /// `rk1` where the nfe is odd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<OneOrMore<String>>,
    /// Which of a theta's functions of solver time is learned: `t,s`, `t` or `s`. Default `t,s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learn: Option<Learn>,
    /// The scheduler whose path training starts on, in place of the model's own (BES Thm 2.3).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// BNS's sigma0: training starts on the path whose noise is this many times larger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma0: Option<f64>,
    /// Where the theta file is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
    /// `rmse-bound`, `rmse` or `log-mse`; of several, each goes on where the one before it ended.
    /// Default `log-mse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<OneOrMore<Loss>>,
    /// `adam` or `gauss-newton`; `rmse-bound` is minimised by adam always. Default `gauss-newton`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<Optimizer>,
    /// Iterations, or one count for each loss. Default 1200 for adam, 60 for gauss-newton.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iterations: Option<OneOrMore<usize>>,
    /// Velocity evaluations at which the run ends: a forward pass of a sample is one, a backward
    /// pass two; ground truth and validation count. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<u64>,
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
    pub guidance_scale: Option<GuidanceScale>,
    /// Files of conditions (safetensors), in order: sample i takes row i mod C of all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<PathBuf>>,
    /// One class for all samples. Default: sample i gets class i mod classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<i64>,
    /// Seed of everything random. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// `cpu`, `cuda` or `cuda:INDEX`. Default `cpu`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What the network computes in. Default `f32`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Compute>,
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
    /// Validations without a better one after which a stage ends. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
    /// Where the run is kept at every validation, to be gone on with. Default: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
    /// Go on from the checkpoint, where there is one. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<bool>,
    /// Where a JSON line is written for every iteration. Default: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// Where the ground truth is kept (safetensors): read where it is there, else written.
    /// Default: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_file: Option<PathBuf>,
    /// Relative tolerance of the ground truth. Default 1e-5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtol: Option<f64>,
    /// Absolute tolerance of the ground truth. Default 1e-5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub atol: Option<f64>,
}
