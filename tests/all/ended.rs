//! A mixture's exact field that stops at a scheduler's time `end`, as a model card can ask.

use bespoke::dopri5::{self, Tolerance};
use bespoke::error::Result;
use bespoke::networks::{Mixture, MixtureDocument};
use bespoke::noise::{self, Purpose};
use bespoke::path::GaussianPath;
use bespoke::sampler::{Plan, sample};
use bespoke::scheduler::Scheduler;
use bespoke::tableau::Tableau;
use bespoke::tensor::{Host, PerRow, Register, Tensor};
use bespoke::velocity::{Condition, VelocityField};
use std::sync::Arc;

pub const ELEMENTS: usize = 4;

pub struct Field {
    mixture: Mixture,
    pub scheduler: Scheduler,
    pub end: f64,
}

impl Field {
    pub fn new(scheduler: Scheduler, end: f64) -> Self {
        let means = vec![
            vec![0.6, -0.2, 0.1, 0.9],
            vec![-0.7, 0.5, -0.3, 0.2],
            vec![0.1, -0.9, 0.8, -0.4],
            vec![-0.2, 0.3, -0.8, -0.6],
        ];
        let document = MixtureDocument { std: 0.4, means, weights: None, class: None };
        Self { mixture: Mixture::new(document).expect("a mixture"), scheduler, end }
    }

    pub fn path(&self) -> GaussianPath {
        GaussianPath::new(self.scheduler.clone(), self.end).expect("a path")
    }

    /// x(0) of `count` samples.
    pub fn noises(&self, count: usize) -> Host<f64> {
        self.start(&noise::normal(3, Purpose::Sample, 0..count, ELEMENTS).expect("noises"), ELEMENTS).expect("noises")
    }

    pub fn ground_truth(&self, x0: &Host<f64>) -> Host<f64> {
        let tolerance = Tolerance { rtol: 1e-11, atol: 1e-11 };
        dopri5::solve(self, x0, &Condition::default(), tolerance, false).expect("the ground truth").x1
    }

    pub fn sample(&self, tableau: Tableau<f64>, x0: &Host<f64>) -> Result<Host<f64>> {
        sample(&Arc::new(Plan::new(tableau)), self, x0, &Condition::default())
    }
}

impl VelocityField for Field {
    type Tensor = Host<f64>;

    fn elements(&self) -> usize {
        ELEMENTS
    }

    fn upload(&self, values: &[f32], elements: usize) -> Result<Host<f64>> {
        Host::new(values.iter().map(|v| f64::from(*v)).collect(), elements)
    }

    fn start(&self, noise: &[f32], elements: usize) -> Result<Host<f64>> {
        let scale = self.scheduler.initial_scale();
        Host::new(noise.iter().map(|v| f64::from(*v) * scale).collect(), elements)
    }

    fn eval(&self, t: PerRow<'_>, x: &Host<f64>, _: &Condition) -> Result<Host<f64>> {
        let row = |row: usize| {
            let u = self.mixture.velocity(&self.scheduler, t.at(row) * self.end, x.row(row), None);
            u.into_iter().map(|u| u * self.end).collect::<Vec<f64>>()
        };
        Host::new((0..x.batch()).flat_map(row).collect(), ELEMENTS)
    }
}

/// Mean over samples of the rmse.
pub fn rmse(a: &Host<f64>, b: &Host<f64>) -> f64 {
    let each = a.rmse(b).expect("equal shapes");
    each.iter().sum::<f64>() / each.len() as f64
}
