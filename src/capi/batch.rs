//! The host drives: one evaluation at a time, of samples that join and leave between evaluations.

use super::dlpack::DLTensor;
use super::engine::Engine;
use super::guard::{guard, required, required_mut};
use super::layout::HostTensor;
use super::sampler::{Inner, bespoke_sampler};
use super::status::bespoke_status;
use super::structs::{self, sized_struct};
use super::theta::bespoke_theta;
use crate::error::{Error, Result};
use crate::sampler::Row;

/// Where one sample of a batch stands.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_row {
    /// sizeof(bespoke_row), set by the caller.
    pub struct_size: u32,
    /// Evaluations done; at `nfe` the sample is x(1).
    pub evaluations: u32,
    /// Evaluations of its theta.
    pub nfe: u32,
    /// 1 where its last velocity held a NaN or an infinity: it goes no further and must leave.
    pub failed: u32,
}

sized_struct!(bespoke_row { evaluations, nfe, failed });

/// Begins a solve of the batch `x0`, `[batch, ...]`, with the sampler's theta. What the sampler
/// held before is given up.
///
/// # Safety
/// `sampler` is NULL or an object that has not been freed. `x0` is NULL or describes memory that may be read during
/// the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_sampler_start(sampler: *mut bespoke_sampler, x0: *const DLTensor) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let x0 = HostTensor::anywhere("x0", x0)?;
        let mut inner = required("sampler", sampler)?.lock()?;
        let plan = inner.plan.clone();
        inner.engine(&x0)?.start(&plan, &x0)
    })
}

/// Says where the velocity is wanted next: `*t` is float32 `[batch]`, one time in [0, 1] for each
/// sample; `*x` is the states, `[batch, ...]`, contiguous. Both are NULL when all samples are done.
/// They are the sampler's, on its device, not to be written, and valid until its next call, which does not take them itself.
///
/// Samples that are done stay in the batch while others are not. The velocity of a sample that is done is not read.
///
/// # Safety
/// `sampler` is NULL or an object that has not been freed. `t` and `x` are NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_sampler_query(
    sampler: *mut bespoke_sampler,
    t: *mut *const DLTensor,
    x: *mut *const DLTensor,
) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let (t, x) = (required_mut("t", t)?, required_mut("x", x)?);
        (*t, *x) = (std::ptr::null(), std::ptr::null());
        if let Some(asked) = begun(&mut *required("sampler", sampler)?.lock()?)?.query()? {
            (*t, *x) = asked;
        }
        Ok(())
    })
}

/// Takes in the velocity `u` at the last query's times and states, `[batch, ...]`, of any strides
/// and any of the four dtypes. It must not lie in the sampler's own memory.
///
/// `BESPOKE_ERROR_NON_FINITE` says that some sample's velocity held a NaN or an infinity. The other
/// samples have advanced; go on after the failed ones have left, or start anew. On a device it is not
/// answered: see `bespoke_sampler_finite`; and `u` is contiguous there.
///
/// # Safety
/// `sampler` is NULL or an object that has not been freed. `u` is NULL or describes memory that may be read during
/// the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_sampler_update(sampler: *mut bespoke_sampler, u: *const DLTensor) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe { begun(&mut *required("sampler", sampler)?.lock()?)?.update(&HostTensor::anywhere("u", u)?) })
}

/// Takes one evaluation, for a host with a loop of its own. `u` is the velocity at the time of evaluation `k` and at
/// the states `x`; the states of the next evaluation, or x(1) after the last, are written into `next`.
///
/// Where a step begins, in `rk1` and `rk2` thetas, nothing but `x` is needed, and what the sampler
/// held before is given up. Otherwise `k` follows the evaluation before, with the same sampler, and
/// the numbers in `x` are not read. `x` and `next` may be the same; on failure `next` is as it was.
///
/// # Safety
/// `sampler` is NULL or an object that has not been freed. `x` and `u` are NULL or describe memory that may be read
/// during the call. `next` is NULL or describes memory that may be written, and that no other thread uses, during
/// the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_sampler_advance(
    sampler: *mut bespoke_sampler,
    k: u32,
    x: *const DLTensor,
    u: *const DLTensor,
    next: *mut DLTensor,
) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let (x, u) = (HostTensor::anywhere("x", x)?, HostTensor::anywhere("u", u)?);
        let next = HostTensor::anywhere("next", next)?;
        let mut inner = required("sampler", sampler)?.lock()?;
        let plan = inner.plan.clone();
        inner.engine(&x)?.advance(&plan, k as usize, &x, &u, &next)
    })
}

