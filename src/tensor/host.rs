//! Samples in host memory, in any of four dtypes.

use super::element::LANES;
use super::numbers::Numbers;
use super::{Crew, Element, Operand, PerRow, Register, Tensor, Update};
use crate::error::{Error, Result};
use crate::memory;
use crate::threads;
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// From this many numbers on, an operation is worth handing to other threads.
pub const PARALLEL: usize = 1 << 16;

/// Threads' shares are multiples of this many numbers.
const SHARE: usize = 1024;

/// A step allocates nothing while the updates of its stage have at most this many terms together.
const INLINE_TERMS: usize = 48;

/// Updates of one stage at most: next state, base, kept velocity.
pub(crate) const MAX_UPDATES: usize = 3;

/// A batch in host memory: `batch * elements` numbers, sample after sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Host<E> {
    data: Numbers<E>,
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

/// A number that all but surely differs where any of `numbers` does.
pub(crate) fn checksum<E: Element>(numbers: &[E]) -> u64 {
    // SAFETY: the bytes of floating-point numbers, which have no padding.
    let bytes = unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast::<u8>(), size_of_val(numbers)) };
    let (words, rest) = bytes.as_chunks::<8>();
    let mixed = |sum: u64, word: u64| (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let sum = words.iter().fold(0, |sum, word| mixed(sum, u64::from_ne_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| mixed(sum, u64::from(*byte)))
}

impl<E: Element> Host<E> {
    /// Takes `data` as samples of `elements` numbers each.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `data` is no whole number of samples.
    pub fn new(data: Vec<E>, elements: usize) -> Result<Self> {
        check_length(data.len(), elements)?;
        Ok(Self { data: data.into(), elements })
    }

    /// `batch` samples of `elements` zeros.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn zeros(batch: usize, elements: usize) -> Result<Self> {
        Self::zeros_at(0, batch, elements)
    }

    /// [`Host::zeros`], for [`Register::beside`].
    fn zeros_at(place: usize, batch: usize, elements: usize) -> Result<Self> {
        let mut zeros = Self { data: Numbers::at(place), elements };
        zeros.resize(batch)?;
        Ok(zeros)
    }

    /// Rounds f32 values into this dtype.
    ///
    /// # Errors
    /// As [`Host::new`]; [`Error::Memory`].
    pub fn from_f32(values: &[f32], elements: usize) -> Result<Self> {
        Self::new(memory::collected(values.iter().map(|v| E::from_f64(f64::from(*v))))?, elements)
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
        Self::new(memory::collected((0..self.batch()).map(|row| E::from_f64(f(row))))?, 1)
    }
}

/// A term of an update, as raw memory.
#[derive(Clone, Copy)]
struct Source<E: Element> {
    coefficient: E::Accumulator,
    numbers: *const E,
}

/// An update as raw memory.
#[derive(Clone, Copy)]
struct Target<'a, E: Element> {
    sources: &'a [Source<E>],
    out: *mut E,
}

/// The updates of a stage as raw memory, so that threads can work on disjoint ranges of it.
struct Blocks<'a, E: Element> {
    earlier: &'a [Target<'a, E>],
    last: &'a Target<'a, E>,
    velocity: &'a [E],
    /// Where the velocity is kept as it is.
    kept: Option<*mut E>,
}

// SAFETY: a `Blocks` is only used through `dispatch` on disjoint ranges, see there.
unsafe impl<E: Element> Sync for Blocks<'_, E> {}

/// `length` numbers, at most [`LANES`]; behind them zeros.
///
/// # Safety
/// They may be read, and no other thread writes them meanwhile.
#[inline(always)]
unsafe fn load<E: Element>(source: *const E, length: usize) -> [E; LANES] {
    // SAFETY: by this function's contract.
    unsafe {
        if length == LANES {
            return source.cast::<[E; LANES]>().read();
        }
        let mut values = [E::default(); LANES];
        std::ptr::copy_nonoverlapping(source, values.as_mut_ptr(), length);
        values
    }
}

