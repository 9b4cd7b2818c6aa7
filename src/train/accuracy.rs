//! How exactly a field computes, measured: what differences of it choose their steps by.

use crate::error::{Error, Result};
use crate::noise::{self, Purpose};
use crate::tensor::{PerRow, Tensor};
use crate::train::paths::Pool;
use crate::velocity::VelocityField;
use serde::{Deserialize, Serialize};

/// What a field's velocities are worth, relative to their size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Noise of a velocity as its state moves a little.
    pub state: f64,
    /// The same as its time does.
    pub time: f64,
    /// By how much it differs between a batch and the sample alone.
    pub batch: f64,
}

/// How derivatives are taken by differences.
///
/// One-sided ones cost one evaluation and err by e / 2 of the second derivative and by the noise, a / e: e = a^(1/2).
/// Central ones cost two, err by e^2 / 6 of the third and by a / e: e = (3 a)^(1/3) would be the best if the third derivative
/// were as large as the velocity. Networks' are larger: along states they take a third of that, along times, in which they
/// bend more, a ninth. Worth it where the noise is large.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Differences {
    /// Noise of the velocities, relative to their size.
    pub accuracy: Accuracy,
    /// Whether they are central.
    pub central: bool,
}

/// From this noise on, differences are central: a one-sided step would be a thirtieth of the state.
const COARSE: f64 = 1e-3;

impl Differences {
    /// Those that suit the accuracy.
    pub fn new(accuracy: Accuracy) -> Self {
        Self { accuracy, central: accuracy.state.max(accuracy.time) > COARSE }
    }

    /// Central ones for a field of this noise.
    pub fn central(noise: f64) -> Self {
        Self { accuracy: Accuracy { state: noise, time: noise, batch: 0.0 }, central: true }
    }

    /// `share`: of the best central step if the third derivative were as large as the velocity.
    fn step(&self, noise: f64, share: f64) -> f64 {
        if self.central { (3.0 * noise).cbrt() * share } else { noise.sqrt() }
    }

    /// The step along a direction as large as the state.
    pub fn in_state(&self) -> f64 {
        self.step(self.accuracy.state, 1.0 / 3.0)
    }

    /// The step in time at `t`, which stays in [0, 1].
    pub fn in_time(&self, t: f64) -> f64 {
        let step = self.step(self.accuracy.time, 1.0 / 9.0);
        match self.central {
            true => step.min(t.min(1.0 - t).max(0.0)),
            false if t + step > 1.0 => -step,
            false => step,
        }
    }
}

/// Samples that are measured.
const SAMPLES: usize = 4;
/// Points on either side of the middle one.
const REACH: usize = 4;
/// Their distance, relative to the state and to the unit of time.
const SPACING: f64 = 1e-3;
/// A time away from both ends.
const TIME: f64 = 0.4;

