//! What a solver and its trainer ask of a model.

use crate::error::{Error, Result};
use crate::inputs::{self, Inputs};
use crate::ranks::Ranks;
use crate::tensor::{PerRow, Register, Tensor};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What each sample of a batch is conditioned on. The default is no condition, for any batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// What the network is given besides time and state.
    pub inputs: Inputs,
    /// How strongly the samples are guided. A scale that is not there is 1, off.
    pub scales: Vec<Scale>,
}

/// The name of the scale of plain classifier-free guidance.
pub const GUIDANCE_SCALE: &str = "guidance_scale";

/// One scale of guidance: u = u_uncond + s (u_cond - u_uncond), or a link of the card's chain of passes.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// What the card calls it; [`GUIDANCE_SCALE`] where the card does not say.
    pub name: String,
    /// One a sample, `[batch]`.
    pub values: Vec<f64>,
}

impl Condition {
    /// The condition of samples that are given `inputs` and are not guided.
    pub fn new(inputs: Inputs) -> Self {
        Self { inputs, scales: Vec::new() }
    }

    /// The condition of samples of these classes; of none where there are none.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn of_classes(classes: &[i64]) -> Result<Self> {
        Ok(Self::new(inputs::of_classes(classes)?))
    }

    /// The same, with the plain guidance scale of each sample; none is 1 for all.
    pub fn guided(mut self, values: Vec<f64>) -> Self {
        self.scales.retain(|scale| scale.name != GUIDANCE_SCALE);
        if !values.is_empty() {
            self.scales.push(Scale { name: GUIDANCE_SCALE.to_owned(), values });
        }
        self
    }

    /// The values of the scale called `name`, where it is there.
    pub fn scale(&self, name: &str) -> Option<&[f64]> {
        self.scales.iter().find(|scale| scale.name == name).map(|scale| scale.values.as_slice())
    }

    /// The condition of the samples `rows`, in that order; each must be one.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn select(&self, rows: &[usize]) -> Result<Self> {
        let scale = |scale: &Scale| Scale {
            name: scale.name.clone(),
            values: rows.iter().map(|row| scale.values[*row]).collect(),
        };
        Ok(Self { inputs: self.inputs.select(rows)?, scales: self.scales.iter().map(scale).collect() })
    }

    /// The conditions of a batch of `batch` samples stacked `copies` times.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn repeat(&self, batch: usize, copies: usize) -> Result<Self> {
        self.select(&(0..batch).collect::<Vec<_>>().repeat(copies))
    }
}

/// A vector-Jacobian product, for each cotangent that was asked for.
#[derive(Clone, Debug)]
pub struct Vjp<T> {
    /// w^T du/dx, `[batch, elements]`.
    pub x: Vec<T>,
    /// w . du/dt, `[batch, 1]`.
    pub t: Vec<T>,
}

/// A velocity field u_t(x), t in [0, 1] from noise to data.
/// A field of one's own, all of whose samples end in one point:
///
/// ```
/// use bespoke::Result;
/// use bespoke::dopri5::{self, Tolerance};
/// use bespoke::tensor::{Host, PerRow, Register};
/// use bespoke::velocity::{Condition, VelocityField};
///
/// struct ToThePoint(f64);
///
/// impl VelocityField for ToThePoint {
///     type Tensor = Host<f64>;
///
///     fn elements(&self) -> usize {
///         1
///     }
///
///     fn upload(&self, values: &[f32], elements: usize) -> Result<Host<f64>> {
///         Host::from_f32(values, elements)
///     }
///
///     // u_t(x) = (point - x) / (1 - t), which is regular along its solutions.
///     fn eval(&self, t: PerRow<'_>, x: &Host<f64>, _: &Condition) -> Result<Host<f64>> {
///         let u = |row| (self.0 - x.row(row)[0]) / f64::max(1.0 - t.at(row), 1e-9);
///         Host::new((0..x.batch()).map(u).collect(), 1)
///     }
/// }
///
/// let field = ToThePoint(0.7);
/// let noise = field.upload(&[-1.0, 2.0], 1)?;
/// let solved = dopri5::solve(&field, &noise, &Condition::default(), Tolerance::default(), false)?;
/// assert!((0..2).all(|row| (solved.x1.row(row)[0] - 0.7).abs() < 1e-4));
/// # Ok::<(), bespoke::Error>(())
/// ```
pub trait VelocityField {
    /// Where its samples live.
    type Tensor: Tensor;

    /// Numbers per sample; 0 where samples of different batches may have different ones.
    fn elements(&self) -> usize;

    /// Brings samples of `elements` numbers each to where this field computes.
    fn upload(&self, values: &[f32], elements: usize) -> Result<Self::Tensor>;

    /// x(0) from standard normal noise, `elements` numbers a sample.
    fn start(&self, noise: &[f32], elements: usize) -> Result<Self::Tensor> {
        self.upload(noise, elements)
    }

