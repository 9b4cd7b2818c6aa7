use super::{Schedule, multistep_table};
use crate::solvers::lagrange;
use crate::tableau::{Row, Tableau};

/// tAB-DEIS of polynomial `degree` 1 to 3 (Zhang and Chen 2023, Sec. 3.3), order degree + 1:
///
/// ```text
/// x_{i+1} / alpha_{i+1} = x_i / alpha_i + sum_j c_ij x0hat_{i-j},   c_ij = integral l_j(t) d(sigma / alpha)
/// ```
///
/// with the Lagrange polynomials l_j of the last degree + 1 knots in time; `nsr` is sigma / alpha
/// over that time. Fewer at the start. Default grid: quadratic, as in the reference code
/// (`ts_order = 2`). A step to sigma = 0, where the published code stops before it, is of first
/// order. diffusers' DEIS interpolates in log nsr in place of time (logrho-AB): that is this
/// method with levels whose t is log nsr.
pub fn deis(schedule: &Schedule, degree: usize, nsr: impl Fn(f64) -> f64) -> Tableau<f64> {
    let mut states = Vec::with_capacity(schedule.knots.len());
    let mut history: Vec<Row<f64>> = Vec::new();
    let times: Vec<f64> = schedule.knots.iter().map(|knot| knot.level.t).collect();
    let mut y = Row::base();
    for (i, knot) in schedule.knots.iter().enumerate() {
        let prediction = knot.predict(&y, i);
        let to = schedule.level(i + 1);
        let x = knot.state(&y, &prediction);
        y = if to.sigma == 0.0 { prediction.at(to) } else { Row::base() };
        history.push(prediction.x0);
        if to.sigma > 0.0 {
            let first = i.saturating_sub(degree);
            let weights = lagrange::weights(&times[first..=i], knot.level.t, to.t, &nsr);
            let mut terms = vec![(to.alpha / knot.level.alpha, &x)];
            terms.extend(weights.iter().zip(&history[first..]).map(|(c, x0)| (to.alpha * c, x0)));
            y = Row::sum(&terms);
        }
        states.push(y.clone());
    }
    multistep_table(schedule, states)
}
