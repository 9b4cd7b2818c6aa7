//! The sampler: scratch of one batch on its way through a solver.

use super::callback::{Velocity, bespoke_velocity_fn};
use super::device::{Places, bespoke_device_ops};
use super::dlpack::DLTensor;
use super::engine::{self, Engine};
use super::guard::{create, destroy, guard, required};
use super::layout::{HostTensor, SampleDtype};
use super::status::bespoke_status;
use super::structs::{self, sized_struct};
use super::theta::bespoke_theta;
use crate::error::{Error, Result};
use crate::sampler::Plan;
use parking_lot::{Mutex, MutexGuard};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::Arc;

/// More threads than any machine has is a mistake.
const MAX_THREADS: usize = 1024;

/// Scratch of one batch, for one thread at a time. A call that finds another one at work, even from inside its
/// velocity callback, is refused with `BESPOKE_ERROR_STATE`.
pub struct bespoke_sampler {
    inner: Mutex<Inner>,
}

pub(super) struct Inner {
    /// The solver of samples that name no other.
    pub(super) plan: Arc<Plan>,
    threads: usize,
    /// Where its batches may be.
    places: Places,
    /// For the dtype of the last batch.
    engine: Option<(SampleDtype, Box<dyn Engine>)>,
}

/// How a sampler works. NULL or zeros are the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_sampler_options {
    /// sizeof(bespoke_sampler_options), set by the caller.
    pub struct_size: u32,
    /// Threads that an update may use, the caller's included. 0 is 1: no thread but the caller's.
    pub threads: u32,
    /// NULL for samples in host memory. Else the operations of a device: what the sampler is given, and gives, is memory
    /// of that device, and the library touches none of it. The table is copied; its `context` must outlive the sampler.
    pub device_ops: *const bespoke_device_ops,
    /// Of the build with libtorch, which needs no `device_ops` for CUDA: the cudaStream_t that tensors of a GPU are worked
    /// on from, by libtorch's operations; NULL is the GPU's default stream. It must outlive the sampler. Else NULL.
    pub stream: *mut c_void,
}

sized_struct!(bespoke_sampler_options { threads, device_ops, stream });

/// Makes a sampler for `theta`, which may be freed before it. `options` may be NULL.
///
/// # Safety
/// `theta` is NULL or an object that has not been freed. `options` is NULL or begins with its size, and its members
/// are what their comments say. `out` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_sampler_new(
    theta: *const bespoke_theta,
    options: *const bespoke_sampler_options,
    out: *mut *mut bespoke_sampler,
) -> bespoke_status {
    // SAFETY: as the header asks.
    unsafe { create(out, || bespoke_sampler::new(required("theta", theta)?, options)) }
}

/// Takes `x` one step further, in place: from x(t_step) to x(t_step+1), with a call of `velocity`
/// for each evaluation of that step. Steps are 0 to steps - 1; after the last, `x` is x(1).
///
/// A step of an `rk1` or `rk2` theta needs nothing but `x`. Those of an `ns` theta build on one
/// another: call them in order with the same sampler; the values in `x` are then read at step 0
/// alone. On failure `x` is as it was.
///
/// `x` is float32, float64, float16 or bfloat16 in host memory, `[batch, ...]`, of any strides, or contiguous in that of
/// the sampler's device. After the first call of a shape nothing is allocated. On a device nobody waits for numbers
/// that are not finite: ask `bespoke_sampler_finite`.
///
/// # Safety
/// `theta` and `sampler` are NULL or objects that have not been freed. `x` is NULL or describes memory that may be
/// written, and that no other thread uses, during the call. `velocity` is NULL or a function that may be called
/// with `user_data` as its type says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_step(
    theta: *const bespoke_theta,
    sampler: *mut bespoke_sampler,
    step: u32,
    x: *mut DLTensor,
    velocity: bespoke_velocity_fn,
    user_data: *mut c_void,
) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let (theta, x, velocity) =
            (required("theta", theta)?, HostTensor::anywhere("x", x)?, Velocity::new(velocity, user_data)?);
        required("sampler", sampler)?.lock()?.engine(&x)?.step(&theta.plan, step as usize, &x, &velocity)
    })
}

/// The whole solve: from `x0`, x(0), to `x1`, x(1), with a call of `velocity` for each evaluation.
/// `x1` is `x0` itself, or of the same shape and dtype in memory of its own. On failure it is as it was.
///
/// # Safety
/// `theta` and `sampler` are NULL or objects that have not been freed. `x0` is NULL or describes memory that may be
/// read during the call. `x1` is NULL or describes memory that may be written, and that no other thread uses,
/// during the call. `velocity` is NULL or a function that may be called with `user_data` as its type says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_sample(
    theta: *const bespoke_theta,
    sampler: *mut bespoke_sampler,
    x0: *const DLTensor,
    x1: *mut DLTensor,
    velocity: bespoke_velocity_fn,
    user_data: *mut c_void,
) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let (theta, x0, x1) =
            (required("theta", theta)?, HostTensor::anywhere("x0", x0)?, HostTensor::anywhere("x1", x1)?);
        let velocity = Velocity::new(velocity, user_data)?;
        required("sampler", sampler)?.lock()?.engine(&x0)?.sample(&theta.plan, &x0, &x1, &velocity)
    })
}

/// Frees a sampler; NULL is fine. Not from inside a callback that the same sampler called.
///
/// # Safety
/// `sampler` is NULL or was made by this library, and nothing uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_sampler_free(sampler: *mut bespoke_sampler) {
    // SAFETY: as the header asks.
    unsafe { destroy(sampler) }
}

impl bespoke_sampler {
    /// # Safety
    /// `options` is NULL or a struct that starts with its size.
    unsafe fn new(theta: &bespoke_theta, options: *const bespoke_sampler_options) -> Result<Self> {
        // SAFETY: by this function's contract.
        let options = (!options.is_null()).then(|| unsafe { structs::read("options", options) }).transpose()?;
        let (threads, ops, stream) = options
            .map_or((0, null(), null_mut()), |options| (options.threads as usize, options.device_ops, options.stream));
        if threads > MAX_THREADS {
            return Err(Error::invalid("options.threads", threads, format!("at most {MAX_THREADS}")));
        }
        // SAFETY: by this function's contract.
        let places = unsafe { Places::new(ops, stream) }?;
        Ok(Self { inner: Mutex::new(Inner { plan: theta.plan.clone(), threads, places, engine: None }) })
    }

    pub(super) fn lock(&self) -> Result<MutexGuard<'_, Inner>> {
        let busy = "the sampler is at work: one call at a time, and none from inside its own velocity callback";
        self.inner.try_lock().ok_or_else(|| Error::State(busy.into()))
    }
}

impl Inner {
    /// The engine for a batch like `x`; one of another dtype or device is given up.
    pub(super) fn engine(&mut self, x: &HostTensor<'_>) -> Result<&mut dyn Engine> {
        let device = self.places.device_of(x);
        x.check_device(device)?;
        let dtype = x.dtype();
        let engine = match self.engine.take() {
            Some(engine) if engine.0 == dtype && engine.1.device() == device => engine,
            _ => (dtype, engine::engine(dtype, self.threads, self.places.place(x)?)?),
        };
        Ok(self.engine.insert(engine).1.as_mut())
    }

    /// The engine at work, or `None` before the first batch.
    pub(super) fn present(&mut self) -> Option<&mut (SampleDtype, Box<dyn Engine>)> {
        self.engine.as_mut()
    }
}
