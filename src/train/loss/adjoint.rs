//! Forward and reverse through a table, for any field that has a vector-Jacobian product.
//!
//! Reverse mode of `y_{k+1} = sum_j c_j source_j`: the cotangents of the next point and of the state add to
//! those of the velocities, and one vector-Jacobian product takes that of u_k to y_k and t_k.

use crate::error::{Error, Result};
use crate::tableau::{Keep, Operand, Place, Stage, Tableau};
use crate::tensor::{PerRow, PerRowBuf, Register, Tensor};
use crate::velocity::{Condition, VelocityField};

/// What a term of a trained table reads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// The state.
    State,
    /// The velocity of an evaluation.
    Velocity(usize),
}

impl Source {
    /// The tensor itself.
    pub fn of<'a, T>(&self, state: &'a T, velocities: &'a [T]) -> &'a T {
        match self {
            Source::State => state,
            Source::Velocity(j) => &velocities[*j],
        }
    }
}

/// Of every stage, what the terms of its next point read.
///
/// # Errors
/// [`Error::State`] for a table that reads or keeps anything but the state and velocities: none of the
/// trained families does.
pub(super) fn sources<D>(tableau: &Tableau<D>) -> Result<Vec<Vec<Source>>> {
    let untrained = || Error::State("a table under training reads the state and velocities alone".into());
    // The evaluation whose velocity each register holds.
    let mut held: Vec<Option<usize>> = Vec::new();
    let mut all = Vec::with_capacity(tableau.nfe());
    for (k, stage) in tableau.stages.iter().enumerate() {
        let source = |operand: &Operand| match operand {
            Operand::State => Ok(Source::State),
            Operand::Velocity => Ok(Source::Velocity(k)),
            Operand::Kept(slot) => held.get(*slot).copied().flatten().map(Source::Velocity).ok_or_else(untrained),
            Operand::Point => Err(untrained()),
        };
        all.push(stage.next.terms.iter().map(|(operand, _)| source(operand)).collect::<Result<_>>()?);
        match &stage.keep {
            Keep::Nothing => {}
            Keep::Combination(..) => return Err(untrained()),
            Keep::Velocity(slot) => {
                held.resize(held.len().max(slot + 1), None);
                held[*slot] = Some(k);
            }
        }
    }
    Ok(all)
}

/// What a forward pass leaves for the reverse pass.
pub struct Trace<T> {
    /// u_k of every evaluation.
    pub velocities: Vec<T>,
    /// y_N.
    pub end: T,
}

/// Gradients of one cotangent.
pub struct Gradients<T> {
    /// By the table's scalars, in the order of [`Tableau::scalars`], each `[batch, 1]`.
    pub scalars: Vec<T>,
    /// By the start, `[batch, elements]`, where it was asked for.
    pub start: Option<T>,
}

/// Runs the table forward and keeps the velocities. `visit` sees (y_k, state_k) of every stage.
pub fn forward<F: VelocityField>(
    tableau: &Tableau<PerRowBuf>,
    field: &F,
    start: &F::Tensor,
    condition: &Condition,
    mut visit: impl FnMut(F::Tensor, F::Tensor),
) -> Result<Trace<F::Tensor>> {
    let mut velocities = Vec::with_capacity(tableau.nfe());
    let (mut state, mut point) = (start.duplicate()?, start.duplicate()?);
    for (stage, sources) in tableau.stages.iter().zip(sources(tableau)?) {
        velocities.push(field.eval(stage.t.get(), &point, condition)?);
        let terms = stage.next.terms.iter().zip(sources);
        let terms: Vec<_> = terms.map(|((_, c), source)| (c.get(), source.of(&state, &velocities))).collect();
        let next = F::Tensor::linear_combination(&terms)?;
        let next_state = match stage.place {
            Place::Point => state.duplicate()?,
            Place::State => next.duplicate()?,
        };
        visit(std::mem::replace(&mut point, next), std::mem::replace(&mut state, next_state));
    }
    Ok(Trace { velocities, end: point })
}

/// Cotangents of one output on its way back.
struct Reverse<T> {
    /// Of the next point, or `None` for zero.
    point: Option<T>,
    /// Of the state.
    state: Option<T>,
    /// Of the velocities.
    velocities: Vec<Option<T>>,
    /// Gradients found so far, by stage.
    stages: Vec<Vec<T>>,
}

/// `slot += coefficient * tensor`.
fn accumulate<T: Tensor>(slot: &mut Option<T>, coefficient: PerRow<'_>, tensor: &T) -> Result<()> {
    *slot = Some(match slot.take() {
        None => T::linear_combination(&[(coefficient, tensor)])?,
        Some(old) => T::linear_combination(&[(PerRow::All(1.0), &old), (coefficient, tensor)])?,
    });
    Ok(())
}

