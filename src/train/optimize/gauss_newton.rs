//! Sketched Gauss-Newton (`docs/method.md`, "What is minimised"): a few dozen parameters deserve second-order steps.
//!
//! With J_b the Jacobian of sample b's end state by the parameters and r_b its error, one
//! vector-Jacobian product gives J_b^T r_b, one more with a standard normal v gives
//! k_b = J_b^T v, and E[k_b k_b^T] = J_b^T J_b: the normal matrix without its Jacobian.
//!
//! Thus a batch makes a quadratic model of the loss, m(d) = g^T d + d^T H d / 2. A running average keeps
//! the models of earlier batches, moved along with the parameters: after a step d, g becomes g + H d.
//! Batches of a few hundred samples are then enough where thousands would be needed without it.

use crate::ranks::Ranks;
use nalgebra::{DMatrix, DVector};
use serde::{Deserialize, Serialize};

/// How much of the normal matrix is kept from earlier iterations: p parameters take many times p
/// projections.
const NORMAL_MEMORY: f64 = 0.7;
/// How much of the gradient is kept from earlier iterations.
const GRADIENT_MEMORY: f64 = 0.5;
/// An error below this share of the median gets the weight that this share would get.
const FLOOR: f64 = 0.3;
/// Damping tried at each iteration, as multiples of the last that served.
const DAMPINGS: [f64; 2] = [0.2, 2.0];
/// Damping after an iteration in which none served.
const RETREAT: f64 = 5.0;
/// Damping before the first iteration.
const FIRST_DAMPING: f64 = 0.1;
/// Bounds of the damping, relative to the normal matrix's diagonal.
const DAMPING_RANGE: (f64, f64) = (1e-6, 1e4);

/// The quadratic model and the damping so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GaussNewton {
    model: Option<NormalEquations>,
    damping: f64,
}

/// A step to try, and the damping it was made with.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Added to the parameters.
    pub step: DVector<f64>,
    /// Its damping.
    pub damping: f64,
}

/// w_b = rms_b^-power: the weights under which least squares follows the loss's gradient (power 2
/// for log-mse, 1 for rmse). A floor holds off the samples that have no error left.
pub fn weights(rms: &[f64], power: f64) -> Vec<f64> {
    let mut sorted = rms.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    let floor = (FLOOR * median).max(f64::MIN_POSITIVE.sqrt());
    rms.iter().map(|rms| (rms * rms + floor * floor).powf(-power / 2.0)).collect()
}

/// What a batch says of a step: the quadratic model of the loss around the parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormalEquations {
    /// sum_b w_b k_b k_b^T, `[parameters, parameters]`.
    pub normal: DMatrix<f64>,
    /// sum_b w_b J_b^T r_b, `[parameters]`.
    pub gradient: DVector<f64>,
}

impl NormalEquations {
    /// Of samples with `errors` J_b^T r_b and `sketches` k_b, `[samples, parameters]`.
    pub fn new(errors: &DMatrix<f64>, sketches: &DMatrix<f64>, weights: DVector<f64>) -> Self {
        let mut weighted = sketches.clone();
        for (mut row, w) in weighted.row_iter_mut().zip(&weights) {
            row *= *w;
        }
        Self { normal: sketches.tr_mul(&weighted), gradient: errors.tr_mul(&weights) }
    }

    /// Of no samples.
    pub fn none(parameters: usize) -> Self {
        Self { normal: DMatrix::zeros(parameters, parameters), gradient: DVector::zeros(parameters) }
    }

    /// Adds those of other samples, or of another measure.
    pub fn add(&mut self, other: Self) {
        self.normal += other.normal;
        self.gradient += other.gradient;
    }

    /// -(H + damping diag H)^-1 g, of which the first numbers go no further than their `limits`: those that would stay
    /// where they end, and the others do their best with that. What is held is not let go again, so that it need not be the
    /// least within the limits: the trial says what it is worth.
    fn step(&self, damping: f64, limits: &[(f64, f64)]) -> Option<DVector<f64>> {
        let mut damped = self.normal.clone();
        // A parameter without influence must not make H singular.
        let least = self.normal.diagonal().max() * 1e-12;
        for i in 0..damped.nrows() {
            damped[(i, i)] += damping * self.normal[(i, i)].max(least) + least;
        }
        let mut held = vec![None; limits.len()];
        loop {
            let step = minimum(&damped, &self.gradient, &held)?;
            let mut beyond = false;
            for ((held, (down, up)), moved) in held.iter_mut().zip(limits).zip(step.iter()) {
                if held.is_none() && !(*down..=*up).contains(moved) {
                    *held = Some(moved.clamp(*down, *up));
                    beyond = true;
                }
            }
            if !beyond {
                return Some(step);
            }
        }
    }

