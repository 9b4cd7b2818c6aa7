//! The Bespoke families: knots of (t_r, s_r) to a table.

use crate::number::Number;
use crate::tableau::Operand::{Kept, State, Velocity};
use crate::tableau::{Combination, Keep, Place, Stage, Tableau};

/// Knots of a scale-time transformation: `K + 1` values of t and s, `K` of their derivatives,
/// with K = n (RK1) or 2n (RK2: integers and halves, in order).
#[derive(Clone, Debug, PartialEq)]
pub struct Knots<D> {
    /// t_0 = 0 < ... < t_K = 1.
    pub t: Vec<D>,
    /// dt/dr at all knots but the last, positive.
    pub t_dot: Vec<D>,
    /// s_0 = 1, all positive.
    pub s: Vec<D>,
    /// ds/dr at all knots but the last.
    pub s_dot: Vec<D>,
}

impl Knots<f64> {
    /// The identity: with it RK1-Bespoke is Euler and RK2-Bespoke is midpoint.
    pub fn identity(intervals: usize) -> Self {
        let k = intervals as f64;
        Self {
            t: (0..=intervals).map(|i| i as f64 / k).collect(),
            t_dot: vec![1.0; intervals],
            s: vec![1.0; intervals + 1],
            s_dot: vec![0.0; intervals],
        }
    }
}

/// One RK1-Bespoke step i (BES Eq. 17).
fn rk1_stage<D: Number>(knots: &Knots<D>, i: usize, h: f64) -> Stage<D> {
    let (s, s_next) = (knots.s[i], knots.s[i + 1]);
    let terms = vec![(State, (s + knots.s_dot[i] * h) / s_next), (Velocity, knots.t_dot[i] * h * s / s_next)];
    Stage { t: knots.t[i], next: Combination { terms }, place: Place::State, keep: Keep::Nothing, ends_step: true }
}

/// RK1-Bespoke with n = K steps.
pub fn rk1<D: Number>(knots: &Knots<D>) -> Tableau<D> {
    let steps = knots.t_dot.len();
    let h = 1.0 / steps as f64;
    Tableau { stages: (0..steps).map(|i| rk1_stage(knots, i, h)).collect() }
}

/// RK2-Bespoke with n = K / 2 steps (BES Eq. 19-20): as applied, five scalars and two times a step.
pub fn rk2<D: Number>(knots: &Knots<D>) -> Tableau<D> {
    let steps = knots.t_dot.len() / 2;
    let h = 1.0 / steps as f64;
    let mut stages = Vec::with_capacity(2 * steps);
    for i in 0..steps {
        let (a, m, b) = (2 * i, 2 * i + 1, 2 * i + 2);
        let (s_a, s_m, s_b) = (knots.s[a], knots.s[m], knots.s[b]);
        let c1 = (s_a + knots.s_dot[a] * (h / 2.0)) / s_m;
        let c2 = s_a * knots.t_dot[a] * (h / 2.0) / s_m;
        let slope = knots.s_dot[m] * h / s_b;
        let last =
            vec![(State, s_a / s_b + slope * c1), (Kept(0), slope * c2), (Velocity, knots.t_dot[m] * h * s_m / s_b)];
        stages.push(Stage {
            t: knots.t[a],
            next: Combination { terms: vec![(State, c1), (Velocity, c2)] },
            place: Place::Point,
            keep: Keep::Velocity(0),
            ends_step: false,
        });
        stages.push(Stage {
            t: knots.t[m],
            next: Combination { terms: last },
            place: Place::State,
            keep: Keep::Nothing,
            ends_step: true,
        });
    }
    Tableau { stages }
}

/// Knots under which [`rk1`] makes `tableau`: of all scales that do, s = 1.
///
/// They are those of no theta where the table is none of the family's: a coefficient of a
/// velocity that is not positive becomes a t' that is not.
pub fn rk1_knots(tableau: &Tableau<f64>) -> Knots<f64> {
    let steps = tableau.nfe();
    let h = 1.0 / steps as f64;
    let rows = tableau.stages.iter().map(|stage| coefficients(&stage.next));
    Knots {
        t: times_to_the_end(tableau),
        t_dot: rows.clone().map(|[_, u]| u / h).collect(),
        s: vec![1.0; steps + 1],
        s_dot: rows.map(|[x, _]| (x - 1.0) / h).collect(),
    }
}

/// Knots under which [`rk2`] makes `tableau`. The scale half-way a step is free: it is the geometric
/// mean of those at the step's ends.
///
/// They are those of no theta where the table is none of the family's: one of its scales is then
/// not positive or NaN, or one of t'.
pub fn rk2_knots(tableau: &Tableau<f64>) -> Knots<f64> {
    let steps = tableau.nfe() / 2;
    let h = 1.0 / steps as f64;
    let mut knots = Knots { t: times_to_the_end(tableau), t_dot: vec![], s: vec![1.0], s_dot: vec![] };
    let mut s_a = 1.0;
    for pair in tableau.stages.chunks_exact(2) {
        let ([c1, c2], [c, d, e]) = (coefficients(&pair[0].next), coefficients(&pair[1].next));
        // next = (s_a / s_b) x + slope y + E u_m, with slope = h s'_m / s_b.
        let slope = d / c2;
        let s_b = s_a / (c - slope * c1);
        let s_m = (s_a * s_b).sqrt();
        knots.t_dot.extend([2.0 * s_m * c2 / (h * s_a), e * s_b / (h * s_m)]);
        knots.s_dot.extend([2.0 * (c1 * s_m - s_a) / h, slope * s_b / h]);
        knots.s.extend([s_m, s_b]);
        s_a = s_b;
    }
    knots
}

/// The coefficients of a row of `N` terms; NaN for those that it lacks.
fn coefficients<const N: usize>(row: &Combination<f64>) -> [f64; N] {
    std::array::from_fn(|i| row.terms.get(i).map_or(f64::NAN, |term| term.1))
}

/// The times of all evaluations, then 1.
fn times_to_the_end(tableau: &Tableau<f64>) -> Vec<f64> {
    tableau.stages.iter().map(|stage| stage.t).chain([1.0]).collect()
}
