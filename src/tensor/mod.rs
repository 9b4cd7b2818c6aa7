//! The few operations a solver and its trainer need, over host memory, over libtorch, and, the solver's alone, over
//! memory of a device that the host program owns.
//!
//! A tensor here is a batch of flat samples: `[batch, elements]`. Scalars are `f64` on the
//! outside; [`Host`] computes in the accumulation type of its dtype (f32 for f16, bf16 and f32;
//! f64 for f64).

mod crew;
mod device;
mod dtype;
mod element;
mod host;
mod launch;
mod numbers;
mod pool;
mod remote;

pub use crew::Crew;
pub use device::{Compute, Device};
pub use dtype::{DLDataType, Dtype};
pub use element::Element;
pub use host::{Host, HostView, PARALLEL};
pub(crate) use host::{check_length, checksum};
pub use launch::{Combination, DeviceMemory, Operations, Part, Sum, Term};
pub use pool::Pool;
pub use remote::{Remote, RemoteView};

use crate::error::{Error, Result};
use crate::memory;
use std::ops::Range;

/// One number for the whole batch, or one per sample.
#[derive(Clone, Copy, Debug)]
pub enum PerRow<'a> {
    /// The same for every sample.
    All(f64),
    /// One for each sample, `[batch]`.
    Each(&'a [f64]),
}

impl PerRow<'_> {
    /// The number that sample `row` gets.
    pub fn at(&self, row: usize) -> f64 {
        match self {
            PerRow::All(value) => *value,
            PerRow::Each(values) => values[row],
        }
    }

    /// Whether there is a number for every sample of a batch; `field` is what messages call them.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there are more or fewer.
    pub fn check(&self, field: &str, batch: usize) -> Result<()> {
        match self {
            PerRow::Each(values) if values.len() != batch => {
                Err(Error::invalid(field, format!("{} numbers", values.len()), format!("{batch}, one a sample")))
            }
            _ => Ok(()),
        }
    }

    /// The same numbers, each passed through `f`.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Result<PerRowBuf> {
        Ok(match self {
            PerRow::All(value) => PerRowBuf::All(f(*value)),
            PerRow::Each(values) => PerRowBuf::Each(memory::collected(values.iter().map(|v| f(*v)))?),
        })
    }
}

/// An owned [`PerRow`].
#[derive(Clone, Debug)]
pub enum PerRowBuf {
    /// The same for every sample.
    All(f64),
    /// One for each sample, `[batch]`.
    Each(Vec<f64>),
}

impl PerRowBuf {
    /// Borrowed form.
    pub fn get(&self) -> PerRow<'_> {
        match self {
            PerRowBuf::All(value) => PerRow::All(*value),
            PerRowBuf::Each(values) => PerRow::Each(values),
        }
    }
}

/// What a term of an [`Update`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A register of the sampler, by index.
    Buffer(usize),
    /// The velocity that just came in.
    Velocity,
}

/// `registers[out] = sum_j coefficient_j * operand_j`.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Index of the register that is written.
    pub out: usize,
    /// What is summed. All operands are read before anything is written.
    pub terms: Vec<(Operand, f64)>,
}

/// A batch of samples, `[batch, elements]`, as a solver asks of it: one of its registers.
pub trait Register: Sized + Send {
    /// A borrowed batch, so that a host's own memory can be read in place.
    type View<'a>: Copy
    where
        Self: 'a;

    /// This register, borrowed.
    fn view(&self) -> Self::View<'_>;

    /// Number of samples.
    fn batch(&self) -> usize;

    /// Numbers per sample.
    fn elements(&self) -> usize;

    /// Room for `batch` samples of `elements` numbers, of the same dtype and device: the `place`-th of several registers
    /// that are read side by side, from 1. Host memory is placed by that number, so that no two of them displace each
    /// other from the caches. What the samples are before they are written is not said.
    fn beside(&self, place: usize, batch: usize, elements: usize) -> Result<Self>;

    /// Keeps the first `batch` samples, or makes room for more. Memory once had may be kept.
    ///
    /// # Errors
    /// [`Error::Memory`]; the samples are then as before.
    fn resize(&mut self, batch: usize) -> Result<()>;

