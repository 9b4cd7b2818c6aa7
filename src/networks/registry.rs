//! From a card's `runtime` to the network: one line for each runtime.

use super::mixture;
use super::network::{FeatureNetwork, Opened};
#[cfg(feature = "onnx")]
use super::onnx;
#[cfg(feature = "triton")]
use super::triton;
#[cfg(feature = "torch")]
use super::{pt2, torchscript, torchscript_features};
use crate::card::{Card, FeatureCard, FeatureRuntime, Runtime};
use crate::error::{Error, Result};
use crate::tensor::{Compute, Device};

/// Where a network is served, and what it is called there: what the parameters of a model of the Triton backend that has
/// a served network are (docs/triton.md).
#[derive(Clone, Debug)]
pub struct Served {
    /// The server's address over HTTP: `HOST:PORT`, with `http://` before it or without.
    pub triton: String,
    /// The model there: `NAME`, or `NAME:VERSION`.
    pub velocity_model: String,
    /// What it calls states, times and classes: `X,T` or `X,T,CLASS`. The card's other inputs have the same names there.
    pub velocity_inputs: String,
    /// What it calls its output.
    pub velocity_output: String,
}

impl Served {
    /// The place that is given, if one is, in the backend's names where none are.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a server without a model, and for anything else without a server.
    pub fn given(
        triton: Option<&str>,
        model: Option<&str>,
        inputs: Option<&str>,
        output: Option<&str>,
    ) -> Result<Option<Self>> {
        let Some(triton) = triton else {
            let others = [("velocity_model", model), ("velocity_inputs", inputs), ("velocity_output", output)];
            return match others.into_iter().find_map(|(key, value)| value.map(|value| (key, value))) {
                Some((key, value)) => Err(Error::invalid(key, value, "absent without triton, the address of a server")),
                None => Ok(None),
            };
        };
        let model =
            model.ok_or_else(|| Error::invalid("velocity_model", "absent", "the name of the model on triton"))?;
        Ok(Some(Self {
            triton: triton.into(),
            velocity_model: model.into(),
            velocity_inputs: inputs.unwrap_or("X,T,CLASS").into(),
            velocity_output: output.unwrap_or("U").into(),
        }))
    }
}

/// Opens the network of `card` on `device`, to be computed as `compute` says.
///
/// # Errors
/// The weights' own; [`Error::Unsupported`] where this build or machine cannot run them.
pub fn open(card: &Card, device: Device, compute: Compute) -> Result<Opened> {
    match card.runtime {
        Runtime::Mixture => mixture::open(card, device, compute),
        Runtime::Caller => Err(Error::Unsupported(format!(
            "{} has the runtime \"host\": its network comes from the program that opens it (bespoke_model_host)",
            card.path().display()
        ))),
        #[cfg(feature = "onnx")]
        Runtime::Onnx => onnx::open(card, device, compute),
        #[cfg(not(feature = "onnx"))]
        Runtime::Onnx => Err(Error::Unsupported(format!(
            "{} is an ONNX model, and this build is without ONNX Runtime (feature `onnx`)",
            card.path().display()
        ))),
        #[cfg(feature = "torch")]
        Runtime::Pt2 => pt2::open(card, device, compute),
        #[cfg(not(feature = "torch"))]
        Runtime::Pt2 => Err(Error::Unsupported(format!(
            "{} is an AOTInductor package, and this build is without libtorch (feature `torch`)",
            card.path().display()
        ))),
        #[cfg(feature = "torch")]
        Runtime::Torchscript => torchscript::open(card, device, compute),
        #[cfg(not(feature = "torch"))]
        Runtime::Torchscript => Err(Error::Unsupported(format!(
            "{} is a TorchScript model, and this build is without libtorch (feature `torch`)",
            card.path().display()
        ))),
    }
}

/// Opens the network of `card`, of runtime `host`, where it is `served`.
///
/// # Errors
/// [`Error::Io`] where the server cannot be asked or refuses; [`Error::Format`] where its model is not what the card
/// says; [`Error::Invalid`] for an address or a name that is none, and for a device or a `compute`, which are the
/// server's to choose; [`Error::Unsupported`] in a build without it.
pub fn open_served(card: &Card, served: &Served, device: Device, compute: Compute) -> Result<Opened> {
    #[cfg(feature = "triton")]
    return triton::open(card, served, device, compute);
    #[cfg(not(feature = "triton"))]
    {
        let _ = (card, device, compute);
        let Served { triton, velocity_model, .. } = served;
        Err(Error::Unsupported(format!("{velocity_model} of {triton}: this build asks no servers (feature `triton`)")))
    }
}

/// Opens the network of a feature card; `None` where the features are the sample's own numbers.
///
/// # Errors
/// As [`open`].
pub fn open_features(card: &FeatureCard, device: Device) -> Result<Option<Box<dyn FeatureNetwork>>> {
    match card.runtime {
        FeatureRuntime::Pixels => Ok(None),
        #[cfg(feature = "torch")]
        FeatureRuntime::Torchscript => torchscript_features::open(card, device).map(Some),
        #[cfg(not(feature = "torch"))]
        FeatureRuntime::Torchscript => {
            let _ = device;
            Err(Error::Unsupported(format!(
                "{} is a TorchScript network, and this build is without libtorch (feature `torch`); \
                 a card of runtime \"pixels\" needs none",
                card.path().display()
            )))
        }
    }
}
