//! One sample's path through time under each solver, beside the ground truth's.

use super::super::task::Task;
use bespoke::Result;
use bespoke::dopri5;
use bespoke::evaluate::Ready;
use bespoke::model::FieldTask;
use bespoke::sampler::{Plan, Sampler};
use bespoke::tensor::{PerRow, Register, Tensor};
use bespoke::velocity::{Condition, VelocityField};
use serde::Serialize;
use std::sync::Arc;

/// How far the states at the ends of a solver's steps are from the ground truth's path.
#[derive(Serialize)]
pub struct PathCurve {
    /// Index of the solver in the results.
    pub result: usize,
    /// (t, rmse to the ground truth at t).
    pub rmse: Vec<(f64, f64)>,
}

pub struct Trace {
    pub paths: Vec<PathCurve>,
    /// States to be pictured: the ground truth's, then each shown solver's; (t, values).
    pub states: Vec<Vec<(f64, Vec<f32>)>>,
}

/// States pictured of one path at most.
const PICTURED: usize = 11;

/// The paths of `sample` under the solvers `shown`.
pub fn of(task: &Task, shown: &[usize], sample: usize) -> Result<Trace> {
    task.model.with(Tracing { task, shown, sample })
}

struct Tracing<'a> {
    task: &'a Task,
    shown: &'a [usize],
    sample: usize,
}

impl FieldTask for Tracing<'_> {
    type Output = Result<Trace>;

    fn run<F: VelocityField + Sync>(self, field: &F) -> Result<Trace> {
        trace(field, self.task, self.shown, self.sample)
    }
}

fn trace<F: VelocityField>(field: &F, task: &Task, shown: &[usize], sample: usize) -> Result<Trace> {
    let condition = task.conditioning.of(sample..sample + 1)?;
    let x0 = {
        let elements = task.conditioning.elements(task.conditioning.size_of(sample), field.elements());
        field.start(&task.comparison.noises.read(sample..sample + 1, elements)?, elements)?
    };
    let dense = dopri5::solve(field, &x0, &condition, task.comparison.tolerance, true)?.dense;
    let truth = |t: f64| -> Result<Vec<f32>> {
        match &dense {
            Some(dense) => dense.at(t, &[0])?.to_f32(),
            None => x0.to_f32(),
        }
    };
    let times = (0..PICTURED).map(|i| i as f64 / (PICTURED - 1) as f64);
    let mut states = vec![times.map(|t| Ok((t, truth(t)?))).collect::<Result<Vec<_>>>()?];
    let mut paths = Vec::new();
    for &result in shown {
        let Ready::Plan(plan) = &task.comparison.solvers[result].1 else { continue };
        let own = steps(plan, field, &x0, &condition)?;
        let far = |(t, x): &(f64, Vec<f32>)| Ok((*t, rmse(x, &truth(*t)?)));
        paths.push(PathCurve { result, rmse: own.iter().map(far).collect::<Result<Vec<_>>>()? });
        states.push(thinned(own));
    }
    Ok(Trace { paths, states })
}

/// (t, state) at the start and at the end of every step.
fn steps<F: VelocityField>(
    plan: &Arc<Plan>,
    field: &F,
    x0: &F::Tensor,
    condition: &Condition,
) -> Result<Vec<(f64, Vec<f32>)>> {
    let ends: Vec<bool> = (0..plan.nfe()).map_while(|k| plan.evaluation(k)).map(|(_, ends_step)| ends_step).collect();
    let mut sampler = Sampler::new(x0)?;
    sampler.start(plan, x0)?;
    let (mut found, mut stage) = (Vec::new(), 0);
    while let Some((times, x)) = sampler.query()? {
        let t = times[0];
        if stage == 0 || ends[stage - 1] {
            found.push((t, x.to_f32()?));
        }
        let velocity = field.eval(PerRow::All(t), x, condition)?;
        sampler.update(velocity.view())?;
        stage += 1;
    }
    found.push((1.0, sampler.state()?.to_f32()?));
    Ok(found)
}

fn rmse(a: &[f32], b: &[f32]) -> f64 {
    (a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
}

/// As many as can be pictured, first and last among them.
fn thinned(states: Vec<(f64, Vec<f32>)>) -> Vec<(f64, Vec<f32>)> {
    let last = states.len() - 1;
    if last < PICTURED {
        return states;
    }
    let mut wanted: Vec<usize> = (0..PICTURED).map(|i| (i * last + (PICTURED - 1) / 2) / (PICTURED - 1)).collect();
    wanted.dedup();
    states.into_iter().enumerate().filter(|(i, _)| wanted.contains(i)).map(|(_, state)| state).collect()
}
