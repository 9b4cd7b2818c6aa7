use super::{Multistep, Schedule, multistep_table};
use crate::solvers::lagrange;
use crate::tableau::{Combination, Tableau};
use std::convert::Infallible;

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
    let times: Vec<f64> = schedule.knots.iter().map(|knot| knot.level.t).collect();
    let next = |step: &Multistep<'_>| {
        let (from, to) = (schedule.level(step.i), schedule.level(step.i + 1));
        if to.sigma == 0.0 {
            return Ok(step.prediction.at(to));
        }
        let first = step.i.saturating_sub(degree);
        let weights = lagrange::weights(&times[first..=step.i], from.t, to.t, &nsr);
        let predictions: Vec<_> = (first..=step.i).map(|j| step.of(j)).collect();
        let terms = weights.iter().zip(&predictions).map(|(c, x0)| (to.alpha * c, x0));
        Ok(Combination::sum(std::iter::once((to.alpha / from.alpha, &step.x)).chain(terms)))
    };
    let Ok(tableau) = multistep_table::<Infallible>(schedule, degree, |prediction| &prediction.x0, next);
    tableau
}
