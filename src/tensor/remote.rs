//! Samples in memory that this program may not touch: a device's, which the host program owns.

use super::dtype::{DLDataType, Dtype};
use super::launch::{DeviceMemory, Term};
use super::{Crew, Operand, PerRow, Register, Tensor, Update};
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
    /// Bytes there that are this object's.
    capacity: usize,
    batch: usize,
    elements: usize,
    /// Where its samples are read until the next update, in place of its own memory: see [`Remote::read_at`].
    lent: Option<*const c_void>,
    /// Where the next update that writes it writes, too.
    copied_to: Option<*mut c_void>,
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
        Self { device, dtype, numbers: null_mut(), capacity: 0, batch: 0, elements, lent: None, copied_to: None }
    }

    /// `batch` samples at `numbers`, the host program's own, which live as long.
    pub fn at_address(
        device: Arc<DeviceMemory>,
        dtype: Dtype,
        (batch, elements): (usize, usize),
        numbers: *mut c_void,
    ) -> Self {
        let mut lent = Self::new(device, dtype, elements);
        (lent.numbers, lent.batch) = (numbers, batch);
        lent
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

    /// The next update of all samples reads them at `source`, and leaves them in this register's memory where it does not
    /// write it anyway: [`Remote::read`] without a copy of its own. Nothing else may be asked of it before.
    pub fn read_at(&mut self, source: *const c_void) {
        self.lent = Some(source);
    }

    /// The next update of all samples writes what it writes here to `target`, too: [`Remote::write`] without a copy of its
    /// own.
    pub fn copy_to(&mut self, target: *mut c_void) {
        self.copied_to = Some(target);
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

    /// Where its samples are read.
    fn source(&self) -> RemoteView<'_> {
        RemoteView::new(self.lent.unwrap_or(self.numbers), self.dtype, self.batch, self.elements)
    }

    /// Adds to the next launch that `count` samples from `row` on become `term`.
    fn put(&self, row: usize, count: usize, term: Term) {
        let sum = (self.at(row), None, std::iter::once(term));
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
        let held = self.batch * self.row_bytes();
        if held == 0 && self.capacity > 0 {
            operations.release(self.numbers);
            self.capacity = 0;
        }
        let numbers = operations.allocate(bytes)?;
        let moved = if held > 0 { operations.copy(numbers, self.numbers, held) } else { Ok(()) };
        let old = match moved {
            Ok(()) => std::mem::replace(&mut self.numbers, numbers),
            Err(_) => numbers,
        };
        let owned = moved.is_err() || self.capacity > 0;
        if owned {
            operations.release(old);
        }
        moved?;
        self.capacity = bytes;
        Ok(())
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if self.capacity > 0 {
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
            Operand::Buffer(i) => registers[*i].source().term(rows.start, *coefficient),
        };
        let sums = updates.iter().map(|update| {
            let out = &registers[update.out];
            (out.at(rows.start), out.copied_to, update.terms.iter().map(term))
        });
        first.device.add(rows.len() * first.elements, first.dlpack(), sums);
        for (i, register) in registers.iter().enumerate().filter(|(_, register)| register.lent.is_some()) {
            if updates.iter().all(|update| update.out != i) {
                first.device.add_to_part(
                    register.at(rows.start),
                    register.dlpack(),
                    register.source().term(rows.start, 1.0),
                );
            }
        }
        registers.iter_mut().for_each(|register| (register.lent, register.copied_to) = (None, None));
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

/// What a network's velocity takes; a model on a device is only evaluated.
impl Tensor for Remote {
    fn zeros_like(&self, batch: usize) -> Result<Self> {
        let mut zeros = self.beside(0, batch, self.elements)?;
        zeros.fill(&vec![0.0; batch])?;
        Ok(zeros)
    }

    fn linear_combination(terms: &[(PerRow<'_>, &Self)]) -> Result<Self> {
        let Some((_, first)) = terms.first() else {
            return Err(Error::State("a linear combination of nothing".into()));
        };
        for (coefficient, tensor) in terms {
            if (tensor.batch, tensor.elements) != (first.batch, first.elements) {
                let shape = |of: &Self| format!("[{}, {}]", of.batch, of.elements);
                return Err(Error::invalid("a term's shape", shape(tensor), shape(first)));
            }
            coefficient.check("a term's coefficient", first.batch)?;
        }
        let out = first.beside(0, first.batch, first.elements)?;
        let same = |a: usize, b: usize| terms.iter().all(|(coefficient, _)| coefficient.at(a) == coefficient.at(b));
        let mut row = 0;
        while row < first.batch {
            let end = (row + 1..first.batch).find(|next| !same(row, *next)).unwrap_or(first.batch);
            let own = terms.iter().map(|(coefficient, tensor)| tensor.view().term(row, coefficient.at(row)));
            let sum = std::iter::once((out.at(row), None, own));
            first.device.add((end - row) * first.elements, first.dlpack(), sum);
            row = end;
        }
        first.device.launch()?;
        Ok(out)
    }

    fn select(&self, rows: &[usize]) -> Result<Self> {
        let out = self.beside(0, rows.len(), self.elements)?;
        let mut at = 0;
        for run in rows.chunk_by(|a, b| *b == a + 1) {
            out.put(at, run.len(), self.view().term(run[0], 1.0));
            at += run.len();
        }
        self.device.launch()?;
        Ok(out)
    }

    fn concatenate(parts: &[&Self]) -> Result<Self> {
        let Some(first) = parts.first() else { return Err(Error::State("a concatenation of nothing".into())) };
        let out = first.beside(0, parts.iter().map(|part| part.batch).sum(), first.elements)?;
        let mut at = 0;
        for part in parts {
            out.put(at, part.batch, part.view().term(0, 1.0));
            at += part.batch;
        }
        first.device.launch()?;
        Ok(out)
    }

    fn narrow(&self, rows: Range<usize>) -> Result<Self> {
        self.select(&rows.collect::<Vec<_>>())
    }

    fn is_finite(&self) -> Result<bool> {
        let mut finite = vec![0; self.batch];
        self.finite_rows(&mut finite)?;
        Ok(finite.iter().all(|row| *row == 1))
    }

    fn dot(&self, _other: &Self) -> Result<Self> {
        Err(only_evaluated())
    }

    fn fetch(_columns: &[&Self]) -> Result<Vec<Vec<f64>>> {
        Err(only_evaluated())
    }

    fn to_f32(&self) -> Result<Vec<f32>> {
        Err(only_evaluated())
    }

    fn error_ratio(_error: &Self, _a: &Self, _b: &Self, _rtol: f64, _atol: f64) -> Result<Vec<f64>> {
        Err(only_evaluated())
    }
}

fn only_evaluated() -> Error {
    Error::Unsupported("a model on a device of the host program's can only be evaluated".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Combination, Host, Operations, Part, Sum};
    use parking_lot::Mutex;
    use std::slice::from_raw_parts;

    /// A device whose memory is the host's, of float32 alone: what was given and not released.
    #[derive(Default)]
    struct Blocks(Mutex<Vec<Block>>);

    struct Block(*mut [f32]);

    // SAFETY: of `Blocks` alone.
    unsafe impl Send for Block {}

    // SAFETY of what follows: the addresses are those of blocks, whose bounds `Remote` keeps to, which Miri looks after.
    #[allow(clippy::undocumented_unsafe_blocks, reason = "said above, of all of them")]
    impl Operations for Blocks {
        fn allocate(&self, bytes: usize) -> Result<*mut c_void> {
            let block = Box::into_raw(vec![f32::NAN; bytes / 4].into_boxed_slice());
            self.0.lock().push(Block(block));
            Ok(block.cast())
        }

        fn release(&self, memory: *mut c_void) {
            let mut blocks = self.0.lock();
            let given = blocks.iter().position(|block| block.0.cast() == memory).unwrap();
            drop(unsafe { Box::from_raw(blocks.swap_remove(given).0) });
        }

        fn combine(&self, asked: &Combination) -> Result<()> {
            let parts: &[Part] = unsafe { from_raw_parts(asked.parts, asked.part_count as usize) };
            let sums: &[Sum] = unsafe { from_raw_parts(asked.sums, asked.sum_count as usize) };
            let terms: &[Term] = unsafe { from_raw_parts(asked.terms, asked.term_count as usize) };
            let value = |sum: &Sum, i: usize| -> f32 {
                let terms = &terms[sum.first_term as usize..(sum.first_term + sum.term_count) as usize];
                let read = |term: &Term| match term.numbers.is_null() {
                    true => 1.0,
                    false => unsafe { *term.numbers.cast::<f32>().add(i) },
                };
                terms.iter().fold(-0.0, |total, term| total + term.coefficient as f32 * read(term))
            };
            for part in parts {
                let sums = &sums[part.first_sum as usize..(part.first_sum + part.sum_count) as usize];
                for i in 0..part.count as usize {
                    let values: Vec<f32> = sums.iter().map(|sum| value(sum, i)).collect();
                    for (sum, value) in sums.iter().zip(values) {
                        unsafe { *sum.out.cast::<f32>().add(i) = value };
                    }
                }
            }
            Ok(())
        }

        fn copy(&self, to: *mut c_void, from: *const c_void, bytes: usize) -> Result<()> {
            unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), to.cast::<u8>(), bytes) };
            Ok(())
        }

        fn finite(&self, numbers: *const c_void, _: DLDataType, elements: usize, finite: &mut [u8]) -> Result<()> {
            for (row, finite) in finite.iter_mut().enumerate() {
                let numbers = unsafe { from_raw_parts(numbers.cast::<f32>().add(row * elements), elements) };
                *finite = numbers.iter().all(|x| x.is_finite()).into();
            }
            Ok(())
        }
    }

    /// Updates, a batch that grows and shrinks, and rows that move, as a sampler asks for them.
    fn driven<T: Register>(mut registers: [T; 2], fill: impl Fn(&mut T, Range<usize>), u: T::View<'_>) -> [T; 2] {
        let (x, y, v) = (Operand::Buffer(0), Operand::Buffer(1), Operand::Velocity);
        registers.iter_mut().for_each(|register| register.resize(2).unwrap());
        registers.iter_mut().for_each(|register| fill(register, 0..2));
        registers.iter_mut().for_each(|register| register.resize(3).unwrap());
        registers.iter_mut().for_each(|register| fill(register, 2..3));
        for (rows, out) in [(0..1, 0), (1..3, 1), (0..3, 0)] {
            let other = Update { out: 1 - out, terms: vec![(v, 0.5), (x, 1.25)] };
            let updates = [Update { out, terms: vec![(x, 0.3), (y, -1.7), (v, 0.11)] }, other];
            assert!(T::advance(&mut registers, u, rows, &updates, None).unwrap());
            T::launch(&registers).unwrap();
        }
        registers[1].move_row(2, 0).unwrap();
        T::launch(&registers).unwrap();
        registers[1].resize(2).unwrap();
        registers
    }

    #[test]
    fn every_number_is_that_of_host_memory() {
        let numbers: Vec<f32> = (0u8..15).map(|i| f32::from(i) * 0.375 - 2.0).collect();
        let row = |rows: &Range<usize>| rows.start * 5..rows.end * 5;
        let host = Host::new(numbers.clone(), 5).unwrap();
        let empty = || Host::<f32>::zeros(0, 5).unwrap();
        let of_host = |register: &mut Host<f32>, rows: Range<usize>| {
            register.data_mut()[row(&rows)].copy_from_slice(&numbers[row(&rows)]);
        };
        let here = driven([empty(), empty()], of_host, host.view());

        let device = Arc::new(DeviceMemory::new(Box::new(Blocks::default())));
        let empty = || Remote::new(device.clone(), Dtype::Float32, 5);
        let of_device = |register: &mut Remote, rows: Range<usize>| {
            let source = numbers[row(&rows)].as_ptr();
            register.read(rows, source.cast()).unwrap();
        };
        let lent = RemoteView::new(numbers.as_ptr().cast(), Dtype::Float32, 3, 5);
        let there = driven([empty(), empty()], of_device, lent);
        for (here, there) in here.iter().zip(&there) {
            let mut end = vec![0f32; here.data().len()];
            there.write(0..there.batch(), end.as_mut_ptr().cast()).unwrap();
            assert_eq!(here.data(), end);
        }
        let mut times = there[0].of(Dtype::Float32, 1);
        times.resize(3).unwrap();
        times.fill(&[0.5, 0.5, f64::INFINITY]).unwrap();
        let mut finite = [7; 3];
        times.finite_rows(&mut finite).unwrap();
        assert_eq!(finite, [1, 1, 0]);
        assert!(times.finite_rows(&mut [0; 4]).is_err());
    }
}
