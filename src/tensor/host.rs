//! Samples in host memory, in any of four dtypes.

use super::{Operand, PerRow, Tensor, Update};
use crate::error::{Error, Result};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use std::ops::Range;

/// Numbers per block: the accumulators of all outputs stay in the first-level cache.
const BLOCK: usize = 512;

/// From this many numbers on, an update is worth handing to other threads.
const PARALLEL: usize = 1 << 18;

/// Updates of one stage at most: next state, base, kept velocity.
pub(crate) const MAX_UPDATES: usize = 3;

/// A dtype that host memory can hold, with the type its sums are accumulated in.
pub trait Element: Copy + Send + Sync + Default + 'static {
    /// f32, or f64 for f64.
    type Accumulator: Copy + Default + Send + Sync;

    /// `accumulator = coefficient * source`.
    fn begin(accumulator: &mut [Self::Accumulator], coefficient: f64, source: &[Self]);

    /// `accumulator += coefficient * source`.
    fn add(accumulator: &mut [Self::Accumulator], coefficient: f64, source: &[Self]);

    /// Rounds the accumulator into `out`.
    fn store(accumulator: &[Self::Accumulator], out: &mut [Self]);

    /// Whether all numbers are finite.
    fn finite(values: &[Self]) -> bool;

    /// As f64.
    fn to_f64(self) -> f64;

    /// Rounded from f64.
    fn from_f64(value: f64) -> Self;
}

macro_rules! native_element {
    ($float:ty) => {
        impl Element for $float {
            type Accumulator = $float;

            #[inline]
            fn begin(accumulator: &mut [$float], coefficient: f64, source: &[Self]) {
                let c = coefficient as $float;
                accumulator.iter_mut().zip(source).for_each(|(a, x)| *a = c * x);
            }

            #[inline]
            fn add(accumulator: &mut [$float], coefficient: f64, source: &[Self]) {
                let c = coefficient as $float;
                accumulator.iter_mut().zip(source).for_each(|(a, x)| *a += c * x);
            }

            #[inline]
            fn store(accumulator: &[$float], out: &mut [Self]) {
                out.copy_from_slice(&accumulator[..out.len()]);
            }

            #[inline]
            fn finite(values: &[Self]) -> bool {
                // No early exit: the loop vectorises, and values are finite but for failures.
                values.iter().fold(true, |all, x| all & x.is_finite())
            }

            fn to_f64(self) -> f64 {
                f64::from(self)
            }

            fn from_f64(value: f64) -> Self {
                value as $float
            }
        }
    };
}

macro_rules! half_element {
    ($half:ty, $exponent:expr) => {
        impl Element for $half {
            type Accumulator = f32;

            #[inline]
            fn begin(accumulator: &mut [f32], coefficient: f64, source: &[Self]) {
                source.convert_to_f32_slice(&mut accumulator[..source.len()]);
                let c = coefficient as f32;
                accumulator[..source.len()].iter_mut().for_each(|a| *a *= c);
            }

            #[inline]
            fn add(accumulator: &mut [f32], coefficient: f64, source: &[Self]) {
                let mut wide = [0.0f32; BLOCK];
                source.convert_to_f32_slice(&mut wide[..source.len()]);
                f32::add(accumulator, coefficient, &wide[..source.len()]);
            }

            #[inline]
            fn store(accumulator: &[f32], out: &mut [Self]) {
                let length = out.len();
                out.convert_from_f32_slice(&accumulator[..length]);
            }

            #[inline]
            fn finite(values: &[Self]) -> bool {
                // All exponent bits set is how a half writes NaN and infinity.
                values.iter().fold(true, |all, x| all & (x.to_bits() & $exponent != $exponent))
            }

            fn to_f64(self) -> f64 {
                <$half>::to_f64(self)
            }

            fn from_f64(value: f64) -> Self {
                <$half>::from_f64(value)
            }
        }
    };
}

native_element!(f32);
native_element!(f64);
half_element!(f16, 0x7c00);
half_element!(bf16, 0x7f80);

/// A batch in host memory: `batch * elements` numbers, sample after sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Host<E> {
    data: Vec<E>,
    elements: usize,
}

