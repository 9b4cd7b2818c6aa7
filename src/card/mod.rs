//! Cards: JSON files beside weights that say how to read them.

mod features;

pub use features::{FeatureCard, FeatureRuntime, Filter, Resize};

use crate::document;
use crate::error::{Error, Result};
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
    /// Where the solve stops: solver time [0, 1] is [0, end] of the scheduler.
    pub end: f64,
}

impl Default for Time {
    fn default() -> Self {
        Self { direction: Direction::NoiseToData, scale: 1.0, end: 1.0 }
    }
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
    /// What runs them.
    pub runtime: Runtime,
    /// Shape of one sample.
    pub shape: Vec<usize>,
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
    /// Least and greatest value of the data.
    #[serde(default = "data_range")]
    pub data_range: [f64; 2],
    /// Feature card of the network that judges its samples, relative to the card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<PathBuf>,
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
        let elements = self.shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        if self.shape.is_empty() || !elements.is_some_and(|n| (1..1 << 31).contains(&n)) {
            return wrong("shape", format!("is {:?}, expected positive sizes whose product is below 2^31", self.shape));
        }
        if !(self.time.end > 0.0 && self.time.end <= 1.0) {
            return wrong("time.end", format!("is {}, expected a time in (0, 1]", self.time.end));
        }
        if !(self.time.scale > 0.0 && self.time.scale.is_finite()) {
            return wrong("time.scale", format!("is {}, expected a positive finite number", self.time.scale));
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
        GaussianPath::new(self.scheduler, self.time.end)
    }

    /// (p, q) with x1hat = p x + q u for the velocity u in solver time `tau`, in [0, 1].
    pub fn data_coefficients(&self, tau: f64) -> (f64, f64) {
        // The velocity in solver time is `end` times that in the scheduler's.
        let (p, q) = self.scheduler.data_coefficients(tau * self.time.end);
        (p, q / self.time.end)
    }

    /// Numbers per sample.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The weights' file.
    pub fn weights_path(&self) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(&self.weights)
    }

    /// The feature card, where there is one.
    pub fn features_path(&self) -> Option<PathBuf> {
        self.features.as_ref().map(|features| self.path.parent().unwrap_or(Path::new("")).join(features))
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
        // Where the weights lie, and who judges them, is no part of what they are.
        let card = Card { weights: PathBuf::new(), features: None, path: PathBuf::new(), ..self.clone() };
        let meaning = serde_json::to_vec(&card).map_err(|e| Error::format(self.name(), ".", e))?;
        let weights = self.weights_path();
        // The fields are public: a card that was changed since is another.
        if let Some((place, of, known)) = self.fingerprint.0.get()
            && (place, of) == (&weights, &meaning)
        {
            return Ok(known.clone());
        }
        let mut hash = Sha256::new_with_prefix(&meaning);
        if !is_empty(&self.weights) {
            std::fs::File::open(&weights)
                .and_then(|mut file| std::io::copy(&mut file, &mut hash))
                .map_err(|e| Error::io("read", &weights, e))?;
        }
        let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let fingerprint = format!("sha256:{digits}");
        // Where another thread was first, it found the same.
        let _ = self.fingerprint.0.set((weights, meaning, fingerprint.clone()));
        Ok(fingerprint)
    }
}
