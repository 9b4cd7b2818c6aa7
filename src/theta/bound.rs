//! How far a local error of a Bespoke solver grows until the end: the weights of the bound loss.

use super::knots::Knots;
use crate::number::Number;

/// Lipschitz constants of the steps, L_i of step i -> i + 1 (BES App. D), for the constant
/// `l_tau` of the velocity: with these the bound loss weighs the local errors.
pub fn lipschitz<D: Number>(knots: &Knots<D>, stages_per_step: usize, l_tau: f64) -> Vec<D> {
    let steps = knots.t_dot.len() / stages_per_step;
    let h = 1.0 / steps as f64;
    let rate = |k: usize| knots.s_dot[k].abs() / knots.s[k] + knots.t_dot[k] * l_tau;
    (0..steps)
        .map(|i| {
            let (a, b) = (i * stages_per_step, (i + 1) * stages_per_step);
            let growth = match stages_per_step {
                1 => rate(a) * h,
                _ => rate(a + 1) * h * (rate(a) * (h / 2.0) + 1.0),
            };
            knots.s[a] / knots.s[b] * (growth + 1.0)
        })
        .collect()
}

/// M_i = prod_{j=i}^{n} L_j with L_n = 1 (BES Eq. 25), for the local errors d_1 ... d_n.
pub fn bound_weights<D: Number>(lipschitz: &[D]) -> Vec<D> {
    // L_0 belongs to the first step, whose start has no error: it does not enter.
    let mut weights = vec![D::one(); lipschitz.len()];
    for i in (0..lipschitz.len().saturating_sub(1)).rev() {
        weights[i] = weights[i + 1] * lipschitz[i + 1];
    }
    weights
}
