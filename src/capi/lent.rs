//! What a sampler's registers do with tensors of the host.

use super::layout::{HostTensor, SampleDtype};
use crate::error::{Error, Result};
use crate::tensor::{Dtype, Element, Host, HostView, Register, Remote, RemoteView, checksum};
use std::ffi::c_void;
use std::ops::Range;

/// Registers that read the host's tensors and are lent to it.
pub(super) trait Lent: Register {
    /// Room for one time a sample, float32.
    type Times;

    /// None yet.
    fn times(&self) -> Self::Times;

    /// Writes times, and says where.
    fn put_times(times: &mut Self::Times, values: &[f64]) -> Result<*mut c_void>;

    /// Where the first number is.
    fn first(&self) -> *mut c_void;

    /// The addresses of its samples.
    fn addresses(&self) -> Range<usize>;

    /// Overwrites the samples `rows` with those of `from`, as many. Its dtype is `dtype`.
    fn gather(&mut self, rows: Range<usize>, from: &HostTensor<'_>, dtype: SampleDtype) -> Result<()>;

    /// Whether an update can read the state from where the host has it, and write the next one to where the host wants it:
    /// the next two.
    const IN_PLACE: bool;

    /// The next update reads all samples from `from`, in place of `gather`.
    fn read_at(&mut self, _from: &HostTensor<'_>) {}

    /// The next update writes all samples to `to`, too, in place of `scatter`.
    fn copy_to(&mut self, _to: &HostTensor<'_>) {}

    /// Overwrites the samples of `to` with `rows`, as many, of `dtype`.
    fn scatter(&self, rows: Range<usize>, to: &HostTensor<'_>, dtype: SampleDtype) -> Result<()>;

    /// A velocity in place, where it can be read there beside registers of `dtype`.
    fn lend<'a>(u: &HostTensor<'a>, dtype: SampleDtype) -> Result<Option<Self::View<'a>>>
    where
        Self: 'a;

    /// A number that all but surely differs where any of the `numbers` numbers at `first` does; of a device's nothing is
    /// known.
    ///
    /// # Safety
    /// They are some register's, and nobody writes them meanwhile.
    unsafe fn checksum(first: *const c_void, numbers: usize) -> u64;

    /// Whether all numbers are finite; of a device's, where only the host may ask, yes.
    fn known_finite(&self) -> bool;
}

impl<E: Element> Lent for Host<E> {
    type Times = Vec<f32>;

    const IN_PLACE: bool = false;

    fn times(&self) -> Vec<f32> {
        Vec::new()
    }

    fn put_times(times: &mut Vec<f32>, values: &[f64]) -> Result<*mut c_void> {
        times.clear();
        times.try_reserve(values.len()).map_err(|_| Error::Memory { bytes: size_of_val(values) })?;
        times.extend(values.iter().map(|t| *t as f32));
        Ok(times.as_mut_ptr().cast())
    }

    fn first(&self) -> *mut c_void {
        self.data().as_ptr().cast_mut().cast()
    }

    fn addresses(&self) -> Range<usize> {
        let range = self.data().as_ptr_range();
        range.start as usize..range.end as usize
    }

    fn gather(&mut self, rows: Range<usize>, from: &HostTensor<'_>, dtype: SampleDtype) -> Result<()> {
        let elements = self.elements();
        from.gather(&mut self.data_mut()[rows.start * elements..rows.end * elements], dtype);
        Ok(())
    }

    fn scatter(&self, rows: Range<usize>, to: &HostTensor<'_>, dtype: SampleDtype) -> Result<()> {
        let elements = self.elements();
        to.scatter(&self.data()[rows.start * elements..rows.end * elements], dtype);
        Ok(())
    }

    fn lend<'a>(u: &HostTensor<'a>, dtype: SampleDtype) -> Result<Option<HostView<'a, E>>>
    where
        Self: 'a,
    {
        u.as_slice(dtype).map(|numbers| HostView::new(numbers, u.elements())).transpose()
    }

    unsafe fn checksum(first: *const c_void, numbers: usize) -> u64 {
        // SAFETY: by this function's contract.
        checksum(unsafe { std::slice::from_raw_parts(first.cast::<E>(), numbers) })
    }

    fn known_finite(&self) -> bool {
        E::finite(self.data())
    }
}

/// All tensors are contiguous, and of the registers' dtype but for velocities.
impl Lent for Remote {
    type Times = Remote;

    const IN_PLACE: bool = true;

    fn times(&self) -> Remote {
        self.of(Dtype::Float32, 1)
    }

    fn put_times(times: &mut Remote, values: &[f64]) -> Result<*mut c_void> {
        times.resize(values.len())?;
        times.fill(values)?;
        Ok(times.first())
    }

    fn first(&self) -> *mut c_void {
        self.at(0)
    }

    fn addresses(&self) -> Range<usize> {
        Remote::addresses(self)
    }

    fn gather(&mut self, rows: Range<usize>, from: &HostTensor<'_>, _dtype: SampleDtype) -> Result<()> {
        self.read(rows, from.address())
    }

    fn scatter(&self, rows: Range<usize>, to: &HostTensor<'_>, _dtype: SampleDtype) -> Result<()> {
        self.write(rows, to.address())
    }

    fn read_at(&mut self, from: &HostTensor<'_>) {
        Remote::read_at(self, from.address());
    }

    fn copy_to(&mut self, to: &HostTensor<'_>) {
        Remote::copy_to(self, to.address());
    }

    fn lend<'a>(u: &HostTensor<'a>, _dtype: SampleDtype) -> Result<Option<RemoteView<'a>>>
    where
        Self: 'a,
    {
        Ok(Some(RemoteView::new(u.address(), u.dtype().any(), u.batch(), u.elements())))
    }

    unsafe fn checksum(_first: *const c_void, _numbers: usize) -> u64 {
        0
    }

    fn known_finite(&self) -> bool {
        true
    }
}
