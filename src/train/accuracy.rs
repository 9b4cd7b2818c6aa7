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
    /// By how much it differs from call to call.
    pub repeat: f64,
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
        Self { accuracy: Accuracy { state: noise, time: noise, batch: 0.0, repeat: 0.0 }, central: true }
    }

    /// `share`: of the best central step if the third derivative were as large as the velocity.
    fn step(&self, noise: f64, share: f64) -> f64 {
        if self.central { (3.0 * noise).cbrt() * share } else { noise.sqrt() }
    }

    /// Where two velocities are compared along a direction as large as the state, in its units.
    pub fn in_state(&self) -> Between {
        let step = self.step(self.accuracy.state, 1.0 / 3.0);
        Between { ahead: step, behind: if self.central { -step } else { 0.0 } }
    }

    /// Where they are in time, from `t` on. All of it is within [0, 1], and at the ends of the path as wide as elsewhere,
    /// since the noise is divided by the width.
    pub fn in_time(&self, t: f64) -> Between {
        let step = self.step(self.accuracy.time, 1.0 / 9.0).min(0.5);
        if !self.central {
            return Between { ahead: if t + step > 1.0 { -step } else { step }, behind: 0.0 };
        }
        let ahead = step.min(1.0 - t).max(2.0 * step - t);
        Between { ahead, behind: ahead - 2.0 * step }
    }
}

/// Two places on a line through where a solve is, that velocities are compared at. One-sided differences have the solve's own
/// place behind, whose velocity is there already.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Between {
    pub ahead: f64,
    pub behind: f64,
}

impl Between {
    /// Nowhere: along this line nothing moves.
    pub const NOWHERE: Self = Self { ahead: 0.0, behind: 0.0 };

    /// In units of which `unit` is one.
    pub fn times(self, unit: f64) -> Self {
        Self { ahead: self.ahead * unit, behind: self.behind * unit }
    }

    /// One over the distance of the two, 0 where there is none.
    pub fn per_width(self) -> f64 {
        let width = self.ahead - self.behind;
        if width == 0.0 { 0.0 } else { 1.0 / width }
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
    /// The field's own; [`Error::Numeric`] where the velocities vanish, differ from call to call, or are another sample's.
    pub fn measure<F: VelocityField>(field: &F, pool: &Pool<F::Tensor>) -> Result<Self> {
        let all = pool.first(pool.size());
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
        if !size.is_finite() {
            return Err(Error::NonFinite { evaluation: 0, t: TIME });
        }
        if size <= 0.0 {
            return Err(Error::Numeric("the velocity is zero all over: nothing can be learned from it".into()));
        }
        let line = |first: usize| {
            let values = (first..first + points).map(block).collect::<Result<Vec<_>>>()?;
            Ok::<f64, Error>((noise_of(&values)? / size).sqrt().max(f64::EPSILON))
        };
        let (state, time) = (line(0)?, line(points)?);
        let apart = |a: &F::Tensor, b: &F::Tensor| {
            let difference = F::Tensor::linear_combination(&[(PerRow::All(1.0), a), (PerRow::All(-1.0), b)])?;
            Ok::<f64, Error>(mean_square(&difference)? / size)
        };
        let alone =
            |row: usize| field.eval(PerRow::All(TIME), &x.narrow(row..row + 1)?, &pool.condition(&rows[row..=row])?);
        let (mut batch, mut repeat) = (0.0f64, 0.0f64);
        for row in 0..rows.len() {
            let found = alone(row)?;
            batch += apart(&found, &middle.narrow(row..row + 1)?)? / rows.len() as f64;
            if row == 0 {
                repeat = apart(&found, &alone(row)?)?;
            }
        }
        let least = field.accuracy();
        let (state, time, batch, repeat) = (state.max(least), time.max(least), batch.sqrt(), repeat.sqrt());
        if ![state, time, batch, repeat].iter().all(|v| v.is_finite()) {
            return Err(Error::NonFinite { evaluation: 0, t: TIME });
        }
        let found = Self { state, time, batch, repeat };
        found.check()?;
        Ok(found)
    }

    /// # Errors
    /// [`Error::Numeric`] for a field that no solver can be learned from.
    fn check(&self) -> Result<()> {
        if self.repeat > BEYOND {
            return Err(Error::Numeric(format!(
                "a velocity differs by {:.1e} of itself between two calls with the same state, time and condition: is a \
                 network in training mode, as with dropout?",
                self.repeat
            )));
        }
        if self.batch > BEYOND {
            return Err(Error::Numeric(format!(
                "a sample's velocity differs by {:.1e} of itself between a batch and the sample alone: are the rows of a \
                 batch mixed up, or taken together, as by batch norm in training mode?",
                self.batch
            )));
        }
        Ok(())
    }

    /// Whether a sample's velocity depends on what else is in its batch, by more than rounding explains: that of other kernels is
    /// a few units of exact velocities' noise, and about as large as that of coarse ones.
    pub fn depends_on_batch(&self) -> bool {
        let noise = self.state.max(f64::from(f32::EPSILON));
        self.batch > (EXPLAINED * noise).min((EXPLAINED_COARSE * noise).max(ROUGH))
    }

    /// What whoever learns from the field should know of it.
    pub fn warning(&self) -> Option<String> {
        if self.repeat > NOTICEABLE {
            Some(format!(
                "a velocity differs by {:.1e} of itself between two calls with the same state, time and condition: what is \
                 learned is as random",
                self.repeat
            ))
        } else if self.depends_on_batch() {
            Some(format!(
                "a sample's velocity differs by {:.1e} of itself between a batch and the sample alone: this field depends on \
                 the batch a sample is in, and what is learned in one batch size may not serve in another",
                self.batch
            ))
        } else {
            None
        }
    }
}

/// How many times a velocity's noise its differences between batches may be by rounding: where the noise is small, and from
/// differences of this size on, where two independent roundings are 1.4 times as far apart as one is off.
const EXPLAINED: f64 = 30.0;
const EXPLAINED_COARSE: f64 = 2.0;
const ROUGH: f64 = 1e-3;
/// From call to call a device's sums may differ by their rounding, of half precision at most.
const NOTICEABLE: f64 = 1e-2;
/// Of a field that differs by so much of itself nothing can be learned: rows mixed up differ by 1.4, dropout by some .2 to 1, and
/// no rounding that a network is served in by a tenth of it.
const BEYOND: f64 = 0.3;

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
