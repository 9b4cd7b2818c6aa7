//! How long a sample takes under each solver: medians of repeats that take turns, so that whatever else the
//! machine does meanwhile falls on all solvers alike.

use super::super::task::Task;
use bespoke::Result;
use bespoke::evaluate::Ready;
use bespoke::model::FieldTask;
use bespoke::tensor::Tensor;
use bespoke::velocity::VelocityField;
use std::time::Instant;

/// In each, every solver runs once.
const ROUNDS: usize = 5;

/// Seconds of a sample in a batch, for each solver of the comparison; `None` for the ground truth.
pub fn of(task: &Task) -> Result<Vec<Option<f64>>> {
    task.model.with(Timing { task })
}

struct Timing<'a> {
    task: &'a Task,
}

impl FieldTask for Timing<'_> {
    type Output = Result<Vec<Option<f64>>>;

    fn run<F: VelocityField + Sync>(self, field: &F) -> Self::Output {
        let comparison = &self.task.comparison;
        let usual = field.elements();
        let batches = self.task.conditioning.batches(0..comparison.noises.count(usual), usual, usize::MAX);
        let Some(batch) = batches.first() else { return Ok(Vec::new()) };
        let (size, elements) = (batch.len(), batch.elements);
        let condition = self.task.conditioning.of(batch.samples())?;
        let x0 = field.start(&comparison.noises.read(batch.samples(), elements)?, elements)?;
        let mut took = vec![Vec::new(); comparison.solvers.len()];
        for _ in 0..ROUNDS {
            for ((_, solver), took) in comparison.solvers.iter().zip(&mut took) {
                if let Ready::GroundTruth(_) = solver {
                    continue;
                }
                let begun = Instant::now();
                // To the host: on a GPU, what was asked for is only then done.
                solver.solve(field, &x0, &condition)?.0.to_f32()?;
                took.push(begun.elapsed().as_secs_f64() / size as f64);
            }
        }
        Ok(took.into_iter().map(median).collect())
    }
}

/// The middle one of an odd number of `values`.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
