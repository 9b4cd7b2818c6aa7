//! One iteration of an optimiser.

use super::accuracy::Differences;
use super::loss::{Direct, LossGradient, bound_loss, direct_loss, direct_residual};
use super::optimize::{Adam, GaussNewton, NormalEquations, OptimizerState, Trial, cosine_decay, gauss_newton_weights};
use super::parameters::Parameters;
use super::paths::Pool;
use super::settings::{Phase, Settings};
use super::validate::errors;
use crate::error::{Error, Result};
use crate::noise::{self, Purpose};
use crate::ranks::Ranks;
use crate::sampler::Plan;
use crate::samples::chunk;
use crate::tensor::Tensor;
use crate::velocity::VelocityField;
use nalgebra::{DMatrix, DVector};
use rand::seq::index;
use std::ops::Range;
use std::sync::Arc;

/// Samples of the pool on which Gauss-Newton's steps are tried, and which it does not learn from.
pub const TRIED_ON: usize = 100;

/// What an iteration works on.
pub struct Iteration<'a, F: VelocityField> {
    pub field: &'a F,
    pub pool: &'a Pool<F::Tensor>,
    pub ranks: &'a Ranks,
    pub settings: &'a Settings,
    pub phase: &'a Phase,
    /// Of the phase.
    pub iteration: usize,
    /// What the iteration's random choices are keyed by.
    pub key: usize,
    /// How the field is differentiated, where it is by forward passes.
    pub differences: Option<Differences>,
}