/// A stage on the way back, and what it read.
struct Read<'a, T> {
    stage: &'a Stage<PerRowBuf>,
    sources: &'a [Source],
    state: &'a T,
    velocities: &'a [T],
}

impl<T: Tensor> Reverse<T> {
    /// Back through the next point of a stage: gradients by its coefficients, in order; the cotangents of
    /// what it read grow.
    fn row(&mut self, read: &Read<'_, T>) -> Result<()> {
        if read.stage.place == Place::State
            && let Some(of_state) = self.state.take()
        {
            accumulate(&mut self.point, PerRow::All(1.0), &of_state)?;
        }
        let output = match self.point.take() {
            Some(output) => output,
            None => read.state.zeros_like(read.state.batch())?,
        };
        let mut gradients = Vec::with_capacity(read.sources.len() + 1);
        for ((_, c), source) in read.stage.next.terms.iter().zip(read.sources) {
            gradients.push(output.dot(source.of(read.state, read.velocities))?);
            let cotangent = match source {
                Source::State => &mut self.state,
                Source::Velocity(j) => &mut self.velocities[*j],
            };
            accumulate(cotangent, c.get(), &output)?;
        }
        self.stages.push(gradients);
        Ok(())
    }
}

/// Takes `cotangents` of y_N back through the table.
///
/// `registers(k)` gives (y_k, state_k). Without `start`, neither the gradient by the start nor that by
/// the first time is found (it is zero in the result), which saves the first evaluation's product.
pub fn reverse<F: VelocityField>(
    tableau: &Tableau<PerRowBuf>,
    field: &F,
    condition: &Condition,
    velocities: &[F::Tensor],
    registers: impl Fn(usize) -> Result<(F::Tensor, F::Tensor)>,
    cotangents: Vec<F::Tensor>,
    start: bool,
) -> Result<Vec<Gradients<F::Tensor>>> {
    let nfe = tableau.nfe();
    let sources = sources(tableau)?;
    let begin = |point| Reverse {
        point: Some(point),
        state: None,
        velocities: (0..nfe).map(|_| None).collect(),
        stages: Vec::with_capacity(nfe),
    };
    let mut reverses: Vec<Reverse<F::Tensor>> = cotangents.into_iter().map(begin).collect();
    for (k, stage) in tableau.stages.iter().enumerate().rev() {
        let (point, state) = registers(k)?;
        let read = Read { stage, sources: &sources[k], state: &state, velocities };
        reverses.iter_mut().try_for_each(|reverse| reverse.row(&read))?;
        if k == 0 && !start {
            for reverse in &mut reverses {
                let by_time = zero_column(&reverse.stages[nfe - 1][0])?;
                reverse.stages[nfe - 1].insert(0, by_time);
            }
            continue;
        }
        let seeds = reverses
            .iter_mut()
            .map(|reverse| match reverse.velocities[k].take() {
                Some(seed) => Ok(seed),
                None => point.zeros_like(point.batch()),
            })
            .collect::<Result<Vec<_>>>()?;
        let vjp = field.vjp(stage.t.get(), &point, condition, &seeds)?;
        for ((reverse, by_point), by_time) in reverses.iter_mut().zip(vjp.x).zip(vjp.t) {
            reverse.point = Some(by_point);
            if let Some(gradients) = reverse.stages.last_mut() {
                gradients.insert(0, by_time);
            }
        }
    }
    reverses.into_iter().map(|reverse| finish(reverse, start)).collect()
}

/// Whether gradients by the table's scalars are finite: a vector-Jacobian product that is not makes them so.
///
/// # Errors
/// [`Error::NonFiniteProduct`].
pub fn check_finite(columns: &[Vec<f64>]) -> Result<()> {
    if columns.iter().flatten().all(|value| value.is_finite()) { Ok(()) } else { Err(Error::NonFiniteProduct) }
}

fn finish<T: Tensor>(mut reverse: Reverse<T>, start: bool) -> Result<Gradients<T>> {
    let scalars = reverse.stages.into_iter().rev().flatten().collect();
    if !start {
        return Ok(Gradients { scalars, start: None });
    }
    // y_0 is the state: both lead to the start.
    if let Some(state) = &reverse.state {
        accumulate(&mut reverse.point, PerRow::All(1.0), state)?;
    }
    Ok(Gradients { scalars, start: reverse.point })
}

fn zero_column<T: Tensor>(like: &T) -> Result<T> {
    T::linear_combination(&[(PerRow::All(0.0), like)])
}
