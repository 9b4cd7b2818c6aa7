//! Networks: who computes what a model predicts. One file a runtime, made here from the card's `runtime`.

mod caller;
mod mixture;
#[cfg(feature = "torch")]
mod torchscript;
#[cfg(feature = "torch")]
mod torchscript_features;

pub(crate) use caller::times;
pub use caller::{CallerNetwork, Forward};
pub use mixture::{Mixture, MixtureDocument, MixtureField};
#[cfg(feature = "torch")]
pub use torchscript::TorchScript;

use crate::card::{Card, FeatureCard, FeatureRuntime, Runtime};
use crate::error::{Error, Result};
use crate::inputs::Inputs;
use crate::tensor::{Compute, Device, Host, PerRow, Tensor};
#[cfg(feature = "torch")]
use crate::torch::TorchTensor;
use crate::velocity::Vjp;

/// What a network is asked for one batch.
pub struct Call<'a, T> {
    /// Time as the network counts it, one number a sample.
    pub time: PerRow<'a>,
    /// The states, `[batch, elements]`.
    pub x: &'a T,
    /// Shape of one sample; its product is `elements`.
    pub shape: &'a [usize],
    /// What else it is given, in the order of its card, one row a sample.
    pub inputs: &'a Inputs,
}

/// A network as it was trained: its own time, its own output.
pub trait Network: Send + Sync {
    /// Where its samples live.
    type Tensor: Tensor;

    /// Brings `values`, samples of `elements` numbers, to where the network computes.
    ///
    /// # Errors
    /// [`Error::Invalid`] where they are no whole number of samples; the tensor's own.
    fn upload(&self, values: &[f32], elements: usize) -> Result<Self::Tensor>;

    /// The output for `call`, `[batch, elements]`.
    ///
    /// # Errors
    /// The runtime's own.
    fn forward(&self, call: &Call<'_, Self::Tensor>) -> Result<Self::Tensor>;

    /// Whether it has a `vjp`.
    fn differentiable(&self) -> bool {
        false
    }

    /// The output, and for each cotangent w of it w^T d output / dx and w . d output / d time.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a network that can only be evaluated; the runtime's own.
    fn vjp(
        &self,
        _call: &Call<'_, Self::Tensor>,
        _cotangents: &[Self::Tensor],
    ) -> Result<(Self::Tensor, Vjp<Self::Tensor>)> {
        Err(Error::Unsupported("this network has no vector-Jacobian product".into()))
    }
}

/// A network that turns images into features.
pub trait FeatureNetwork: Send + Sync {
    /// Features `[count, features]` of `images`, `[count, shape...]` in the card's range, and how many
    /// each image has.
    ///
    /// # Errors
    /// The runtime's own.
    fn features(&self, images: &[f32], shape: &[usize]) -> Result<(Vec<f32>, usize)>;
}

/// An opened network, by the memory that its samples live in.
pub enum Opened {
    /// Host memory.
    Host(Box<dyn Network<Tensor = Host<f32>>>),
    /// Tensors of libtorch, on any of its devices.
    #[cfg(feature = "torch")]
    Torch(Box<dyn Network<Tensor = TorchTensor>>),
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
        #[cfg(feature = "torch")]
        Runtime::Torchscript => torchscript::open(card, device, compute),
        #[cfg(not(feature = "torch"))]
        Runtime::Torchscript => Err(Error::Unsupported(format!(
            "{} is a TorchScript model, and this build is without libtorch (feature `torch`)",
            card.path().display()
        ))),
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
