//! From the path of a card to a velocity field.

use super::card::{Card, Runtime};
use super::field::ModelField;
use super::host::{Forward, HostNetwork};
use crate::error::{Error, Result};
use crate::fields::{Mixture, MixtureField};
use crate::scheduler::Output;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::str::FromStr;

/// Where a model's network runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// Host memory.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this index.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let index = match text.split_once(':') {
            None if text == "cpu" => return Ok(Device::Cpu),
            None if text == "cuda" => Some(0),
            Some(("cuda", index)) => index.parse().ok().filter(|index| *index < 1024),
            _ => None,
        };
        index.map(Device::Cuda).ok_or_else(|| Error::invalid("device", format!("{text:?}"), "cpu, cuda or cuda:INDEX"))
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// What a network computes in. States, times and velocities are f32 in any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum, schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Single precision.
    #[default]
    F32,
    /// libtorch's automatic mixed precision: matrix products and convolutions in bf16.
    Bf16,
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Dtype::F32),
            "bf16" => Ok(Dtype::Bf16),
            _ => Err(Error::invalid("dtype", format!("{text:?}"), "f32 or bf16")),
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
        })
    }
}

/// An opened model. Immutable; any thread.
pub enum Model {
    /// Computed by this library in host memory.
    Host(ModelField<MixtureField<f32>>),
    /// Computed by the program that uses this library.
    Given(ModelField<HostNetwork>),
    /// Computed by libtorch.
    #[cfg(feature = "torch")]
    Torch(ModelField<crate::torch::Module>),
}

/// Runs `$body` with `$field` bound to the velocity field inside a [`Model`], whatever its kind.
#[macro_export]
macro_rules! with_field {
    ($model:expr, $field:ident => $body:expr) => {
        match $model {
            $crate::model::Model::Host($field) => $body,
            $crate::model::Model::Given($field) => $body,
            #[cfg(feature = "torch")]
            $crate::model::Model::Torch($field) => $body,
        }
    };
}

impl Model {
    /// The model's card.
    pub fn card(&self) -> &Card {
        with_field!(self, field => field.card())
    }
}

/// Opens the model that the card at `path` describes.
///
/// # Errors
/// The card's or the weights' own; [`Error::Unsupported`] where this build or machine cannot run it.
pub fn open(path: &Path, device: Device) -> Result<Model> {
    open_in(path, device, Dtype::F32)
}

/// [`open`], the network in `dtype`.
///
/// # Errors
/// As [`open`]; [`Error::Invalid`] where the network has no such dtype.
pub fn open_in(path: &Path, device: Device, dtype: Dtype) -> Result<Model> {
    let card = Card::load(path)?;
    match card.runtime {
        Runtime::Mixture if dtype != Dtype::F32 => {
            Err(Error::invalid("dtype", dtype, "f32: a mixture is computed in it"))
        }
        Runtime::Mixture => open_mixture(card, device),
        Runtime::Torchscript => open_torchscript(card, device, dtype),
        Runtime::Host => Err(Error::Unsupported(format!(
            "{} has the runtime \"host\": its network comes from the program that opens it (bespoke_model_host)",
            path_of(&card)
        ))),
    }
}

/// Opens the card at `path`, of runtime `host`, around a network of the caller's.
///
/// # Errors
/// The card's own; [`Error::Format`] where its runtime is another.
pub fn open_host(path: &Path, forward: Box<Forward>) -> Result<Model> {
    let card = Card::load(path)?;
    if card.runtime != Runtime::Host {
        return Err(Error::format(path_of(&card), "runtime", "is not \"host\", as for a network of the host program"));
    }
    let network = HostNetwork::new(card.elements(), forward);
    Ok(Model::Given(ModelField::new(card, network)))
}

fn open_mixture(card: Card, device: Device) -> Result<Model> {
    let document = path_of(&card);
    if device != Device::Cpu {
        return Err(Error::invalid("device", device, "cpu: a mixture is computed in host memory"));
    }
    if card.output != Output::Velocity || card.time.scale != 1.0 || card.time.direction != Default::default() {
        return Err(Error::format(
            document,
            "output, time",
            "a mixture gives the velocity at t, noise to data, scale 1",
        ));
    }
    let mixture = Mixture::load(&card.weights_path())?;
    if mixture.elements() != card.elements() {
        let problem = format!("is {:?}, but the mixture's samples have {} numbers", card.shape, mixture.elements());
        return Err(Error::format(document, "shape", problem));
    }
    if let Some(class) = (0..card.classes).find(|class| Some(*class) != card.null_class && !mixture.has_class(*class)) {
        let problem = format!("is {}, but no mode of the mixture is of class {class}", card.classes);
        return Err(Error::format(document, "classes", problem));
    }
    let field = MixtureField::new(mixture, card.scheduler, card.null_class);
    Ok(Model::Host(ModelField::new(card, field)))
}

fn path_of(card: &Card) -> String {
    card.path().display().to_string()
}

#[cfg(feature = "torch")]
fn open_torchscript(card: Card, device: Device, dtype: Dtype) -> Result<Model> {
    let module = crate::torch::Module::load(&card, device, dtype)?;
    Ok(Model::Torch(ModelField::new(card, module)))
}

#[cfg(not(feature = "torch"))]
fn open_torchscript(card: Card, _device: Device, _dtype: Dtype) -> Result<Model> {
    Err(Error::Unsupported(format!(
        "{} is a TorchScript model, and this build is without libtorch (feature `torch`)",
        path_of(&card)
    )))
}
