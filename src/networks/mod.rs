//! Networks: who computes what a model predicts. One file a runtime, opened by the registry.

mod caller;
#[cfg(any(feature = "onnx", feature = "torch"))]
mod expected;
#[cfg(feature = "torch")]
mod libtorch;
mod mixture;
mod network;
#[cfg(feature = "onnx")]
mod onnx;
#[cfg(feature = "torch")]
mod pt2;
mod registry;
#[cfg(feature = "torch")]
mod torchscript;
#[cfg(feature = "torch")]
mod torchscript_features;

pub(crate) use caller::times;
pub use caller::{CallerNetwork, Forward};
pub use mixture::{Mixture, MixtureDocument, MixtureField};
pub use network::{Call, FeatureNetwork, Network, Opened};
#[cfg(feature = "onnx")]
pub use onnx::Onnx;
#[cfg(feature = "torch")]
pub use pt2::Pt2;
pub use registry::{open, open_features};
#[cfg(feature = "torch")]
pub use torchscript::TorchScript;
