use super::{Multistep, Schedule, data_step, multistep_table, phi};
use crate::error::{Error, Result};
use crate::tableau::{Combination, Tableau};
use nalgebra::{DMatrix, DVector};

/// B(h) of UniPC (Zhao et al. 2023, Sec. 3.3), here of -h, for data prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bh {
    /// B_1(h) = h.
    Bh1,
    /// B_2(h) = e^h - 1.
    Bh2,
}

/// UniPC in data prediction (Zhao et al. 2023, Algorithms 5 to 8), of `order` 2 or 3, multistep.
///
/// The predictor gives the point that is evaluated; that evaluation then mends it (the corrector,
/// no evaluation more), and from there the next predictor starts. Both go from the same state and
/// differ in the weights of the predictions alone, so the corrector is
///
/// ```text
/// x_i = y_i + sum_j (corrector_j - predictor_j) x1hat_j
/// ```
///
/// and nothing but the predicted point and `order` predictions need be kept. The states of the
/// table are the predicted points. Orders rise at the start and fall to 1 at the end, as in the
/// reference code and in diffusers; so the last state is predicted by a first-order step, and is
/// not corrected. Default grid: uniform in time, as diffusers has it.
///
/// # Errors
/// [`Error::Numeric`] where knots lie so close that the weights are not determined.
pub fn unipc(schedule: &Schedule, order: usize, bh: Bh) -> Result<Tableau<f64>> {
    let count = schedule.knots.len();
    // Of the step that led to the present point.
    let (mut last_order, mut predictor) = (0, Vec::new());
    let next = |step: &Multistep<'_>| -> Result<Combination<f64>> {
        let i = step.i;
        let mut x = step.x.clone();
        if i > 0 {
            let corrector = higher_orders(schedule, i - 1, last_order, bh, true)?;
            let less = predictor.iter().map(|(j, c): &(usize, f64)| (*j, -c));
            x = plus(&x, corrector.into_iter().chain(less), step);
        }
        last_order = order.min(i + 1).min(count - i);
        predictor = higher_orders(schedule, i, last_order, bh, false)?;
        let first_order = data_step(&x, &step.prediction.x1, schedule.level(i), schedule.level(i + 1));
        Ok(plus(&first_order, predictor.iter().copied(), step))
    };
    multistep_table(schedule, order, |prediction| &prediction.x1, next)
}

/// `state` and a sum of the data predictions of evaluations, each with its coefficient.
fn plus(state: &Combination<f64>, terms: impl Iterator<Item = (usize, f64)>, step: &Multistep<'_>) -> Combination<f64> {
    let terms: Vec<_> = terms.map(|(j, c)| (c, step.of(j))).collect();
    Combination::sum(std::iter::once((1.0, state)).chain(terms.iter().map(|(c, x1)| (*c, x1))))
}

/// What the step from level `i` to the next adds to that of first order: coefficients of the data
/// predictions at levels i, i - 1 ..., `order` of them, and where it `corrects`, of that at the
/// level it goes to.
fn higher_orders(schedule: &Schedule, i: usize, order: usize, bh: Bh, corrects: bool) -> Result<Vec<(usize, f64)>> {
    let (from, to) = (schedule.level(i), schedule.level(i + 1));
    let mut others: Vec<usize> = (1..order).map(|back| i - back).collect();
    if corrects {
        others.push(i + 1);
    }
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let h = to.lambda() - from.lambda();
    let b_h = match bh {
        Bh::Bh1 => -h,
        Bh::Bh2 => (-h).exp_m1(),
    };
    let ratios: Vec<f64> = others.iter().map(|j| (schedule.level(*j).lambda() - from.lambda()) / h).collect();
    let rho = weights(&ratios, h, b_h)?;
    let terms = others.iter().zip(&ratios).zip(rho).flat_map(|((j, r), rho)| {
        let c = -to.alpha * b_h * rho / r;
        [(*j, c), (i, -c)]
    });
    Ok(terms.collect())
}

/// rho of sum_m rho_m r_m^{n-1} = n! h phi_{n+1} / B for n = 1 ..., one for each ratio r_m.
fn weights(ratios: &[f64], h: f64, b_h: f64) -> Result<Vec<f64>> {
    let n = ratios.len();
    if n == 1 {
        // The published code's simplification, which keeps the order.
        return Ok(vec![0.5]);
    }
    let powers = DMatrix::from_fn(n, n, |row, column| ratios[column].powi(row as i32));
    let mut factorial = 1.0;
    let right = DVector::from_fn(n, |row, _| {
        factorial *= (row + 1) as f64;
        -h * phi(row as i32 + 2, -h) * factorial / b_h
    });
    let rho = powers.lu().solve(&right).filter(|rho| rho.iter().all(|v| v.is_finite()));
    let ratios = || ratios.iter().map(f64::to_string).collect::<Vec<_>>().join(", ");
    Ok(rho
        .ok_or_else(|| Error::Numeric(format!("UniPC has no weights for knots at ratios {}", ratios())))?
        .as_slice()
        .to_vec())
}
