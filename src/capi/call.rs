//! What the library asks of a host's network: one struct, so that what is added never breaks a callback.

use super::dlpack::{DLDevice, DLTensor, HOST_MEMORY, device_name, dtype_name};
use super::guard::{required, text};
use super::lent::Lent;
use super::status;
use crate::error::{Error, Result};
use crate::inputs::Column;
use crate::networks::Call;
use crate::tensor::Dtype;
use std::ffi::{CString, c_char, c_void};
use std::ptr::{null, null_mut};

/// A named tensor that a network is given besides time and state.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_input {
    /// Its name, UTF-8; `class` for the classes of a card that says `classes`.
    pub name: *const c_char,
    /// `[batch, ...]`, contiguous host memory of float64, float32, float16, bfloat16, int64, int32 or bool.
    pub tensor: *const DLTensor,
}

/// One evaluation that the library asks of the host. All tensors are contiguous host memory of the library,
/// valid during the call; only what is `*mut` is to be written, all of it. A newer library may have more members.
/// Of a model on a device of the host's (`bespoke_model_host_on_device`) `x` and `output` are memory of that device.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_call {
    /// sizeof(bespoke_call) of the library.
    pub struct_size: u32,
    /// Length of `inputs`.
    pub input_count: u32,
    /// float32 `[batch]`: for a network, time as it counts it (the card's `time`); for a velocity, t in [0, 1].
    pub time: *const DLTensor,
    /// float32 `[batch, ...]`, the states.
    pub x: *const DLTensor,
    /// The named inputs, in the card's order; NULL where there are none.
    pub inputs: *const bespoke_input,
    /// float32 `[batch, ...]`, to be written: the network's output, or the velocity. NULL for a vjp.
    pub output: *mut DLTensor,
    /// float32 `[batch, ...]`, w of a vjp; else NULL.
    pub cotangent: *const DLTensor,
    /// float32 `[batch, ...]`, to be written by a vjp: w^T du/dx; else NULL.
    pub by_x: *mut DLTensor,
    /// float32 `[batch]`, to be written by a vjp: w . du/dt; else NULL.
    pub by_t: *mut DLTensor,
}

/// Where a call's results go.
pub(super) enum Results<'a, T> {
    /// The network's output, or the velocity.
    Output(&'a mut T),
    /// The pull-back of a cotangent.
    Vjp { cotangent: &'a T, by_x: &'a mut T, by_t: &'a mut T },
}

/// Describes `call`, whose states and results are memory of `device`, to the function `run` of the host, which is called
/// `callback`.
pub(super) fn ask<T: Lent>(
    callback: &'static str,
    times: &[f32],
    call: &Call<'_, T>,
    device: DLDevice,
    results: Results<'_, T>,
    run: impl FnOnce(*const bespoke_call) -> i32,
) -> Result<()> {
    let sizes = |batch: usize, shape: &[usize]| -> Vec<i64> {
        std::iter::once(batch).chain(shape.iter().copied()).map(|n| n as i64).collect()
    };
    let float = |data: *const c_void, shape: &mut [i64]| describe(data, Dtype::Float32, shape, device);
    let columns = call.inputs.columns();
    let mut shape = sizes(call.x.batch(), call.shape);
    let names = columns.iter().map(|column| c_name(column.name())).collect::<Result<Vec<_>>>()?;
    let mut shapes: Vec<Vec<i64>> = columns.iter().map(|column| sizes(column.batch(), column.shape())).collect();
    let tensors: Vec<DLTensor> = columns
        .iter()
        .zip(&mut shapes)
        .map(|(column, shape)| describe(column.bytes().as_ptr().cast(), column.dtype(), shape, DLDevice::HOST))
        .collect();
    let inputs: Vec<bespoke_input> =
        names.iter().zip(&tensors).map(|(name, tensor)| bespoke_input { name: name.as_ptr(), tensor }).collect();
    let time = describe(times.as_ptr().cast(), Dtype::Float32, &mut shape[..1], DLDevice::HOST);
    let x = float(call.x.first(), &mut shape);
    let mut asked = bespoke_call {
        struct_size: size_of::<bespoke_call>() as u32,
        input_count: inputs.len() as u32,
        time: &time,
        x: &x,
        inputs: if inputs.is_empty() { null() } else { inputs.as_ptr() },
        output: null_mut(),
        cotangent: null(),
        by_x: null_mut(),
        by_t: null_mut(),
    };
    match results {
        Results::Output(output) => {
            let mut output = float(output.first(), &mut shape);
            asked.output = &mut output;
            answered(callback, || run(&asked))
        }
        Results::Vjp { cotangent, by_x, by_t } => {
            let cotangent = float(cotangent.first(), &mut shape);
            let mut by_x = float(by_x.first(), &mut shape);
            let mut by_t = float(by_t.first(), &mut shape[..1]);
            (asked.cotangent, asked.by_x, asked.by_t) = (&cotangent, &mut by_x, &mut by_t);
            answered(callback, || run(&asked))
        }
    }
}

fn c_name(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Error::invalid("an input's name", format!("{name:?}"), "no NUL in it"))
}

