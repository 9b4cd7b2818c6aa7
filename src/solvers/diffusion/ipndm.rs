use super::{Prediction, Schedule, multistep_table};
use crate::tableau::{Row, Tableau};

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
    let mut states = Vec::with_capacity(schedule.knots.len());
    let mut history: Vec<Row<f64>> = Vec::new();
    let mut y = Row::base();
    for (i, knot) in schedule.knots.iter().enumerate() {
        let prediction = knot.predict(&y, i);
        let x = knot.state(&y, &prediction);
        history.push(prediction.x0);
        let weights = WEIGHTS[i.min(WEIGHTS.len() - 1)];
        let terms: Vec<_> = weights.iter().copied().zip(history.iter().rev()).collect();
        let x0 = Row::sum(&terms);
        let x1 = Row::sum(&[(1.0 / knot.level.alpha, &x), (-knot.level.sigma / knot.level.alpha, &x0)]);
        y = Prediction { x1, x0 }.at(schedule.level(i + 1));
        states.push(y.clone());
    }
    multistep_table(schedule, states)
}
