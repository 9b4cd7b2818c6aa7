use super::{Multistep, Prediction, Schedule, multistep_table};
use crate::tableau::{Combination, Tableau};
use std::convert::Infallible;

/// Adams-Bashforth weights of equal steps, newest first.
const WEIGHTS: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// iPNDM with up to four noise predictions (Zhang and Chen 2023, App. H.2, after Liu et al. 2022):
/// DDIM's step with x0hat replaced by its Adams-Bashforth combination.
///
/// The weights are those of equal steps on any grid, and fewer predictions at the start; order 2,
/// since DDIM's step weighs its time by sigma / alpha. Default grid: uniform in time (diffusers'
/// `IPNDMScheduler` has a grid of its own, which user-given times can reproduce).
pub fn ipndm(schedule: &Schedule) -> Tableau<f64> {
    let next = |step: &Multistep<'_>| {
        let (i, from) = (step.i, schedule.level(step.i));
        let weights = WEIGHTS[i.min(WEIGHTS.len() - 1)];
        let predictions: Vec<_> = (0..weights.len()).map(|back| step.of(i - back)).collect();
        let x0 = Combination::sum(weights.iter().copied().zip(&predictions));
        let x1 = Combination::sum([(1.0 / from.alpha, &step.x), (-from.sigma / from.alpha, &x0)]);
        Ok(Prediction { x1, x0 }.at(schedule.level(i + 1)))
    };
    let Ok(tableau) = multistep_table::<Infallible>(schedule, WEIGHTS.len() - 1, |prediction| &prediction.x0, next);
    tableau
}