/// A borrowed [`Host`].
#[derive(Clone, Copy, Debug)]
pub struct HostView<'a, E> {
    data: &'a [E],
    elements: usize,
}

impl<'a, E: Element> HostView<'a, E> {
    /// Views `data` as samples of `elements` numbers each.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `data` is no whole number of samples.
    pub fn new(data: &'a [E], elements: usize) -> Result<Self> {
        check_length(data.len(), elements)?;
        Ok(Self { data, elements })
    }

    /// All numbers, sample after sample.
    pub fn data(&self) -> &'a [E] {
        self.data
    }
}

pub(crate) fn check_length(length: usize, elements: usize) -> Result<()> {
    if elements == 0 || !length.is_multiple_of(elements) {
        return Err(Error::invalid(
            "the number of values",
            length,
            format!("a multiple of {elements}, at least 1 each"),
        ));
    }
    Ok(())
}

impl<E: Element> Host<E> {
    /// Takes `data` as samples of `elements` numbers each.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `data` is no whole number of samples.
    pub fn new(data: Vec<E>, elements: usize) -> Result<Self> {
        check_length(data.len(), elements)?;
        Ok(Self { data, elements })
    }

    /// `batch` samples of `elements` zeros.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn zeros(batch: usize, elements: usize) -> Result<Self> {
        let mut zeros = Self { data: Vec::new(), elements };
        zeros.resize(batch)?;
        Ok(zeros)
    }

    /// Keeps the first `batch` samples, or appends zeros. Memory once had is kept.
    ///
    /// # Errors
    /// [`Error::Memory`]; the samples are then as before.
    pub fn resize(&mut self, batch: usize) -> Result<()> {
        let length = batch.saturating_mul(self.elements);
        self.data
            .try_reserve(length.saturating_sub(self.data.len()))
            .map_err(|_| Error::Memory { bytes: length.saturating_mul(size_of::<E>()) })?;
        self.data.resize(length, E::default());
        Ok(())
    }

    /// Rounds f32 values into this dtype.
    ///
    /// # Errors
    /// As [`Host::new`].
    pub fn from_f32(values: &[f32], elements: usize) -> Result<Self> {
        Self::new(values.iter().map(|v| E::from_f64(f64::from(*v))).collect(), elements)
    }

    /// All numbers, sample after sample.
    pub fn data(&self) -> &[E] {
        &self.data
    }

    /// All numbers, to be written.
    pub fn data_mut(&mut self) -> &mut [E] {
        &mut self.data
    }

    /// Sample `row`.
    pub fn row(&self, row: usize) -> &[E] {
        &self.data[row * self.elements..(row + 1) * self.elements]
    }

    fn same_shape(&self, other: &Self, name: &str) -> Result<()> {
        if self.data.len() != other.data.len() || self.elements != other.elements {
            return Err(Error::invalid(
                name,
                format!("[{}, {}]", other.batch(), other.elements),
                format!("[{}, {}]", self.batch(), self.elements),
            ));
        }
        Ok(())
    }

    fn map_rows(&self, f: impl Fn(usize) -> f64) -> Result<Self> {
        Self::new((0..self.batch()).map(|row| E::from_f64(f(row))).collect(), 1)
    }
}

/// The buffers of one update as raw memory, so that threads can work on disjoint blocks of them.
struct Blocks<'a, E> {
    buffers: &'a [*mut E],
    velocity: &'a [E],
    updates: &'a [Update],
}

// SAFETY: a `Blocks` is only used through `run` on disjoint ranges, see there.
unsafe impl<E: Element> Sync for Blocks<'_, E> {}

