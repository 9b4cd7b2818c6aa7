use super::Schedule;
use crate::tableau::{Combination, Keep, Operand, Place, Stage, Tableau};

/// DDIM with eta = 0 (Song, Meng, Ermon 2021, Eq. 12), order 1:
///
/// ```text
/// x_{i+1} = alpha_{i+1} x1hat_i + sigma_{i+1} x0hat_i
/// ```
///
/// Published on steps uniform ("linear") or quadratic in the model's time; the default is uniform.
pub fn ddim(schedule: &Schedule) -> Tableau<f64> {
    let (y, u) = (Combination::of(Operand::State), Combination::of(Operand::Velocity));
    let stage = |(i, knot): (usize, &super::Knot)| Stage {
        t: knot.t,
        next: knot.predict(&y, &u).at(schedule.level(i + 1)),
        place: Place::State,
        keep: Keep::Nothing,
        ends_step: true,
    };
    Tableau { stages: schedule.knots.iter().enumerate().map(stage).collect() }
}
