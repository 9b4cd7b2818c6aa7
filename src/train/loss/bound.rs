//! The RMSE-Bound loss (BES Eq. 26): local errors d_i on the ground-truth path, weighted by M_i.
//!
//! The n steps start on the path and do not depend on each other: they are evaluated as one batch
//! of n x B, step after step.

use super::LossGradient;
use super::adjoint::{check_finite, forward, reverse};
use super::differences::SolverStep;
use crate::error::{Error, Result};
use crate::tableau::{Combination, Keep, Stage, Tableau};
use crate::tensor::{PerRow, PerRowBuf, Register, Tensor};
use crate::train::parameters::{Coordinates, Parameters, Structure};
use crate::train::paths::Pool;
use crate::velocity::{Condition, VelocityField};
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

/// Every step of a solver, each from its own start on the path: one batch of n x B, block i of which is step i.
struct LocalSteps<'a, F: VelocityField> {
    field: &'a F,
    /// Samples of a block.
    batch: usize,
    step: Tableau<PerRowBuf>,
    condition: Condition,
    /// (y_k, state_k) of every stage.
    states: Vec<(F::Tensor, F::Tensor)>,
    velocities: Vec<F::Tensor>,
    /// Ends of the steps less the path there.
    error: F::Tensor,
    /// Its root mean square, for each row.
    rms: Vec<f64>,
}

/// The pull-back of a cotangent of the steps' ends, each `[n B, 1]`.
struct PulledBack<T> {
    /// By the first time, as far as the start moves along the path with it (Eq. 27).
    motion: T,
    /// By the step's scalars, in the order of [`Tableau::scalars`].
    scalars: Vec<T>,
}

impl<'a, F: VelocityField> LocalSteps<'a, F> {
    /// Takes the steps for the samples `rows` of the pool, which are of one size.
    fn take(parameters: &Parameters, field: &'a F, pool: &Pool<F::Tensor>, rows: &[usize]) -> Result<Self> {
        let (batch, per_step) = (rows.len(), parameters.structure.stages_per_step());
        let table = parameters.tableau();
        let steps = parameters.structure.steps();
        let knot_time = |i: usize| if i == steps { 1.0 } else { table.stages[i * per_step].t };
        // x_aux equals x(t_i); that it moves with t_i (Eq. 27) enters the gradient as <cotangent, u>.
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
        Ok(Self { field, batch, step, condition, states, velocities: trace.velocities, error, rms })
    }

    /// The mean of d_i, the local error of step i.
    fn mean_errors(&self) -> DVector<f64> {
        let blocks = self.rms.chunks(self.batch).map(|block| block.iter().sum::<f64>() / self.batch as f64);
        DVector::from_iterator(self.rms.len() / self.batch, blocks)
    }

    /// The gradient of sum_i M_i d_i by the ends of the steps.
    fn cotangent(&self, weights: &[f64]) -> Result<F::Tensor> {
        let numbers = (self.error.elements() * self.batch) as f64;
        let share = |(row, rms): (usize, &f64)| weights[row / self.batch] / (numbers * rms.max(SMALLEST_RMS));
        let factors: Vec<f64> = self.rms.iter().enumerate().map(share).collect();
        F::Tensor::linear_combination(&[(PerRow::Each(&factors), &self.error)])
    }

    /// <g, u_b> of every target but the last, whose time is fixed: how the target's motion with its time counts.
    fn by_targets(&self, cotangent: &F::Tensor) -> Result<Vec<F::Tensor>> {
        let block = |tensor: &F::Tensor, i: usize| tensor.narrow(i * self.batch..(i + 1) * self.batch);
        let steps = self.rms.len() / self.batch;
        (1..steps).map(|i| block(cotangent, i - 1)?.dot(&block(&self.velocities[0], i)?)).collect()
    }

    /// By vector-Jacobian products where the field has them, else by differences.
    fn pull_back(&self, cotangent: F::Tensor) -> Result<PulledBack<F::Tensor>> {
        let (field, velocities) = (self.field, &self.velocities);
        if !field.differentiable() {
            let (tableau, condition, states) = (&self.step, &self.condition, &self.states);
            let scalars = SolverStep { tableau, field, condition, states, velocities }.pull_back(&cotangent)?;
            // Its derivative by the first time has the motion in it already.
            return Ok(PulledBack { motion: scalars[0].zeros_like(scalars[0].batch())?, scalars });
        }
        let registers = |k: usize| Ok((self.states[k].0.duplicate()?, self.states[k].1.duplicate()?));
        let of_step =
            reverse(&self.step, field, &self.condition, velocities, registers, vec![cotangent], true)?.swap_remove(0);
        let by_start = of_step.start.ok_or_else(|| Error::State("the reverse pass lost the start".into()))?;
        Ok(PulledBack { motion: by_start.dot(&velocities[0])?, scalars: of_step.scalars })
    }

    /// The gradient by the scalars of the whole table, step after step.
    fn by_scalar(&self, weights: &[f64]) -> Result<DVector<f64>> {
        let cotangent = self.cotangent(weights)?;
        let mut columns = self.by_targets(&cotangent)?;
        let targets = columns.len();
        let PulledBack { motion, scalars } = self.pull_back(cotangent)?;
        let per_step = scalars.len();
        columns.push(motion);
        columns.extend(scalars);
        let fetched = F::Tensor::fetch(&columns.iter().collect::<Vec<_>>())?;
        check_finite(&fetched)?;
        let sum = |column: &[f64], i: usize| column[i * self.batch..(i + 1) * self.batch].iter().sum::<f64>();
        let steps = targets + 1;
        let mut gradient = DVector::zeros(steps * per_step);
        for i in 0..steps {
            let own = &mut gradient.as_mut_slice()[i * per_step..(i + 1) * per_step];
            for (scalar, column) in own.iter_mut().zip(&fetched[targets + 1..]) {
                *scalar = sum(column, i);
            }
            // The first scalar of a step is the time of its start, and of the target of the step before.
            own[0] += sum(&fetched[targets], i);
            if i > 0 {
                own[0] -= fetched[i - 1].iter().sum::<f64>();
            }
        }
        Ok(gradient)
    }
}

/// The loss of the samples `rows` (in increasing order) of a dense pool, and its gradient.
///
/// # Errors
/// The field's own; [`Error::NonFinite`] and [`Error::NonFiniteProduct`]; [`Error::Unsupported`] for the
/// non-stationary family, which has no steps of its own to start on the path.
pub fn bound_loss<F: VelocityField>(
    parameters: &Parameters,
    l_tau: f64,
    field: &F,
    pool: &Pool<F::Tensor>,
    rows: &[usize],
) -> Result<LossGradient> {
    if matches!(parameters.structure, Structure::Ns(_)) {
        return Err(Error::Unsupported("the rmse-bound loss is for rk1 and rk2; ns takes log-mse or rmse".into()));
    }
    if parameters.coordinates != Coordinates::Knots {
        return Err(Error::State("the rmse-bound loss weighs by scales: it needs a theta's knots".into()));
    }
    let steps = LocalSteps::take(parameters, field, pool, rows)?;
    let weights = parameters.bound_jacobian(l_tau);
    let by_scalar = steps.by_scalar(&weights.values)?;
    let errors = steps.mean_errors();
    let gradient = parameters.table_jacobian().jacobian.tr_mul(&by_scalar) + weights.jacobian.tr_mul(&errors);
    let loss = weights.values.iter().zip(errors.iter()).map(|(m, d)| m * d).sum();
    Ok(LossGradient { loss, gradient: gradient.as_slice().to_vec() })
}
