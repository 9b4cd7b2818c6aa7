//! Textbook solvers on a time grid.

use super::history::History;
use super::lagrange;
use crate::tableau::{Combination, Keep, Operand, Place, Stage, Tableau};

/// Equidistant times 0 ... 1 of `steps` steps.
pub fn uniform_grid(steps: usize) -> Vec<f64> {
    (0..=steps).map(|i| i as f64 / steps as f64).collect()
}

/// An explicit Runge-Kutta method (c, rows of A, b) on the grid `times`.
fn runge_kutta(times: &[f64], c: &[f64], a: &[&[f64]], b: &[f64]) -> Tableau<f64> {
    let stages_per_step = c.len();
    // The equidistant step is 1 / n itself: differences of rounded times are off by some ulps, and
    // the identity theta is to give the same samples to the last bit.
    let steps = (times.len() - 1) as f64;
    let equidistant = times == uniform_grid(times.len() - 1);
    let mut stages = Vec::with_capacity(stages_per_step * (times.len() - 1));
    for (i, pair) in times.windows(2).enumerate() {
        let h = if equidistant { 1.0 / steps } else { pair[1] - pair[0] };
        for s in 0..stages_per_step {
            let last = s + 1 == stages_per_step;
            let weights = if last { b } else { a[s + 1] };
            // The velocity of each stage but the last is kept, in the register of its number.
            let operand = |j: usize| if j == s { Operand::Velocity } else { Operand::Kept(j) };
            let velocities = weights.iter().enumerate().filter(|(_, w)| **w != 0.0).map(|(j, w)| (operand(j), h * w));
            let terms = std::iter::once((Operand::State, 1.0)).chain(velocities).collect();
            stages.push(Stage {
                t: match c[s] {
                    1.0 => pair[1],
                    c if equidistant => (i as f64 + c) / steps,
                    c => pair[0] + c * h,
                },
                next: Combination { terms },
                place: if last { Place::State } else { Place::Point },
                keep: if last { Keep::Nothing } else { Keep::Velocity(s) },
                ends_step: last,
            });
        }
    }
    Tableau { stages }
}

/// Euler (RK1), order 1.
pub fn euler(times: &[f64]) -> Tableau<f64> {
    runge_kutta(times, &[0.0], &[&[]], &[1.0])
}

/// Explicit midpoint (RK2), order 2.
pub fn midpoint(times: &[f64]) -> Tableau<f64> {
    runge_kutta(times, &[0.0, 0.5], &[&[], &[0.5]], &[0.0, 1.0])
}

/// Heun's trapezoid, order 2.
pub fn heun(times: &[f64]) -> Tableau<f64> {
    runge_kutta(times, &[0.0, 1.0], &[&[], &[1.0]], &[0.5, 0.5])
}

/// Ralston's method: of all two-stage ones of order 2 the one with the least error bound.
pub fn ralston(times: &[f64]) -> Tableau<f64> {
    runge_kutta(times, &[0.0, 2.0 / 3.0], &[&[], &[2.0 / 3.0]], &[0.25, 0.75])
}

/// The classical Runge-Kutta method, order 4.
pub fn rk4(times: &[f64]) -> Tableau<f64> {
    let a: [&[f64]; 4] = [&[], &[0.5], &[0.0, 0.5], &[0.0, 0.0, 1.0]];
    runge_kutta(times, &[0.0, 0.5, 0.5, 1.0], &a, &[1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0])
}

/// Adams-Bashforth of `order`, with the coefficients of this grid: step i integrates the
/// polynomial through the last `order` velocities.
///
/// The first steps have fewer velocities and a lower order, the very first is Euler's. Its error
/// h_0^2 stays: the orders 3 and 4 show on grids that begin with short steps, such as the cosine
/// grid, where h_0 is of order 1 / steps^2.
pub fn adams_bashforth(times: &[f64], order: usize) -> Tableau<f64> {
    let history = History::new(order.saturating_sub(1));
    let velocity = Combination::of(Operand::Velocity);
    let state = Combination::of(Operand::State);
    let step = |i: usize| {
        let first = (i + 1).saturating_sub(order);
        let weights = lagrange::weights(&times[first..=i], times[i], times[i + 1], |t| t);
        let velocities: Vec<_> = (first..i).map(|j| history.before(j)).chain([velocity.clone()]).collect();
        let terms = std::iter::once((1.0, &state)).chain(weights.into_iter().zip(&velocities));
        Stage {
            t: times[i],
            next: Combination::sum(terms),
            place: Place::State,
            keep: history.keep(i, velocity.clone()),
            ends_step: true,
        }
    };
    Tableau { stages: (0..times.len() - 1).map(step).collect() }
}
