//! Solvers side by side: their samples from the same noises against the ground truth's.

use crate::document;
use crate::dopri5::{self, Tolerance};
use crate::error::Result;
use crate::path::GaussianPath;
use crate::ranks::Ranks;
use crate::reference::Solver;
use crate::sampler::{self, Plan};
use crate::samples::{Batch, Conditioning, Errors, Noises};
use crate::tensor::Tensor;
use crate::velocity::{Condition, Counted, Evaluations, VelocityField};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

/// A solver ready to run on one model.
#[derive(Clone, Debug)]
pub enum Ready {
    /// A table.
    Plan(Arc<Plan>),
    /// The adaptive ground truth.
    GroundTruth(Tolerance),
}

impl Ready {
    /// Prepares `solver` for a model sampled on `path`; `tolerance` is the ground truth's.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for an impossible nfe.
    pub fn new(solver: &Solver, path: &GaussianPath, tolerance: Tolerance) -> Result<Self> {
        Ok(match solver.tableau(path)? {
            Some(tableau) => Ready::Plan(Arc::new(Plan::new(tableau))),
            None => Ready::GroundTruth(tolerance),
        })
    }

    /// x(1) from x(0), and the evaluations each sample took.
    ///
    /// # Errors
    /// The field's own.
    pub fn solve<F: VelocityField>(
        &self,
        field: &F,
        x0: &F::Tensor,
        condition: &Condition,
    ) -> Result<(F::Tensor, usize)> {
        match self {
            Ready::Plan(plan) => Ok((sampler::sample(plan, field, x0, condition)?, plan.nfe())),
            Ready::GroundTruth(tolerance) => {
                let solution = dopri5::solve(field, x0, condition, *tolerance, false)?;
                Ok((solution.x1, solution.evaluations))
            }
        }
    }
}

/// What is compared, and how.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The solvers, each with the name its row is to have.
    pub solvers: Vec<(String, Ready)>,
    /// What all of them start from.
    pub noises: Noises,
    /// Of the ground truth.
    pub tolerance: Tolerance,
    /// Greatest less least value of the data, for the PSNR.
    pub range: f64,
}

/// One solver's row of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SolverQuality {
    /// As the user named it.
    pub solver: String,
    /// Velocity evaluations of a sample; for the ground truth, their mean.
    pub nfe: f64,
    /// Network passes of a sample, their mean: twice the nfe where guidance is always on.
    pub passes: f64,
    /// Against the ground truth, mean over samples.
    #[serde(with = "document::any_number")]
    pub rmse: f64,
    /// Against the ground truth, mean over samples, in dB.
    #[serde(with = "document::any_number")]
    pub psnr: f64,
    /// Wall-clock seconds of a sample in a batch, on average.
    pub seconds: f64,
}

/// The whole table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// In the order asked for.
    pub results: Vec<SolverQuality>,
    /// Number of noises.
    pub count: usize,
    /// Evaluations the ground truth took for each sample, on average.
    pub ground_truth_evaluations: f64,
    /// Seconds it took for each sample, on average.
    pub ground_truth_seconds: f64,
    /// Its tolerance.
    pub tolerance: Tolerance,
    /// Of every solver the rmse of every sample, in order.
    #[serde(skip)]
    pub errors: Vec<Vec<f64>>,
}

/// Sums over samples.
#[derive(Clone, Copy, Default)]
struct Sums {
    evaluations: f64,
    passes: f64,
    seconds: f64,
}

impl Sums {
    fn add(&mut self, evaluations: usize, passes: u64, seconds: f64) {
        self.evaluations += evaluations as f64;
        self.passes += passes as f64;
        self.seconds += seconds;
    }
}

/// What batches have come to so far.
struct Tally {
    truth: Sums,
    solvers: Vec<Sums>,
    /// Of every solver the rmse of every sample; 0 where it is not known yet.
    errors: Vec<Vec<f64>>,
}

