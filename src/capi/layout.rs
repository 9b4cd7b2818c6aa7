//! A host's `DLTensor`, checked, and copied to and from contiguous memory.

use super::dlpack::{DLDevice, DLTensor, HOST_MEMORY, device_name, dtype_name};
use crate::error::{Error, Result};
use crate::tensor::{Dtype, Element};
use half::{bf16, f16};
use smallvec::{SmallVec, smallvec};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;

/// Dimensions at most; frameworks stop at 64 or below, models at 5.
const MAX_RANK: usize = 32;

/// The dtypes that are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SampleDtype {
    F32,
    F64,
    F16,
    BF16,
}

impl SampleDtype {
    const ALL: [Self; 4] = [SampleDtype::F32, SampleDtype::F64, SampleDtype::F16, SampleDtype::BF16];

    pub(super) fn name(self) -> &'static str {
        self.any().name()
    }

    /// Among all types.
    pub(super) fn any(self) -> Dtype {
        match self {
            SampleDtype::F32 => Dtype::Float32,
            SampleDtype::F64 => Dtype::Float64,
            SampleDtype::F16 => Dtype::Float16,
            SampleDtype::BF16 => Dtype::Bfloat16,
        }
    }

    fn bytes(self) -> usize {
        self.any().size()
    }
}

/// A contiguous tensor of this library's own memory.
pub(super) fn describe(
    data: *mut c_void,
    device: DLDevice,
    dtype: SampleDtype,
    shape: *mut i64,
    rank: usize,
) -> DLTensor {
    DLTensor {
        data,
        device,
        ndim: rank as i32,
        dtype: dtype.any().dlpack(),
        shape,
        strides: std::ptr::null_mut(),
        byte_offset: 0,
    }
}

/// A size and a stride, both in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Dimension {
    size: usize,
    stride: isize,
}

/// As few as describe a tensor's memory: of what frameworks hand over 1 to 3, which need no memory of their own.
type Dimensions = SmallVec<[Dimension; 4]>;

/// A tensor of the host's whose descriptor has been checked. Only of one in host memory are the numbers touched.
#[derive(Clone, Debug)]
pub(super) struct HostTensor<'a> {
    name: &'static str,
    device: DLDevice,
    dtype: SampleDtype,
    /// The first number.
    first: *mut u8,
    shape: &'a [i64],
    /// None of size 1; empty for a single number.
    dimensions: Dimensions,
    /// The bytes between the lowest and the highest number, as addresses.
    bytes: Range<usize>,
    borrow: PhantomData<&'a DLTensor>,
}

impl<'a> HostTensor<'a> {
    /// Checks the descriptor `tensor` that the caller passed as `name`, in host memory.
    ///
    /// # Safety
    /// As [`HostTensor::anywhere`].
    pub(super) unsafe fn new(name: &'static str, tensor: *const DLTensor) -> Result<Self> {
        // SAFETY: by this function's contract.
        let tensor = unsafe { Self::anywhere(name, tensor) }?;
        tensor.check_device(None)?;
        Ok(tensor)
    }

