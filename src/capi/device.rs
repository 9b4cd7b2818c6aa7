//! Samples that stay on a device of the host's, by a table of its operations.

use super::call::answered;
use super::dlpack::{DLDataType, DLDevice};
use super::layout::HostTensor;
use super::structs::{self, sized_struct};
use crate::error::{Error, Result};
use crate::tensor::{Combination, DeviceMemory, Operations, Pool};
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;

pub use crate::tensor::{
    Combination as bespoke_device_combination, Part as bespoke_device_part, Sum as bespoke_device_sum,
    Term as bespoke_device_term,
};

/// Writes into `*memory` where `bytes` bytes of the device's memory are, at least 1, aligned to 16 bytes.
pub type bespoke_device_allocate_fn =
    Option<unsafe extern "C-unwind" fn(context: *mut c_void, bytes: u64, memory: *mut *mut c_void) -> i32>;

/// Takes back what `allocate` gave, once what was queued before is done.
pub type bespoke_device_release_fn =
    Option<unsafe extern "C-unwind" fn(context: *mut c_void, memory: *mut c_void) -> i32>;

/// Queues one launch: all sums of `combination`, which is valid during the call.
pub type bespoke_device_combine_fn =
    Option<unsafe extern "C-unwind" fn(context: *mut c_void, combination: *const Combination) -> i32>;

/// Queues a copy of `bytes` bytes within the device's memory, between arrays that do not overlap.
pub type bespoke_device_copy_fn =
    Option<unsafe extern "C-unwind" fn(context: *mut c_void, to: *mut c_void, from: *const c_void, bytes: u64) -> i32>;

/// Waits for what was queued, and writes into `finite`, host memory of `rows` bytes, 1 for each row of `elements`
/// numbers from `numbers` on that are all finite, and 0 for each other one.
pub type bespoke_device_finite_fn = Option<
    unsafe extern "C-unwind" fn(
        context: *mut c_void,
        numbers: *const c_void,
        dtype: DLDataType,
        rows: u64,
        elements: u64,
        finite: *mut u8,
    ) -> i32,
>;

/// What a host does with the memory of a device, so that samples stay there: `bespoke_sampler_options.device_ops`.
///
/// Every operation is queued behind those before it, on the stream that `context` stands for, and answers 0, or anything
/// else where it failed. They are called on the threads that use the sampler, one at a time. Only `finite` waits.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_device_ops {
    /// sizeof(bespoke_device_ops), set by the caller.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Whose memory it is: tensors of every other device are refused.
    pub device: DLDevice,
    /// The host's own, given to every operation.
    pub context: *mut c_void,
    /// Gives memory; its failure is `BESPOKE_ERROR_MEMORY`, and that of every other operation
    /// `BESPOKE_ERROR_CALLBACK`.
    pub allocate: bespoke_device_allocate_fn,
    /// Takes memory back.
    pub release: bespoke_device_release_fn,
    /// Sums.
    pub combine: bespoke_device_combine_fn,
    /// Copies.
    pub copy: bespoke_device_copy_fn,
    /// Asks for numbers that are not finite.
    pub finite: bespoke_device_finite_fn,
}

sized_struct!(bespoke_device_ops { reserved, device, context, allocate, release, combine, copy, finite });

/// The memory that a batch is in.
pub(super) enum Place {
    /// The host's.
    Host,
    /// That of a device, by the host's operations or by libtorch's.
    Device(DLDevice, Arc<DeviceMemory>),
}

