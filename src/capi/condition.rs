//! What the samples of a model are conditioned on, as a host says it: for one evaluation, or kept for many.

use super::call::{bespoke_input, column};
use super::guard::{create, destroy, text};
use super::status::bespoke_status;
use super::structs::{self, sized_struct};
use crate::error::{Error, Result};
use crate::inputs::{CLASS, Column, Inputs};
use crate::memory;
use crate::velocity::{Condition, GUIDANCE_SCALE, Scale};
use std::borrow::Cow;
use std::ffi::c_char;

/// A condition that stays for many evaluations: its numbers were copied once, and what a model makes of them, checked and
/// bound to its network, stays with it. Immutable: any number of threads may use one at a time.
pub struct bespoke_kept_condition {
    condition: Condition,
}

/// What each sample of a batch is conditioned on. Zeros are no condition.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_condition {
    /// sizeof(bespoke_condition), set by the caller.
    pub struct_size: u32,
    /// Length of the arrays: the batch.
    pub batch: u32,
    /// Class of each sample; NULL for a model without classes.
    pub classes: *const i64,
    /// Guidance of each sample, u = u_uncond + s (u_cond - u_uncond); NULL is 1, off. A short form of the scale
    /// `guidance_scale`.
    pub guidance_scale: *const f64,
    /// The network's named inputs, `[batch, ...]` each, in any order; NULL where it has none.
    pub inputs: *const bespoke_input,
    /// The scales of a card's chain of passes, by name, in any order; NULL where it has none.
    pub scales: *const bespoke_scale,
    /// Length of `inputs`.
    pub input_count: u32,
    /// Length of `scales`.
    pub scale_count: u32,
    /// What `bespoke_condition_keep` made of a condition, in place of all members above; NULL for none.
    pub kept: *const bespoke_kept_condition,
}

sized_struct!(bespoke_condition { batch, classes, guidance_scale, inputs, scales, input_count, scale_count, kept });

/// One scale of a card's `guidance`, of each sample.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_scale {
    /// What the card calls it, UTF-8.
    pub name: *const c_char,
    /// One number a sample, `batch` of them.
    pub values: *const f64,
}

/// Keeps `condition`, for the member `kept` of conditions given later on: evaluations then neither copy nor check it again.
/// Any model may be asked with it, and one model goes on from what it made of it before.
///
/// # Safety
/// `condition` is NULL, or begins with its size and its members are what their comments say. `out` is NULL or can be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_condition_keep(
    condition: *const bespoke_condition,
    out: *mut *mut bespoke_kept_condition,
) -> bespoke_status {
    // SAFETY: as the header asks.
    unsafe { create(out, || Ok(bespoke_kept_condition { condition: read_condition(condition)?.into_owned() })) }
}

/// Frees a kept condition; NULL is fine.
///
/// # Safety
/// `kept` is NULL or was made by this library, and nothing uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_kept_condition_free(kept: *mut bespoke_kept_condition) {
    // SAFETY: as the header asks.
    unsafe { destroy(kept) }
}

/// # Safety
/// `condition` is NULL or a struct that starts with its size, whose arrays have `batch` numbers; what
/// is kept lives during the call.
pub(super) unsafe fn read_condition<'a>(condition: *const bespoke_condition) -> Result<Cow<'a, Condition>> {
    if condition.is_null() {
        return Ok(Cow::Owned(Condition::default()));
    }
    // SAFETY: by this function's contract.
    let condition: bespoke_condition = unsafe { structs::read("condition", condition)? };
    // SAFETY: by this function's contract.
    let Some(kept) = (unsafe { condition.kept.as_ref() }) else {
        // SAFETY: by this function's contract.
        return unsafe { copied(&condition) }.map(Cow::Owned);
    };
    let arrays = [condition.classes.is_null(), condition.guidance_scale.is_null()];
    if arrays.contains(&false) || condition.input_count != 0 || condition.scale_count != 0 {
        return Err(Error::invalid("condition.kept", "given beside other members", "it alone, in place of them"));
    }
    Ok(Cow::Borrowed(&kept.condition))
}

/// # Safety
/// The arrays of `condition` have as many numbers as it says.
unsafe fn copied(condition: &bespoke_condition) -> Result<Condition> {
    // SAFETY: by this function's contract.
    let (inputs, scales) = unsafe {
        (
            elements("condition.inputs", condition.inputs, condition.input_count)?,
            elements("condition.scales", condition.scales, condition.scale_count)?,
        )
    };
    let mut columns = inputs
        .iter()
        .map(|input| {
            // SAFETY: by this function's contract.
            unsafe { column(input) }
        })
        .collect::<Result<Vec<_>>>()?;
    // SAFETY: by this function's contract.
    let (classes, guidance) =
        unsafe { (array(condition.classes, condition.batch)?, array(condition.guidance_scale, condition.batch)?) };
    if !classes.is_empty() {
        columns.push(Column::of_integers(CLASS, &classes)?);
    }
    let mut read = Condition::new(Inputs::new(columns)?).guided(guidance);
    for scale in scales {
        // SAFETY: by this function's contract.
        let (name, values) = unsafe {
            (text("condition.scales.name", scale.name)?, elements(GUIDANCE_SCALE, scale.values, condition.batch))
        };
        if read.scale(name).is_some() {
            return Err(Error::invalid(format!("condition.scales.{name}"), "there twice", "each scale once"));
        }
        let values = memory::copied(values?)?;
        read.scales.push(Scale { name: name.to_owned(), values });
    }
    Ok(read)
}

/// # Safety
/// `elements` is NULL or has `count` elements that live during the call.
unsafe fn elements<'a, T>(name: &str, elements: *const T, count: u32) -> Result<&'a [T]> {
    match count {
        0 => Ok(&[]),
        _ if elements.is_null() => Err(Error::invalid(name, "NULL", format!("{count} of them"))),
        // SAFETY: by this function's contract.
        _ => Ok(unsafe { std::slice::from_raw_parts(elements, count as usize) }),
    }
}

/// # Safety
/// `numbers` is NULL or has `count` numbers.
unsafe fn array<T: Copy>(numbers: *const T, count: u32) -> Result<Vec<T>> {
    if numbers.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: by this function's contract.
    memory::copied(unsafe { std::slice::from_raw_parts(numbers, count as usize) })
}