impl Tally {
    fn new(solvers: usize, count: usize) -> Self {
        Self {
            truth: Sums::default(),
            solvers: vec![Sums::default(); solvers],
            errors: vec![vec![0.0; count]; solvers],
        }
    }

    /// Adds up what the ranks have.
    fn sum(&mut self, ranks: &Ranks) {
        for sums in self.solvers.iter_mut().chain([&mut self.truth]) {
            let mut all = [sums.evaluations, sums.passes, sums.seconds];
            ranks.sum(&mut all);
            [sums.evaluations, sums.passes, sums.seconds] = all;
        }
        self.errors.iter_mut().for_each(|errors| ranks.sum(errors));
    }

    /// The table of `count` samples.
    fn table(self, comparison: &Comparison, count: usize) -> Evaluation {
        let Tally { truth, solvers, errors } = self;
        let errors: Vec<Errors> = errors.into_iter().map(|rms| Errors { rms, features: None }).collect();
        let mean = |sum: f64| sum / count as f64;
        let rows = comparison.solvers.iter().zip(solvers).zip(&errors).map(|(((name, _), sums), errors)| {
            let quality = errors.quality(comparison.range);
            SolverQuality {
                solver: name.clone(),
                nfe: mean(sums.evaluations),
                passes: mean(sums.passes),
                rmse: quality.rmse,
                psnr: quality.psnr,
                seconds: mean(sums.seconds),
            }
        });
        Evaluation {
            results: rows.collect(),
            count,
            ground_truth_evaluations: mean(truth.evaluations),
            ground_truth_seconds: mean(truth.seconds),
            tolerance: comparison.tolerance,
            errors: errors.into_iter().map(|errors| errors.rms).collect(),
        }
    }
}

/// How much tighter the reference is where the ground truth itself is judged.
const JUDGE_FACTOR: f64 = 1e-2;

/// Runs every solver on the same noises, in batches of samples of one size, which are dealt to the `ranks` in
/// turn. `observe` gets the number of samples done and the rank's last batch of them: the ground
/// truth's, then each solver's.
///
/// The ground truth's own row is its distance from a solve of a hundredth of its tolerance.
///
/// # Errors
/// The field's own; [`crate::Error::NonFinite`].
pub fn evaluate<F: VelocityField>(
    field: &F,
    conditioning: &Conditioning,
    comparison: &Comparison,
    ranks: &Ranks,
    observe: impl FnMut(usize, &[Vec<f32>]) -> Result<()>,
) -> Result<Evaluation> {
    evaluate_watched(field, conditioning, comparison, ranks, &mut |_| (), observe)
}

/// Evaluations that the ground truth takes, about, where it is not known yet.
const USUAL_TRUTH: f64 = 100.0;

/// How far the rank's batches are, in evaluations. An estimate: a solve of order 5 takes tolerance^(-1/5) times as
/// many.
struct Work<'a> {
    /// Of one batch: the ground truth's, then each solver's.
    parts: Vec<f64>,
    all: f64,
    done: f64,
    watch: &'a mut dyn FnMut(f64),
}

impl<'a> Work<'a> {
    fn new(solvers: &[(String, Ready)], batches: usize, watch: &'a mut dyn FnMut(f64)) -> Self {
        let of = |(_, solver): &(String, Ready)| match solver {
            Ready::Plan(plan) => plan.nfe() as f64,
            Ready::GroundTruth(_) => USUAL_TRUTH * JUDGE_FACTOR.powf(-0.2),
        };
        let parts: Vec<f64> = [USUAL_TRUTH].into_iter().chain(solvers.iter().map(of)).collect();
        Self { all: batches as f64 * parts.iter().sum::<f64>(), parts, done: 0.0, watch }
    }

    /// Part `part` of the batch is at solver time `t`.
    fn at(&mut self, part: usize, t: f64) {
        (self.watch)((self.done + self.parts[part] * t) / self.all);
    }

