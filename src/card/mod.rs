//! Cards: JSON files beside weights that say how to read them.

mod features;
mod guidance;
mod signature;

pub use features::{FeatureCard, FeatureRuntime, Filter, Layer, Resize};
pub use guidance::{Guidance, GuidancePass};
pub use signature::{Input, Null, Shape, Signature, Size, Sizes};

use crate::document;
use crate::error::{Error, Result};
use crate::number::Number;
use crate::path::GaussianPath;
use crate::scheduler::{Output, Scheduler};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

const FORMAT: &str = "bespoke-model";
const VERSION: u64 = 1;

/// What runs the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// A TorchScript module, through libtorch.
    Torchscript,
    /// A package of AOTInductor, through libtorch.
    Pt2,
    /// An ONNX model, through ONNX Runtime; no libtorch.
    Onnx,
    /// An analytic Gaussian mixture, see [`crate::networks::Mixture`]; no libtorch.
    Mixture,
    /// The program that uses this library, see [`crate::model::open_caller`].
    #[serde(rename = "host")]
    Caller,
}

/// Which way the model counts time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The model is given t: 0 noise, 1 data.
    #[default]
    NoiseToData,
    /// The model is given 1 - t.
    DataToNoise,
}

/// How solver time becomes the model's time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Time {
    /// Which way the model counts.
    pub direction: Direction,
    /// What the model's time is multiplied by, after its direction.
    pub scale: f64,
    /// What is then added: timestep = 1000 s - 1 is scale 1000, offset -1.
    #[serde(skip_serializing_if = "is_zero")]
    pub offset: f64,
    /// Where the solve stops: solver time [0, 1] is [0, end] of the scheduler.
    pub end: f64,
    /// The type that the network takes it in.
    #[serde(skip_serializing_if = "is_default")]
    pub dtype: TimeDtype,
    /// The shape that the network takes it in.
    #[serde(skip_serializing_if = "is_default")]
    pub shape: TimeShape,
}

impl Default for Time {
    fn default() -> Self {
        Self {
            direction: Direction::NoiseToData,
            scale: 1.0,
            offset: 0.0,
            end: 1.0,
            dtype: TimeDtype::Float32,
            shape: TimeShape::Batch,
        }
    }
}

/// The type of a network's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeDtype {
    /// As it is.
    #[default]
    Float32,
    /// Rounded to the nearest integer, as discrete models were trained.
    Int64,
}

/// The shape of a network's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeShape {
    /// `[batch]`.
    #[default]
    Batch,
    /// `[batch, 1]`.
    Column,
    /// `[]`: one time for the whole batch.
    Scalar,
}

/// What a network that takes its arguments by name calls them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Names {
    /// The states.
    pub x: String,
    /// The time.
    pub time: String,
    /// The output, where there are several; the key, where the network answers a dictionary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

impl Default for Names {
    fn default() -> Self {
        Self { x: "x".into(), time: "t".into(), output: None }
    }
}

/// Which of its first two arguments a network takes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "[String; 2]", into = "[String; 2]")]
pub enum Order {
    /// `["x", "time"]`.
    #[default]
    StateFirst,
    /// `["time", "x"]`.
    TimeFirst,
}

impl TryFrom<[String; 2]> for Order {
    type Error = Error;

    fn try_from(order: [String; 2]) -> Result<Self> {
        match [order[0].as_str(), order[1].as_str()] {
            ["x", "time"] => Ok(Order::StateFirst),
            ["time", "x"] => Ok(Order::TimeFirst),
            _ => Err(Error::invalid("order", format!("{order:?}"), "[\"x\", \"time\"] or [\"time\", \"x\"]")),
        }
    }
}

impl From<Order> for [String; 2] {
    fn from(order: Order) -> Self {
        match order {
            Order::StateFirst => ["x".into(), "time".into()],
            Order::TimeFirst => ["time".into(), "x".into()],
        }
    }
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A model card, version 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    format: String,
    version: u64,
    /// The weights' file, relative to the card; empty where the host program runs the network.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub weights: PathBuf,
    /// The file of the network's vector-Jacobian product, relative to the card; of `pt2` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vjp: Option<PathBuf>,
    /// What runs them.
    pub runtime: Runtime,
    /// Shape of one sample.
    pub shape: Shape,
    /// What the network predicts.
    pub output: Output,
    /// The scheduler it was trained with.
    pub scheduler: Scheduler,
    /// How it counts time.
    #[serde(default)]
    pub time: Time,
    /// Number of classes; 0 for none.
    #[serde(default)]
    pub classes: i64,
    /// The class that stands for none, where there is one: guidance needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null_class: Option<i64>,
    /// What the network is given besides time and state, and after the class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
    /// How its samples are guided.
    #[serde(default, skip_serializing_if = "Guidance::is_default")]
    pub guidance: Guidance,
    /// What it calls its arguments, where it takes them by name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub names: Names,
    /// In which order it takes time and state, where it takes them by place.
    #[serde(default, skip_serializing_if = "is_default")]
    pub order: Order,
    /// Least and greatest value of the data.
    #[serde(default = "data_range")]
    pub data_range: [f64; 2],
    /// Feature card of the network that judges its samples, relative to the card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<PathBuf>,
    /// The card as its file has it, where this one has numbers for its named sizes.
    #[serde(skip)]
    declared: Option<Box<Card>>,
    /// Path of this card.
    #[serde(skip)]
    path: PathBuf,
    /// Its fingerprint, once it has been asked for.
    #[serde(skip)]
    fingerprint: Fingerprint,
}

