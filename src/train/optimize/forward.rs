//! Gauss-Newton on exact Jacobians of few samples, for a field that can only be evaluated.
//!
//! An exact Jacobian costs as much as some dozens of solves, and stays nearly right while the parameters hardly
//! move. So every iteration takes those of a few new samples and keeps the last ones' too: their errors
//! are made anew, which one solve each does, and J_b^T r_b follows from the Jacobian that is there.
//! How far a kept one is still right shows in how well it foretold the error's change; the less, the
//! less it weighs.

use super::gauss_newton::{GaussNewton, NormalEquations};
use nalgebra::{DMatrix, DVector};
use serde::{Deserialize, Serialize};

/// Damping, and the samples whose Jacobians are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardGaussNewton {
    /// What chooses the step.
    pub newton: GaussNewton,
    /// By age, the oldest first.
    pub kept: Vec<Kept>,
}

/// The samples of one iteration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The iteration's key, from which its samples follow.
    pub key: usize,
    /// The parameters at which their Jacobians are.
    pub values: Vec<f64>,
    /// The Jacobians, which a run that goes on makes again.
    #[serde(skip)]
    pub linear: Option<Linear>,
}

/// Errors of some samples as linear functions of the parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Of all samples, one after the other, `[samples * numbers, parameters]`.
    pub jacobian: DMatrix<f32>,
    /// Their errors where it was taken, `[samples * numbers]`.
    pub errors: DVector<f32>,
    /// Numbers of one sample.
    pub numbers: usize,
}

/// How far a [`Linear`] foretold its errors: sums over samples, so that ranks can add theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Foretold {
    /// Of the squared difference between error and prediction.
    pub missed: f64,
    /// Of the squared predicted change.
    pub change: f64,
    /// Of the squared error.
    pub error: f64,
}

/// A Jacobian whose predictions miss by this share of the change weighs half.
const TRUSTED: f64 = 0.3;
/// Changes below this share of the error say nothing of the Jacobian.
const CHANGE: f64 = 0.05;

impl Foretold {
    /// Between 0 and 1.
    pub fn trust(&self) -> f64 {
        let change = self.change + CHANGE * CHANGE * self.error;
        if change > 0.0 { 1.0 / (1.0 + self.missed / change / (TRUSTED * TRUSTED)) } else { 1.0 }
    }
}

impl Linear {
    /// How far it foretold `errors`, its samples' after `step`, where sample b weighs `weights[b]`.
    pub fn foretold(&self, step: &DVector<f32>, errors: &DVector<f32>, weights: &[f64]) -> Foretold {
        let change = &self.jacobian * step;
        let mut found = Foretold::default();
        for (i, (change, error)) in change.iter().zip(errors).enumerate() {
            let weight = weights[i / self.numbers];
            found.missed += weight * f64::from(self.errors[i] + change - error).powi(2);
            found.change += weight * f64::from(*change).powi(2);
            found.error += weight * f64::from(*error).powi(2);
        }
        found
    }

    /// The normal equations of its samples with `errors`, where sample b weighs `weights[b]`.
    pub fn normal_equations(&self, errors: &DVector<f32>, weights: &[f64]) -> NormalEquations {
        let mut sum = NormalEquations::none(self.jacobian.ncols());
        // In pieces: beside the Jacobian in f32 there is never much of it in f64.
        let at_once = (BLOCK / self.numbers.max(1)).max(1);
        for (piece, weights) in weights.chunks(at_once).enumerate() {
            let (first, count) = (piece * at_once * self.numbers, weights.len() * self.numbers);
            let root = |i: usize| weights[i / self.numbers].sqrt();
            let mut rows: DMatrix<f64> = self.jacobian.rows(first, count).map(f64::from);
            for (i, mut row) in rows.row_iter_mut().enumerate() {
                row *= root(i);
            }
            let errors = DVector::from_fn(count, |i, _| f64::from(errors[first + i]) * root(i));
            let transposed = rows.transpose();
            sum.add(NormalEquations { gradient: &transposed * errors, normal: &transposed * rows });
        }
        sum
    }
}

/// Rows of a Jacobian that are in f64 at once.
const BLOCK: usize = 2048;

impl ForwardGaussNewton {
    /// Whether it is for this many parameters.
    pub fn fits(&self, parameters: usize) -> bool {
        self.newton.fits(parameters) && self.kept.iter().all(|kept| kept.values.len() == parameters)
    }

    /// Drops all but the last `most`.
    pub fn keep(&mut self, most: usize) {
        self.kept.drain(..self.kept.len().saturating_sub(most));
    }
}