impl<E: Element> Blocks<'_, E> {
    /// Runs all updates on the numbers `range`, at most [`BLOCK`] of them.
    ///
    /// # Safety
    /// `range` lies inside every buffer, and no other thread touches it meanwhile.
    unsafe fn run(&self, range: Range<usize>) -> bool {
        let length = range.len();
        let mut accumulators = [[E::Accumulator::default(); BLOCK]; MAX_UPDATES];
        let velocity = &self.velocity[range.clone()];
        for (update, accumulator) in self.updates.iter().zip(&mut accumulators) {
            let accumulator = &mut accumulator[..length];
            for (j, (operand, coefficient)) in update.terms.iter().enumerate() {
                let source = match operand {
                    Operand::Velocity => velocity,
                    // SAFETY: in bounds and unshared by this function's contract.
                    Operand::Buffer(i) => unsafe {
                        std::slice::from_raw_parts(self.buffers[*i].add(range.start), length)
                    },
                };
                if j == 0 {
                    E::begin(accumulator, *coefficient, source);
                } else {
                    E::add(accumulator, *coefficient, source);
                }
            }
        }
        for (update, accumulator) in self.updates.iter().zip(&accumulators) {
            // SAFETY: as above, and every operand has been read.
            let out = unsafe { std::slice::from_raw_parts_mut(self.buffers[update.out].add(range.start), length) };
            E::store(&accumulator[..length], out);
        }
        E::finite(velocity)
    }
}

impl<E: Element> Tensor for Host<E> {
    type View<'a> = HostView<'a, E>;

