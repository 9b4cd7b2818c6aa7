//! Sketched Gauss-Newton (`method.md`): a few dozen parameters deserve second-order steps.
//!
//! With J_b the Jacobian of sample b's end state by the parameters and r_b its error, one
//! vector-Jacobian product gives J_b^T r_b, one more with a standard normal v gives
//! k_b = J_b^T v, and E[k_b k_b^T] = J_b^T J_b: the normal matrix without its Jacobian.

use crate::ranks::Ranks;
use nalgebra::{DMatrix, DVector};
use serde::{Deserialize, Serialize};

/// How much of the normal matrix is kept from earlier iterations.
const MEMORY: f64 = 0.7;
/// Errors below this share of their median weigh no more than it: the weights' floor.
const FLOOR: f64 = 0.3;
/// Damping tried at each iteration, as multiples of the last that served.
const DAMPINGS: [f64; 2] = [0.2, 2.0];
/// Damping after an iteration in which none served.
const RETREAT: f64 = 5.0;
/// Bounds of the damping, relative to the normal matrix's diagonal.
const DAMPING_RANGE: (f64, f64) = (1e-8, 1e4);

/// The normal matrix and the damping so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GaussNewton {
    #[serde(with = "rows")]
    normal: Option<DMatrix<f64>>,
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

/// What a batch says of a step.
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

    /// Those of all ranks' samples.
    pub fn sum(&mut self, ranks: &Ranks) {
        let mut all = [self.normal.as_slice(), self.gradient.as_slice()].concat();
        ranks.sum(&mut all);
        let (normal, gradient) = all.split_at(self.normal.len());
        self.normal.copy_from_slice(normal);
        self.gradient.copy_from_slice(gradient);
    }
}

impl Default for GaussNewton {
    fn default() -> Self {
        Self { normal: None, damping: 1e-2 }
    }
}

impl GaussNewton {
    /// Takes in one batch. Gives the steps to try.
    pub fn propose(&mut self, batch: NormalEquations) -> Vec<Trial> {
        let normal = match self.normal.take() {
            None => batch.normal,
            Some(old) => old * MEMORY + batch.normal * (1.0 - MEMORY),
        };
        let trials = DAMPINGS
            .iter()
            .map(|factor| (self.damping * factor).clamp(DAMPING_RANGE.0, DAMPING_RANGE.1))
            .filter_map(|damping| Some(Trial { step: solve(&normal, damping, &batch.gradient)?, damping }))
            .collect();
        self.normal = Some(normal);
        trials
    }

    /// Whether it is for this many parameters.
    pub fn fits(&self, parameters: usize) -> bool {
        self.normal.as_ref().is_none_or(|normal| normal.shape() == (parameters, parameters))
            && (DAMPING_RANGE.0..=DAMPING_RANGE.1).contains(&self.damping)
    }

    /// Learns from the trials: the damping of the one that was taken, or `None`.
    pub fn settle(&mut self, taken: Option<&Trial>) {
        let damping = taken.map_or(self.damping * RETREAT, |trial| trial.damping);
        self.damping = damping.clamp(DAMPING_RANGE.0, DAMPING_RANGE.1);
    }
}

/// -(H + damping diag H)^-1 g.
fn solve(normal: &DMatrix<f64>, damping: f64, gradient: &DVector<f64>) -> Option<DVector<f64>> {
    let mut damped = normal.clone();
    // A parameter without influence (a scale that two others share) must not make H singular.
    let least = normal.diagonal().max() * 1e-12;
    for i in 0..damped.nrows() {
        damped[(i, i)] += damping * normal[(i, i)].max(least) + least;
    }
    let step = -damped.cholesky()?.solve(gradient);
    step.iter().all(|v| v.is_finite()).then_some(step)
}

/// Serde of a square matrix as its rows.
mod rows {
    use nalgebra::DMatrix;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(matrix: &Option<DMatrix<f64>>, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = |matrix: &DMatrix<f64>| -> Vec<Vec<f64>> {
            matrix.row_iter().map(|row| row.iter().copied().collect()).collect()
        };
        matrix.as_ref().map(rows).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DMatrix<f64>>, D::Error> {
        let Some(rows) = Option::<Vec<Vec<f64>>>::deserialize(deserializer)? else { return Ok(None) };
        if rows.iter().any(|row| row.len() != rows.len()) {
            return Err(D::Error::custom("is not a square matrix"));
        }
        Ok(Some(DMatrix::from_row_iterator(rows.len(), rows.len(), rows.concat())))
    }
}