/// Writes the first `length` of `values`.
///
/// # Safety
/// `out` may be written, and nobody else has it.
#[inline(always)]
unsafe fn store<E: Element>(out: *mut E, length: usize, values: [E; LANES]) {
    // SAFETY: by this function's contract.
    unsafe {
        match length {
            LANES => out.cast::<[E; LANES]>().write(values),
            _ => std::ptr::copy_nonoverlapping(values.as_ptr(), out, length),
        }
    }
}

/// Sums of a block, kept until those of the other updates are done. The alignment keeps every vector within a
/// cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Sums<E: Element>([E::Accumulator; LANES]);

impl<E: Element> Target<'_, E> {
    /// What it comes to for the `length` numbers from `at` on, at most [`LANES`].
    ///
    /// # Safety
    /// As [`Blocks::sweep`].
    #[inline(always)]
    unsafe fn sum(&self, at: usize, length: usize) -> [E::Accumulator; LANES] {
        let mut sum = E::NOTHING;
        for source in self.sources {
            // SAFETY: by this function's contract.
            sum = E::add(sum, source.coefficient, unsafe { load(source.numbers.add(at), length) });
        }
        sum
    }

    /// Writes what it came to.
    ///
    /// # Safety
    /// As [`Blocks::sweep`].
    #[inline(always)]
    unsafe fn put(&self, at: usize, length: usize, sum: [E::Accumulator; LANES]) {
        // SAFETY: by this function's contract.
        unsafe { store(self.out.add(at), length, E::round(sum)) }
    }
}

impl<E: Element> Blocks<'_, E> {
    /// Runs all updates on the `length` numbers from `at` on, at most [`LANES`]. Gives, lane by lane, the larger of
    /// `largest` and the velocity's bits.
    ///
    /// All sources are read side by side, a few numbers of each at a time: memory serves many streams faster at once
    /// than one after another. The last update's sums never leave the registers; `sums` holds those of the others.
    ///
    /// # Safety
    /// As [`Blocks::sweep`].
    #[inline(always)]
    unsafe fn run(
        &self,
        at: usize,
        length: usize,
        sums: &mut [MaybeUninit<Sums<E>>; MAX_UPDATES],
        largest: [E::Bits; LANES],
    ) -> [E::Bits; LANES] {
        // SAFETY: by this function's contract; nothing is written before everything has been read.
        unsafe {
            for (sums, target) in sums.iter_mut().zip(self.earlier) {
                sums.write(Sums(target.sum(at, length)));
            }
            let sum = self.last.sum(at, length);
            let velocity = load(self.velocity.as_ptr().add(at), length);
            if let Some(kept) = self.kept {
                store(kept.add(at), length, velocity);
            }
            self.last.put(at, length, sum);
            for (sums, target) in sums.iter().zip(self.earlier) {
                target.put(at, length, sums.assume_init_ref().0);
            }
            E::larger(largest, velocity)
        }
    }

    /// [`Blocks::run`] on all of `range`; says whether the velocity is finite there.
    ///
    /// # Safety
    /// `range` lies inside every buffer, and no other thread touches it meanwhile.
    #[inline(always)]
    unsafe fn sweep(&self, range: Range<usize>) -> bool {
        let mut sums = [const { MaybeUninit::uninit() }; MAX_UPDATES];
        let (mut largest, mut at) = (E::ZEROS, range.start);
        while at + LANES <= range.end {
            // SAFETY: by this function's contract.
            largest = unsafe { self.run(at, LANES, &mut sums, largest) };
            at += LANES;
        }
        if at < range.end {
            // SAFETY: by this function's contract.
            largest = unsafe { self.run(at, range.end - at, &mut sums, largest) };
        }
        E::all_finite(largest)
    }

    /// [`Blocks::sweep`] with vectors of 256 bits.
    ///
    /// # Safety
    /// As [`Blocks::run`], on a processor with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn sweep_avx2(&self, range: Range<usize>) -> bool {
        // SAFETY: by this function's contract.
        unsafe { self.sweep(range) }
    }

    /// [`Blocks::sweep`] with vectors of 512 bits.
    ///
    /// # Safety
    /// As [`Blocks::run`], on a processor with AVX-512 F, BW and VL.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn sweep_avx512(&self, range: Range<usize>) -> bool {
        // SAFETY: by this function's contract.
        unsafe { self.sweep(range) }
    }

    /// [`Blocks::sweep`] as this processor does it best.
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
            if has!("avx2") && has!("fma") {
                // SAFETY: by this function's contract, and the feature is there.
                return unsafe { self.sweep_avx2(range) };
            }
        }
        // SAFETY: by this function's contract.
        unsafe { self.sweep(range) }
    }

    /// [`Blocks::dispatch`], by all threads of `crew` where the range is worth it.
    ///
    /// # Safety
    /// As [`Blocks::sweep`].
    unsafe fn share(&self, range: Range<usize>, crew: Option<&mut Crew>) -> bool {
        let Some(crew) = crew.filter(|_| range.len() >= PARALLEL) else {
            // SAFETY: by this function's contract.
            return unsafe { self.dispatch(range) };
        };
        let share = range.len().div_ceil(crew.size()).next_multiple_of(SHARE);
        let finite = AtomicBool::new(true);
        crew.run(&|part| {
            let start = (range.start + part * share).min(range.end);
            // SAFETY: by this function's contract, and the shares do not overlap.
            let own = unsafe { self.dispatch(start..(start + share).min(range.end)) };
            finite.fetch_and(own, Ordering::Relaxed);
        });
        finite.into_inner()
    }
}