/// Contiguous memory of the library, of `device`.
fn describe(data: *const c_void, dtype: Dtype, shape: &mut [i64], device: DLDevice) -> DLTensor {
    DLTensor {
        data: data.cast_mut(),
        device,
        ndim: shape.len() as i32,
        dtype: dtype.dlpack(),
        shape: shape.as_mut_ptr(),
        strides: null_mut(),
        byte_offset: 0,
    }
}

/// Calls a callback. Where it fails because a call of this library failed inside it, the message says so.
pub(super) fn answered(callback: &'static str, call: impl FnOnce() -> i32) -> Result<()> {
    let failures = status::failures();
    match call() {
        0 => Ok(()),
        code => {
            let detail = if status::failures() > failures { format!(": {}", status::last()) } else { String::new() };
            Err(Error::Callback { callback, code, detail })
        }
    }
}

/// Dimensions of an input at most.
const MAX_RANK: usize = 32;

/// Copies the host's named tensor, checked.
///
/// # Safety
/// The input tells the truth about memory that lives during the call.
pub(super) unsafe fn column(input: &bespoke_input) -> Result<Column> {
    // SAFETY: by this function's contract, here and below.
    let (name, tensor) =
        unsafe { (text("condition.inputs.name", input.name)?, required("condition.inputs.tensor", input.tensor)?) };
    let wrong = |member: &str, value: String, expected: &str| {
        Err(Error::invalid(format!("inputs.{name}.{member}"), value, expected))
    };
    const ALL: [Dtype; 7] =
        [Dtype::Float64, Dtype::Float32, Dtype::Float16, Dtype::Bfloat16, Dtype::Int64, Dtype::Int32, Dtype::Bool];
    let Some(dtype) = ALL.into_iter().find(|dtype| dtype.dlpack() == tensor.dtype) else {
        let expected = "float64, float32, float16, bfloat16, int64, int32 or bool";
        return wrong("dtype", dtype_name(tensor.dtype), expected);
    };
    if !tensor.device.is_host() {
        return wrong("device", device_name(tensor.device.device_type), HOST_MEMORY);
    }
    let Some(rank) = usize::try_from(tensor.ndim).ok().filter(|rank| (1..=MAX_RANK).contains(rank)) else {
        return wrong("ndim", tensor.ndim.to_string(), "1 to 32, the batch first");
    };
    if tensor.shape.is_null() || tensor.data.is_null() {
        return wrong("shape and data", "NULL".into(), "pointers");
    }
    // SAFETY: a tensor of this rank has as many sizes, by this function's contract.
    let shape = unsafe { std::slice::from_raw_parts(tensor.shape, rank) };
    let sizes: Option<Vec<usize>> = shape.iter().map(|n| usize::try_from(*n).ok().filter(|n| *n > 0)).collect();
    let bytes = sizes.as_ref().and_then(|s| s.iter().try_fold(dtype.size(), |product, n| product.checked_mul(*n)));
    let (Some(sizes), Some(bytes)) = (sizes, bytes.filter(|bytes| isize::try_from(*bytes).is_ok())) else {
        return wrong("shape", format!("{shape:?}"), "sizes of at least 1 whose numbers fit into memory");
    };
    if !tensor.strides.is_null() {
        // SAFETY: as many strides as sizes.
        let strides = unsafe { std::slice::from_raw_parts(tensor.strides, rank) };
        let mut step = 1i64;
        for (size, stride) in shape.iter().zip(strides).rev() {
            if *size > 1 && *stride != step {
                return wrong("strides", format!("{strides:?}"), "contiguous");
            }
            step *= size;
        }
    }
    let Some(offset) = usize::try_from(tensor.byte_offset).ok() else {
        return wrong("byte_offset", tensor.byte_offset.to_string(), "an offset within memory");
    };
    // SAFETY: contiguous numbers of that shape lie there, by this function's contract.
    let bytes = unsafe { std::slice::from_raw_parts(tensor.data.cast::<u8>().wrapping_add(offset), bytes) };
    Column::new(name, dtype, &sizes[1..], sizes[0], bytes)
}