/// Writes x(1) of the whole batch into `x`, of the shape and dtype the batch has. Every sample must
/// be done. The samples stay until the next start.
///
/// # Safety
/// `sampler` is NULL or an object that has not been freed. `x` is NULL or describes memory that may be written, and
/// that no other thread uses, during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_sampler_finish(sampler: *mut bespoke_sampler, x: *mut DLTensor) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe { begun(&mut *required("sampler", sampler)?.lock()?)?.finish(&HostTensor::anywhere("x", x)?) })
}

/// Adds the samples `x0`, `[count, ...]`, behind the present ones, at the start of `theta`; NULL is
/// the sampler's own. They must match the present ones in dtype and shape but for the batch; an
/// empty sampler takes any. A query comes before the next update.
///
/// # Safety
/// `sampler` and `theta` are NULL or objects that have not been freed. `x0` is NULL or describes memory that may be
/// read during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_sampler_join(
    sampler: *mut bespoke_sampler,
    theta: *const bespoke_theta,
    x0: *const DLTensor,
) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe { required("sampler", sampler)?.lock()?.join(theta.as_ref(), &HostTensor::anywhere("x0", x0)?) })
}

/// Takes sample `row` out, done or not, and writes its state into `x`, `[1, ...]`; NULL drops it.
/// The last sample moves into its place. A query comes before the next update.
///
/// # Safety
/// `sampler` is NULL or an object that has not been freed. `x` is NULL or describes memory that may be written, and
/// that no other thread uses, during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_sampler_leave(
    sampler: *mut bespoke_sampler,
    row: u32,
    x: *mut DLTensor,
) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let x = (!x.is_null()).then(|| HostTensor::anywhere("x", x)).transpose()?;
        begun(&mut *required("sampler", sampler)?.lock()?)?.leave(row as usize, x.as_ref())
    })
}

/// Says of every sample whether the numbers of its state are all finite: writes 1 or 0 into `finite`, of `count` bytes,
/// the batch. Of a sampler with `device_ops` this is the only call that waits for the device, and the only way to learn
/// that a velocity held a NaN or an infinity: samples go on with them there.
///
/// # Safety
/// `sampler` is NULL or an object that has not been freed. `finite` is NULL or has room for `count` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_sampler_finite(
    sampler: *mut bespoke_sampler,
    count: u32,
    finite: *mut u8,
) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let mut inner = required("sampler", sampler)?.lock()?;
        let engine = begun(&mut inner)?;
        if count as usize != engine.batch() {
            return Err(Error::invalid("count", count, format!("{}, the number of samples", engine.batch())));
        }
        required("finite", finite)?;
        engine.finite(std::slice::from_raw_parts_mut(finite, count as usize))
    })
}

/// Says where sample `row` stands. `progress->struct_size` must be set.
///
/// # Safety
/// `sampler` is NULL or an object that has not been freed. `progress` is NULL or begins with its size, and that
/// many bytes of it can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_sampler_row(
    sampler: *const bespoke_sampler,
    row: u32,
    progress: *mut bespoke_row,
) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let row = begun(&mut *required("sampler", sampler)?.lock()?)?.row(row as usize)?;
        structs::write("progress", progress, &bespoke_row::from(row))
    })
}

/// Number of samples that the sampler holds; 0 before the first start.
///
/// # Safety
/// `sampler` is NULL or an object that has not been freed. `batch` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_sampler_batch(sampler: *const bespoke_sampler, batch: *mut u32) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let batch = required_mut("batch", batch)?;
        *batch = required("sampler", sampler)?.lock()?.present().map_or(0, |(_, engine)| engine.batch() as u32);
        Ok(())
    })
}

/// The engine of a sampler that has been given samples.
fn begun(inner: &mut Inner) -> Result<&mut (dyn Engine + 'static)> {
    let none = || Error::State("the sampler holds no samples: bespoke_sampler_start or _join comes first".into());
    inner.present().map(|(_, engine)| engine.as_mut()).filter(|engine| engine.batch() > 0).ok_or_else(none)
}

impl Inner {
    fn join(&mut self, theta: Option<&bespoke_theta>, x0: &HostTensor<'_>) -> Result<()> {
        let plan = theta.map_or(&self.plan, |theta| &theta.plan).clone();
        match self.present() {
            Some((dtype, engine)) if engine.batch() > 0 => {
                x0.check_dtype(*dtype)?;
                engine.join(&plan, x0)
            }
            _ => self.engine(x0)?.join(&plan, x0),
        }
    }
}

impl From<Row> for bespoke_row {
    fn from(row: Row) -> Self {
        // Counts of evaluations are at most a few thousand.
        Self { struct_size: 0, evaluations: row.stage as u32, nfe: row.nfe as u32, failed: row.failed.into() }
    }
}
