//! The feature card: a JSON file beside a network that says how images are made ready for it.

use crate::document;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

const FORMAT: &str = "bespoke-features";
const VERSION: u64 = 1;

/// What computes the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeatureRuntime {
    /// A TorchScript module, through libtorch.
    Torchscript,
    /// None: the sample's own numbers, in the card's `range`.
    Pixels,
}

/// How images are brought to another size. Pixel centres lie at halves (`align_corners = False`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// Linear in both directions.
    Bilinear,
    /// Cubic in both directions, a = -0.75 (-0.5 where `antialias` is on).
    Bicubic,
}

/// A change of size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// Height and width.
    pub size: [usize; 2],
    /// How.
    pub filter: Filter,
    /// Whether shrinking averages over all the pixels that it joins.
    #[serde(default)]
    pub antialias: bool,
}

/// A layer of a feature network, for a loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Of a network that answers several tensors, the index or the key of the layer.
    pub output: Value,
    /// How much its distance counts.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}

/// A feature card, version 1; `docs/formats.md` has the meaning of every key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureCard {
    format: String,
    version: u64,
    /// What computes the features.
    pub runtime: FeatureRuntime,
    /// The weights' file, relative to the card; of `torchscript` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// Channels the network takes; a sample of one is repeated. The sample's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// The size the network takes; the sample's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// What the least and greatest value of the data become.
    #[serde(default = "unit_range")]
    pub range: [f64; 2],
    /// Whether samples are cut to `range` and rounded to 256 levels of it first, as image files are.
    #[serde(default)]
    pub quantize: bool,
    /// Subtracted from each channel, after `range`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f64>,
    /// Then divided by, channel by channel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<f64>,
    /// Booleans and numbers that the network is given after the images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<Value>,
    /// Which layer: of a network that answers several tensors, the index or the key of the features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// The layers that a loss compares; `output` alone where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<Layer>>,
    /// Path of this card.
    #[serde(skip)]
    path: PathBuf,
}

fn unit_range() -> [f64; 2] {
    [-1.0, 1.0]
}

impl FeatureCard {
    /// Reads a card.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] naming the key at fault.
    pub fn load(path: &Path) -> Result<Self> {
        let mut card: FeatureCard = document::read(path)?;
        card.path = path.to_owned();
        card.validate()?;
        Ok(card)
    }

    fn validate(&self) -> Result<()> {
        let document = self.path.display().to_string();
        document::check_format(&document, (&self.format, self.version), (FORMAT, VERSION))?;
        let wrong = |field: &str, problem: String| Err(Error::format(&document, field, problem));
        let network = self.runtime == FeatureRuntime::Torchscript;
        if network != self.weights.is_some() {
            let (is, why) = if network { ("missing", "has") } else { ("there", "has no") };
            return wrong("weights", format!("is {is}: runtime {:?} {why} weights", self.runtime_name()));
        }
        let only_of_networks = [
            ("channels", self.channels.is_some()),
            ("resize", self.resize.is_some()),
            ("mean", !self.mean.is_empty()),
            ("std", !self.std.is_empty()),
            ("arguments", !self.arguments.is_empty()),
            ("output", self.output.is_some()),
            ("layers", self.layers.is_some()),
        ];
        if let Some((field, _)) = only_of_networks.iter().find(|(_, given)| *given && !network) {
            return wrong(field, format!("is there, but runtime {:?} has no use for it", self.runtime_name()));
        }
        if self.channels.is_some_and(|channels| !(1..=4096).contains(&channels)) {
            return wrong("channels", format!("is {:?}, expected 1 to 4096", self.channels.unwrap_or_default()));
        }
        if let Some(resize) = self.resize.filter(|resize| resize.size.iter().any(|n| !(1..=4096).contains(n))) {
            return wrong("resize.size", format!("is {:?}, expected height and width from 1 to 4096", resize.size));
        }
        let [low, high] = self.range;
        if !(low < high && low.is_finite() && high.is_finite()) {
            return wrong("range", format!("is [{low}, {high}], expected two finite numbers in order"));
        }
        for (field, values, good) in
            [("mean", &self.mean, f64::is_finite as fn(f64) -> bool), ("std", &self.std, |v| v > 0.0 && v.is_finite())]
        {
            if values.iter().any(|v| !good(*v))
                || self.channels.is_some_and(|c| !values.is_empty() && values.len() != c)
            {
                return wrong(field, format!("is {values:?}, expected one finite number a channel (std: above 0)"));
            }
        }
        if let Some(argument) = self.arguments.iter().find(|v| !v.is_boolean() && !v.is_number()) {
            return wrong("arguments", format!("holds {argument}, expected booleans and numbers"));
        }
        let is_layer = |output: &Value| output.is_u64() || output.is_string();
        if let Some(output) = self.output.as_ref().filter(|output| !is_layer(output)) {
            return wrong("output", format!("is {output}, expected an index or a key"));
        }
        if self.layers.as_ref().is_some_and(Vec::is_empty) {
            return wrong("layers", "is empty, expected a layer at least, or no such key".into());
        }
        for (i, Layer { output, weight }) in self.layers.iter().flatten().enumerate() {
            if !is_layer(output) {
                return wrong(&format!("layers[{i}].output"), format!("is {output}, expected an index or a key"));
            }
            if !(1e-6..=1e6).contains(weight) {
                return wrong(&format!("layers[{i}].weight"), format!("is {weight}, expected 1e-6 to 1e6"));
            }
        }
        Ok(())
    }

    fn runtime_name(&self) -> &'static str {
        match self.runtime {
            FeatureRuntime::Torchscript => "torchscript",
            FeatureRuntime::Pixels => "pixels",
        }
    }

    /// Where the card was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The card's file name without its extension.
    pub fn name(&self) -> String {
        self.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
    }

    /// SHA-256 over the card's meaning and the weights: equal exactly where the features are.
    ///
    /// # Errors
    /// [`Error::Io`] where the weights cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        let card = Self { weights: None, path: PathBuf::new(), ..self.clone() };
        super::fingerprint_of(document::line(&card, &self.name())?.as_bytes(), self.weights_path().into_iter())
    }

    /// The weights' file, where there is one.
    pub fn weights_path(&self) -> Option<PathBuf> {
        self.weights.as_ref().map(|weights| self.path.parent().unwrap_or(Path::new("")).join(weights))
    }

    /// `samples` of values in `data_range`, brought to the card's `range`, quantised where it says so.
    pub fn scaled(&self, samples: &[f32], data_range: [f64; 2]) -> Vec<f32> {
        let [low, high] = self.range;
        let factor = 1.0 / (data_range[1] - data_range[0]);
        let scale = |value: &f32| {
            let unit = (f64::from(*value) - data_range[0]) * factor;
            let unit = if self.quantize { (unit.clamp(0.0, 1.0) * 255.0).round() / 255.0 } else { unit };
            (low + unit * (high - low)) as f32
        };
        samples.iter().map(scale).collect()
    }
}
