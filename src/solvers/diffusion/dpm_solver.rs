use super::{Schedule, phi};
use crate::error::{Error, Result};
use crate::tableau::{Base, Row, Stage, Tableau};

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
    let mut stages: Vec<Stage<f64>> = Vec::with_capacity(knots.len());
    for order in orders {
        let first = stages.len();
        let (knot, to) = (&knots[first], schedule.level(first + order));
        let start = knot.predict(&Row::base(), first);
        let state = knot.state(&Row::base(), &start);
        let from = knot.level;
        // (h, sigma, alpha quotient) of the way from the step's start to a level.
        let way = |level: &crate::path::Level| (level.lambda() - from.lambda(), level.sigma, level.alpha / from.alpha);
        let mut inner = |next: Row<f64>| {
            let k = stages.len();
            stages.push(Stage { t: knots[k].t, next: next.clone(), base: Base::Keep, ends_step: false });
            knots[k + 1].predict(&next, k + 1)
        };
        let next = match order {
            1 => start.at(to),
            2 => {
                let second = inner(start.at(&knots[first + 1].level));
                let (h, sigma, quotient) = way(to);
                let r = way(&knots[first + 1].level).0 / h;
                let (whole, slope) = (sigma * h * phi(1, h), 0.5 / r * sigma * h * phi(1, h));
                Row::sum(&[(quotient, &state), (slope - whole, &start.x0), (-slope, &second.x0)])
            }
            _ => {
                let (level1, level2) = (&knots[first + 1].level, &knots[first + 2].level);
                let second = inner(start.at(level1));
                let (h2, sigma2, quotient2) = way(level2);
                let slope2 = h2 / way(level1).0 * sigma2 * h2 * phi(2, h2);
                let whole2 = sigma2 * h2 * phi(1, h2);
                let third =
                    inner(Row::sum(&[(quotient2, &state), (slope2 - whole2, &start.x0), (-slope2, &second.x0)]));
                let (h, sigma, quotient) = way(to);
                let (whole, slope) = (sigma * h * phi(1, h), h / h2 * sigma * h * phi(2, h));
                Row::sum(&[(quotient, &state), (slope - whole, &start.x0), (-slope, &third.x0)])
            }
        };
        let t = knots[stages.len()].t;
        stages.push(Stage { t, next, base: Base::Next, ends_step: true });
    }
    Ok(Tableau { stages })
}