/// The numbers of the samples `rows`, where `updates` of `buffers` by `velocity` stay inside all of them.
#[inline]
fn range_of<E: Element>(
    buffers: &[Host<E>],
    velocity: HostView<'_, E>,
    rows: &Range<usize>,
    updates: &[Update],
) -> Result<Range<usize>> {
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
        return Err(Error::State(format!("an update of rows {rows:?} and {} outputs is out of bounds", updates.len())));
    }
    if buffers.iter().any(|buffer| buffer.data.len() < range.end || buffer.elements != elements) {
        return Err(Error::State("the solver's buffers differ in shape".into()));
    }
    Ok(range)
}

/// Writes where each update reads and writes into `targets`; their terms go into `places`, one for each.
#[inline]
fn point_at<'a, E: Element>(
    targets: &mut [Target<'a, E>],
    mut places: &'a mut [MaybeUninit<Source<E>>],
    buffers: &mut [Host<E>],
    velocity: HostView<'_, E>,
    updates: &[Update],
) {
    for (target, update) in targets.iter_mut().zip(updates) {
        let (own, others) = places.split_at_mut(update.terms.len());
        places = others;
        for (place, (operand, coefficient)) in own.iter_mut().zip(&update.terms) {
            let numbers = match operand {
                Operand::Velocity => velocity.data.as_ptr(),
                Operand::Buffer(i) => buffers[*i].data.as_ptr(),
            };
            place.write(Source { coefficient: E::coefficient(*coefficient), numbers });
        }
        // SAFETY: each has just been written.
        let sources = unsafe { &*(&raw const *own as *const [Source<E>]) };
        *target = Target { sources, out: buffers[update.out].data.as_mut_ptr() };
    }
}

/// Splits off an update that only keeps the velocity as it is: gives the other updates, and where it is kept.
#[inline]
fn set_apart(updates: &[Update]) -> (&[Update], Option<usize>) {
    match updates {
        [_, .., last] if last.terms == [(Operand::Velocity, 1.0)] => (&updates[..updates.len() - 1], Some(last.out)),
        _ => (updates, None),
    }
}

impl<E: Element> Register for Host<E> {
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

    fn beside(&self, place: usize, batch: usize, elements: usize) -> Result<Self> {
        Self::zeros_at(place, batch, elements)
    }

    /// More samples are zeros.
    fn resize(&mut self, batch: usize) -> Result<()> {
        self.data.resize(batch.saturating_mul(self.elements))
    }

