//! The host's velocity field.

use super::call::answered;
use super::dlpack::DLTensor;
use crate::error::{Error, Result};
use std::ffi::c_void;

/// A velocity field of the host: writes u_t(x) for every sample of a batch.
///
/// `t` is float32 `[batch]`, the times in [0, 1] from noise to data, one per sample. `x` and `u` have the shape and
/// dtype of the batch that is solved; all three are contiguous host memory of the library, or memory of the sampler's
/// device, valid during the call; `t` and `x` must not be written. `user_data` is the caller's.
///
/// Answers 0 when `u` is written. Anything else stops the call that evaluates, which then
/// returns `BESPOKE_ERROR_CALLBACK`.
pub type bespoke_velocity_fn = Option<
    unsafe extern "C-unwind" fn(
        user_data: *mut c_void,
        t: *const DLTensor,
        x: *const DLTensor,
        u: *mut DLTensor,
    ) -> i32,
>;

/// A velocity callback and its user data.
pub(super) struct Velocity {
    function: unsafe extern "C-unwind" fn(*mut c_void, *const DLTensor, *const DLTensor, *mut DLTensor) -> i32,
    user_data: *mut c_void,
}

impl Velocity {
    /// # Safety
    /// `function` is NULL or may be called with `user_data` as [`bespoke_velocity_fn`] says.
    pub(super) unsafe fn new(function: bespoke_velocity_fn, user_data: *mut c_void) -> Result<Self> {
        let function = function.ok_or_else(|| Error::invalid("velocity", "NULL", "a function"))?;
        Ok(Self { function, user_data })
    }

    /// Asks for u_t(x).
    pub(super) fn call(&self, t: &DLTensor, x: &DLTensor, u: &mut DLTensor) -> Result<()> {
        // SAFETY: by the contract of `new`; the tensors describe live memory of their shape.
        answered("velocity", || unsafe { (self.function)(self.user_data, t, x, u) })
    }
}