impl<F: VelocityField> Iteration<'_, F> {
    /// Moves the parameters, by the same step on every rank; gives the batch's loss before.
    pub fn take(&self, parameters: &mut Parameters, state: &mut OptimizerState) -> Result<f64> {
        let loss = match state {
            OptimizerState::GaussNewton(state) => self.gauss_newton(parameters, state)?,
            OptimizerState::ForwardGaussNewton(state) => self.forward_gauss_newton(parameters, state)?,
            OptimizerState::Adam(state) => self.adam(parameters, state)?,
        };
        // Machines may differ in the last bits of what each has computed of the same sums.
        self.ranks.broadcast(0, &mut parameters.values);
        Ok(loss)
    }

    fn adam(&self, parameters: &mut Parameters, state: &mut Adam) -> Result<f64> {
        let Settings { l_tau, lr, .. } = *self.settings;
        let rows = self.choose(self.phase.batch, self.pool.size());
        let own = &rows[self.ranks.share(rows.len())];
        let of_part = |part: &[usize]| match self.phase.loss.direct() {
            None => bound_loss(parameters, l_tau, self.field, self.pool, part),
            Some(direct) => direct_loss(direct, parameters, self.field, self.pool, part),
        };
        let found = match self.pool.parts(own, |_| usize::MAX).as_slice() {
            [all] => of_part(all)?,
            parts => {
                let mut sum = LossGradient::zero(parameters.values.len());
                for part in parts {
                    sum.add(&of_part(part)?, part.len() as f64 / own.len() as f64);
                }
                sum
            }
        };
        let found = found.mean(own.len() as f64 / rows.len() as f64, self.ranks);
        let lr = cosine_decay(lr, self.iteration, self.phase.iterations);
        state.step(&mut parameters.values, &found.gradient, lr);
        Ok(found.loss)
    }

    /// `count` of the first `among` samples of the pool, in increasing order, size by size.
    fn choose(&self, count: usize, among: usize) -> Vec<usize> {
        let mut rng = noise::generator(self.settings.seed, Purpose::Choice, self.key as u64);
        let mut rows = index::sample(&mut rng, among, count).into_vec();
        rows.sort_unstable();
        self.pool.by_size(rows)
    }

    fn gauss_newton(&self, parameters: &mut Parameters, state: &mut GaussNewton) -> Result<f64> {
        let (learned, judged) = self.spared();
        let rows = self.choose(self.phase.batch.min(learned), learned);
        let loss = self.phase.loss.direct().unwrap_or(Direct::LogMse);
        let jacobian = parameters.table_jacobian().jacobian;
        let scalars = jacobian.nrows();
        let (mut rms, mut products) = (Vec::new(), [DMatrix::zeros(0, scalars), DMatrix::zeros(0, scalars)]);
        let share = self.ranks.share(rows.len());
        let mut first = share.start;
        for part in self.pool.parts(&rows[share.clone()], chunk) {
            let residual = direct_residual(parameters, self.field, self.pool, part)?;
            let sketch = self.sketch(first..first + part.len(), self.pool.elements(part[0]))?;
            first += part.len();
            let by_scalar = residual.pull_back(self.field, vec![residual.error.duplicate()?, sketch])?;
            for (all, part) in products.iter_mut().zip(by_scalar) {
                *all = stack(all, &part);
            }
            rms.extend(residual.rms);
        }
        let rms = self.ranks.gather(rows.len(), Ok(rms))?;
        let scale = 1.0 / rms.len() as f64;
        let weights = gauss_newton_weights(&rms, loss.power());
        let per_number = self.per_number(&rows);
        let own = share.clone().map(|i| weights[i] * scale * per_number[i]);
        let weights = DVector::from_iterator(share.len(), own);
        let mut batch = NormalEquations::new(&(&products[0] * &jacobian), &(&products[1] * &jacobian), weights);
        batch.sum(self.ranks);
        let trials = state.propose(batch);
        let taken = self.try_steps(parameters, loss, &trials, judged)?;
        state.settle(taken.map(|i| &trials[i]));
        if let Some(i) = taken {
            *parameters = moved(parameters, &trials[i]);
        }
        Ok(loss.mean(&rms))
    }

    /// How many of the pool's samples, the first, are learned from, and which are tried on.
    pub(super) fn spared(&self) -> (usize, Range<usize>) {
        let size = self.pool.size();
        // A small pool cannot spare samples that are only tried on.
        if size >= self.phase.batch + TRIED_ON { (size - TRIED_ON, size - TRIED_ON..size) } else { (size, 0..size) }
    }

    /// How much one number of each of the samples `rows` counts: the fewer a sample has the more, and 1 where it has most.
    pub(super) fn per_number(&self, rows: &[usize]) -> Vec<f64> {
        let numbers = |row: &usize| self.pool.elements(*row) as f64;
        let most = self.pool.most_elements() as f64;
        rows.iter().map(|row| most / numbers(row)).collect()
    }

    /// A standard normal cotangent for each of the batch's samples `part`, of so many `elements`.
    fn sketch(&self, part: Range<usize>, elements: usize) -> Result<F::Tensor> {
        let first = (self.key + 1) * self.phase.batch;
        let indices = first + part.start..first + part.end;
        self.field.upload(&noise::normal(self.settings.seed, Purpose::Sketch, indices, elements)?, elements)
    }

    /// The trial under which the mean loss of the samples `judged` is least, if it falls.
    pub(super) fn try_steps(
        &self,
        parameters: &Parameters,
        loss: Direct,
        trials: &[Trial],
        judged: Range<usize>,
    ) -> Result<Option<usize>> {
        let mean = |parameters: &Parameters| {
            let plan = Arc::new(Plan::new(parameters.theta()?.tableau()));
            Ok(loss.mean(&errors(&plan, self.field, self.pool, judged.clone(), self.ranks)?.rms))
        };
        let mut least = mean(parameters)?;
        let mut taken = None;
        for (i, trial) in trials.iter().enumerate() {
            match mean(&moved(parameters, trial)) {
                Ok(value) if value < least => (least, taken) = (value, Some(i)),
                // A step too far may leave the constraints or blow the solve up: it is not taken.
                Ok(_) | Err(Error::Invalid { .. } | Error::NonFinite { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(taken)
    }
}

fn stack(above: &DMatrix<f64>, below: &DMatrix<f64>) -> DMatrix<f64> {
    let mut both = above.clone().resize_vertically(above.nrows() + below.nrows(), 0.0);
    both.rows_mut(above.nrows(), below.nrows()).copy_from(below);
    both
}

pub(super) fn moved(parameters: &Parameters, trial: &Trial) -> Parameters {
    let values = parameters.values.iter().zip(trial.step.iter()).map(|(v, d)| v + d).collect();
    Parameters { values, ..parameters.clone() }
}
