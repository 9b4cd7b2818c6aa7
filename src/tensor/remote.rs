//! Samples in memory that this program may not touch: a device's, which the host program owns.

use super::dtype::{DLDataType, Dtype};
use super::launch::{DeviceMemory, Term};
use super::{Crew, Operand, Register, Update};
use crate::error::{Error, Result};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::{null, null_mut};
use std::sync::Arc;

/// A batch in a device's memory: `batch * elements` numbers, sample after sample. Nothing is known of numbers that were
/// not written.
pub struct Remote {
    device: Arc<DeviceMemory>,
    dtype: Dtype,
    numbers: *mut c_void,
    /// Bytes there.
    capacity: usize,
    batch: usize,
    elements: usize,
}

// SAFETY: an address of the device, which nobody here follows; the operations are `Sync`.
unsafe impl Send for Remote {}

/// A borrowed [`Remote`], or a host's own tensor on the device.
#[derive(Clone, Copy, Debug)]
pub struct RemoteView<'a> {
    numbers: *const c_void,
    dtype: Dtype,
    batch: usize,
    elements: usize,
    lent: PhantomData<&'a ()>,
}

impl RemoteView<'_> {
    /// Views the device's memory at `numbers` as `batch` samples of `elements` numbers each.
    pub fn new(numbers: *const c_void, dtype: Dtype, batch: usize, elements: usize) -> Self {
        Self { numbers, dtype, batch, elements, lent: PhantomData }
    }

    /// Where sample `row` begins.
    fn at(&self, row: usize) -> *const c_void {
        self.numbers.wrapping_byte_add(row * self.elements * self.dtype.size())
    }

    /// `coefficient` times the numbers from sample `row` on.
    fn term(&self, row: usize, coefficient: f64) -> Term {
        Term { numbers: self.at(row), coefficient, dtype: self.dtype.dlpack(), reserved: 0 }
    }
}

impl Remote {
    /// No samples yet, of `elements` numbers of type `dtype`.
    pub fn new(device: Arc<DeviceMemory>, dtype: Dtype, elements: usize) -> Self {
        Self { device, dtype, numbers: null_mut(), capacity: 0, batch: 0, elements }
    }

    /// No samples yet, of another type and size in the same memory.
    pub fn of(&self, dtype: Dtype, elements: usize) -> Self {
        Self::new(self.device.clone(), dtype, elements)
    }

    /// Where sample `row` begins, on the device.
    pub fn at(&self, row: usize) -> *mut c_void {
        self.view().at(row).cast_mut()
    }

    /// Addresses of its samples, on the device.
    pub fn addresses(&self) -> Range<usize> {
        let start = self.numbers as usize;
        start..start + self.batch * self.row_bytes()
    }

    /// Overwrites the samples `rows` with those of the same dtype that lie, one after the other, at `source`.
    ///
    /// # Errors
    /// The host's.
    pub fn read(&mut self, rows: Range<usize>, source: *const c_void) -> Result<()> {
        self.device.operations().copy(self.at(rows.start), source, rows.len() * self.row_bytes())
    }

    /// Copies the samples `rows` to `target`.
    ///
    /// # Errors
    /// The host's.
    pub fn write(&self, rows: Range<usize>, target: *mut c_void) -> Result<()> {
        self.device.operations().copy(target, self.at(rows.start), rows.len() * self.row_bytes())
    }

    /// Sets sample i to `values[i]` in all its numbers, for every sample.
    ///
    /// # Errors
    /// The host's.
    pub fn fill(&mut self, values: &[f64]) -> Result<()> {
        let mut row = 0;
        for run in values.chunk_by(|a, b| a == b) {
            let one = Term { numbers: null(), coefficient: run[0], dtype: self.dtype.dlpack(), reserved: 0 };
            self.put(row, run.len(), one);
            row += run.len();
        }
        self.device.launch()
    }

    /// Adds to the next launch that `count` samples from `row` on become `term`.
    fn put(&self, row: usize, count: usize, term: Term) {
        let sum = (self.at(row), std::iter::once(term));
        self.device.add(count * self.elements, self.dlpack(), std::iter::once(sum));
    }

    fn dlpack(&self) -> DLDataType {
        self.dtype.dlpack()
    }

    fn row_bytes(&self) -> usize {
        self.elements * self.dtype.size()
    }