    fn advance(
        buffers: &mut [Self],
        velocity: HostView<'_, E>,
        rows: Range<usize>,
        updates: &[Update],
        crew: Option<&mut Crew>,
    ) -> Result<bool> {
        let range = range_of(buffers, velocity, &rows, updates)?;
        let (updates, kept) = set_apart(updates);
        let kept = kept.map(|out| buffers[out].data.as_mut_ptr());
        // A usual number of terms is kept on the stack, so that a step allocates nothing.
        let mut inline = [const { MaybeUninit::uninit() }; INLINE_TERMS];
        let mut spilled = Vec::new();
        let terms = updates.iter().map(|update| update.terms.len()).sum();
        let places = if terms <= INLINE_TERMS {
            &mut inline[..]
        } else {
            spilled.resize_with(terms, MaybeUninit::uninit);
            &mut spilled
        };
        let mut targets = [Target { sources: &[], out: std::ptr::null_mut() }; MAX_UPDATES];
        point_at(&mut targets, places, buffers, velocity, updates);
        let Some((last, earlier)) = targets[..updates.len()].split_last() else {
            return Ok(E::finite(&velocity.data[range]));
        };
        let blocks = Blocks { earlier, last, velocity: velocity.data, kept };
        // SAFETY: `range_of` has found the range inside all buffers, which are borrowed for the call.
        Ok(unsafe { blocks.share(range, crew) })
    }

    fn finite_row(&self, batch: HostView<'_, E>, row: usize) -> Result<bool> {
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

    fn move_row(&mut self, from: usize, to: usize) -> Result<()> {
        if from.max(to) >= self.batch() {
            return Err(Error::State(format!("row {} is out of bounds", from.max(to))));
        }
        let elements = self.elements;
        self.data.copy_within(from * elements..(from + 1) * elements, to * elements);
        Ok(())
    }
}

impl<E: Element> Tensor for Host<E> {
    fn zeros_like(&self, batch: usize) -> Result<Self> {
        Self::zeros(batch, self.elements)
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
            for (chunk, out) in out.chunks_mut(LANES).enumerate() {
                let start = row * elements + chunk * LANES;
                let mut sums = E::NOTHING;
                for (coefficient, tensor) in terms {
                    let mut values = [E::default(); LANES];
                    values[..out.len()].copy_from_slice(&tensor.data[start..start + out.len()]);
                    sums = E::add(sums, E::coefficient(coefficient.at(row)), values);
                }
                out.copy_from_slice(&E::round(sums)[..out.len()]);
            }
        };
        if out.data.len() < PARALLEL {
            out.data.chunks_mut(elements).enumerate().for_each(row_of);
        } else {
            threads::shared(|| out.data.par_chunks_mut(elements).enumerate().for_each(row_of));
        }
        Ok(out)
    }

    fn dot(&self, other: &Self) -> Result<Self> {
        self.same_shape(other, "the other factor's shape")?;
        self.map_rows(|row| self.row(row).iter().zip(other.row(row)).map(|(a, b)| a.to_f64() * b.to_f64()).sum())
    }

    fn fetch(columns: &[&Self]) -> Result<Vec<Vec<f64>>> {
        columns.iter().map(|column| memory::collected(column.data.iter().map(|v| v.to_f64()))).collect()
    }

    fn to_f32(&self) -> Result<Vec<f32>> {
        memory::collected(self.data.iter().map(|v| v.to_f64() as f32))
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
        memory::collected((0..error.batch()).map(ratio))
    }

    fn select(&self, rows: &[usize]) -> Result<Self> {
        let mut data = memory::room(memory::numbers(rows.len(), self.elements)?)?;
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
        let mut data = memory::room(parts.iter().map(|part| part.data.len()).sum())?;
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
            Some(data) => Self::new(memory::copied(data)?, self.elements),
            None => Err(Error::invalid("rows", format!("{rows:?}"), format!("within 0..{}", self.batch()))),
        }
    }

    fn is_finite(&self) -> Result<bool> {
        Ok(E::finite(&self.data))
    }
}
