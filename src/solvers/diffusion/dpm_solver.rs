use super::{Knot, Prediction, Schedule, phi};
use crate::error::{Error, Result};
use crate::path::Level;
use crate::tableau::{Combination, Keep, Operand, Place, Stage, Tableau};

/// Orders of the steps of DPM-Solver-2 or -3 that together take `nfe` evaluations (Lu et al. 2022a,
/// Sec. 3.4 "DPM-Solver-fast" and the reference code): as many full ones as fit, and the rest at
/// the end. Where the path ends at sigma = 0, the last evaluation is spent on a first-order step
/// to it, and the published plan covers the others.
pub fn outer_steps(nfe: usize, order: usize, to_zero: bool) -> Vec<usize> {
    let planned = if to_zero { nfe - 1 } else { nfe };
    let mut orders = match (order, planned % order) {
        // A last step of full order is the least stable: 3 becomes 2 + 1.
        (3, 0) if planned > 0 => [vec![3; planned / 3 - 1], vec![2, 1]].concat(),
        (_, 0) => vec![order; planned / order],
        (_, rest) => [vec![order; planned / order], vec![rest]].concat(),
    };
    if to_zero {
        orders.push(1);
    }
    orders
}

/// DPM-Solver, singlestep in noise prediction (Lu et al. 2022a, Algorithms 1 and 2), with steps of
/// the given `orders` 1 to 3, whose sum is the number of knots: a step of order k owns k knots.
///
/// Published with steps uniform in lambda and inner knots at 1/2 (order 2) or 1/3 and 2/3
/// (order 3) of a step in lambda; these are the defaults. diffusers' singlestep scheduler takes
/// other inner knots (its grid's), which `schedule` can hold, and for the second inner state of
/// order 3 a coefficient that agrees to leading order only (its `midpoint` type, in place of
/// phi_2 of Algorithm 2).
///
/// # Errors
/// [`Error::Invalid`] for orders that do not fit the knots, or a last one above 1 to sigma = 0.
pub fn dpm_solver(schedule: &Schedule, orders: &[usize]) -> Result<Tableau<f64>> {
    let knots = &schedule.knots;
    let singular = schedule.end.sigma == 0.0 && orders.last().is_some_and(|order| *order > 1);
    if singular || orders.iter().sum::<usize>() != knots.len() || orders.iter().any(|o| !(1..=3).contains(o)) {
        let expected = format!("orders 1 to 3 with sum {}, the last 1 where sigma ends at 0", knots.len());
        return Err(Error::invalid("orders", format!("{orders:?}"), expected));
    }
    let mut stages = Vec::with_capacity(knots.len());
    for order in orders {
        let first = stages.len();
        let step = Singlestep::new(&knots[first..first + order], schedule.level(first + order));
        let points = match order {
            1 => vec![],
            2 => vec![step.first(&knots[first + 1].level)],
            _ => vec![step.first(&knots[first + 1].level), step.third_order_point()],
        };
        let next = match order {
            1 => step.first(step.to),
            2 => step.second_order(),
            _ => step.third_order(),
        };
        for (k, point) in points.into_iter().enumerate() {
            let keep = if k == 0 { Keep::Velocity(0) } else { Keep::Nothing };
            let t = knots[first + k].t;
            stages.push(Stage { t, next: point, place: Place::Point, keep, ends_step: false });
        }
        let t = knots[stages.len()].t;
        stages.push(Stage { t, next, place: Place::State, keep: Keep::Nothing, ends_step: true });
    }
    Ok(Tableau { stages })
}

/// One step from its first knot to the level `to`. What it knows of its start is in the state and,
/// once that evaluation is past, in a kept velocity.
struct Singlestep<'a> {
    knots: &'a [Knot],
    to: &'a Level,
    /// Predictions and state at the first knot, from the kept velocity.
    start: Prediction,
    state: Combination<f64>,
}

impl<'a> Singlestep<'a> {
    fn new(knots: &'a [Knot], to: &'a Level) -> Self {
        let y = Combination::of(Operand::State);
        let start = knots[0].predict(&y, &Combination::of(Operand::Kept(0)));
        Self { knots, to, state: knots[0].state(&y, &start), start }
    }

    /// The step of first order to `level`, made as the first evaluation comes in.
    fn first(&self, level: &Level) -> Combination<f64> {
        self.knots[0].predict(&Combination::of(Operand::State), &Combination::of(Operand::Velocity)).at(level)
    }

    /// (h, sigma, alpha quotient) of the way from the step's start to a level.
    fn way(&self, level: &Level) -> (f64, f64, f64) {
        let from = &self.knots[0].level;
        (level.lambda() - from.lambda(), level.sigma, level.alpha / from.alpha)
    }

    /// The noise that the evaluation at `knot`, which has just come in, predicts from the point `y`.
    fn noise(&self, knot: &Knot, y: &Combination<f64>) -> Combination<f64> {
        knot.predict(y, &Combination::of(Operand::Velocity)).x0
    }

    /// quotient * state + (slope - whole) * start's noise - slope * another noise.
    fn combine(&self, quotient: f64, whole: f64, slope: f64, noise: &Combination<f64>) -> Combination<f64> {
        Combination::sum([(quotient, &self.state), (slope - whole, &self.start.x0), (-slope, noise)])
    }

    /// The end of a step of order 2, with the evaluation at its inner knot.
    fn second_order(&self) -> Combination<f64> {
        let inner = &self.knots[1];
        // The inner point, over what is known of the start: a register less to read.
        let noise = self.noise(inner, &self.start.at(&inner.level));
        let (h, sigma, quotient) = self.way(self.to);
        let r = self.way(&inner.level).0 / h;
        self.combine(quotient, sigma * h * phi(1, h), 0.5 / r * sigma * h * phi(1, h), &noise)
    }

    /// The second inner point of a step of order 3, with the evaluation at its first.
    fn third_order_point(&self) -> Combination<f64> {
        let (first, second) = (&self.knots[1], &self.knots[2]);
        let noise = self.noise(first, &self.start.at(&first.level));
        let (h, sigma, quotient) = self.way(&second.level);
        let slope = h / self.way(&first.level).0 * sigma * h * phi(2, h);
        self.combine(quotient, sigma * h * phi(1, h), slope, &noise)
    }

    /// The end of a step of order 3, with the evaluation at its second inner knot.
    fn third_order(&self) -> Combination<f64> {
        let second = &self.knots[2];
        let noise = self.noise(second, &Combination::of(Operand::Point));
        let (h, sigma, quotient) = self.way(self.to);
        let slope = h / self.way(&second.level).0 * sigma * h * phi(2, h);
        self.combine(quotient, sigma * h * phi(1, h), slope, &noise)
    }
}