    /// Checks the descriptor `tensor` that the caller passed as `name`, whatever device its memory is of.
    ///
    /// # Safety
    /// `tensor` is NULL or a `DLTensor` that tells the truth and lives for `'a`.
    pub(super) unsafe fn anywhere(name: &'static str, tensor: *const DLTensor) -> Result<Self> {
        // SAFETY: by this function's contract, here and for the two slices.
        let tensor = unsafe { super::guard::required(name, tensor) }?;
        let dtype = dtype_of(name, tensor)?;
        let rank = usize::try_from(tensor.ndim).ok().filter(|rank| (1..=MAX_RANK).contains(rank)).ok_or_else(|| {
            Error::invalid(format!("{name}.ndim"), tensor.ndim, format!("1 to {MAX_RANK}, the batch first"))
        })?;
        if tensor.shape.is_null() {
            return Err(Error::invalid(format!("{name}.shape"), "NULL", "a pointer"));
        }
        // SAFETY: a tensor of this rank has as many sizes, by this function's contract.
        let shape = unsafe { std::slice::from_raw_parts(tensor.shape, rank) };
        let strides = (!tensor.strides.is_null()).then(|| {
            // SAFETY: as many strides as sizes.
            unsafe { std::slice::from_raw_parts(tensor.strides, rank) }
        });
        let bytes_of = dtype.bytes();
        check_sizes(name, shape, bytes_of)?;
        if tensor.data.is_null() {
            return Err(Error::invalid(format!("{name}.data"), "NULL", "a pointer"));
        }
        let dimensions = merged(shape, strides);
        let address = usize::try_from(tensor.byte_offset).ok().and_then(|o| (tensor.data as usize).checked_add(o));
        let extent = extent(&dimensions, bytes_of);
        let bytes = address.zip(extent).and_then(|(at, extent)| range(at, extent));
        let (Some(address), Some(bytes)) = (address, bytes) else {
            return Err(Error::invalid(
                format!("{name}.strides and byte_offset"),
                "beyond the address space",
                "numbers that lie in memory",
            ));
        };
        if !address.is_multiple_of(bytes_of) {
            let value = format!("{address:#x}");
            return Err(Error::invalid(
                format!("{name}.data + byte_offset"),
                value,
                format!("a multiple of {bytes_of}"),
            ));
        }
        let first = tensor.data.cast::<u8>().wrapping_add(tensor.byte_offset as usize);
        let device = tensor.device;
        Ok(Self { name, device, dtype, first, shape, dimensions, bytes, borrow: PhantomData })
    }

    /// Errors where its memory is not that of `device`, or where that is none, not the host's. On a device its numbers lie
    /// one after the other.
    pub(super) fn check_device(&self, device: Option<DLDevice>) -> Result<()> {
        self.check_device_of(device, "the sampler's")
    }

    /// The same, where the device is that of `owner`.
    pub(super) fn check_device_of(&self, device: Option<DLDevice>, owner: &str) -> Result<()> {
        let there = match device {
            None => self.device.is_host(),
            Some(device) => self.device == device,
        };
        if !there {
            let (value, expected) = match device {
                None => (device_name(self.device.device_type), HOST_MEMORY.to_owned()),
                Some(device) => (self.device.indexed(), format!("{}, {owner}", device.indexed())),
            };
            return Err(Error::invalid(format!("{}.device", self.name), value, expected));
        }
        if device.is_some() && !self.contiguous() {
            return Err(Error::invalid(
                format!("{}.strides", self.name),
                "not contiguous",
                "NULL or contiguous on a device",
            ));
        }
        Ok(())
    }

    /// Whose memory it is.
    pub(super) fn device(&self) -> DLDevice {
        self.device
    }

    /// What the caller passed it as.
    #[cfg(feature = "torch")]
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Where its first number is.
    pub(super) fn address(&self) -> *mut c_void {
        self.first.cast()
    }

    /// Whether `other` describes the same numbers in memory, in the same order.
    pub(super) fn same_memory(&self, other: &HostTensor<'_>) -> bool {
        (self.first, &self.dimensions) == (other.first, &other.dimensions)
    }

    pub(super) fn dtype(&self) -> SampleDtype {
        self.dtype
    }