/// A fingerprint and what it is of, shared by a card's clones. It is no part of what a card says.
#[derive(Clone, Debug, Default)]
struct Fingerprint(Arc<OnceLock<(PathBuf, Vec<u8>, String)>>);

impl PartialEq for Fingerprint {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

fn data_range() -> [f64; 2] {
    [-1.0, 1.0]
}

impl Card {
    /// Reads a card.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] naming the key at fault.
    pub fn load(path: &Path) -> Result<Self> {
        document::read::<Card>(path)?.at(path)
    }

    /// Parses the text of a card that stands, or will stand, at `path`.
    ///
    /// # Errors
    /// [`Error::Format`] naming the key at fault.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        document::parse::<Card>(text, &path.display().to_string())?.at(path)
    }

    /// This card as the file `path`, if it is a good one.
    fn at(mut self, path: &Path) -> Result<Self> {
        self.path = path.to_owned();
        self.validate()?;
        Ok(self)
    }

    fn validate(&self) -> Result<()> {
        let document = self.path.display().to_string();
        document::check_format(&document, (&self.format, self.version), (FORMAT, VERSION))?;
        let wrong = |field: &str, problem: String| Err(Error::format(&document, field, problem));
        if is_empty(&self.weights) && self.runtime != Runtime::Caller {
            return wrong("weights", "is missing: only a card of runtime \"host\" goes without".into());
        }
        if self.vjp.is_some() && self.runtime != Runtime::Pt2 {
            return wrong("vjp", "is there: only a card of runtime \"pt2\" has one".into());
        }
        if self.vjp.is_some() && self.time.shape == TimeShape::Scalar {
            let problem =
                "is there, but time.shape is \"scalar\": expected a time for each sample, whose gradient it gives";
            return wrong("vjp", problem.into());
        }
        if let Some(problem) = signature::shape_problem(&self.shape) {
            return wrong("shape", problem);
        }
        if !(self.time.end > 0.0 && self.time.end <= 1.0) {
            return wrong("time.end", format!("is {}, expected a time in (0, 1]", self.time.end));
        }
        if !(self.time.scale > 0.0 && self.time.scale.is_finite()) {
            return wrong("time.scale", format!("is {}, expected a positive finite number", self.time.scale));
        }
        if !self.time.offset.is_finite() {
            return wrong("time.offset", format!("is {}, expected a finite number", self.time.offset));
        }
        if !(0..=1 << 31).contains(&self.classes) {
            return wrong("classes", format!("is {}, expected 0 for none, or the number of classes", self.classes));
        }
        match self.null_class {
            Some(_) if self.classes == 0 => return wrong("null_class", "is there, but classes is 0".into()),
            Some(class) if class < 0 => {
                return wrong(
                    "null_class",
                    format!("is {class}, expected a class, at least 0; a card without one has no such key"),
                );
            }
            _ => {}
        }
        let signature = self.signature();
        if let Some((key, problem)) = signature.problem().or_else(|| self.guidance.problem(&signature)) {
            return wrong(&key, problem);
        }
        if let Some(input) = self.inputs.iter().find(|input| [&self.names.x, &self.names.time].contains(&&input.name)) {
            return wrong("inputs.name", format!("is {:?}, as the network's x or time is called", input.name));
        }
        let [low, high] = self.data_range;
        if !(low < high && low.is_finite() && high.is_finite()) {
            return wrong("data_range", format!("is [{low}, {high}], expected two finite numbers in order"));
        }
        Ok(())
    }

    /// Where the card was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of its samples in solver time.
    ///
    /// # Errors
    /// None for a card that was loaded: its constants have been checked.
    pub fn gaussian_path(&self) -> Result<GaussianPath> {
        GaussianPath::new(self.scheduler.clone(), self.time.end)
    }

    /// The network's time at `t`, a time of the scheduler; for a network that takes integers, before it is rounded.
    pub fn time_of_network<D: Number>(&self, t: D) -> D {
        // A mixture knows the scheduler itself; an EDM network knows only its noise level.
        let t = if self.runtime == Runtime::Mixture { t } else { self.scheduler.conditioning(t) };
        let directed = if self.time.direction == Direction::DataToNoise { -t + 1.0 } else { t };
        // Adding 0 would turn -0 into 0.
        if self.time.offset == 0.0 { directed * self.time.scale } else { directed * self.time.scale + self.time.offset }
    }