    /// Those of all ranks' samples.
    pub fn sum(&mut self, ranks: &Ranks) {
        let mut all = [self.normal.as_slice(), self.gradient.as_slice()].concat();
        ranks.sum(&mut all);
        let (normal, gradient) = all.split_at(self.normal.len());
        self.normal.copy_from_slice(normal);
        self.gradient.copy_from_slice(gradient);
    }
}

/// The step d that has g^T d + d^T H d / 2 least among those whose first numbers are as `held`.
fn minimum(normal: &DMatrix<f64>, gradient: &DVector<f64>, held: &[Option<f64>]) -> Option<DVector<f64>> {
    let (mut left, mut right) = (normal.clone(), -gradient);
    for (i, value) in held.iter().enumerate().filter_map(|(i, value)| Some((i, (*value)?))) {
        right -= normal.column(i) * value;
        left.row_mut(i).fill(0.0);
        left.column_mut(i).fill(0.0);
        left[(i, i)] = 1.0;
    }
    let mut step = left.cholesky()?.solve(&right);
    held.iter().enumerate().for_each(|(i, value)| step[i] = value.unwrap_or(step[i]));
    step.iter().all(|v| v.is_finite()).then_some(step)
}

impl Default for GaussNewton {
    fn default() -> Self {
        Self { model: None, damping: FIRST_DAMPING }
    }
}

impl GaussNewton {
    /// Takes in one batch. Gives the steps to try, whose first numbers are within their `limits`.
    pub fn propose(&mut self, batch: NormalEquations, limits: &[(f64, f64)]) -> Vec<Trial> {
        let model = match self.model.take() {
            None => batch,
            Some(old) => NormalEquations {
                normal: old.normal * NORMAL_MEMORY + batch.normal * (1.0 - NORMAL_MEMORY),
                gradient: old.gradient * GRADIENT_MEMORY + batch.gradient * (1.0 - GRADIENT_MEMORY),
            },
        };
        let trials = self.trials(&model, limits);
        self.model = Some(model);
        trials
    }

    /// The steps to try on a model that says all there is to say: nothing of earlier batches is kept.
    pub fn propose_from(&mut self, model: &NormalEquations, limits: &[(f64, f64)]) -> Vec<Trial> {
        self.model = None;
        self.trials(model, limits)
    }

    fn trials(&self, model: &NormalEquations, limits: &[(f64, f64)]) -> Vec<Trial> {
        DAMPINGS
            .iter()
            .map(|factor| (self.damping * factor).clamp(DAMPING_RANGE.0, DAMPING_RANGE.1))
            .filter_map(|damping| Some(Trial { step: model.step(damping, limits)?, damping }))
            .collect()
    }

    /// Whether it is for this many parameters.
    pub fn fits(&self, parameters: usize) -> bool {
        self.model
            .as_ref()
            .is_none_or(|model| model.normal.shape() == (parameters, parameters) && model.gradient.len() == parameters)
            && (DAMPING_RANGE.0..=DAMPING_RANGE.1).contains(&self.damping)
    }

    /// Learns from the trials: the one whose step was taken, or `None`.
    pub fn settle(&mut self, taken: Option<&Trial>) {
        if let (Some(model), Some(trial)) = (&mut self.model, taken) {
            model.gradient += &model.normal * &trial.step;
        }
        let damping = taken.map_or(self.damping * RETREAT, |trial| trial.damping);
        self.damping = damping.clamp(DAMPING_RANGE.0, DAMPING_RANGE.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

    fn model() -> NormalEquations {
        NormalEquations {
            normal: DMatrix::from_row_slice(2, 2, &[2.0, 1.0, 1.0, 3.0]),
            gradient: DVector::from_vec(vec![-4.0, 1.0]),
        }
    }

    #[test]
    fn within_its_limits_a_step_is_the_free_one() {
        let step = model().step(0.1, &[]).unwrap();
        let damped = model().normal + DMatrix::from_diagonal(&DVector::from_vec(vec![0.2, 0.3]));
        assert!((damped * &step + model().gradient).norm() < 1e-10);
        assert_eq!(model().step(0.1, &[(-9.0, 9.0), FREE]).unwrap(), step);
    }

    #[test]
    fn beyond_a_limit_the_others_do_their_best_with_it() {
        let free = model().step(0.1, &[]).unwrap();
        assert!(free[0] > 1.0);
        let held = model().step(0.1, &[(-1.0, 1.0)]).unwrap();
        // d_0 = 1: what is left is (3 + .3) d_1 = -1 - 1.
        assert_eq!(held[0], 1.0);
        assert!((held[1] + 2.0 / 3.3).abs() < 1e-10, "{held}");
    }
}
