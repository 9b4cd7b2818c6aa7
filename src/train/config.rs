//! What a training run can be told: the one definition of each option, of which the document for `--config`
//! and `bespoke_train`, its JSON schema (`docs/train.schema.json`) and the program's flags are made.

use crate::error::Error;
use crate::samples::GuidanceScale;
use crate::tensor::Compute;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::path::PathBuf;

/// A solver family that can be trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum, schemars::JsonSchema))]
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
#[cfg_attr(feature = "cli", derive(clap::ValueEnum, schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// The paper's bound of the RMSE (BES Eq. 26).
    RmseBound,
    /// The RMSE at the end of the solve (BES Eq. 6).
    Rmse,
    /// The logarithm of the mean square error at the end (BNS).
    LogMse,
    /// The logarithm of the squared distance at the end in the layers of a feature network.
    Features,
}

/// A loss, and where it is one of a sum its weight, as in `features:0.3`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossTerm {
    /// The loss.
    pub loss: Loss,
    /// How much it counts; neighbours that have weights are one sum.
    pub weight: Option<f64>,
}

impl From<Loss> for LossTerm {
    fn from(loss: Loss) -> Self {
        Self { loss, weight: None }
    }
}

impl std::fmt::Display for LossTerm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.loss.name())?;
        self.weight.map_or(Ok(()), |weight| write!(f, ":{weight}"))
    }
}

impl std::str::FromStr for LossTerm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            let names = Loss::ALL.map(|loss| loss.name()).join(", ");
            let expected = format!(
                "one of {names}, in a sum NAME:WEIGHT with a positive weight; in a document several are a list"
            );
            Error::invalid("loss", text, expected)
        };
        let (name, weight) = match text.split_once(':') {
            Some((name, weight)) => (name, Some(weight.parse::<f64>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        if weight.is_some_and(|weight| !(weight > 0.0 && weight.is_finite())) {
            return Err(wrong());
        }
        let loss = Loss::ALL.into_iter().find(|loss| loss.name() == name).ok_or_else(wrong)?;
        Ok(Self { loss, weight })
    }
}

impl Serialize for LossTerm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LossTerm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Loss {
    const ALL: [Self; 4] = [Self::RmseBound, Self::Rmse, Self::LogMse, Self::Features];

    /// As users write it.
    pub fn name(&self) -> &'static str {
        match self {
            Loss::RmseBound => "rmse-bound",
            Loss::Rmse => "rmse",
            Loss::LogMse => "log-mse",
            Loss::Features => "features",
        }
    }
}

/// How it is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum, schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// Adam with cosine decay.
    Adam,
    /// Sketched Gauss-Newton; direct losses only.
    GaussNewton,
    /// Gauss-Newton on exact Jacobians by forward passes alone; direct losses only.
    ForwardGaussNewton,
}

/// What of a theta is learned: the change of time, the scaling, or both (the paper's ablation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum, schemars::JsonSchema))]
pub enum Learn {
    /// Both.
    #[default]
    #[serde(rename = "t,s")]
    #[cfg_attr(feature = "cli", value(name = "t,s"))]
    Both,
    /// t_r; s_r stays as it was at the start.
    #[serde(rename = "t")]
    #[cfg_attr(feature = "cli", value(name = "t"))]
    Time,
    /// s_r; t_r stays as it was at the start.
    #[serde(rename = "s")]
    #[cfg_attr(feature = "cli", value(name = "s"))]
    Scale,
}

/// Lists that a document may write as their only value; absent is empty, and an empty list is refused.
pub(super) mod one_or_more {
    use super::*;

    /// As documents have it.
    pub fn json<T: Serialize>(values: &[T]) -> Value {
        match values {
            [one] => serde_json::json!(one),
            more => serde_json::json!(more),
        }
    }

    pub fn serialize<T: Serialize, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        match values {
            [one] => one.serialize(serializer),
            more => more.serialize(serializer),
        }
    }

    pub fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
        let values: Vec<T> = match Value::deserialize(deserializer)? {
            Value::Null => return Ok(Vec::new()),
            list @ Value::Array(_) => serde_json::from_value(list),
            one => serde_json::from_value(one).map(|one| vec![one]),
        }
        .map_err(D::Error::custom)?;
        if values.is_empty() { Err(D::Error::custom("is an empty list")) } else { Ok(values) }
    }
}

