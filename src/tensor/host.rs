//! Samples in host memory, in any of four dtypes.

use super::element::{BLOCK, PASS};
use super::{Crew, Element, Operand, PerRow, Tensor, Update};
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// From this many numbers on, an operation is worth handing to other threads.
const PARALLEL: usize = 1 << 16;

/// Updates of one stage at most: next state, base, kept velocity.
pub(crate) const MAX_UPDATES: usize = 3;
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
    /// For each update, whether it goes without an accumulator.
    direct: [Option<Direct>; MAX_UPDATES],
}

/// How an update can be written at once, with no accumulator in between.
#[derive(Clone, Copy, PartialEq)]
enum Direct {
    /// Nothing reads what it writes.
    Fresh,
    /// It alone reads what it writes, as its first term.
    InPlace,
}

impl Direct {
    /// How `update` can be written, or `None` where others of `updates` read what it overwrites, or
    /// it is a sum of several passes in a dtype that would round it after each.
    fn of<E: Element>(update: &Update, updates: &[Update]) -> Option<Self> {
        let reads = |terms: &[(Operand, f64)]| terms.iter().any(|(operand, _)| *operand == Operand::Buffer(update.out));
        let (first, rest) = update.terms.split_first()?;
        let wide = size_of::<E>() == size_of::<E::Accumulator>();
        let others = updates.iter().any(|other| other.out != update.out && reads(&other.terms));
        if others || reads(rest) || !(wide || rest.len() < PASS) {
            return None;
        }
        Some(if first.0 == Operand::Buffer(update.out) { Direct::InPlace } else { Direct::Fresh })
    }
}

// SAFETY: a `Blocks` is only used through `dispatch` on disjoint ranges, see there.
unsafe impl<E: Element> Sync for Blocks<'_, E> {}

