//! The ground truth: adaptive Dormand-Prince 5(4) with dense output.
//!
//! Hairer, Norsett, Wanner, *Solving Ordinary Differential Equations I*, II.4-II.6. A batch
//! shares its steps: a step is taken when the sample with the largest error allows it.

use crate::error::{Error, Result};
use crate::tensor::{PerRow, Tensor};
use crate::velocity::{Condition, VelocityField};

const C: [f64; 6] = [0.0, 1.0 / 5.0, 3.0 / 10.0, 4.0 / 5.0, 8.0 / 9.0, 1.0];
const A: [&[f64]; 6] = [
    &[],
    &[1.0 / 5.0],
    &[3.0 / 40.0, 9.0 / 40.0],
    &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
    &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0],
    &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0],
];
/// Fifth-order weights; the seventh stage is the next step's first.
const B: [f64; 6] = [35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0];
/// Fifth minus fourth order.
const E: [f64; 7] =
    [71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339200.0, 22.0 / 525.0, -1.0 / 40.0];
/// Weights of the dense output's last coefficient.
const D: [f64; 7] = [
    -12715105075.0 / 11282082432.0,
    0.0,
    87487479700.0 / 32700410799.0,
    -10690763975.0 / 1880347072.0,
    701980252875.0 / 199316789632.0,
    -1453857185.0 / 822651844.0,
    69997945.0 / 29380423.0,
];

/// Steps at most, accepted and rejected, before the solve is given up.
const MAX_STEPS: usize = 10_000;
/// A step below this gets nowhere.
const SMALLEST_STEP: f64 = 1e-12;
const SAFETY: f64 = 0.9;
const SHRINK: f64 = 0.2;
const GROW: f64 = 10.0;

/// How exact the ground truth is.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Tolerance {
    /// Relative to the state.
    pub rtol: f64,
    /// Absolute.
    pub atol: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { rtol: 1e-5, atol: 1e-5 }
    }
}

impl Tolerance {
    /// # Errors
    /// [`Error::Invalid`] where a tolerance is not positive and finite.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [("rtol", self.rtol), ("atol", self.atol)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::invalid(field, value, "a positive finite number"));
            }
        }
        Ok(())
    }
}

/// A solved batch.
pub struct Solution<T> {
    /// x(1), `[batch, elements]`.
    pub x1: T,
    /// Velocity evaluations of each sample.
    pub evaluations: usize,
    /// Steps taken and steps refused.
    pub steps: (usize, usize),
    /// x(t) at any t, where it was asked for.
    pub dense: Option<Dense<T>>,
}

/// The solution at any time: a quartic on every step.
pub struct Dense<T> {
    segments: Vec<Segment<T>>,
}

struct Segment<T> {
    start: f64,
    h: f64,
    coefficients: [T; 5],
}

impl<T: Tensor> Dense<T> {
    /// Start, length and coefficients of every step.
    pub(crate) fn segments(&self) -> impl ExactSizeIterator<Item = (f64, f64, &[T; 5])> {
        self.segments.iter().map(|segment| (segment.start, segment.h, &segment.coefficients))
    }

    /// What [`Dense::segments`] gave.
    pub(crate) fn from_segments(segments: impl IntoIterator<Item = (f64, f64, [T; 5])>) -> Self {
        let segment = |(start, h, coefficients)| Segment { start, h, coefficients };
        Self { segments: segments.into_iter().map(segment).collect() }
    }

    /// x(t) of the samples `rows`.
    ///
    /// # Errors
    /// The tensor's own.
    pub fn at(&self, t: f64, rows: &[usize]) -> Result<T> {
        let after = self.segments.partition_point(|segment| segment.start <= t);
        let segment = &self.segments[after.saturating_sub(1)];
        let theta = ((t - segment.start) / segment.h).clamp(0.0, 1.0);
        let rest = 1.0 - theta;
        // r1 + theta (r2 + rest (r3 + theta (r4 + rest r5)))
        let weights = [1.0, theta, theta * rest, theta * rest * theta, theta * rest * theta * rest];
        let parts = segment.coefficients.iter().map(|c| c.select(rows)).collect::<Result<Vec<T>>>()?;
        let terms: Vec<_> = weights.iter().zip(&parts).map(|(w, part)| (PerRow::All(*w), part)).collect();
        T::linear_combination(&terms)
    }
}