/// The same for the schema.
#[cfg(feature = "cli")]
#[derive(schemars::JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a schema is made of the type, never a value")]
enum OneOrMore<T> {
    One(T),
    More(#[schemars(length(min = 1))] Vec<T>),
}

/// A velocity field of the host, in place of a model card: what its functions do not say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
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
    pub fn validate(&self) -> crate::Result<usize> {
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

/// A training run. Absent keys take their defaults; unknown ones are refused.
// What stands above a field is what rustdoc, `bespoke train --help` and the schema say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args, schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Model card (JSON).
    #[cfg_attr(feature = "cli", arg(long, value_name = "CARD"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// The host's own velocity field in the model's place, where the caller gives one (`bespoke_train`).
    #[cfg_attr(feature = "cli", arg(skip))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<FieldConfig>,
    /// rk1 (one evaluation a step), rk2 (two), or ns (the table itself; a step is an evaluation) [default: rk2].
    #[cfg_attr(feature = "cli", arg(long, value_name = "FAMILY", hide_possible_values = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<TrainedFamily>,
    /// Steps n, 1 to 1000 [default: 5 for rk2, else 10]; several, as in 4,5,8, share the ground truth and are
    /// written as a ladder.
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", value_delimiter = ','))]
    #[serde(with = "one_or_more", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "cli", schemars(with = "OneOrMore<usize>"))]
    pub steps: Vec<usize>,
    /// The same in evaluations: 2n for rk2, n for the others.
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", value_delimiter = ','))]
    #[serde(with = "one_or_more", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "cli", schemars(with = "OneOrMore<usize>"))]
    pub nfe: Vec<usize>,
    /// What to start from, in place of the base solver: a theta or ladder, of another model too.
    /// For ns also NAME@NFE, published (the best of the published solvers), regridded (the best of
    /// some on other grids), or rk1 or rk2 (a theta of that family, trained first). May be given
    /// several times: a third of the iterations go to each, the rest to the best [default for ns:
    /// published and regridded].
    #[cfg_attr(feature = "cli", arg(long, value_name = "START"))]
    #[serde(with = "one_or_more", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "cli", schemars(with = "OneOrMore<String>"))]
    pub init: Vec<String>,
    /// What of rk1 and rk2 is learned: t,s (time and scale), t or s [default: t,s].
    #[cfg_attr(feature = "cli", arg(long, value_name = "T,S", hide_possible_values = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learn: Option<Learn>,
    /// Start on this scheduler's path in place of the model's own: fm-ot, cosine, vp or edm.
    #[cfg_attr(feature = "cli", arg(long, value_name = "SCHEDULER"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Start on the path whose noise is this many times larger; 5 to 10 for strong guidance.
    #[cfg_attr(feature = "cli", arg(long, value_name = "X"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma0: Option<f64>,
    /// Where the theta file is written.
    #[cfg_attr(feature = "cli", arg(long, value_name = "THETA"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
    /// rmse-bound (the paper's), rmse or log-mse (the error at the end), or features (the distance at the end in
    /// the layers of a feature network) [default: log-mse]; one after another, as in rmse-bound,log-mse, or
    /// with weights as a sum, as in log-mse:1,features:0.3.
    #[cfg_attr(feature = "cli", arg(long, value_name = "LOSS", value_delimiter = ','))]
    #[serde(with = "one_or_more", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "cli", schemars(with = "OneOrMore<String>"))]
    pub loss: Vec<LossTerm>,
    /// Feature card (JSON) of the loss features; with another loss, distances in its layers are told beside it.
    #[cfg_attr(feature = "cli", arg(long, value_name = "CARD"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<PathBuf>,
    /// adam, gauss-newton or forward-gauss-newton, which needs no gradients of the model [default: gauss-newton;
    /// forward-gauss-newton where there are none, and for ns of up to 8 evaluations where the loss is not of features];
    /// rmse-bound takes adam always.
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME", hide_possible_values = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<Optimizer>,
    /// Iterations, or one count for each loss [default: 1200 for adam, 30 for gauss-newton, 40 for
    /// forward-gauss-newton].
    #[cfg_attr(feature = "cli", arg(long, value_name = "I", value_delimiter = ','))]
    #[serde(with = "one_or_more", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "cli", schemars(with = "OneOrMore<usize>"))]
    pub iterations: Vec<usize>,
    /// Velocity evaluations to end at: a forward pass of a sample is one, a backward pass two; ground truth and
    /// validation count [default: no limit].
    #[cfg_attr(feature = "cli", arg(long, value_name = "EVALS"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<u64>,
    /// Samples an iteration [default: 60 for adam, 400 for gauss-newton, 30 for
    /// forward-gauss-newton; fewer beyond nfe 10].
    #[cfg_attr(feature = "cli", arg(long, value_name = "B"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// Adam's first learning rate; it decays to 0 along half a cosine [default: 2e-2].
    #[cfg_attr(feature = "cli", arg(long, value_name = "X"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// L_tau of the bound: the velocity's Lipschitz constant [default: 1].
    #[cfg_attr(feature = "cli", arg(long, value_name = "X"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l_tau: Option<f64>,
    /// u = u_uncond + S (u_cond - u_uncond); 1 is off [default: 1]. Of a range A..B each sample draws its own, so
    /// that one solver is learned for all of it.
    #[cfg_attr(feature = "cli", arg(long, value_name = "S"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_scale: Option<GuidanceScale>,
    /// Conditions (safetensors, [C, ...] for each input of the model): sample i takes row i mod C. May be given
    /// several times.
    #[cfg_attr(feature = "cli", arg(long, value_name = "FILE"))]
    #[serde(with = "one_or_more", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "cli", schemars(with = "OneOrMore<PathBuf>"))]
    pub conditions: Vec<PathBuf>,
    /// One class for all samples; without it, sample i gets class i mod classes.
    #[cfg_attr(feature = "cli", arg(long, value_name = "K"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<i64>,
    /// Seed of everything random [default: 0].
    #[cfg_attr(feature = "cli", arg(long, value_name = "S"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// cpu, cuda, cuda:INDEX, and for ONNX tensorrt or tensorrt:INDEX [default: cpu].
    #[cfg_attr(feature = "cli", arg(long, value_name = "D"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What the network computes in: f32, or bf16 (matrix products and convolutions); the solver is f32
    /// always [default: f32].
    #[cfg_attr(feature = "cli", arg(long, value_name = "DTYPE", hide_possible_values = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Compute>,
    /// A Triton server, http://HOST:PORT, that has the network of the card, whose runtime is then host.
    #[cfg_attr(feature = "cli", arg(long, value_name = "URL"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub triton: Option<String>,
    /// What the network is called there: NAME or NAME:VERSION.
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub velocity_model: Option<String>,
    /// What it calls states, times and classes; the card's other inputs have the same names there [default: X,T,CLASS].
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAMES"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub velocity_inputs: Option<String>,
    /// What it calls its output [default: U].
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub velocity_output: Option<String>,
    /// Noises whose ground truth is solved for training [default: 1500]; with a budget, no more than
    /// three eighths of it pay for.
    #[cfg_attr(feature = "cli", arg(long, value_name = "P"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<usize>,
    /// Iterations after which the pool is drawn and solved anew; 0 for never [default: 0].
    #[cfg_attr(feature = "cli", arg(long, value_name = "I"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_refresh: Option<usize>,
    /// Solve for fresh noises at every iteration, as the paper does: a pool of one batch, drawn anew each time.
    #[cfg_attr(feature = "cli", arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolve: Option<bool>,
    /// Fresh noises for validation [default: 1000]; with a budget, no more than an eighth of it pays for.
    #[cfg_attr(feature = "cli", arg(long, value_name = "C"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<usize>,
    /// Iterations between validations [default: a twelfth of all].
    #[cfg_attr(feature = "cli", arg(long, value_name = "I"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validate_every: Option<usize>,
    /// Validations without a better one after which a phase ends [default: no limit].
    #[cfg_attr(feature = "cli", arg(long, value_name = "K"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
    /// Where the run is kept, at every validation and when it is stopped [default of the program:
    /// THETA.checkpoint].
    #[cfg_attr(feature = "cli", arg(long, value_name = "FILE"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
    /// Go on from the checkpoint where there is one, to the very same theta.
    #[cfg_attr(feature = "cli", arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<bool>,
    /// Loss, validation, evaluations and seconds of every iteration, a JSON object a line.
    #[cfg_attr(feature = "cli", arg(long, value_name = "FILE.jsonl"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// Keep the ground truth in this file: it is read where it is there, else solved and written.
    #[cfg_attr(feature = "cli", arg(long, value_name = "FILE.safetensors"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_file: Option<PathBuf>,
    /// Relative tolerance of the ground truth [default: 1e-5].
    #[cfg_attr(feature = "cli", arg(long, value_name = "X"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtol: Option<f64>,
    /// Absolute tolerance of the ground truth [default: 1e-5].
    #[cfg_attr(feature = "cli", arg(long, value_name = "X"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub atol: Option<f64>,
}