    pub(super) fn shape(&self) -> &'a [i64] {
        self.shape
    }

    /// Number of samples, at least 1.
    pub(super) fn batch(&self) -> usize {
        self.shape[0] as usize
    }

    /// Numbers per sample, at least 1.
    pub(super) fn elements(&self) -> usize {
        self.shape[1..].iter().product::<i64>() as usize
    }

    /// Errors where its shape is not `shape`.
    pub(super) fn check_shape(&self, shape: &[i64]) -> Result<()> {
        if self.shape == shape {
            return Ok(());
        }
        Err(Error::invalid(format!("{}.shape", self.name), format!("{:?}", self.shape), format!("{shape:?}")))
    }

    /// Errors where its dtype is not `dtype`.
    pub(super) fn check_dtype(&self, dtype: SampleDtype) -> Result<()> {
        if self.dtype == dtype {
            return Ok(());
        }
        Err(Error::invalid(format!("{}.dtype", self.name), self.dtype.name(), dtype.name()))
    }

    /// Errors where two numbers might share memory: such a tensor cannot be written.
    pub(super) fn check_writable(&self) -> Result<()> {
        let mut dimensions = self.dimensions.clone();
        dimensions.sort_unstable_by_key(|d| d.stride.unsigned_abs());
        // Each dimension must step over all that the smaller ones span.
        let mut span = 1usize;
        for d in dimensions {
            let step = d.stride.unsigned_abs();
            if step < span {
                let value = "such that numbers may overlap";
                return Err(Error::invalid(format!("{}.strides", self.name), value, "one place for each number"));
            }
            // Within the address space, see `extent`.
            span += step * (d.size - 1);
        }
        Ok(())
    }

    /// Errors where its memory overlaps `bytes`, addresses of `what`.
    pub(super) fn check_apart(&self, bytes: &Range<usize>, what: &str) -> Result<()> {
        if self.bytes.start < bytes.end && bytes.start < self.bytes.end {
            return Err(Error::invalid(
                format!("{}.data", self.name),
                format!("overlapping {what}"),
                "memory of its own",
            ));
        }
        Ok(())
    }

    /// The addresses it covers.
    pub(super) fn bytes(&self) -> &Range<usize> {
        &self.bytes
    }

    /// Whether its numbers lie one after the other.
    fn contiguous(&self) -> bool {
        match self.dimensions[..] {
            [] => true,
            [only] => only.stride == 1,
            _ => false,
        }
    }

    /// Its numbers in place, where they lie one after the other and are `E`, which is `dtype`.
    pub(super) fn as_slice<E: Element>(&self, dtype: SampleDtype) -> Option<&'a [E]> {
        let length = self.batch() * self.elements();
        let in_place = self.contiguous() && self.dtype == dtype;
        // SAFETY: checked in `new`: aligned, in memory that lives for 'a.
        in_place.then(|| unsafe { std::slice::from_raw_parts(self.first.cast(), length) })
    }

    /// Copies its numbers into `out`, of the same length, rounded where the dtypes differ.
    pub(super) fn gather<E: Element>(&self, out: &mut [E], dtype: SampleDtype) {
        match self.dtype {
            own if own == dtype => self.gather_same(out),
            SampleDtype::F32 => self.gather_converted::<f32, E>(out),
            SampleDtype::F64 => self.gather_converted::<f64, E>(out),
            SampleDtype::F16 => self.gather_converted::<f16, E>(out),
            SampleDtype::BF16 => self.gather_converted::<bf16, E>(out),
        }
    }

    fn gather_converted<S: Element, E: Element>(&self, out: &mut [E]) {
        let first: *const S = self.first.cast();
        self.runs(|from, run, at| {
            for (i, to) in out[at..at + run.size].iter_mut().enumerate() {
                // SAFETY: `runs` gives places inside the tensor.
                *to = E::from_f64(unsafe { *first.offset(from + i as isize * run.stride) }.to_f64());
            }
        });
    }

    fn gather_same<E: Element>(&self, out: &mut [E]) {
        debug_assert_eq!(size_of::<E>(), self.dtype.bytes());
        let first: *const E = self.first.cast();
        self.runs(|from, run, at| {
            // SAFETY: `runs` gives places inside the tensor and inside `out`, once each.
            unsafe {
                let from = first.offset(from);
                let to = &mut out[at..at + run.size];
                if run.stride == 1 {
                    std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), run.size);
                } else {
                    to.iter_mut().enumerate().for_each(|(i, to)| *to = *from.offset(i as isize * run.stride));
                }
            }
        });
    }

    /// Overwrites its numbers with `source`, of the same length, rounded where the dtypes differ.
    /// [`HostTensor::check_writable`] came first.
    pub(super) fn scatter<E: Element>(&self, source: &[E], dtype: SampleDtype) {
        match self.dtype {
            own if own == dtype => self.scatter_same(source),
            SampleDtype::F32 => self.scatter_converted::<E, f32>(source),
            SampleDtype::F64 => self.scatter_converted::<E, f64>(source),
            SampleDtype::F16 => self.scatter_converted::<E, f16>(source),
            SampleDtype::BF16 => self.scatter_converted::<E, bf16>(source),
        }
    }

    fn scatter_converted<E: Element, S: Element>(&self, source: &[E]) {
        let first: *mut S = self.first.cast();
        self.runs(|to, run, at| {
            for (i, from) in source[at..at + run.size].iter().enumerate() {
                // SAFETY: `runs` gives places inside the tensor, once each.
                unsafe { *first.offset(to + i as isize * run.stride) = S::from_f64(from.to_f64()) };
            }
        });
    }

    fn scatter_same<E: Element>(&self, source: &[E]) {
        debug_assert_eq!(size_of::<E>(), self.dtype.bytes());
        let first: *mut E = self.first.cast();
        self.runs(|to, run, at| {
            // SAFETY: as in `gather_same`.
            unsafe {
                let to = first.offset(to);
                let from = &source[at..at + run.size];
                if run.stride == 1 {
                    std::ptr::copy_nonoverlapping(from.as_ptr(), to, run.size);
                } else {
                    from.iter().enumerate().for_each(|(i, from)| *to.offset(i as isize * run.stride) = *from);
                }
            }
        });
    }

    /// Calls `visit(offset in the tensor, innermost dimension, index in row-major order)` for every run
    /// along the innermost dimension.
    fn runs(&self, mut visit: impl FnMut(isize, Dimension, usize)) {
        let (outer, run) = match self.dimensions.split_last() {
            Some((run, outer)) => (outer, *run),
            None => (&[][..], Dimension { size: 1, stride: 1 }),
        };
        let mut index: SmallVec<[usize; 4]> = smallvec![0; outer.len()];
        let (mut offset, mut at) = (0isize, 0usize);
        loop {
            visit(offset, run, at);
            at += run.size;
            let mut axis = outer.len();
            loop {
                let Some(next) = axis.checked_sub(1) else { return };
                axis = next;
                index[axis] += 1;
                offset += outer[axis].stride;
                if index[axis] < outer[axis].size {
                    break;
                }
                offset -= outer[axis].stride * outer[axis].size as isize;
                index[axis] = 0;
            }
        }
    }
}

