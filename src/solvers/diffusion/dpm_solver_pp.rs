use super::{Multistep, Schedule, data_step, multistep_table, phi};
use crate::tableau::{Combination, Tableau};
use std::convert::Infallible;

/// DPM-Solver++ multistep in data prediction of `order` 2 (2M: Lu et al. 2022b, Algorithm 2) or 3
/// (3M: the same paper's reference code).
///
/// 3M is kept as published, and as diffusers and k-diffusion have it: its last term is a divided
/// difference, half the second derivative, without the factor 2 that would make it one. It
/// converges with order 2, with a smaller constant than 2M.
///
/// The first steps have a lower order, and with fewer than 15 evaluations so have the last ones
/// (the reference code's and diffusers' `lower_order_final`). Default grid: uniform in time, the
/// reference code's choice for guided sampling and diffusers' default; the paper's choice without
/// guidance is `logsnr`.
pub fn dpm_solver_pp(schedule: &Schedule, order: usize) -> Tableau<f64> {
    let next = |step: &Multistep<'_>| Ok(next_state(schedule, order, step));
    let Ok(tableau) = multistep_table::<Infallible>(schedule, order - 1, |prediction| &prediction.x1, next);
    tableau
}

fn next_state(schedule: &Schedule, order: usize, step: &Multistep<'_>) -> Combination<f64> {
    let i = step.i;
    let (from, to) = (schedule.level(i), schedule.level(i + 1));
    let first_order = data_step(&step.x, &step.prediction.x1, from, to);
    // Length in lambda of this step, and of the `back`-th before it.
    let h = to.lambda() - from.lambda();
    let before = |back: usize| schedule.level(i + 1 - back).lambda() - schedule.level(i - back).lambda();
    match schedule.multistep_order(i, order) {
        1 => first_order,
        2 => {
            let half = 0.5 * to.alpha * h * phi(1, -h) * h / before(1);
            Combination::sum([(1.0, &first_order), (half, &step.of(i)), (-half, &step.of(i - 1))])
        }
        _ => {
            let (r0, r1) = (before(1) / h, before(2) / h);
            let d0 = Combination::sum([(1.0 / r0, &step.of(i)), (-1.0 / r0, &step.of(i - 1))]);
            let d1 = Combination::sum([(1.0 / r1, &step.of(i - 1)), (-1.0 / r1, &step.of(i - 2))]);
            let share = r0 / (r0 + r1);
            let (slope, curve) = (to.alpha * h * phi(2, -h), to.alpha * h * phi(3, -h) / (r0 + r1));
            Combination::sum([(1.0, &first_order), (slope * (1.0 + share) + curve, &d0), (-slope * share - curve, &d1)])
        }
    }
}