/// `sum_j weight_j k_j` scaled by `h`, on top of `x` where given; zero weights are skipped.
fn combine<T: Tensor>(x: Option<&T>, h: f64, weights: &[f64], k: &[T]) -> Result<T> {
    let mut terms: Vec<(PerRow<'_>, &T)> = x.map(|x| (PerRow::All(1.0), x)).into_iter().collect();
    terms.extend(weights.iter().zip(k).filter(|(w, _)| **w != 0.0).map(|(w, k)| (PerRow::All(h * w), k)));
    T::linear_combination(&terms)
}

fn worst(ratios: Vec<f64>) -> f64 {
    // NaN must count as an error, which `f64::max` would drop.
    ratios.into_iter().fold(0.0, |worst, r| if r > worst || r.is_nan() { r } else { worst })
}

/// Solves x' = u_t(x) from t = 0 to 1, with error control of the worst sample of the batch.
///
/// # Errors
/// [`Error::NonFinite`] from the field, [`Error::Numeric`] where the step size underflows, and
/// the field's own.
pub fn solve<F: VelocityField>(
    field: &F,
    x0: &F::Tensor,
    condition: &Condition,
    tolerance: Tolerance,
    dense: bool,
) -> Result<Solution<F::Tensor>> {
    solve_watched(field, x0, condition, tolerance, dense, &mut |_| ())
}

/// [`solve`], which calls `watch` with t after every step that is taken.
///
/// # Errors
/// As [`solve`].
pub fn solve_watched<F: VelocityField>(
    field: &F,
    x0: &F::Tensor,
    condition: &Condition,
    tolerance: Tolerance,
    dense: bool,
    watch: &mut dyn FnMut(f64),
) -> Result<Solution<F::Tensor>> {
    tolerance.validate()?;
    let Tolerance { rtol, atol } = tolerance;
    let mut x = x0.duplicate()?;
    let mut first = field.eval(PerRow::All(0.0), &x, condition)?;
    if !first.is_finite()? {
        return Err(Error::NonFinite { evaluation: 0, t: 0.0 });
    }
    let mut evaluations = 1;
    let (mut t, mut accepted, mut rejected) = (0.0f64, 0, 0);
    let mut h = initial_step(field, &x, &first, condition, tolerance)?;
    evaluations += 1;
    let mut segments = Vec::new();
    // The evaluation of the last refused step that was not finite, if one was not.
    let mut broken = None;
    while t < 1.0 {
        if let Some((evaluation, t)) = broken
            && h < SMALLEST_STEP
        {
            return Err(Error::NonFinite { evaluation, t });
        }
        if accepted + rejected >= MAX_STEPS || h < SMALLEST_STEP {
            return Err(stuck(t, accepted + rejected, h));
        }
        // A last step that would leave a sliver is stretched to the end.
        let end = if t + 1.01 * h >= 1.0 { 1.0 } else { t + h };
        h = end - t;
        let (next, mut k) = stages(field, &x, first, (t, h, end), condition)?;
        evaluations += 6;
        let error = worst(F::Tensor::error_ratio(&combine(None, h, &E, &k)?, &x, &next, rtol, atol)?);
        let factor = if error == 0.0 { GROW } else { (SAFETY * error.powf(-0.2)).clamp(SHRINK, GROW) };
        if error <= 1.0 {
            if dense {
                segments.push(segment(t, h, &x, &next, &k)?);
            }
            accepted += 1;
            t = end;
            watch(t);
            x = next;
            first = k.swap_remove(6);
            h *= factor;
        } else {
            rejected += 1;
            let stage = k.iter().map(Tensor::is_finite).collect::<Result<Vec<_>>>()?.into_iter().position(|good| !good);
            broken = stage.map(|stage| (evaluations - 7 + stage, t + C.get(stage).unwrap_or(&1.0) * h));
            first = k.swap_remove(0);
            // A NaN error leaves a NaN factor: shrink as far as one step may.
            h *= if factor.is_nan() { SHRINK } else { factor.min(1.0) };
        }
    }
    let dense = dense.then_some(Dense { segments });
    Ok(Solution { x1: x, evaluations, steps: (accepted, rejected), dense })
}

fn stuck(t: f64, steps: usize, h: f64) -> Error {
    Error::Numeric(format!(
        "the ground truth does not reach t = 1: at t = {t} after {steps} steps, step size {h:e}; \
         the velocity may not be smooth there, or the tolerance finer than its dtype"
    ))
}

/// One step of size `h` from `x` at `t`, whose velocity there is `first`: the state at `end`, and all seven velocities.
fn stages<F: VelocityField>(
    field: &F,
    x: &F::Tensor,
    first: F::Tensor,
    (t, h, end): (f64, f64, f64),
    condition: &Condition,
) -> Result<(F::Tensor, Vec<F::Tensor>)> {
    let mut k = vec![first];
    for stage in 1..6 {
        let y = combine(Some(x), h, A[stage], &k)?;
        k.push(field.eval(PerRow::All(t + C[stage] * h), &y, condition)?);
    }
    let next = combine(Some(x), h, &B, &k)?;
    k.push(field.eval(PerRow::All(end), &next, condition)?);
    Ok((next, k))
}

/// The starting step size (Hairer et al., II.4, "Starting Step Size"), from one more evaluation.
fn initial_step<F: VelocityField>(
    field: &F,
    x: &F::Tensor,
    u: &F::Tensor,
    condition: &Condition,
    Tolerance { rtol, atol }: Tolerance,
) -> Result<f64> {
    let d0 = worst(F::Tensor::error_ratio(x, x, x, rtol, atol)?);
    let d1 = worst(F::Tensor::error_ratio(u, x, x, rtol, atol)?);
    let h0 = if d0 < 1e-5 || d1 < 1e-5 { 1e-6 } else { (0.01 * d0 / d1).min(1.0) };
    let probe = combine(Some(x), h0, &[1.0], std::slice::from_ref(u))?;
    let next = field.eval(PerRow::All(h0), &probe, condition)?;
    if !next.is_finite()? {
        return Err(Error::NonFinite { evaluation: 1, t: h0 });
    }
    let change = F::Tensor::linear_combination(&[(PerRow::All(1.0), &next), (PerRow::All(-1.0), u)])?;
    let d2 = worst(F::Tensor::error_ratio(&change, x, x, rtol, atol)?) / h0;
    let h1 = if d1.max(d2) <= 1e-15 { (h0 * 1e-3).max(1e-6) } else { (0.01 / d1.max(d2)).powf(0.2) };
    Ok((100.0 * h0).min(h1).min(1.0))
}

fn segment<T: Tensor>(start: f64, h: f64, x: &T, next: &T, k: &[T]) -> Result<Segment<T>> {
    let sum = |terms: &[(f64, &T)]| {
        let terms: Vec<_> = terms.iter().map(|(c, tensor)| (PerRow::All(*c), *tensor)).collect();
        T::linear_combination(&terms)
    };
    let r1 = x.duplicate()?;
    let r2 = sum(&[(1.0, next), (-1.0, x)])?;
    let r3 = sum(&[(h, &k[0]), (-1.0, &r2)])?;
    let r4 = sum(&[(1.0, &r2), (-h, &k[6]), (-1.0, &r3)])?;
    let r5 = combine(None, h, &D, k)?;
    Ok(Segment { start, h, coefficients: [r1, r2, r3, r4, r5] })
}
