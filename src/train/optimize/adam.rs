//! Adam (Kingma and Ba 2015), the paper's optimiser.

use serde::{Deserialize, Serialize};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// Moments of the gradient so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adam {
    first: Vec<f64>,
    second: Vec<f64>,
    step: i32,
}

/// The learning rate at `iteration` of `iterations`: from `lr` down to 0 along half a cosine.
pub fn cosine_decay(lr: f64, iteration: usize, iterations: usize) -> f64 {
    let share = iteration as f64 / iterations.max(1) as f64;
    lr * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
}

impl Adam {
    /// For this many parameters.
    pub fn new(parameters: usize) -> Self {
        Self { first: vec![0.0; parameters], second: vec![0.0; parameters], step: 0 }
    }

    /// Whether it is for this many parameters.
    pub fn fits(&self, parameters: usize) -> bool {
        self.first.len() == parameters && self.second.len() == parameters && self.step >= 0
    }

    /// Moves `values` against `gradient`, by about `lr` each.
    pub fn step(&mut self, values: &mut [f64], gradient: &[f64], lr: f64) {
        self.step += 1;
        let (correct1, correct2) = (1.0 - BETA1.powi(self.step), 1.0 - BETA2.powi(self.step));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((value, g), (first, second)) in values.iter_mut().zip(gradient).zip(moments) {
            *first = BETA1 * *first + (1.0 - BETA1) * g;
            *second = BETA2 * *second + (1.0 - BETA2) * g * g;
            *value -= lr * (*first / correct1) / ((*second / correct2).sqrt() + EPSILON);
        }
    }
}
