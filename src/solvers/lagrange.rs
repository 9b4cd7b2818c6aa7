//! Integrals of Lagrange polynomials: the weights of Adams-Bashforth methods, on any grid.

use std::f64::consts::PI;
use std::sync::LazyLock;

/// Points of the quadrature. With these, polynomials up to degree 39 are exact.
const POINTS: usize = 20;

/// For each of `nodes` t_j the weight integral_a^b l_j(t) d rho(t), with the Lagrange polynomials
/// l_j of the nodes: sum_j weight_j f(t_j) is the integral of the polynomial through f.
///
/// `rho` must be smooth on [a, b]. Classical methods have rho(t) = t.
pub(super) fn weights(nodes: &[f64], a: f64, b: f64, rho: impl Fn(f64) -> f64) -> Vec<f64> {
    let (middle, half) = ((a + b) / 2.0, (b - a) / 2.0);
    // (t, w rho(t)) of every point: rho costs more than all else.
    let points = GAUSS_LEGENDRE.map(|(x, w)| {
        let t = middle + half * x;
        (t, w * half * rho(t))
    });
    let (rho_a, rho_b) = (rho(a), rho(b));
    let one = |j: usize| {
        // By parts, so that rho needs no derivative: [l rho] - integral l' rho dt.
        let ends = basis(nodes, j, b).0 * rho_b - basis(nodes, j, a).0 * rho_a;
        ends - points.iter().map(|(t, w)| w * basis(nodes, j, *t).1).sum::<f64>()
    };
    (0..nodes.len()).map(one).collect()
}

/// l_j(t) and its derivative.
fn basis(nodes: &[f64], j: usize, t: f64) -> (f64, f64) {
    let (mut value, mut slope) = (1.0, 0.0);
    for (_, node) in nodes.iter().enumerate().filter(|(k, _)| *k != j) {
        let width = nodes[j] - node;
        slope = slope * (t - node) / width + value / width;
        value *= (t - node) / width;
    }
    (value, slope)
}

/// Gauss-Legendre points and weights on [-1, 1], by Newton's method on the Legendre polynomial.
static GAUSS_LEGENDRE: LazyLock<[(f64, f64); POINTS]> = LazyLock::new(|| {
    let n = POINTS as f64;
    std::array::from_fn(|i| {
        let mut x = (PI * (i as f64 + 0.75) / (n + 0.5)).cos();
        let mut slope = 1.0;
        // From this start, convergence is quadratic: far fewer iterations are needed.
        for _ in 0..20 {
            let (mut p, mut before) = (1.0, 0.0);
            for k in 0..POINTS {
                let k = k as f64;
                (p, before) = (((2.0 * k + 1.0) * x * p - k * before) / (k + 1.0), p);
            }
            slope = n * (x * p - before) / (x * x - 1.0);
            x -= p / slope;
        }
        (x, 2.0 / ((1.0 - x * x) * slope * slope))
    })
});
