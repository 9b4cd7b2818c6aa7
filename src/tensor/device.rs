//! Where a network runs, and in what precision.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Where a model's network runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// Host memory.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this index.
    Cuda(usize),
    /// The NVIDIA GPU of this index, by TensorRT: for ONNX models.
    TensorRt(usize),
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, index) = text.split_once(':').map_or((text, None), |(kind, index)| (kind, Some(index)));
        let of: Option<fn(usize) -> Device> = match (kind, index) {
            ("cpu", None) => return Ok(Device::Cpu),
            ("cuda", _) => Some(Device::Cuda),
            ("tensorrt", _) => Some(Device::TensorRt),
            _ => None,
        };
        let index = index.map_or(Some(0), |index| index.parse().ok().filter(|index| *index < 1024));
        of.zip(index)
            .map(|(of, index)| of(index))
            .ok_or_else(|| Error::invalid("device", format!("{text:?}"), "cpu, cuda, tensorrt or cuda:INDEX"))
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
            Device::TensorRt(index) => write!(f, "tensorrt:{index}"),
        }
    }
}

/// What a network computes in. States, times and velocities are f32 in any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum, schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Compute {
    /// Single precision.
    #[default]
    F32,
    /// libtorch's automatic mixed precision: matrix products and convolutions in bf16.
    Bf16,
}

impl FromStr for Compute {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Compute::F32),
            "bf16" => Ok(Compute::Bf16),
            _ => Err(Error::invalid("dtype", format!("{text:?}"), "f32 or bf16")),
        }
    }
}

impl std::fmt::Display for Compute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Compute::F32 => "f32",
            Compute::Bf16 => "bf16",
        })
    }
}
