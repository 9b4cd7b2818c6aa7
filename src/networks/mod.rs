//! Networks: who computes what a model predicts. One file a runtime, opened by the registry.

#[cfg(any(feature = "onnx", feature = "triton"))]
mod bytes;
mod caller;
#[cfg(any(feature = "onnx", feature = "torch", feature = "triton"))]
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
mod served;
#[cfg(feature = "torch")]
mod torchscript;
#[cfg(feature = "torch")]
mod torchscript_features;
#[cfg(feature = "triton")]
mod triton;

pub(crate) use caller::times;
pub use caller::{CallerNetwork, Forward};
pub use mixture::{Mixture, MixtureDocument, MixtureField};
pub use network::{Call, Cotangents, FeatureNetwork, Network, Opened};
#[cfg(feature = "onnx")]
pub use onnx::Onnx;
#[cfg(feature = "torch")]
pub use pt2::Pt2;
pub use registry::{open, open_features, open_served};
pub use served::Served;
#[cfg(feature = "torch")]
pub use torchscript::TorchScript;
