//! A call's numbers as the bytes that a runtime takes, in the types that its network has.

use super::caller;
use crate::card::TimeShape;
use crate::error::{Error, Result};
use crate::memory;
use crate::tensor::{Dtype, PerRow};
use half::{bf16, f16};
use std::borrow::Cow;

/// The bytes of `values` in `dtype`, a float.
///
/// # Errors
/// [`Error::Memory`].
pub(super) fn encoded(values: &[f32], dtype: Dtype) -> Result<Cow<'_, [u8]>> {
    if dtype == Dtype::Float32 {
        return Ok(Cow::Borrowed(bytemuck::cast_slice(values)));
    }
    let mut bytes = memory::room(memory::numbers(values.len(), dtype.size())?)?;
    for value in values {
        match dtype {
            Dtype::Float16 => bytes.extend(f16::from_f32(*value).to_ne_bytes()),
            Dtype::Bfloat16 => bytes.extend(bf16::from_f32(*value).to_ne_bytes()),
            _ => bytes.extend(f64::from(*value).to_ne_bytes()),
        }
    }
    Ok(Cow::Owned(bytes))
}

/// What `bytes` of `dtype`, a float, are, into `values`.
pub(super) fn decode(bytes: &[u8], dtype: Dtype, values: &mut [f32]) {
    let numbers = values.iter_mut().zip(bytes.chunks_exact(dtype.size()));
    numbers.for_each(|(value, bytes)| {
        *value = match *bytes {
            [a, b] if dtype == Dtype::Float16 => f16::from_ne_bytes([a, b]).to_f32(),
            [a, b] => bf16::from_ne_bytes([a, b]).to_f32(),
            [a, b, c, d] => f32::from_ne_bytes([a, b, c, d]),
            [a, b, c, d, e, f, g, h] => f64::from_ne_bytes([a, b, c, d, e, f, g, h]) as f32,
            _ => f32::NAN,
        };
    });
}

/// The bytes of a call's times in `dtype`, and their shape.
pub(super) fn times(time: PerRow<'_>, batch: usize, dtype: Dtype, shape: TimeShape) -> Result<(Vec<u8>, Vec<i64>)> {
    let rows = sizes(batch, &[])?;
    let (count, shape) = match shape {
        TimeShape::Batch => (batch, rows),
        TimeShape::Column => (batch, [rows, vec![1]].concat()),
        TimeShape::Scalar => (1, Vec::new()),
    };
    if let Some(other) = (count..batch).map(|row| time.at(row)).find(|t| *t != time.at(0)) {
        let expected = "one time for the whole batch: the card says time.shape scalar";
        return Err(Error::invalid("t", format!("{} and {other} as the network counts", time.at(0)), expected));
    }
    let bytes = match dtype {
        // They have been rounded.
        Dtype::Int64 => (0..count).flat_map(|row| (time.at(row) as i64).to_ne_bytes()).collect(),
        Dtype::Float64 => (0..count).flat_map(|row| time.at(row).to_ne_bytes()).collect(),
        _ => encoded(&caller::times(time, count)?, dtype)?.into_owned(),
    };
    Ok((bytes, shape))
}

/// `[batch, shape...]`, in the integers that runtimes count in.
pub(super) fn sizes(batch: usize, shape: &[usize]) -> Result<Vec<i64>> {
    let all = std::iter::once(&batch).chain(shape);
    all.map(|n| i64::try_from(*n).map_err(|_| Error::invalid("shape", n, "a size below 2^63"))).collect()
}
