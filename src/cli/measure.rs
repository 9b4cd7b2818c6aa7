//! Solvers side by side, with how far their samples are from the ground truth's and from data.

use super::judge::Judge;
use super::progress::Share;
use super::task::Task;
use bespoke::Result;
use bespoke::distance::{Distance, SampleSet};
use bespoke::evaluate::{Evaluation, evaluate_watched};
use bespoke::model::FieldTask;
use bespoke::ranks::Ranks;
use bespoke::velocity::VelocityField;
use serde::Serialize;

/// How far a solver's samples are.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SolverDistances {
    /// From the ground truth's of the same noises.
    pub to_ground_truth: Distance,
    /// From the data, where there is some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_data: Option<Distance>,
}

/// The same for all of them.
#[derive(Clone, Debug, Serialize)]
pub struct Distances {
    /// Name of the feature card.
    pub features: String,
    /// Samples of data, where there is some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_count: Option<usize>,
    /// Of the ground truth's samples from the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ground_truth_to_data: Option<Distance>,
    /// In the solvers' order; a part of their rows elsewhere.
    #[serde(skip)]
    pub solvers: Vec<SolverDistances>,
}

/// What a comparison comes to.
pub struct Measured {
    pub evaluation: Evaluation,
    pub distances: Option<Distances>,
    /// The first batch: the ground truth's samples, then each solver's.
    pub first: Vec<Vec<f32>>,
}

struct Evaluating<'a, O> {
    task: &'a Task,
    ranks: &'a Ranks,
    share: &'a mut Share,
    observe: O,
}

impl<O: FnMut(usize, &[Vec<f32>]) -> Result<()>> FieldTask for Evaluating<'_, O> {
    type Output = Result<Evaluation>;

    fn run<F: VelocityField + Sync>(self, field: &F) -> Result<Evaluation> {
        let Evaluating { task, ranks, share, observe } = self;
        let watch = &mut |done| share.set(done);
        evaluate_watched(field, &task.conditioning, &task.comparison, ranks, watch, observe)
    }
}

/// Runs the solvers; `judge` looks at every sample.
pub fn measure(task: &Task, judge: Option<Judge>, ranks: &Ranks, quiet: bool) -> Result<Measured> {
    let comparison = &task.comparison;
    let mut share = Share::new("evaluating", quiet || !ranks.is_first());
    let mut sets: Vec<SampleSet> = (0..=comparison.solvers.len()).map(|_| SampleSet::default()).collect();
    let mut first = Vec::new();
    let observe = |_: usize, samples: &[Vec<f32>]| {
        if first.is_empty() {
            first = samples.to_vec();
        }
        if let Some(judge) = &judge {
            for (set, samples) in sets.iter_mut().zip(samples) {
                set.add(&judge.features, samples)?;
            }
        }
        Ok(())
    };
    let evaluation = task.model.with(Evaluating { task, ranks, share: &mut share, observe })?;
    share.finish();
    if judge.is_some() {
        sets.iter_mut().for_each(|set| set.join(ranks));
    }
    let distances = judge.filter(|_| ranks.is_first()).map(|judge| distances(judge, sets)).transpose()?;
    Ok(Measured { evaluation, distances, first })
}

/// `sets`: the ground truth's samples, then each solver's.
fn distances(mut judge: Judge, mut sets: Vec<SampleSet>) -> Result<Distances> {
    let solvers = sets.split_off(1);
    let mut truth = sets.swap_remove(0);
    let mut to_data = |set: &SampleSet| judge.data.as_mut().map(|data| data.distance(set)).transpose();
    let ground_truth_to_data = to_data(&truth)?;
    let of = |set: &SampleSet| Ok(SolverDistances { to_ground_truth: truth.distance(set)?, to_data: to_data(set)? });
    let solvers = solvers.iter().map(of).collect::<Result<Vec<_>>>()?;
    Ok(Distances {
        features: judge.features.card().name(),
        data_count: judge.data.as_ref().map(SampleSet::count),
        ground_truth_to_data,
        solvers,
    })
}
