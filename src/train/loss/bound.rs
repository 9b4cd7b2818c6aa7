//! The RMSE-Bound loss (BES Eq. 26): local errors d_i on the ground-truth path, weighted by M_i.
//!
//! The n steps start on the path and do not depend on each other: they are evaluated as one batch
//! of n x B, step after step.

use super::LossGradient;
use super::adjoint::{forward, reverse};
use super::differences::Step;
use crate::error::{Error, Result};
use crate::tableau::{Combination, Keep, Stage, Tableau};
use crate::tensor::{PerRow, PerRowBuf, Tensor};
use crate::train::parameters::{Coordinates, Parameters, Shape};
use crate::train::paths::Pool;
use crate::velocity::VelocityField;
use nalgebra::DVector;

/// A local error below this is as good as none; it keeps gradients finite.
const SMALLEST_RMS: f64 = 1e-12;

/// The steps of a Runge-Kutta table as one step whose scalars differ from row to row: block i of
/// `batch` rows is step i.
fn stacked_step(table: &Tableau<f64>, stages_per_step: usize, batch: usize) -> Tableau<PerRowBuf> {
    let steps = table.nfe() / stages_per_step;
    let each = |of: &dyn Fn(&Stage<f64>) -> f64, s: usize| {
        let value = |row: usize| of(&table.stages[row / batch * stages_per_step + s]);
        PerRowBuf::Each((0..steps * batch).map(value).collect())
    };
    let stage = |s: usize| {
        let template = &table.stages[s];
        let term = |j: usize| (template.next.terms[j].0, each(&|stage| stage.next.terms[j].1, s));
        Stage {
            t: each(&|stage| stage.t, s),
            next: Combination { terms: (0..template.next.terms.len()).map(term).collect() },
            place: template.place,
            keep: template.keep.slot().map_or(Keep::Nothing, Keep::Velocity),
            ends_step: template.ends_step,
        }
    };
    Tableau { stages: (0..stages_per_step).map(stage).collect() }
}

/// The loss of the samples `rows` (in increasing order) of a dense pool, and its gradient.
///
/// # Errors
/// The field's own; [`Error::NonFinite`]; [`Error::Unsupported`] for the non-stationary family,
/// which has no steps of its own to start on the path.
pub fn bound_loss<F: VelocityField>(
    parameters: &Parameters,
    l_tau: f64,
    field: &F,
    pool: &Pool<F::Tensor>,
    rows: &[usize],
) -> Result<LossGradient> {
    if matches!(parameters.shape, Shape::Ns(_)) {
        return Err(Error::Unsupported("the rmse-bound loss is for rk1 and rk2; ns takes log-mse or rmse".into()));
    }
    if parameters.coordinates != Coordinates::Knots {
        return Err(Error::State("the rmse-bound loss weighs by scales: it needs a theta's knots".into()));
    }
    let (batch, per_step) = (rows.len(), parameters.shape.stages_per_step());
    let table = parameters.tableau();
    let steps = parameters.shape.steps();
    let knot_time = |i: usize| if i == steps { 1.0 } else { table.stages[i * per_step].t };
    // x_aux equals x(t_i); that it moves with t_i (Eq. 27) enters below as <cotangent, u>.
    let knots = (0..=steps).map(|i| pool.at(knot_time(i), rows)).collect::<Result<Vec<_>>>()?;
    let start = F::Tensor::concatenate(&knots[..steps].iter().collect::<Vec<_>>())?;
    let target = F::Tensor::concatenate(&knots[1..].iter().collect::<Vec<_>>())?;
    let condition = pool.condition(rows)?.repeat(batch, steps)?;

    let step = stacked_step(&table, per_step, batch);
    let mut states = Vec::with_capacity(per_step);
    let trace = forward(&step, field, &start, &condition, |point, state| states.push((point, state)))?;
    let error = F::Tensor::linear_combination(&[(PerRow::All(1.0), &trace.end), (PerRow::All(-1.0), &target)])?;
    let rms = trace.end.rmse(&target)?;
    if let Some(row) = rms.iter().position(|rms| !rms.is_finite()) {
        let evaluation = row / batch * per_step;
        return Err(Error::NonFinite { evaluation, t: knot_time(row / batch) });
    }

    let weights = parameters.bound_jacobian(l_tau);
    let elements = error.elements() as f64;
    let share = |row: usize| weights.values[row / batch] / (elements * rms[row].max(SMALLEST_RMS) * batch as f64);
    let factors: Vec<f64> = (0..rms.len()).map(share).collect();
    let cotangent = F::Tensor::linear_combination(&[(PerRow::Each(&factors), &error)])?;

    // dt_b = -<g, u_b> for the targets but the last, whose time is fixed.
    let mut columns = Vec::new();
    for i in 0..steps - 1 {
        let g = cotangent.narrow(i * batch..(i + 1) * batch)?;
        let u_b = trace.velocities[0].narrow((i + 1) * batch..(i + 2) * batch)?;
        columns.push(g.dot(&u_b)?);
    }
    // The first column is the part of the first time by which the start moves along the path.
    let (by_motion, scalars) = if field.differentiable() {
        let registers = |k: usize| {
            let (point, state): &(F::Tensor, F::Tensor) = &states[k];
            Ok((point.duplicate()?, state.duplicate()?))
        };
        let of_step =
            reverse(&step, field, &condition, &trace.velocities, registers, vec![cotangent], true)?.swap_remove(0);
        let by_start = of_step.start.ok_or_else(|| Error::State("the reverse pass lost the start".into()))?;
        (by_start.dot(&trace.velocities[0])?, of_step.scalars)
    } else {
        let velocities = &trace.velocities;
        let step = Step { tableau: &step, field, condition: &condition, states: &states, velocities };
        let scalars = step.pull_back(&cotangent)?;
        // The tangent along the path has it already.
        (scalars[0].zeros_like(scalars[0].batch())?, scalars)
    };
    columns.push(by_motion);
    let targets = columns.len() - 1;
    columns.extend(scalars);
    let fetched = F::Tensor::fetch(&columns.iter().collect::<Vec<_>>())?;

    let block = |column: &[f64], i: usize| column[i * batch..(i + 1) * batch].iter().sum::<f64>();
    let per_step_scalars = fetched.len() - targets - 1;
    let mut by_scalar = DVector::zeros(steps * per_step_scalars);
    for i in 0..steps {
        for (scalar, column) in fetched[targets + 1..].iter().enumerate() {
            by_scalar[i * per_step_scalars + scalar] = block(column, i);
        }
        // The first scalar of a step is its start's time.
        by_scalar[i * per_step_scalars] += block(&fetched[targets], i);
        if i > 0 {
            by_scalar[i * per_step_scalars] -= fetched[i - 1].iter().sum::<f64>();
        }
    }
    let local = DVector::from_fn(steps, |i, _| block(&rms, i) / batch as f64);
    let gradient = parameters.table_jacobian().jacobian.tr_mul(&by_scalar) + weights.jacobian.tr_mul(&local);
    let loss = weights.values.iter().zip(local.iter()).map(|(m, d)| m * d).sum();
    Ok(LossGradient { loss, gradient: gradient.as_slice().to_vec() })
}
