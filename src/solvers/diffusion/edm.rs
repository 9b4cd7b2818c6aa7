use super::Schedule;
use crate::tableau::{Base, Row, Stage, Tableau};

/// EDM's deterministic sampler (Karras et al. 2022, Algorithm 1), order 2: Heun's method for
/// x / alpha over the noise level nsr = sigma / alpha, whose slope is x0hat; the last step is Euler's.
///
/// `schedule` has a knot for each of the n noise levels, and gives 2n - 1 evaluations. Published
/// from 80 to 0.002 with rho = 7 and a last step from there to 0. Differs here: a model whose own
/// range is narrower starts at its own noise level, and where its path ends above 0 (EDM's own, at
/// sigma_min, or VP stopped early) the n levels and the end divide the range, and the last step
/// goes to that end: x(1) is the state there, not the prediction of noise level 0.
pub fn edm(schedule: &Schedule) -> Tableau<f64> {
    let mut stages = Vec::with_capacity(2 * schedule.knots.len() - 1);
    for (i, knot) in schedule.knots.iter().enumerate() {
        let (here, next) = (stages.len(), schedule.level(i + 1));
        let prediction = knot.predict(&Row::base(), here);
        let euler = prediction.at(next);
        let Some(next_knot) = schedule.knots.get(i + 1) else {
            stages.push(Stage { t: knot.t, next: euler, base: Base::Next, ends_step: true });
            continue;
        };
        let state = knot.state(&Row::base(), &prediction);
        let corrected = next_knot.predict(&euler, here + 1);
        let half = next.alpha * (next.nsr() - knot.level.nsr()) / 2.0;
        let heun = [(next.alpha / knot.level.alpha, &state), (half, &prediction.x0), (half, &corrected.x0)];
        stages.push(Stage { t: knot.t, next: euler, base: Base::Keep, ends_step: false });
        stages.push(Stage { t: next_knot.t, next: Row::sum(&heun), base: Base::Next, ends_step: true });
    }
    Tableau { stages }
}
