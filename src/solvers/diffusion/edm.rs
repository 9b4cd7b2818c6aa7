use super::Schedule;
use crate::tableau::{Combination, Keep, Operand, Place, Stage, Tableau};

/// EDM's deterministic sampler (Karras et al. 2022, Algorithm 1), order 2: Heun's method for
/// x / alpha over the noise level nsr = sigma / alpha, whose slope is x0hat; the last step is Euler's.
///
/// `schedule` has a knot for each of the n noise levels, and gives 2n - 1 evaluations. Published
/// from 80 to 0.002 with rho = 7 and a last step from there to 0. Differs here: a model whose own
/// range is narrower starts at its own noise level, and where its path ends above 0 (EDM's own, at
/// sigma_min, or VP stopped early) the n levels and the end divide the range, and the last step
/// goes to that end: x(1) is the state there, not the prediction of noise level 0.
pub fn edm(schedule: &Schedule) -> Tableau<f64> {
    let (y, u) = (Combination::of(Operand::State), Combination::of(Operand::Velocity));
    let kept = Combination::of(Operand::Kept(0));
    let mut stages = Vec::with_capacity(2 * schedule.knots.len() - 1);
    for (i, knot) in schedule.knots.iter().enumerate() {
        let next = schedule.level(i + 1);
        let euler = knot.predict(&y, &u).at(next);
        let Some(next_knot) = schedule.knots.get(i + 1) else {
            stages.push(Stage { t: knot.t, next: euler, place: Place::State, keep: Keep::Nothing, ends_step: true });
            continue;
        };
        // The same once the velocity at the step's start is a kept one.
        let prediction = knot.predict(&y, &kept);
        let state = knot.state(&y, &prediction);
        let corrected = next_knot.predict(&prediction.at(next), &u);
        let half = next.alpha * (next.nsr() - knot.level.nsr()) / 2.0;
        let heun = [(next.alpha / knot.level.alpha, &state), (half, &prediction.x0), (half, &corrected.x0)];
        let (t, keep) = (knot.t, Keep::Velocity(0));
        stages.push(Stage { t, next: euler, place: Place::Point, keep, ends_step: false });
        let (t, next) = (next_knot.t, Combination::sum(heun));
        stages.push(Stage { t, next, place: Place::State, keep: Keep::Nothing, ends_step: true });
    }
    Tableau { stages }
}
