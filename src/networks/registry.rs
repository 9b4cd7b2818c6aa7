//! From a card's `runtime` to the network: one line for each runtime.

use super::mixture;
use super::network::{FeatureNetwork, Opened};
#[cfg(feature = "onnx")]
use super::onnx;
use super::served::Served;
#[cfg(feature = "triton")]
use super::triton;
#[cfg(feature = "torch")]
use super::{pt2, torchscript, torchscript_features};
use crate::card::{Card, FeatureCard, FeatureRuntime, Runtime};
use crate::error::{Error, Result};
use crate::tensor::{Compute, Device};

/// Opens the network of `card` on `device`, to be computed as `compute` says.
///
/// # Errors
/// The weights' own; [`Error::Unsupported`] where this build or machine cannot run them.
pub fn open(card: &Card, device: Device, compute: Compute) -> Result<Opened> {
    match card.runtime {
        Runtime::Mixture => mixture::open(card, device, compute),
        Runtime::Caller => Err(Error::Unsupported(format!(
            "{} has the runtime \"host\": its network comes from the program that opens it (bespoke_model_host), or from a \
             server (triton)",
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
    if card.runtime != Runtime::Caller {
        let document = card.path().display().to_string();
        let problem =
            "is not \"host\", as for a network that a server has: a copy of the card says so, without weights";
        return Err(Error::format(document, "runtime", problem));
    }
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