    /// u_t(x), `[batch, elements]`.
    fn eval(&self, t: PerRow<'_>, x: &Self::Tensor, condition: &Condition) -> Result<Self::Tensor>;

    /// Relative accuracy of a velocity, from which differences of it choose their steps.
    fn accuracy(&self) -> f64 {
        f64::from(f32::EPSILON)
    }

    /// Whether [`VelocityField::vjp`] works.
    fn differentiable(&self) -> bool {
        false
    }

    /// The vector-Jacobian product of u_t(x) for each of `cotangents`, all `[batch, elements]`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a field that can only be evaluated.
    fn vjp(
        &self,
        _t: PerRow<'_>,
        _x: &Self::Tensor,
        _condition: &Condition,
        _cotangents: &[Self::Tensor],
    ) -> Result<Vjp<Self::Tensor>> {
        Err(Error::Unsupported("this velocity field has no vector-Jacobian product".into()))
    }

    /// Samples that one evaluation of a batch takes through the network: twice as many where all are guided.
    ///
    /// # Errors
    /// [`Error::Memory`].
    fn passes(&self, _t: PerRow<'_>, batch: usize, _condition: &Condition) -> Result<usize> {
        Ok(batch)
    }
}

/// A field that counts what is asked of it, in samples.
pub struct Counted<'a, F> {
    field: &'a F,
    forward: AtomicU64,
    backward: AtomicU64,
    passes: AtomicU64,
    settled: Mutex<Evaluations>,
}

/// Evaluations of single samples. An evaluation counts 1 forward; a vector-Jacobian product
/// counts 1 forward and, for each cotangent, 1 backward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Evaluations {
    /// Samples through the field.
    pub forward: u64,
    /// Samples back through it.
    pub backward: u64,
}

impl Evaluations {
    /// Forward evaluations that cost about as much: a backward pass counts two.
    pub fn equivalents(&self) -> u64 {
        self.forward + 2 * self.backward
    }

    /// What came after there were `before`, which must not be more.
    pub fn since(&self, before: Evaluations) -> Self {
        Self { forward: self.forward - before.forward, backward: self.backward - before.backward }
    }
}

impl<'a, F: VelocityField> Counted<'a, F> {
    /// Counts from zero, or from where an earlier run stopped.
    pub fn new(field: &'a F, start: Evaluations) -> Self {
        Self {
            field,
            forward: start.forward.into(),
            backward: start.backward.into(),
            passes: 0.into(),
            settled: start.into(),
        }
    }

    /// Counts on from `evaluations`.
    pub fn set(&self, evaluations: Evaluations) {
        self.forward.store(evaluations.forward, Ordering::Relaxed);
        self.backward.store(evaluations.backward, Ordering::Relaxed);
        *self.settled.lock() = evaluations;
    }

    /// Counts what an earlier process was asked for as this one's.
    pub fn add(&self, evaluations: Evaluations) {
        self.forward.fetch_add(evaluations.forward, Ordering::Relaxed);
        self.backward.fetch_add(evaluations.backward, Ordering::Relaxed);
    }

    /// Takes in what the other ranks were asked since the last time; they take this one's in.
    pub fn settle(&self, ranks: &Ranks) {
        let (now, before) = (self.evaluations(), *self.settled.lock());
        // Exact up to 2^53.
        let mut since = [(now.forward - before.forward) as f64, (now.backward - before.backward) as f64];
        ranks.sum(&mut since);
        let [forward, backward] = since.map(|count| count as u64);
        self.set(Evaluations { forward: before.forward + forward, backward: before.backward + backward });
    }

    /// Samples that evaluations took through the network so far, of this process.
    pub fn network_passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }

    /// What was asked so far, of other ranks up to the last [`Counted::settle`].
    pub fn evaluations(&self) -> Evaluations {
        Evaluations { forward: self.forward.load(Ordering::Relaxed), backward: self.backward.load(Ordering::Relaxed) }
    }
}

impl<F: VelocityField> VelocityField for Counted<'_, F> {
    type Tensor = F::Tensor;

    fn elements(&self) -> usize {
        self.field.elements()
    }

    fn upload(&self, values: &[f32], elements: usize) -> Result<Self::Tensor> {
        self.field.upload(values, elements)
    }

    fn start(&self, noise: &[f32], elements: usize) -> Result<Self::Tensor> {
        self.field.start(noise, elements)
    }

    fn eval(&self, t: PerRow<'_>, x: &Self::Tensor, condition: &Condition) -> Result<Self::Tensor> {
        self.forward.fetch_add(x.batch() as u64, Ordering::Relaxed);
        let u = self.field.eval(t, x, condition)?;
        // Of a condition that the field has found to be one of this batch.
        self.passes.fetch_add(self.field.passes(t, x.batch(), condition)? as u64, Ordering::Relaxed);
        Ok(u)
    }

    fn accuracy(&self) -> f64 {
        self.field.accuracy()
    }

    fn differentiable(&self) -> bool {
        self.field.differentiable()
    }

    fn vjp(
        &self,
        t: PerRow<'_>,
        x: &Self::Tensor,
        condition: &Condition,
        cotangents: &[Self::Tensor],
    ) -> Result<Vjp<Self::Tensor>> {
        self.forward.fetch_add(x.batch() as u64, Ordering::Relaxed);
        self.backward.fetch_add((x.batch() * cotangents.len()) as u64, Ordering::Relaxed);
        self.field.vjp(t, x, condition, cotangents)
    }

    fn passes(&self, t: PerRow<'_>, batch: usize, condition: &Condition) -> Result<usize> {
        self.field.passes(t, batch, condition)
    }
}