impl Accuracy {
    /// Measures `field` around samples of `pool`.
    ///
    /// Differences of high order leave nothing of a smooth function, and of noise sigma they leave a known multiple:
    /// sigma^2 = (k!)^2 / (2k)! E[(Delta^k u)^2] (Hamming 1971; Moré and Wild 2011). Of several orders the
    /// least is taken, since what is left of the function only adds.
    ///
    /// # Errors
    /// The field's own; [`Error::Numeric`] where the velocities vanish.
    pub fn measure<F: VelocityField>(field: &F, pool: &Pool<F::Tensor>) -> Result<Self> {
        let all = pool.by_size((0..pool.size()).collect());
        let rows = pool.parts(&all, |_| SAMPLES).first().copied().unwrap_or_default();
        let (condition, elements) = (pool.condition(rows)?, pool.elements(rows.first().copied().unwrap_or_default()));
        let (x0, x1) = (pool.x0(rows)?, pool.x1(rows)?);
        let x = F::Tensor::linear_combination(&[(PerRow::All(1.0 - TIME), &x0), (PerRow::All(TIME), &x1)])?;
        let direction = field.upload(&noise::normal(0, Purpose::Sketch, 0..rows.len(), elements)?, elements)?;
        let squares = F::Tensor::fetch(&[&x.dot(&x)?, &direction.dot(&direction)?])?;
        let ratio = |row: usize| SPACING * (squares[0][row] / squares[1][row].max(f64::MIN_POSITIVE)).sqrt();

        let points = 2 * REACH + 1;
        let place = |i: usize| i as f64 - REACH as f64;
        let (mut states, mut times) = (Vec::new(), Vec::new());
        for i in 0..points {
            let offsets: Vec<f64> = (0..rows.len()).map(|row| place(i) * ratio(row)).collect();
            let terms = [(PerRow::All(1.0), &x), (PerRow::Each(&offsets), &direction)];
            states.push(F::Tensor::linear_combination(&terms)?);
            times.extend(vec![TIME; rows.len()]);
        }
        for i in 0..points {
            states.push(x.duplicate()?);
            times.extend(vec![TIME + place(i) * SPACING; rows.len()]);
        }
        let states = F::Tensor::concatenate(&states.iter().collect::<Vec<_>>())?;
        let found = field.eval(PerRow::Each(&times), &states, &condition.repeat(rows.len(), 2 * points)?)?;
        let block = |i: usize| found.narrow(i * rows.len()..(i + 1) * rows.len());
        let middle = block(REACH)?;
        let size = mean_square(&middle)?;
        if size <= 0.0 {
            return Err(Error::Numeric("the velocity is zero all over: nothing can be learned from it".into()));
        }
        let line = |first: usize| {
            let values = (first..first + points).map(block).collect::<Result<Vec<_>>>()?;
            Ok::<f64, Error>((noise_of(&values)? / size).sqrt().max(f64::EPSILON))
        };
        let (state, time) = (line(0)?, line(points)?);
        let mut batch: f64 = 0.0;
        for row in 0..rows.len() {
            let alone = field.eval(PerRow::All(TIME), &x.narrow(row..row + 1)?, &pool.condition(&rows[row..=row])?)?;
            let beside = middle.narrow(row..row + 1)?;
            let difference =
                F::Tensor::linear_combination(&[(PerRow::All(1.0), &alone), (PerRow::All(-1.0), &beside)])?;
            batch = batch.max((mean_square(&difference)? / size).sqrt());
        }
        let least = field.accuracy();
        Ok(Self { state: state.max(least), time: time.max(least), batch })
    }

    /// Whether a sample's velocity depends on what else is in its batch: by more than rounding explains.
    pub fn depends_on_batch(&self) -> bool {
        self.batch > DEPENDENT * self.state.max(f64::from(f32::EPSILON))
    }
}

/// Rounding in a batch of another size, by other kernels, is a few units of the noise.
const DEPENDENT: f64 = 30.0;

/// Of all samples and elements.
fn mean_square<T: Tensor>(of: &T) -> Result<f64> {
    let squares = T::fetch(&[&of.dot(of)?])?.swap_remove(0);
    Ok(squares.iter().sum::<f64>() / (squares.len() * of.elements()) as f64)
}

/// sigma^2 of the noise in `values`, which are equally spaced.
fn noise_of<T: Tensor>(values: &[T]) -> Result<f64> {
    let mut least = f64::INFINITY;
    for order in 3..values.len() - 2 {
        // (k!)^2 / (2k)! = 1 / binomial(2k, k).
        let scale = 1.0 / binomial(2 * order, order);
        let mut sum = 0.0;
        let count = values.len() - order;
        for first in 0..count {
            let term = |i: usize| {
                let sign = if (order - i).is_multiple_of(2) { 1.0 } else { -1.0 };
                (PerRow::All(sign * binomial(order, i)), &values[first + i])
            };
            sum += mean_square(&T::linear_combination(&(0..=order).map(term).collect::<Vec<_>>())?)?;
        }
        least = least.min(scale * sum / count as f64);
    }
    Ok(least)
}

fn binomial(n: usize, k: usize) -> f64 {
    (0..k).fold(1.0, |product, i| product * (n - i) as f64 / (i + 1) as f64)
}