/// Where the batches of a sampler may be.
pub(super) enum Places {
    /// On the host, and in the build with libtorch on its devices, worked on from this stream.
    Own(#[cfg_attr(not(feature = "torch"), allow(dead_code, reason = "libtorch's"))] Stream),
    /// On the host program's device alone.
    Lent(DLDevice, Arc<DeviceMemory>),
}

/// A stream of the host program's, which nobody here follows.
pub(super) struct Stream(#[cfg_attr(not(feature = "torch"), allow(dead_code, reason = "libtorch's"))] *mut c_void);

// SAFETY: an address alone.
unsafe impl Send for Stream {}

impl Places {
    /// # Safety
    /// `ops` is NULL or a struct that starts with its size, whose functions may be called as their types say as long as
    /// what is made of it lives. `stream` is NULL, or a stream of the GPU whose tensors the sampler is given, which
    /// lives as long.
    pub(super) unsafe fn new(ops: *const bespoke_device_ops, stream: *mut c_void) -> Result<Self> {
        if ops.is_null() {
            return Places::own(stream);
        }
        if !stream.is_null() {
            return Err(Error::invalid(
                "options.stream",
                "not NULL",
                "NULL beside options.device_ops, whose context has it",
            ));
        }
        // SAFETY: by this function's contract.
        let ops = unsafe { structs::read("options.device_ops", ops) }?;
        let table = Table::new("options.device_ops", &ops)?;
        Ok(Places::Lent(ops.device, Arc::new(DeviceMemory::new(Box::new(table)))))
    }

    fn own(stream: *mut c_void) -> Result<Self> {
        if cfg!(not(feature = "torch")) && !stream.is_null() {
            return Err(Error::Unsupported("options.stream: this libbespoke was built without libtorch".into()));
        }
        Ok(Places::Own(Stream(stream)))
    }

    /// Whose memory a batch like `x` is in; `None` for the host's own.
    pub(super) fn device_of(&self, x: &HostTensor<'_>) -> Option<DLDevice> {
        match self {
            Places::Lent(device, _) => Some(*device),
            Places::Own(_) if cfg!(feature = "torch") && x.device().is_cuda() => Some(x.device()),
            Places::Own(_) => None,
        }
    }

    /// The memory of a batch like `x`.
    pub(super) fn place(&self, x: &HostTensor<'_>) -> Result<Place> {
        match (self, self.device_of(x)) {
            (Places::Lent(device, memory), _) => Ok(Place::Device(*device, memory.clone())),
            (Places::Own(_), None) => Ok(Place::Host),
            #[cfg(feature = "torch")]
            (Places::Own(stream), Some(device)) => libtorch(x, device, stream),
            #[cfg(not(feature = "torch"))]
            (Places::Own(_), Some(device)) => Err(Error::Unsupported(device.indexed())),
        }
    }
}

/// The memory of a GPU, by libtorch's operations.
#[cfg(feature = "torch")]
fn libtorch(x: &HostTensor<'_>, device: DLDevice, stream: &Stream) -> Result<Place> {
    use crate::torch::{TorchMemory, prepare};
    let index = usize::try_from(device.device_id)
        .map_err(|_| Error::invalid(format!("{}.device.device_id", x.name()), device.device_id, "a GPU's index"))?;
    let refused = |e: Error| match e {
        Error::Unsupported(why) => Error::Unsupported(format!(
            "{}.device is {}, and without options.device_ops that takes libtorch's: {why}",
            x.name(),
            device.indexed()
        )),
        other => other,
    };
    let prepared = prepare(crate::tensor::Device::Cuda(index)).map_err(refused)?;
    let memory = DeviceMemory::new(Box::new(TorchMemory::new(prepared, stream.0)));
    Ok(Place::Device(device, Arc::new(memory)))
}

/// The device that `ops`, which the caller passed as `name`, is the table of, and its memory: what is released there is kept
/// for whoever asks next.
///
/// # Safety
/// `ops` is NULL or a struct that starts with its size, whose functions may be called as their types say as long as what is
/// made of it lives.
pub(super) unsafe fn lent_memory(
    name: &'static str,
    ops: *const bespoke_device_ops,
) -> Result<(DLDevice, Arc<DeviceMemory>)> {
    // SAFETY: by this function's contract.
    let ops = unsafe { structs::read(name, ops) }?;
    let pool = Pool::new(Box::new(Table::new(name, &ops)?));
    Ok((ops.device, Arc::new(DeviceMemory::new(Box::new(pool)))))
}

/// A table all of whose operations are there.
struct Table {
    context: *mut c_void,
    allocate: unsafe extern "C-unwind" fn(*mut c_void, u64, *mut *mut c_void) -> i32,
    release: unsafe extern "C-unwind" fn(*mut c_void, *mut c_void) -> i32,
    combine: unsafe extern "C-unwind" fn(*mut c_void, *const Combination) -> i32,
    copy: unsafe extern "C-unwind" fn(*mut c_void, *mut c_void, *const c_void, u64) -> i32,
    finite: unsafe extern "C-unwind" fn(*mut c_void, *const c_void, DLDataType, u64, u64, *mut u8) -> i32,
}

// SAFETY: the header says on which threads the operations are called; a sampler is for one thread at a time.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Table {
    fn new(name: &str, ops: &bespoke_device_ops) -> Result<Self> {
        if ops.reserved != 0 {
            return Err(Error::invalid(format!("{name}.reserved"), ops.reserved, "0"));
        }
        Ok(Self {
            context: ops.context,
            allocate: there(name, "allocate", ops.allocate)?,
            release: there(name, "release", ops.release)?,
            combine: there(name, "combine", ops.combine)?,
            copy: there(name, "copy", ops.copy)?,
            finite: there(name, "finite", ops.finite)?,
        })
    }
}

fn there<F>(table: &str, name: &str, operation: Option<F>) -> Result<F> {
    operation.ok_or_else(|| Error::invalid(format!("{table}.{name}"), "NULL", "a function"))
}

// SAFETY of the calls: by the contract of `Places::new`.
#[allow(clippy::undocumented_unsafe_blocks, reason = "said above, of all of them")]
impl Operations for Table {
    fn allocate(&self, bytes: usize) -> Result<*mut c_void> {
        let mut memory = null_mut();
        let code = unsafe { (self.allocate)(self.context, bytes as u64, &mut memory) };
        if code != 0 || memory.is_null() { Err(Error::Memory { bytes }) } else { Ok(memory) }
    }

    fn release(&self, memory: *mut c_void) {
        // Nobody to report to: it is asked for where objects are freed.
        let _ = unsafe { (self.release)(self.context, memory) };
    }

    fn combine(&self, combination: &Combination) -> Result<()> {
        answered("device_ops.combine", || unsafe { (self.combine)(self.context, combination) })
    }

    fn copy(&self, to: *mut c_void, from: *const c_void, bytes: usize) -> Result<()> {
        answered("device_ops.copy", || unsafe { (self.copy)(self.context, to, from, bytes as u64) })
    }

    fn finite(&self, numbers: *const c_void, dtype: DLDataType, elements: usize, finite: &mut [u8]) -> Result<()> {
        // The caller's array is left as it is where the operation fails.
        let mut found = crate::memory::filled(finite.len(), 0u8)?;
        let (rows, elements, to) = (found.len() as u64, elements as u64, found.as_mut_ptr());
        answered("device_ops.finite", || unsafe { (self.finite)(self.context, numbers, dtype, rows, elements, to) })?;
        finite.copy_from_slice(&found);
        Ok(())
    }
}
