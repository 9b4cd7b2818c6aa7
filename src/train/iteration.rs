//! One iteration of an optimiser.

use super::accuracy::Differences;
use super::loss::{
    LossGradient, Residual, bound_loss, direct_loss, direct_residual, feature_cotangents, needed_features,
};
use super::objective::{Measure, Terms};
use super::optimize::{Adam, GaussNewton, NormalEquations, OptimizerState, Trial, cosine_decay};
use super::parameters::Parameters;
use super::paths::Pool;
use super::settings::{Phase, Settings};
use super::validate::errors;
use crate::distance::Features;
use crate::error::{Error, Result};
use crate::noise::{self, Purpose};
use crate::ranks::Ranks;
use crate::sampler::Plan;
use crate::samples::{Errors, chunk};
use crate::tensor::Tensor;
use crate::velocity::VelocityField;
use nalgebra::{DMatrix, DVector};
use rand::seq::{SliceRandom, index};
use std::ops::Range;
use std::sync::Arc;

/// Samples of the pool on which Gauss-Newton's steps are tried.
pub const TRIED_ON: usize = 100;

/// What an iteration works on.
pub struct Iteration<'a, F: VelocityField> {
    pub field: &'a F,
    /// Of the losses that compare features.
    pub features: Option<&'a Features>,
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
        let rows = self.choose();
        let own = &rows[self.ranks.share(rows.len())];
        let of_part = |part: &[usize]| match self.phase.objective.end() {
            None => bound_loss(parameters, l_tau, self.field, self.pool, part),
            Some(terms) => direct_loss(terms, self.features, parameters, self.field, self.pool, part),
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

    /// Any batch of the pool, in increasing order, size by size.
    fn choose(&self) -> Vec<usize> {
        let mut rng = noise::generator(self.settings.seed, Purpose::Choice, self.key as u64);
        let mut rows = index::sample(&mut rng, self.pool.size(), self.phase.batch).into_vec();
        rows.sort_unstable();
        self.pool.by_size(rows)
    }

    fn gauss_newton(&self, parameters: &mut Parameters, state: &mut GaussNewton) -> Result<f64> {
        let rows = self.learned(self.key);
        let terms = self.terms()?;
        let jacobian = parameters.table_jacobian().jacobian;
        let mut found: Vec<Sketched> =
            terms.measures().into_iter().map(|measure| Sketched::new(measure, jacobian.nrows())).collect();
        let share = self.ranks.share(rows.len());
        let mut first = share.start;
        for part in self.pool.parts(&rows[share.clone()], chunk) {
            let residual = direct_residual(parameters, self.field, self.pool, part)?;
            let own = first..first + part.len();
            first += part.len();
            let mut cotangents = Vec::new();
            for sketched in &mut found {
                let (distances, of_measure) = match sketched.measure {
                    Measure::Numbers => {
                        let sketch = self.sketch(own.clone(), self.pool.elements(part[0]))?;
                        let sketch = self.field.upload(&sketch, self.pool.elements(part[0]))?;
                        (residual.rms.clone(), vec![residual.error.duplicate()?, sketch])
                    }
                    Measure::Features => self.by_features(&residual, part, own.clone())?,
                };
                sketched.distances.extend(distances);
                cotangents.extend(of_measure);
            }
            let by_scalar = residual.pull_back(self.field, cotangents)?;
            found.iter_mut().zip(by_scalar.chunks(2)).for_each(|(sketched, pair)| sketched.stack(pair));
        }
        let mut batch = NormalEquations::none(parameters.values.len());
        let mut all = Errors::default();
        let (scale, per_number) = (1.0 / rows.len() as f64, self.per_number(&rows));
        for Sketched { measure, distances, products: [errors, sketches] } in found {
            let distances = self.ranks.gather(rows.len(), Ok(distances))?;
            let weights = terms.least_squares_weights(measure, &distances, self.pool.most_elements());
            let weight = |i: usize| match measure {
                Measure::Numbers => weights[i] * scale * per_number[i],
                Measure::Features => weights[i] * scale,
            };
            let own = DVector::from_iterator(share.len(), share.clone().map(weight));
            batch.add(NormalEquations::new(&(errors * &jacobian), &(sketches * &jacobian), own));
            match measure {
                Measure::Numbers => all.rms = distances,
                Measure::Features => all.features = Some(distances),
            }
        }
        batch.sum(self.ranks);
        let trials = state.propose(batch, &parameters.limits());
        let taken = self.try_steps(parameters, &terms, &trials)?;
        state.settle(taken.map(|i| &trials[i]));
        if let Some(i) = taken {
            *parameters = parameters.moved(&trials[i].step);
        }
        Ok(terms.mean(&all))
    }

    /// The losses of the end that the phase is of.
    ///
    /// # Errors
    /// [`Error::State`] for a phase of the bound.
    pub(super) fn terms(&self) -> Result<Terms> {
        let wrong = || Error::State("Gauss-Newton minimises losses of the end of the solve".into());
        self.phase.objective.end().copied().ok_or_else(wrong)
    }

    /// Distances in features of a part of the batch, the samples `rows`, and the cotangents of their ends by differences
    /// and by sketches.
    fn by_features(
        &self,
        residual: &Residual<F::Tensor>,
        rows: &[usize],
        sketch: Range<usize>,
    ) -> Result<(Vec<f64>, Vec<F::Tensor>)> {
        let mut distances = Vec::new();
        let (features, x1) = (needed_features(self.features)?, self.pool.x1(rows)?);
        let cotangents = feature_cotangents(self.field, features, &residual.end, &x1, |difference| {
            distances = difference.lengths();
            let sketch = self.sketch(sketch.clone(), difference.width)?;
            Ok(vec![difference.values, sketch])
        })?;
        Ok((distances, cotangents))
    }

    /// The samples that the iteration `key` learns from: of the pool in one random order, round and round, those after
    /// the last iteration's.
    pub(super) fn learned(&self, key: usize) -> Vec<usize> {
        self.in_turn(key * self.phase.batch, self.phase.batch)
    }

    /// Those that its steps are tried on: the next, which it has not learned from for longest. Were they the same at each
    /// iteration, learning would end where no step is better on these few.
    fn tried_on(&self) -> Vec<usize> {
        match self.spared() {
            0 => self.pool.first(self.pool.size()),
            count => self.in_turn((self.key + 1) * self.phase.batch, count),
        }
    }

    /// How many samples are tried on and not learned from: none where the pool is too small.
    pub(super) fn spared(&self) -> usize {
        if self.pool.size() >= self.phase.batch + TRIED_ON { TRIED_ON } else { 0 }
    }

    /// `count` samples from the `first` turn on, in increasing order, size by size.
    fn in_turn(&self, first: usize, count: usize) -> Vec<usize> {
        self.pool.by_size(in_turn(self.settings.seed, self.pool.size(), first, count))
    }

    /// How much one number of each of the samples `rows` counts: the fewer a sample has the more, and 1 where it has most.
    pub(super) fn per_number(&self, rows: &[usize]) -> Vec<f64> {
        let numbers = |row: &usize| self.pool.elements(*row) as f64;
        let most = self.pool.most_elements() as f64;
        rows.iter().map(|row| most / numbers(row)).collect()
    }

    /// Standard normal numbers for each of the batch's samples `part`, so many `of_each`.
    fn sketch(&self, part: Range<usize>, of_each: usize) -> Result<Vec<f32>> {
        let first = (self.key + 1) * self.phase.batch;
        noise::normal(self.settings.seed, Purpose::Sketch, first + part.start..first + part.end, of_each)
    }

    /// The trial under which the mean loss of the samples that are tried on is least, if it falls.
    pub(super) fn try_steps(&self, parameters: &Parameters, terms: &Terms, trials: &[Trial]) -> Result<Option<usize>> {
        let rows = self.tried_on();
        let mean = |parameters: &Parameters| {
            let plan = Arc::new(Plan::new(parameters.theta()?.tableau()));
            let features = self.features.filter(|_| terms.features != 0.0);
            Ok(terms.mean(&errors(&plan, self.field, self.pool, &rows, features, self.ranks)?))
        };
        let mut least = mean(parameters)?;
        let mut taken = None;
        for (i, trial) in trials.iter().enumerate() {
            match mean(&parameters.moved(&trial.step)) {
                Ok(value) if value < least => (least, taken) = (value, Some(i)),
                // A step too far may leave the constraints or blow the solve up: it is not taken.
                Ok(_) | Err(Error::Invalid { .. } | Error::NonFinite { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(taken)
    }
}

/// `count` of `size` samples, in increasing order: those from the `first` on in an order that follows from the seed and
/// begins anew at its end.
fn in_turn(seed: u64, size: usize, first: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..size).collect();
    order.shuffle(&mut noise::generator(seed, Purpose::Choice, u64::MAX));
    let mut rows: Vec<usize> = (0..count).map(|i| order[(first + i) % size]).collect();
    rows.sort_unstable();
    rows
}

/// What a batch gives in one measure.
struct Sketched {
    measure: Measure,
    /// Of every sample.
    distances: Vec<f64>,
    /// Errors and sketches pulled back, `[samples, scalars]`.
    products: [DMatrix<f64>; 2],
}

impl Sketched {
    fn new(measure: Measure, scalars: usize) -> Self {
        let none = || DMatrix::zeros(0, scalars);
        Self { measure, distances: Vec::new(), products: [none(), none()] }
    }

    /// Adds the rows of more samples.
    fn stack(&mut self, more: &[DMatrix<f64>]) {
        for (all, part) in self.products.iter_mut().zip(more) {
            *all = stack(all, part);
        }
    }
}

fn stack(above: &DMatrix<f64>, below: &DMatrix<f64>) -> DMatrix<f64> {
    let mut both = above.clone().resize_vertically(above.nrows() + below.nrows(), 0.0);
    both.rows_mut(above.nrows(), below.nrows()).copy_from(below);
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_samples_have_their_turn_and_none_is_in_two_that_follow() {
        let (size, batch) = (220, 20);
        let mut learned: Vec<usize> = (0..11).flat_map(|key| in_turn(3, size, key * batch, batch)).collect();
        learned.sort_unstable();
        assert_eq!(learned, (0..size).collect::<Vec<_>>());
        for key in 0..30 {
            let now = in_turn(3, size, key * batch, batch);
            let next = in_turn(3, size, (key + 1) * batch, TRIED_ON);
            assert_eq!((now.len(), next.len()), (batch, TRIED_ON));
            assert!(next.iter().all(|row| !now.contains(row)), "{key}");
        }
        assert_ne!(in_turn(3, size, 0, batch), in_turn(4, size, 0, batch));
    }
}