    /// The solver's hot loop: all `updates` on the samples `rows`, in one pass over memory.
    ///
    /// Every operand is read before any output is written, so a register may stand on both sides.
    /// Returns whether every velocity read was finite; a device that would have to wait for the
    /// answer returns `true` and leaves the check to whoever asks for it at the end.
    /// Host memory shares the work with `crew`.
    ///
    /// This and the two copies below may wait for [`Register::launch`]: until then, none of them writes what another one
    /// reads or writes.
    fn advance(
        registers: &mut [Self],
        velocity: Self::View<'_>,
        rows: Range<usize>,
        updates: &[Update],
        crew: Option<&mut Crew>,
    ) -> Result<bool>;

    /// Overwrites the samples `rows` with those of `source`.
    fn copy_rows(&mut self, source: Self::View<'_>, rows: Range<usize>) -> Result<()>;

    /// Overwrites sample `to` with sample `from`.
    fn move_row(&mut self, from: usize, to: usize) -> Result<()>;

    /// Runs what waits on `registers`, all at once.
    fn launch(_registers: &[Self]) -> Result<()> {
        Ok(())
    }

    /// Whether every number of sample `row` of `batch`, which is like this register, is finite.
    fn finite_row(&self, batch: Self::View<'_>, row: usize) -> Result<bool>;

    /// Says of each of the first `finite.len()` samples whether every number of it is finite: 1 or 0.
    fn finite_rows(&self, finite: &mut [u8]) -> Result<()> {
        for (row, finite) in finite.iter_mut().enumerate() {
            *finite = self.finite_row(self.view(), row)?.into();
        }
        Ok(())
    }
}

/// A batch of samples, `[batch, elements]`, as networks, the ground truth and training ask of it.
pub trait Tensor: Register {
    /// A tensor of `batch` samples of zeros, of the same dtype and device.
    fn zeros_like(&self, batch: usize) -> Result<Self>;

    /// `sum_j coefficient_j * tensor_j`, each coefficient for the batch or per sample.
    fn linear_combination(terms: &[(PerRow<'_>, &Self)]) -> Result<Self>;

    /// Per-sample dot product, `[batch, 1]`.
    fn dot(&self, other: &Self) -> Result<Self>;

    /// The values of `[batch, 1]` tensors, fetched from their device in one transfer.
    fn fetch(columns: &[&Self]) -> Result<Vec<Vec<f64>>>;

    /// All values, row by row.
    fn to_f32(&self) -> Result<Vec<f32>>;

    /// Per-sample root mean square of `error / (atol + rtol max(|a|, |b|))`: the quantity an
    /// adaptive step size control holds below 1.
    fn error_ratio(error: &Self, a: &Self, b: &Self, rtol: f64, atol: f64) -> Result<Vec<f64>>;

    /// The samples at `rows`, in that order.
    fn select(&self, rows: &[usize]) -> Result<Self>;

    /// The samples of all `parts`, one part after the other.
    fn concatenate(parts: &[&Self]) -> Result<Self>;

    /// The samples `rows`, copied or shared.
    fn narrow(&self, rows: Range<usize>) -> Result<Self>;

    /// Whether every number is finite.
    fn is_finite(&self) -> Result<bool>;

    /// A copy of its own.
    fn duplicate(&self) -> Result<Self> {
        Self::linear_combination(&[(PerRow::All(1.0), self)])
    }

    /// Per-sample root mean square of `self - other` (BES: the norm of the global error).
    fn rmse(&self, other: &Self) -> Result<Vec<f64>> {
        let difference = Self::linear_combination(&[(PerRow::All(1.0), self), (PerRow::All(-1.0), other)])?;
        let squared = difference.dot(&difference)?;
        let elements = self.elements() as f64;
        let mut columns = Self::fetch(&[&squared])?;
        let mut sums = columns.swap_remove(0);
        sums.iter_mut().for_each(|sum| *sum = (*sum / elements).sqrt());
        Ok(sums)
    }
}