    fn finish(&mut self, part: usize) {
        self.done += self.parts[part];
        (self.watch)(self.done / self.all);
    }
}

/// One batch by the ground truth and by every solver: the samples of each, in order, with what they came to in
/// `tally`.
fn solve_all<F: VelocityField>(
    field: &Counted<'_, F>,
    x0: &F::Tensor,
    condition: &Condition,
    (batch, comparison): (&Batch, &Comparison),
    tally: &mut Tally,
    work: &mut Work<'_>,
) -> Result<Vec<Vec<f32>>> {
    let size = batch.len();
    let passed = field.network_passes();
    let begun = Instant::now();
    let truth = dopri5::solve_watched(field, x0, condition, comparison.tolerance, false, &mut |t| work.at(0, t))?;
    work.finish(0);
    // To the host and back: on a GPU, what was asked for is only then done.
    let mut samples = vec![truth.x1.to_f32()?];
    let truth_took = begun.elapsed().as_secs_f64();
    let truth_passes = field.network_passes() - passed;
    tally.truth.add(truth.evaluations * size, truth_passes, truth_took);
    for (i, (_, solver)) in comparison.solvers.iter().enumerate() {
        let passed = field.network_passes();
        let begun = Instant::now();
        let (x1, nfe) = match solver {
            Ready::Plan(_) => solver.solve(field, x0, condition)?,
            Ready::GroundTruth(Tolerance { rtol, atol }) => {
                let judge = Tolerance { rtol: rtol * JUDGE_FACTOR, atol: atol * JUDGE_FACTOR };
                let solution = dopri5::solve_watched(field, x0, condition, judge, false, &mut |t| work.at(i + 1, t))?;
                (solution.x1, truth.evaluations)
            }
        };
        work.finish(i + 1);
        samples.push(x1.to_f32()?);
        let (passes, took) = match solver {
            Ready::Plan(_) => (field.network_passes() - passed, begun.elapsed().as_secs_f64()),
            Ready::GroundTruth(_) => (truth_passes, truth_took),
        };
        tally.solvers[i].add(nfe * size, passes, took);
        for (index, rms) in batch.samples().zip(x1.rmse(&truth.x1)?) {
            tally.errors[i][index] = rms;
        }
    }
    Ok(samples)
}

/// [`evaluate`]; `watch` gets the share of the rank's work that is done, from 0 to 1, as it is estimated.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_watched<F: VelocityField>(
    field: &F,
    conditioning: &Conditioning,
    comparison: &Comparison,
    ranks: &Ranks,
    watch: &mut dyn FnMut(f64),
    mut observe: impl FnMut(usize, &[Vec<f32>]) -> Result<()>,
) -> Result<Evaluation> {
    let field = &Counted::new(field, Evaluations::default());
    let elements = field.elements();
    comparison.noises.validate(elements)?;
    let count = comparison.noises.count(elements);
    let mut tally = Tally::new(comparison.solvers.len(), count);
    let batches = conditioning.batches(0..count, elements, usize::MAX);
    let upto = batches.iter().scan(0, |sum, batch| {
        *sum += batch.len();
        Some(*sum)
    });
    let own: Vec<(&Batch, usize)> =
        batches.iter().zip(upto).enumerate().filter(|(i, _)| ranks.owns(*i)).map(|(_, own)| own).collect();
    let mut work = Work::new(&comparison.solvers, own.len(), watch);
    for (batch, upto) in own {
        let condition = conditioning.of(batch.samples())?;
        let x0 = field.start(&comparison.noises.read(batch.samples(), batch.elements)?, batch.elements)?;
        let samples = solve_all(field, &x0, &condition, (batch, comparison), &mut tally, &mut work)?;
        observe(upto, &samples)?;
    }
    tally.sum(ranks);
    Ok(tally.table(comparison, count))
}