    /// What the network is given for its time at `t`, a time of the scheduler.
    pub fn network_time(&self, t: f64) -> f64 {
        let time = self.time_of_network(t);
        if self.time.dtype == TimeDtype::Int64 { time.round() } else { time }
    }

    /// (p, q) with x1hat = p x + q u for the velocity u in solver time `tau`, in [0, 1].
    pub fn data_coefficients(&self, tau: f64) -> (f64, f64) {
        // The velocity in solver time is `end` times that in the scheduler's.
        let (p, q) = self.scheduler.data_coefficients(tau * self.time.end);
        (p, q / self.time.end)
    }

    /// Shape of one sample.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming a size that is not a number in this run.
    pub fn sample_shape(&self) -> Result<Vec<usize>> {
        self.shape.resolve(&Sizes::new())
    }

    /// What its named sizes are where an array holds samples of the shape `rows`, or of as many numbers in a row.
    ///
    /// # Errors
    /// [`Error::Invalid`] where no sample of this card is of that shape.
    pub fn sizes_of(&self, rows: &[usize]) -> Result<Sizes> {
        let mut sizes = Sizes::new();
        match rows {
            [elements] if self.shape.rank() > 1 => self.shape.learn_elements(*elements, &mut sizes)?,
            _ => self.shape.learn("a sample", rows, &mut sizes)?,
        }
        Ok(sizes)
    }

    /// This card for a run in which its named sizes are `sizes`. It is still the same model.
    pub fn with_sizes(&self, sizes: &Sizes) -> Self {
        let mut card = self.clone();
        card.declared = Some(Box::new(self.declared.as_deref().unwrap_or(self).clone()));
        card.shape = card.shape.with(sizes);
        card.inputs.iter_mut().for_each(|input| input.shape = input.shape.with(sizes));
        card
    }

    /// This card without its classes, which no file of conditions holds.
    pub fn without_classes(&self) -> Self {
        Self { classes: 0, null_class: None, ..self.clone() }
    }

    /// What the network takes besides time and state.
    pub fn signature(&self) -> Signature {
        let classes = (self.classes > 0).then_some((self.classes, self.null_class));
        Signature::new(&self.inputs, classes, self.guidance.scale_input.clone())
    }

    /// The files of nulls, in the order of the inputs that they are for.
    fn null_files(&self) -> Vec<PathBuf> {
        let file = |input: &Input| match &input.null {
            Null::File(file) => Some(self.beside(file)),
            _ => None,
        };
        self.inputs.iter().filter_map(file).collect()
    }

    /// The path of a `file` that the card names.
    pub fn beside(&self, file: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }

    /// The weights' file.
    pub fn weights_path(&self) -> PathBuf {
        self.beside(&self.weights)
    }

    /// The file of the network's vector-Jacobian product, where there is one.
    pub fn vjp_path(&self) -> Option<PathBuf> {
        self.vjp.as_ref().map(|vjp| self.beside(vjp))
    }

    /// The feature card, where there is one.
    pub fn features_path(&self) -> Option<PathBuf> {
        self.features.as_ref().map(|features| self.beside(features))
    }

    /// The card's file name without its extension: what the model is called.
    pub fn name(&self) -> String {
        self.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
    }

    /// SHA-256 over the card's meaning and the weights: equal exactly where the velocity field is. The weights are
    /// read once: a card and its clones remember it.
    ///
    /// # Errors
    /// [`Error::Io`] where the weights cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        if let Some(declared) = &self.declared {
            return declared.fingerprint();
        }
        // Where the weights lie, how they are differentiated and who judges them is no part of what they are.
        let card = Card { weights: PathBuf::new(), vjp: None, features: None, path: PathBuf::new(), ..self.clone() };
        let meaning = document::line(&card, &self.name())?.into_bytes();
        let weights = self.weights_path();
        // The fields are public: a card that was changed since is another.
        if let Some((place, of, known)) = self.fingerprint.0.get()
            && (place, of) == (&weights, &meaning)
        {
            return Ok(known.clone());
        }
        let own = (!is_empty(&self.weights)).then(|| weights.clone());
        let fingerprint = fingerprint_of(&meaning, own.into_iter().chain(self.null_files()))?;
        // Where another thread was first, it found the same.
        let _ = self.fingerprint.0.set((weights, meaning, fingerprint.clone()));
        Ok(fingerprint)
    }
}

/// SHA-256 over what a card says and what is in its files.
fn fingerprint_of(meaning: &[u8], files: impl Iterator<Item = PathBuf>) -> Result<String> {
    let mut hash = Sha256::new_with_prefix(meaning);
    for path in files {
        std::fs::File::open(&path)
            .and_then(|mut file| std::io::copy(&mut file, &mut hash))
            .map_err(|e| Error::io("read", &path, e))?;
    }
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{digits}"))
}
