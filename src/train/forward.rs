//! An iteration of Gauss-Newton by forward passes alone.

use super::iteration::Iteration;
use super::loss::{Tangents, feature_derivative, feature_difference, needed_features};
use super::objective::Measure;
use super::optimize::{ForwardGaussNewton, Kept, Linear, NormalEquations};
use super::parameters::Parameters;
use crate::distance::Features;
use crate::error::{Error, Result};
use crate::memory;
use crate::noise::{self, Purpose};
use crate::sampler::{self, Plan};
use crate::samples::{self, chunk};
use crate::tensor::{PerRow, Tensor};
use crate::threads;
use crate::velocity::VelocityField;
use nalgebra::{DMatrix, DVector};
use rand::RngExt;
use rayon::prelude::*;
use std::sync::Arc;

/// Numbers of a sample that are compared at most: larger samples are summed up with random signs, which
/// keeps their inner products up to noise.
const NUMBERS: usize = 1024;
/// Bytes of the Jacobians that are kept.
const KEPT_BYTES: usize = 1 << 28;
/// Bytes of what the derivatives along the table's scalars are gathered in, or one sample's.
const PART_BYTES: usize = 1 << 26;
/// Samples whose Jacobians are kept at most, beside those of the iteration.
pub const KEPT_SAMPLES: usize = 300;

/// Errors of samples, `numbers` of each, and their root mean squares.
struct Errors {
    numbers: Vec<f32>,
    rms: Vec<f64>,
}

/// Samples as fewer numbers of nearly the same inner products (Charikar, Chen and Farach-Colton 2002). All have
/// as many: those of fewer elements have zeros at their end.
struct Summary {
    numbers: usize,
    /// Where each element goes, and its sign, where there are more elements than numbers.
    places: Vec<(usize, f32)>,
}

impl Summary {
    /// Of samples of at most so many `elements`.
    fn new(elements: usize) -> Self {
        let mut rng = noise::generator(0, Purpose::Sketch, u64::MAX);
        let place = |_| (rng.random_range(0..NUMBERS), if rng.random() { 1.0 } else { -1.0 });
        let count = if elements > NUMBERS { elements } else { 0 };
        Self { numbers: elements.min(NUMBERS), places: (0..count).map(place).collect() }
    }

    fn numbers(&self) -> usize {
        self.numbers
    }

    /// Of all samples, of `elements` each, one after the other.
    fn of(&self, values: Vec<f32>, elements: usize) -> Vec<f32> {
        if elements == self.numbers {
            return values;
        }
        let of_sample = |sample: &[f32]| {
            let mut sums = vec![0.0f32; self.numbers];
            if elements < self.numbers {
                sums[..elements].copy_from_slice(sample);
                return sums;
            }
            for (value, (place, sign)) in sample.iter().zip(&self.places) {
                sums[*place] += sign * value;
            }
            sums
        };
        values.chunks(elements).flat_map(of_sample).collect()
    }
}

/// In what samples are compared: their numbers, or the layers of a feature network, and how either is summed up.
struct Comparison<'a> {
    layers: Option<&'a Features>,
    summary: Summary,
}

impl Comparison<'_> {
    fn measure(&self) -> Measure {
        if self.layers.is_some() { Measure::Features } else { Measure::Numbers }
    }

    /// How far the samples `end` are from `x1`.
    fn errors<T: Tensor>(&self, end: &T, x1: &T) -> Result<Errors> {
        match self.layers {
            None => {
                let error = T::linear_combination(&[(PerRow::All(1.0), end), (PerRow::All(-1.0), x1)])?;
                Ok(Errors { numbers: self.summary.of(error.to_f32()?, error.elements()), rms: end.rmse(x1)? })
            }
            Some(features) => {
                let difference = feature_difference(features, end, x1)?;
                let rms = difference.lengths();
                Ok(Errors { numbers: self.summary.of(difference.values, difference.width), rms })
            }
        }
    }

    /// What is compared of the samples `end`, along their `derivative`.
    fn along<T: Tensor>(&self, end: &T, derivative: &T) -> Result<Vec<f32>> {
        match self.layers {
            None => Ok(self.summary.of(derivative.to_f32()?, derivative.elements())),
            Some(features) => {
                let (values, width) = feature_derivative(features, end, derivative)?;
                Ok(self.summary.of(values, width))
            }
        }
    }
}

/// A matrix of zeros.
///
/// # Errors
/// [`Error::Memory`].
fn zeros(rows: usize, columns: usize) -> Result<DMatrix<f32>> {
    Ok(DMatrix::from_vec(rows, columns, memory::filled(memory::numbers(rows, columns)?, 0.0)?))
}

