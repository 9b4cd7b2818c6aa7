//! Forward and reverse through a table, for any field that has a vector-Jacobian product.
//!
//! Reverse mode of `y_{k+1} = next.x base + sum_j next.u_j u_j`: the cotangents of the next point and of
//! the base add to those of the velocities, and one vector-Jacobian product takes that of u_k to y_k and t_k.

use crate::error::{Error, Result};
use crate::tableau::{Base, Row, Tableau};
use crate::tensor::{PerRow, PerRowBuf, Tensor};
use crate::velocity::{Condition, VelocityField};

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

/// `row` over a base and velocities.
fn evaluate<T: Tensor>(row: &Row<PerRowBuf>, base: &T, velocities: &[T]) -> Result<T> {
    let mut terms = vec![(row.x.get(), base)];
    terms.extend(row.u.iter().map(|(j, c)| (c.get(), &velocities[*j])));
    T::linear_combination(&terms)
}

/// Runs the table forward and keeps the velocities. `visit` sees (y_k, base_k) of every stage.
pub fn forward<F: VelocityField>(
    tableau: &Tableau<PerRowBuf>,
    field: &F,
    start: &F::Tensor,
    condition: &Condition,
    mut visit: impl FnMut(F::Tensor, F::Tensor),
) -> Result<Trace<F::Tensor>> {
    let mut velocities = Vec::with_capacity(tableau.nfe());
    let (mut base, mut point) = (start.duplicate()?, start.duplicate()?);
    for stage in &tableau.stages {
        velocities.push(field.eval(stage.t.get(), &point, condition)?);
        let next = evaluate(&stage.next, &base, &velocities)?;
        let next_base = match &stage.base {
            Base::Keep => base.duplicate()?,
            Base::Next => next.duplicate()?,
            Base::Row(row) => evaluate(row, &base, &velocities)?,
        };
        visit(std::mem::replace(&mut point, next), std::mem::replace(&mut base, next_base));
    }
    Ok(Trace { velocities, end: point })
}

/// Cotangents of one output on its way back.
struct Reverse<T> {
    /// Of the next point, or `None` for zero.
    point: Option<T>,
    /// Of the base.
    base: Option<T>,
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

impl<T: Tensor> Reverse<T> {
    /// Back through `output = row`: gradients by the row's coefficients, in order; the
    /// velocities' cotangents grow; the base's comes back.
    fn row(&mut self, row: &Row<PerRowBuf>, output: &T, base: &T, velocities: &[T]) -> Result<(Vec<T>, T)> {
        let mut gradients = vec![output.dot(base)?];
        for (j, c) in &row.u {
            gradients.push(output.dot(&velocities[*j])?);
            accumulate(&mut self.velocities[*j], c.get(), output)?;
        }
        Ok((gradients, T::linear_combination(&[(row.x.get(), output)])?))
    }
}

/// Takes `cotangents` of y_N back through the table.
///
/// `state(k)` gives (y_k, base_k). Without `start`, neither the gradient by the start nor that by
/// the first time is found (it is zero in the result), which saves the first evaluation's product.
pub fn reverse<F: VelocityField>(
    tableau: &Tableau<PerRowBuf>,
    field: &F,
    condition: &Condition,
    velocities: &[F::Tensor],
    state: impl Fn(usize) -> Result<(F::Tensor, F::Tensor)>,
    cotangents: Vec<F::Tensor>,
    start: bool,
) -> Result<Vec<Gradients<F::Tensor>>> {
    let nfe = tableau.nfe();
    let mut reverses: Vec<Reverse<F::Tensor>> = cotangents
        .into_iter()
        .map(|point| Reverse {
            point: Some(point),
            base: None,
            velocities: (0..nfe).map(|_| None).collect(),
            stages: Vec::with_capacity(nfe),
        })
        .collect();
    for (k, stage) in tableau.stages.iter().enumerate().rev() {
        let (point, base) = state(k)?;
        for reverse in &mut reverses {
            let mut after = reverse.base.take();
            let mut base_row = None;
            let mut base_cotangent = None;
            match (&stage.base, &after) {
                (Base::Next, Some(of_base)) => {
                    accumulate(&mut reverse.point, PerRow::All(1.0), of_base)?;
                    after = None;
                }
                (Base::Row(row), Some(of_base)) => base_row = Some(reverse.row(row, of_base, &base, velocities)?),
                (Base::Row(row), None) => {
                    let nothing = base.zeros_like(base.batch())?;
                    base_row = Some(reverse.row(row, &nothing, &base, velocities)?);
                }
                _ => {}
            }
            let output = match reverse.point.take() {
                Some(output) => output,
                None => base.zeros_like(base.batch())?,
            };
            let (mut gradients, through) = reverse.row(&stage.next, &output, &base, velocities)?;
            accumulate(&mut base_cotangent, PerRow::All(1.0), &through)?;
            match base_row {
                Some((row_gradients, through_base)) => {
                    gradients.extend(row_gradients);
                    accumulate(&mut base_cotangent, PerRow::All(1.0), &through_base)?;
                }
                None => {
                    if let Some(kept) = &after {
                        accumulate(&mut base_cotangent, PerRow::All(1.0), kept)?;
                    }
                }
            }
            reverse.base = base_cotangent;
            reverse.stages.push(gradients);
        }
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
    // y_0 is the base: both lead to the start.
    if let Some(base) = &reverse.base {
        accumulate(&mut reverse.point, PerRow::All(1.0), base)?;
    }
    Ok(Gradients { scalars, start: reverse.point })
}

fn zero_column<T: Tensor>(like: &T) -> Result<T> {
    T::linear_combination(&[(PerRow::All(0.0), like)])
}