impl<E: Element> Blocks<'_, E> {
    /// What `operand` holds in `range`.
    ///
    /// # Safety
    /// `range` lies inside every buffer, and no other thread writes it meanwhile.
    #[inline(always)]
    unsafe fn source(&self, operand: Operand, range: &Range<usize>) -> &[E] {
        match operand {
            Operand::Velocity => &self.velocity[range.clone()],
            // SAFETY: by this function's contract.
            Operand::Buffer(i) => unsafe { std::slice::from_raw_parts(self.buffers[i].add(range.start), range.len()) },
        }
    }

    /// Runs all updates on the numbers `range`, at most [`BLOCK`] of them; says whether the
    /// velocity is finite there. `ACCUMULATOR` is [`BLOCK`], or 0 where all updates are direct.
    ///
    /// # Safety
    /// `range` lies inside every buffer, and no other thread touches it meanwhile.
    #[inline(always)]
    unsafe fn run<const ACCUMULATOR: usize>(
        &self,
        range: Range<usize>,
        accumulators: &mut [[E::Accumulator; ACCUMULATOR]; MAX_UPDATES],
    ) -> bool {
        let length = range.len();
        for (i, update) in self.updates.iter().enumerate() {
            if let Some(direct) = self.direct[i] {
                // SAFETY: by this function's contract; nothing else of this block reads what is written.
                unsafe { self.write(update, direct, &range) };
                continue;
            }
            for (pass, terms) in update.terms.chunks(PASS).enumerate() {
                // SAFETY: by this function's contract.
                let sources = unsafe { self.sources(terms, &range) };
                E::combine(&mut accumulators[i][..length], &sources[..terms.len()], pass == 0);
            }
        }
        for (i, update) in self.updates.iter().enumerate().filter(|(i, _)| self.direct[*i].is_none()) {
            // SAFETY: by this function's contract, and every operand has been read.
            E::store(&accumulators[i][..length], unsafe { self.out(update, &range) });
        }
        E::finite(&self.velocity[range])
    }

    /// What up to [`PASS`] terms read in `range`.
    ///
    /// # Safety
    /// As [`Blocks::source`].
    #[inline(always)]
    unsafe fn sources(&self, terms: &[(Operand, f64)], range: &Range<usize>) -> [(f64, &[E]); PASS] {
        let mut sources: [(f64, &[E]); PASS] = [(0.0, &[]); PASS];
        for (source, (operand, coefficient)) in sources.iter_mut().zip(terms) {
            // SAFETY: by this function's contract.
            *source = (*coefficient, unsafe { self.source(*operand, range) });
        }
        sources
    }

    /// # Safety
    /// `range` lies inside every buffer, and nobody else has it.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)] // the buffers are raw memory
    unsafe fn out(&self, update: &Update, range: &Range<usize>) -> &mut [E] {
        // SAFETY: by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.buffers[update.out].add(range.start), range.len()) }
    }

    /// One update without an accumulator in between.
    ///
    /// # Safety
    /// As [`Blocks::run`], and `direct` is of `update`.
    #[inline(always)]
    unsafe fn write(&self, update: &Update, direct: Direct, range: &Range<usize>) {
        // SAFETY: by this function's contract; the terms below are of other buffers.
        let out = unsafe { self.out(update, range) };
        let (mut own, terms) = match direct {
            Direct::Fresh => (None, &update.terms[..]),
            Direct::InPlace => (Some(update.terms[0].1), &update.terms[1..]),
        };
        let mut passes = terms.chunks(PASS);
        let mut next = passes.next().unwrap_or_default();
        loop {
            // SAFETY: by this function's contract.
            let sources = unsafe { self.sources(next, range) };
            E::write(out, own, &sources[..next.len()]);
            own = Some(1.0);
            match passes.next() {
                Some(terms) => next = terms,
                None => return,
            }
        }
    }

    /// [`Blocks::run`] on all blocks of `range`.
    ///
    /// # Safety
    /// As [`Blocks::run`].
    #[inline(always)]
    unsafe fn sweep<const ACCUMULATOR: usize>(&self, range: Range<usize>) -> bool {
        let mut accumulators = [[E::Accumulator::default(); ACCUMULATOR]; MAX_UPDATES];
        let (mut finite, mut at) = (true, range.start);
        while at < range.end {
            // SAFETY: by this function's contract.
            finite &= unsafe { self.run(at..(at + BLOCK).min(range.end), &mut accumulators) };
            at += BLOCK;
        }
        finite
    }

    /// [`Blocks::sweep`], with accumulators where they are needed.
    ///
    /// # Safety
    /// As [`Blocks::run`].
    #[inline(always)]
    unsafe fn sweep_any(&self, range: Range<usize>) -> bool {
        // SAFETY: by this function's contract.
        unsafe {
            match self.direct[..self.updates.len()].iter().all(Option::is_some) {
                true => self.sweep::<0>(range),
                false => self.sweep::<BLOCK>(range),
            }
        }
    }

    /// [`Blocks::sweep_any`] with vectors of 256 bits.
    ///
    /// # Safety
    /// As [`Blocks::run`], on a processor with AVX2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn sweep_avx2(&self, range: Range<usize>) -> bool {
        // SAFETY: by this function's contract.
        unsafe { self.sweep_any(range) }
    }

    /// [`Blocks::sweep_any`] with vectors of 512 bits.
    ///
    /// # Safety
    /// As [`Blocks::run`], on a processor with AVX-512 F, BW and VL.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn sweep_avx512(&self, range: Range<usize>) -> bool {
        // SAFETY: by this function's contract.
        unsafe { self.sweep_any(range) }
    }

    /// [`Blocks::sweep_any`] as this processor does it best.
    ///
    /// # Safety
    /// As [`Blocks::run`].
    unsafe fn dispatch(&self, range: Range<usize>) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx512f") && has!("avx512bw") && has!("avx512vl") {
                // SAFETY: by this function's contract, and the features are there.
                return unsafe { self.sweep_avx512(range) };
            }
            if has!("avx2") {
                // SAFETY: by this function's contract, and the feature is there.
                return unsafe { self.sweep_avx2(range) };
            }
        }
        // SAFETY: by this function's contract.
        unsafe { self.sweep_any(range) }
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
        crew: Option<&Crew>,
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
        let mut direct = [None; MAX_UPDATES];
        direct.iter_mut().zip(updates).for_each(|(direct, update)| *direct = Direct::of::<E>(update, updates));
        let blocks = Blocks { buffers: pointers, velocity: velocity.data, updates, direct };
        let Some(crew) = crew.filter(|_| range.len() >= PARALLEL) else {
            // SAFETY: inside all buffers, checked above.
            return Ok(unsafe { blocks.dispatch(range) });
        };
        let share = range.len().div_ceil(crew.size()).next_multiple_of(BLOCK);
        let finite = AtomicBool::new(true);
        crew.run(&|part| {
            let start = (range.start + part * share).min(range.end);
            // SAFETY: inside all buffers, and the shares do not overlap.
            let own = unsafe { blocks.dispatch(start..(start + share).min(range.end)) };
            finite.fetch_and(own, Ordering::Relaxed);
        });
        Ok(finite.into_inner())
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
                let start = row * elements + block * BLOCK;
                for (j, (coefficient, tensor)) in terms.iter().enumerate() {
                    let source = &tensor.data[start..start + out.len()];
                    E::combine(accumulator, &[(coefficient.at(row), source)], j == 0);
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