impl<F: VelocityField> Iteration<'_, F> {
    /// Moves the parameters; gives the new samples' loss before.
    pub(super) fn forward_gauss_newton(
        &self,
        parameters: &mut Parameters,
        state: &mut ForwardGaussNewton,
    ) -> Result<f64> {
        let terms = self.terms()?;
        let comparison = self.comparison()?;
        self.restore(parameters, state)?;
        let bytes = comparison.summary.numbers() * parameters.values.len() * size_of::<f32>();
        let samples = (KEPT_BYTES / bytes.max(1)).min(self.pool.size() - self.spared()).min(KEPT_SAMPLES);
        state.keep((samples / self.phase.batch).saturating_sub(1));
        let (linear, rms_here) = self.linearise(parameters, self.key, &comparison)?;
        let here = Errors { numbers: linear.errors.as_slice().to_vec(), rms: rms_here };
        state.kept.push(Kept { key: self.key, values: parameters.values.clone(), linear: Some(linear) });

        let mut errors = self.errors_of(parameters, &state.kept[..state.kept.len() - 1], &comparison)?;
        errors.push(here);
        let mut rms: Vec<Vec<f64>> = Vec::new();
        for (kept, errors) in state.kept.iter().zip(&errors) {
            rms.push(self.ranks.gather(self.learned(kept.key).len(), Ok(errors.rms.clone()))?);
        }
        let weights = terms.least_squares_weights(comparison.measure(), &rms.concat(), self.pool.most_elements());
        let rows: Vec<usize> = state.kept.iter().flat_map(|kept| self.learned(kept.key)).collect();
        let weights: Vec<f64> =
            weights.iter().zip(self.per_number(&rows)).map(|(w, per_number)| w * per_number).collect();
        let model = self.model(parameters, &state.kept, errors, &weights)?;
        let trials = state.newton.propose_from(&model, &parameters.limits());
        let taken = self.try_steps(parameters, &terms, &trials)?;
        state.newton.settle(taken.map(|i| &trials[i]));
        if let Some(i) = taken {
            *parameters = parameters.moved(&trials[i].step);
        }
        let last = rms.pop().unwrap_or_default();
        Ok(terms.mean(&match comparison.measure() {
            Measure::Numbers => samples::Errors { rms: last, features: None },
            Measure::Features => samples::Errors { rms: Vec::new(), features: Some(last) },
        }))
    }

    /// Of the pool's samples, in what the phase's loss is of.
    fn comparison(&self) -> Result<Comparison<'_>> {
        match self.terms()?.measures().as_slice() {
            [Measure::Features] => {
                let features = needed_features(self.features)?;
                let (_, width) = features.layers(&self.pool.x1(&[0])?.to_f32()?)?;
                Ok(Comparison { layers: Some(features), summary: Summary::new(width) })
            }
            [Measure::Numbers] => Ok(Comparison { layers: None, summary: Summary::new(self.pool.most_elements()) }),
            _ => Err(Error::State("forward passes alone compare numbers or features, not both".into())),
        }
    }

    /// Makes the Jacobians again that a checkpoint does not hold.
    ///
    /// # Errors
    /// The field's own.
    pub fn restore(&self, parameters: &Parameters, state: &mut ForwardGaussNewton) -> Result<()> {
        let comparison = self.comparison()?;
        for kept in state.kept.iter_mut().filter(|kept| kept.linear.is_none()) {
            let at = Parameters { values: kept.values.clone(), ..parameters.clone() };
            kept.linear = Some(self.linearise(&at, kept.key, &comparison)?.0);
        }
        Ok(())
    }

    /// The errors of the samples of the iteration `key`, of which this rank has its share, and their exact
    /// derivatives.
    fn linearise(
        &self,
        parameters: &Parameters,
        key: usize,
        comparison: &Comparison<'_>,
    ) -> Result<(Linear, Vec<f64>)> {
        let differences =
            self.differences.ok_or_else(|| Error::State("the field's accuracy was not measured".into()))?;
        let by_scalar = parameters.table_jacobian().jacobian;
        let wanted = |scalar: usize| by_scalar.row(scalar).iter().any(|v| *v != 0.0);
        let tangents = Tangents::new(&parameters.tableau(), wanted);
        let rows = self.learned(key);
        let own = &rows[self.ranks.share(rows.len())];
        let numbers = comparison.summary.numbers();
        let by_values = by_scalar.map(|v| v as f32);
        let mut jacobian = zeros(own.len() * numbers, by_values.ncols())?;
        let (mut errors, mut rms) = (Vec::with_capacity(own.len() * numbers), Vec::with_capacity(own.len()));
        let most = (PART_BYTES / size_of::<f32>() / (numbers * by_values.nrows()).max(1)).max(1);
        let mut done = 0;
        for part in self.pool.parts(own, |elements| tangents.samples_at_once(elements).min(most)) {
            let first = done * numbers;
            done += part.len();
            let mut along = zeros(part.len() * numbers, by_values.nrows())?;
            let mut take = |scalar: usize, derivative: F::Tensor, end: &F::Tensor| {
                along.column_mut(scalar).copy_from_slice(&comparison.along(end, &derivative)?);
                Ok(())
            };
            let (x0, condition) = (self.pool.x0(part)?, self.pool.condition(part)?);
            let end = tangents.solve(self.field, &differences, &x0, &condition, &mut take)?;
            let found = comparison.errors(&end, &self.pool.x1(part)?)?;
            errors.extend(found.numbers);
            rms.extend(found.rms);
            jacobian.rows_mut(first, part.len() * numbers).gemm(1.0, &along, &by_values, 0.0);
        }
        if jacobian.iter().any(|v| !v.is_finite()) {
            return Err(Error::Numeric(
                "the derivatives of the end of the solve are beyond what a number holds".into(),
            ));
        }
        Ok((Linear { jacobian, errors: DVector::from_vec(errors), numbers }, rms))
    }

    /// This rank's samples' errors now, by iteration.
    fn errors_of(&self, parameters: &Parameters, kept: &[Kept], comparison: &Comparison<'_>) -> Result<Vec<Errors>> {
        let plan = Arc::new(Plan::new(parameters.tableau()));
        let own = |kept: &Kept| {
            let rows = self.learned(kept.key);
            rows[self.ranks.share(rows.len())].to_vec()
        };
        let rows: Vec<Vec<usize>> = kept.iter().map(own).collect();
        let mut all = Errors { numbers: Vec::new(), rms: Vec::new() };
        for part in self.pool.parts(&rows.concat(), chunk) {
            let (x0, condition) = (self.pool.x0(part)?, self.pool.condition(part)?);
            let end = sampler::sample(&plan, self.field, &x0, &condition)?;
            let found = comparison.errors(&end, &self.pool.x1(part)?)?;
            all.numbers.extend(found.numbers);
            all.rms.extend(found.rms);
        }
        let (mut numbers, mut rms) = (all.numbers.as_slice(), all.rms.as_slice());
        let mut of_iteration = |rows: &Vec<usize>| {
            let (own, others) = numbers.split_at(rows.len() * comparison.summary.numbers());
            let (own_rms, other_rms) = rms.split_at(rows.len());
            (numbers, rms) = (others, other_rms);
            Errors { numbers: own.to_vec(), rms: own_rms.to_vec() }
        };
        Ok(rows.iter().map(&mut of_iteration).collect())
    }

    /// The quadratic model of the loss by all samples that are kept.
    fn model(
        &self,
        parameters: &Parameters,
        kept: &[Kept],
        errors: Vec<Errors>,
        weights: &[f64],
    ) -> Result<NormalEquations> {
        let mut first = 0;
        let mut parts = Vec::new();
        for (kept, errors) in kept.iter().zip(errors) {
            let count = self.learned(kept.key).len();
            let share = self.ranks.share(count);
            let own = weights[first..][share].to_vec();
            first += count;
            let linear = kept.linear.as_ref().ok_or_else(|| Error::State("a Jacobian is missing".into()))?;
            let step = parameters.values.iter().zip(&kept.values).map(|(now, then)| (now - then) as f32);
            let step = DVector::from_iterator(parameters.values.len(), step);
            let errors = DVector::from_vec(errors.numbers);
            let mut foretold = linear.foretold(&step, &errors, &own);
            let mut sums = [foretold.missed, foretold.change, foretold.error];
            self.ranks.sum(&mut sums);
            [foretold.missed, foretold.change, foretold.error] = sums;
            parts.push((linear, errors, own, foretold.trust()));
        }
        let total: f64 = parts.iter().map(|(_, _, own, trust)| trust * own.len() as f64).sum();
        let of_part = |(linear, errors, own, trust): &(&Linear, DVector<f32>, Vec<f64>, f64)| {
            let weights: Vec<f64> = own.iter().map(|w| w * trust / total).collect();
            linear.normal_equations(errors, &weights)
        };
        let parts: Vec<NormalEquations> = threads::shared(|| parts.par_iter().map(of_part).collect());
        let mut sum = NormalEquations::none(parameters.values.len());
        parts.into_iter().for_each(|part| sum.add(part));
        sum.sum(self.ranks);
        Ok(sum)
    }
}