    fn view(&self) -> HostView<'_, E> {
        HostView { data: &self.data, elements: self.elements }
    }

    fn batch(&self) -> usize {
        self.data.len() / self.elements
    }

    fn elements(&self) -> usize {
        self.elements
    }

    fn zeros_like(&self, batch: usize) -> Result<Self> {
        Self::zeros(batch, self.elements)
    }

    fn advance(
        buffers: &mut [Self],
        velocity: HostView<'_, E>,
        rows: Range<usize>,
        updates: &[Update],
    ) -> Result<bool> {
        let elements = velocity.elements;
        let range = rows.start * elements..rows.end * elements;
        let Some(first) = buffers.first() else { return Err(Error::State("an update without buffers".into())) };
        if elements != first.elements || velocity.data.len() != first.data.len() {
            return Err(Error::invalid(
                "the velocity's shape",
                format!("[{}, {elements}]", velocity.data.len() / elements),
                format!("[{}, {}]", first.batch(), first.elements),
            ));
        }
        if updates.len() > MAX_UPDATES || first.data.len() < range.end {
            return Err(Error::State(format!(
                "an update of rows {rows:?} and {} outputs is out of bounds",
                updates.len()
            )));
        }
        // A handful of pointers: on the stack up to the usual number of buffers, so that a step allocates nothing.
        let mut inline = [std::ptr::null_mut(); 16];
        let mut spilled = Vec::new();
        let pointers: &mut [*mut E] = if buffers.len() <= inline.len() {
            &mut inline[..buffers.len()]
        } else {
            spilled.resize(buffers.len(), std::ptr::null_mut());
            &mut spilled
        };
        for (pointer, buffer) in pointers.iter_mut().zip(buffers.iter_mut()) {
            if buffer.data.len() < range.end || buffer.elements != elements {
                return Err(Error::State("the solver's buffers differ in shape".into()));
            }
            *pointer = buffer.data.as_mut_ptr();
        }
        let blocks = Blocks { buffers: pointers, velocity: velocity.data, updates };
        let run = |start: usize, end: usize| {
            (start..end).step_by(BLOCK).fold(true, |finite, at| {
                // SAFETY: inside all buffers (checked above); the ranges of a call do not overlap.
                finite & unsafe { blocks.run(at..(at + BLOCK).min(end)) }
            })
        };
        if range.len() < PARALLEL || rayon::current_num_threads() == 1 {
            return Ok(run(range.start, range.end));
        }
        let share = range.len().div_ceil(rayon::current_num_threads()).next_multiple_of(BLOCK);
        let parts = range.len().div_ceil(share);
        Ok((0..parts)
            .into_par_iter()
            .map(|part| {
                let start = range.start + part * share;
                run(start, (start + share).min(range.end))
            })
            .reduce(|| true, |a, b| a & b))
    }

    fn finite_row(batch: HostView<'_, E>, row: usize) -> Result<bool> {
        let numbers = batch.data.get(row * batch.elements..(row + 1) * batch.elements);
        numbers.map(E::finite).ok_or_else(|| Error::State(format!("row {row} is out of bounds")))
    }

    fn copy_rows(&mut self, source: HostView<'_, E>, rows: Range<usize>) -> Result<()> {
        let range = rows.start * self.elements..rows.end * self.elements;
        match (self.data.get_mut(range.clone()), source.data.get(range)) {
            (Some(to), Some(from)) => {
                to.copy_from_slice(from);
                Ok(())
            }
            _ => Err(Error::State(format!("rows {rows:?} are out of bounds"))),
        }
    }

    fn linear_combination(terms: &[(PerRow<'_>, &Self)]) -> Result<Self> {
        let Some((_, first)) = terms.first() else {
            return Err(Error::State("a linear combination of nothing".into()));
        };
        let elements = first.elements;
        let mut out = first.zeros_like(first.batch())?;
        for (coefficient, tensor) in terms {
            first.same_shape(tensor, "a term's shape")?;
            coefficient.check("a term's coefficient", first.batch())?;
        }
        let row_of = |(row, out): (usize, &mut [E])| {
            let mut accumulator = [E::Accumulator::default(); BLOCK];
            for (block, out) in out.chunks_mut(BLOCK).enumerate() {
                let accumulator = &mut accumulator[..out.len()];
                for (j, (coefficient, tensor)) in terms.iter().enumerate() {
                    let start = row * elements + block * BLOCK;
                    let source = &tensor.data[start..start + out.len()];
                    if j == 0 {
                        E::begin(accumulator, coefficient.at(row), source);
                    } else {
                        E::add(accumulator, coefficient.at(row), source);
                    }
                }
                E::store(accumulator, out);
            }
        };
        if out.data.len() < PARALLEL {
            out.data.chunks_mut(elements).enumerate().for_each(row_of);
        } else {
            out.data.par_chunks_mut(elements).enumerate().for_each(row_of);
        }
        Ok(out)
    }

    fn dot(&self, other: &Self) -> Result<Self> {
        self.same_shape(other, "the other factor's shape")?;
        self.map_rows(|row| self.row(row).iter().zip(other.row(row)).map(|(a, b)| a.to_f64() * b.to_f64()).sum())
    }

    fn fetch(columns: &[&Self]) -> Result<Vec<Vec<f64>>> {
        Ok(columns.iter().map(|column| column.data.iter().map(|v| v.to_f64()).collect()).collect())
    }

    fn to_f32(&self) -> Result<Vec<f32>> {
        Ok(self.data.iter().map(|v| v.to_f64() as f32).collect())
    }

    fn error_ratio(error: &Self, a: &Self, b: &Self, rtol: f64, atol: f64) -> Result<Vec<f64>> {
        error.same_shape(a, "the state's shape")?;
        error.same_shape(b, "the next state's shape")?;
        let ratio = |row: usize| {
            let terms = error.row(row).iter().zip(a.row(row)).zip(b.row(row));
            let sum: f64 = terms
                .map(|((e, a), b)| e.to_f64() / (atol + rtol * a.to_f64().abs().max(b.to_f64().abs())))
                .map(|ratio| ratio * ratio)
                .sum();
            (sum / error.elements as f64).sqrt()
        };
        Ok((0..error.batch()).map(ratio).collect())
    }

    fn select(&self, rows: &[usize]) -> Result<Self> {
        let mut data = Vec::with_capacity(rows.len() * self.elements);
        for &row in rows {
            if row >= self.batch() {
                return Err(Error::invalid("row", row, format!("less than {}", self.batch())));
            }
            data.extend_from_slice(self.row(row));
        }
        Self::new(data, self.elements)
    }

    fn concatenate(parts: &[&Self]) -> Result<Self> {
        let elements = parts.first().map_or(1, |part| part.elements);
        let mut data = Vec::with_capacity(parts.iter().map(|part| part.data.len()).sum());
        for part in parts {
            if part.elements != elements {
                return Err(Error::invalid("elements per sample", part.elements, elements.to_string()));
            }
            data.extend_from_slice(&part.data);
        }
        Self::new(data, elements)
    }

    fn narrow(&self, rows: Range<usize>) -> Result<Self> {
        match self.data.get(rows.start * self.elements..rows.end * self.elements) {
            Some(data) => Self::new(data.to_vec(), self.elements),
            None => Err(Error::invalid("rows", format!("{rows:?}"), format!("within 0..{}", self.batch()))),
        }
    }

    fn is_finite(&self) -> Result<bool> {
        Ok(E::finite(&self.data))
    }
}