    /// Moves into memory of `bytes` bytes.
    fn grow(&mut self, bytes: usize) -> Result<()> {
        let operations = self.device.operations();
        let numbers = operations.allocate(bytes)?;
        let held = self.batch * self.row_bytes();
        let moved = if held > 0 { operations.copy(numbers, self.numbers, held) } else { Ok(()) };
        let old = match moved {
            Ok(()) => std::mem::replace(&mut self.numbers, numbers),
            Err(_) => numbers,
        };
        if !old.is_null() {
            operations.release(old);
        }
        moved?;
        self.capacity = bytes;
        Ok(())
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if !self.numbers.is_null() {
            self.device.operations().release(self.numbers);
        }
    }
}

/// Updates and copies wait for [`Register::launch`].
impl Register for Remote {
    type View<'a> = RemoteView<'a>;

    fn view(&self) -> RemoteView<'_> {
        RemoteView::new(self.numbers, self.dtype, self.batch, self.elements)
    }

    fn batch(&self) -> usize {
        self.batch
    }

    fn elements(&self) -> usize {
        self.elements
    }

    fn beside(&self, _place: usize, batch: usize, elements: usize) -> Result<Self> {
        let mut new = self.of(self.dtype, elements);
        new.resize(batch)?;
        Ok(new)
    }

    fn resize(&mut self, batch: usize) -> Result<()> {
        let bytes = batch.checked_mul(self.row_bytes()).filter(|bytes| isize::try_from(*bytes).is_ok());
        let bytes = bytes.ok_or(Error::Memory { bytes: usize::MAX })?;
        if bytes > self.capacity {
            // Doubling keeps a batch that grows sample by sample from being copied for each of them.
            let least = if self.batch == 0 { bytes } else { bytes.max(2 * self.batch * self.row_bytes()) };
            self.grow(least)?;
        }
        self.batch = batch;
        Ok(())
    }

    fn advance(
        registers: &mut [Self],
        velocity: RemoteView<'_>,
        rows: Range<usize>,
        updates: &[Update],
        _crew: Option<&mut Crew>,
    ) -> Result<bool> {
        let Some(first) = registers.first() else { return Err(Error::State("an update without registers".into())) };
        if velocity.elements != first.elements || velocity.batch != first.batch {
            return Err(Error::invalid(
                "the velocity's shape",
                format!("[{}, {}]", velocity.batch, velocity.elements),
                format!("[{}, {}]", first.batch, first.elements),
            ));
        }
        if registers.iter().any(|register| register.batch < rows.end || register.elements != first.elements) {
            return Err(Error::State(format!("an update of rows {rows:?} is out of bounds")));
        }
        let term = |(operand, coefficient): &(Operand, f64)| match operand {
            Operand::Velocity => velocity.term(rows.start, *coefficient),
            Operand::Buffer(i) => registers[*i].view().term(rows.start, *coefficient),
        };
        let sums = updates.iter().map(|update| (registers[update.out].at(rows.start), update.terms.iter().map(term)));
        first.device.add(rows.len() * first.elements, first.dlpack(), sums);
        Ok(true)
    }

    fn copy_rows(&mut self, source: RemoteView<'_>, rows: Range<usize>) -> Result<()> {
        if rows.end > self.batch || rows.end > source.batch || source.elements != self.elements {
            return Err(Error::State(format!("rows {rows:?} are out of bounds")));
        }
        self.put(rows.start, rows.len(), source.term(rows.start, 1.0));
        Ok(())
    }

    fn move_row(&mut self, from: usize, to: usize) -> Result<()> {
        if from.max(to) >= self.batch {
            return Err(Error::State(format!("row {} is out of bounds", from.max(to))));
        }
        if from != to {
            self.put(to, 1, self.view().term(from, 1.0));
        }
        Ok(())
    }

    fn launch(registers: &[Self]) -> Result<()> {
        registers.first().map_or(Ok(()), |register| register.device.launch())
    }

    fn finite_row(&self, batch: RemoteView<'_>, row: usize) -> Result<bool> {
        if row >= batch.batch {
            return Err(Error::State(format!("row {row} is out of bounds")));
        }
        let mut finite = [0];
        self.device.operations().finite(batch.at(row), batch.dtype.dlpack(), batch.elements, &mut finite)?;
        Ok(finite == [1])
    }

    fn finite_rows(&self, finite: &mut [u8]) -> Result<()> {
        if finite.len() > self.batch {
            return Err(Error::State(format!("{} rows are out of bounds", finite.len())));
        }
        self.device.operations().finite(self.numbers, self.dlpack(), self.elements, finite)
    }
}
