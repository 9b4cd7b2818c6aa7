use super::{Schedule, data_step, multistep_table, phi};
use crate::error::{Error, Result};
use crate::tableau::{Row, Tableau};
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
/// The predictor gives the point that is evaluated; that evaluation then mends the state (the
/// corrector, no evaluation more) from which the next predictor starts. The states of the table
/// are the predicted points. Orders rise at the start and fall to 1 at the end, as in the
/// reference code and in diffusers; so the last state is predicted by a first-order step, and is
/// not corrected. Default grid: uniform in time, as diffusers has it.
///
/// # Errors
/// [`Error::Numeric`] where knots lie so close that the weights are not determined.
pub fn unipc(schedule: &Schedule, order: usize, bh: Bh) -> Result<Tableau<f64>> {
    let count = schedule.knots.len();
    let mut states = Vec::with_capacity(count);
    let mut history: Vec<Row<f64>> = Vec::new();
    let (mut y, mut x) = (Row::base(), Row::base());
    let mut last_order = 0;
    for (i, knot) in schedule.knots.iter().enumerate() {
        let prediction = knot.predict(&y, i);
        if i == 0 {
            x = knot.state(&y, &prediction);
        }
        history.push(prediction.x1);
        if i > 0 {
            x = step(&x, schedule, i - 1, last_order, bh, &history, true)?;
        }
        last_order = order.min(i + 1).min(count - i);
        y = step(&x, schedule, i, last_order, bh, &history, false)?;
        states.push(y.clone());
    }
    Ok(multistep_table(schedule, states))
}

/// The step from level `i` to the next by the data predictions at levels i, i - 1 ..., `order` of
/// them, and where it `corrects`, by that at the level it goes to.
fn step(
    x: &Row<f64>,
    schedule: &Schedule,
    i: usize,
    order: usize,
    bh: Bh,
    history: &[Row<f64>],
    corrects: bool,
) -> Result<Row<f64>> {
    let (from, to) = (schedule.level(i), schedule.level(i + 1));
    let first_order = data_step(x, &history[i], from, to);
    let mut others: Vec<usize> = (1..order).map(|back| i - back).collect();
    if corrects {
        others.push(i + 1);
    }
    if others.is_empty() {
        return Ok(first_order);
    }
    let h = to.lambda() - from.lambda();
    let b_h = match bh {
        Bh::Bh1 => -h,
        Bh::Bh2 => (-h).exp_m1(),
    };
    let ratios: Vec<f64> = others.iter().map(|j| (schedule.level(*j).lambda() - from.lambda()) / h).collect();
    let rho = weights(&ratios, h, b_h)?;
    let mut terms = vec![(1.0, first_order)];
    for ((j, r), rho) in others.iter().zip(&ratios).zip(rho) {
        let c = -to.alpha * b_h * rho / r;
        terms.push((c, history[*j].clone()));
        terms.push((-c, history[i].clone()));
    }
    Ok(Row::sum(&terms.iter().map(|(c, row)| (*c, row)).collect::<Vec<_>>()))
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