fn dtype_of(name: &str, tensor: &DLTensor) -> Result<SampleDtype> {
    let dtype = tensor.dtype;
    let known = SampleDtype::ALL.into_iter().find(|known| known.any().dlpack() == dtype);
    known.ok_or_else(|| {
        Error::invalid(format!("{name}.dtype"), dtype_name(dtype), "float32, float64, float16 or bfloat16")
    })
}

/// Every size at least 1, and the whole within what memory can hold.
fn check_sizes(name: &str, shape: &[i64], bytes_of: usize) -> Result<()> {
    let product = shape.iter().try_fold(1usize, |product, size| {
        let size = usize::try_from(*size).ok().filter(|size| *size > 0)?;
        product.checked_mul(size)
    });
    match product.and_then(|numbers| numbers.checked_mul(bytes_of)) {
        Some(bytes) if bytes <= isize::MAX as usize => Ok(()),
        _ => Err(Error::invalid(
            format!("{name}.shape"),
            format!("{shape:?}"),
            "sizes of at least 1 whose product fits in memory",
        )),
    }
}

/// Drops dimensions of size 1 and joins those that are contiguous with their neighbour.
fn merged(shape: &[i64], strides: Option<&[i64]>) -> Dimensions {
    let mut dimensions = Dimensions::new();
    let mut contiguous = 1i64;
    for (axis, &size) in shape.iter().enumerate().rev() {
        let stride = strides.map_or(contiguous, |strides| strides[axis]) as isize;
        contiguous *= size;
        if size == 1 {
            continue;
        }
        let size = size as usize;
        match dimensions.last_mut() {
            // All in i128: the strides have not been checked yet.
            Some(inner) if stride as i128 == inner.stride as i128 * inner.size as i128 => inner.size *= size,
            _ => dimensions.push(Dimension { size, stride }),
        }
    }
    dimensions.reverse();
    dimensions
}

/// Bytes before the first number and up to the end of the last, or `None` where they leave the address space.
fn extent(dimensions: &[Dimension], bytes_of: usize) -> Option<(usize, usize)> {
    let (mut below, mut above) = (0usize, bytes_of);
    for d in dimensions {
        let reach = d.stride.unsigned_abs().checked_mul(d.size - 1)?.checked_mul(bytes_of)?;
        let side = if d.stride < 0 { &mut below } else { &mut above };
        *side = side.checked_add(reach)?;
    }
    (below.checked_add(above)? <= isize::MAX as usize).then_some((below, above))
}

fn range(address: usize, (below, above): (usize, usize)) -> Option<Range<usize>> {
    Some(address.checked_sub(below)?..address.checked_add(above)?)
}
