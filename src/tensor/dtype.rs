//! What the numbers of a tensor are.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The type of a tensor's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 64 bits, IEEE.
    Float64,
    /// 32 bits, IEEE.
    Float32,
    /// 16 bits, IEEE.
    Float16,
    /// The upper 16 bits of a [`Dtype::Float32`].
    Bfloat16,
    /// 64 bits, signed.
    Int64,
    /// 32 bits, signed.
    Int32,
    /// A byte, 0 or 1.
    Bool,
}

/// Type of a tensor's numbers, as DLPack has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DLDataType {
    /// `DLDataTypeCode`.
    pub code: u8,
    /// Bits of one lane.
    pub bits: u8,
    /// Lanes of a vector type; 1 for numbers.
    pub lanes: u16,
}

/// `kDLInt`.
const DL_INT: u8 = 0;
/// `kDLFloat`.
const DL_FLOAT: u8 = 2;
/// `kDLBfloat`.
const DL_BFLOAT: u8 = 4;
/// `kDLBool`.
const DL_BOOL: u8 = 6;

impl Dtype {
    /// As DLPack writes it.
    pub fn dlpack(self) -> DLDataType {
        let code = match self {
            Dtype::Float64 | Dtype::Float32 | Dtype::Float16 => DL_FLOAT,
            Dtype::Bfloat16 => DL_BFLOAT,
            Dtype::Int64 | Dtype::Int32 => DL_INT,
            Dtype::Bool => DL_BOOL,
        };
        DLDataType { code, bits: 8 * self.size() as u8, lanes: 1 }
    }

    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Dtype::Float64 | Dtype::Int64 => 8,
            Dtype::Float32 | Dtype::Int32 => 4,
            Dtype::Float16 | Dtype::Bfloat16 => 2,
            Dtype::Bool => 1,
        }
    }

    /// As cards write it: `float32`.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Float64 => "float64",
            Dtype::Float32 => "float32",
            Dtype::Float16 => "float16",
            Dtype::Bfloat16 => "bfloat16",
            Dtype::Int64 => "int64",
            Dtype::Int32 => "int32",
            Dtype::Bool => "bool",
        }
    }

    /// The bytes of one number of this type.
    ///
    /// # Errors
    /// [`Error::Invalid`] where this type does not hold `value` exactly, or, for a float, not to its precision.
    pub fn encode(self, value: f64) -> Result<Vec<u8>> {
        let whole = |low: f64, high: f64| value.fract() == 0.0 && value >= low && value <= high;
        // Not one that overflows.
        let kept = |rounded: f64| rounded.is_finite() || !value.is_finite();
        let (half, brain) = (half::f16::from_f64(value), half::bf16::from_f64(value));
        Ok(match self {
            Dtype::Float64 => value.to_le_bytes().to_vec(),
            Dtype::Float32 if kept(f64::from(value as f32)) => (value as f32).to_le_bytes().to_vec(),
            Dtype::Float16 if kept(half.to_f64()) => half.to_le_bytes().to_vec(),
            Dtype::Bfloat16 if kept(brain.to_f64()) => brain.to_le_bytes().to_vec(),
            // Above 2^53 a float is not the number that was written.
            Dtype::Int64 if whole(-9_007_199_254_740_991.0, 9_007_199_254_740_991.0) => {
                (value as i64).to_le_bytes().to_vec()
            }
            Dtype::Int32 if whole(f64::from(i32::MIN), f64::from(i32::MAX)) => (value as i32).to_le_bytes().to_vec(),
            Dtype::Bool if value == 0.0 || value == 1.0 => vec![value as u8],
            _ => return Err(Error::invalid("a number", value, format!("one that {} holds", self.name()))),
        })
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
