//! The exact marginal velocity of a Gaussian mixture, for any scheduler.
//!
//! Data x1 ~ sum_m w_m N(mu_m, tau^2 I). Then x_t = alpha x1 + sigma x0 is a mixture too, of
//! variance v = alpha^2 tau^2 + sigma^2 around alpha mu_m, with responsibilities
//! r_m ~ w_m exp(-|x - alpha mu_m|^2 / 2v), and
//!
//! ```text
//! u = alpha' E[x1 | x] + sigma' E[x0 | x] = c x + k mean,   mean = sum_m r_m mu_m,
//! c = (alpha' alpha tau^2 + sigma' sigma) / v,   k = alpha' - c alpha
//! ```
//!
//! which stays finite wherever tau > 0, at both ends of every scheduler.

use super::network::{Call, Network, Opened};
use crate::card::{Card, Time};
use crate::document;
use crate::error::{Error, Result};
use crate::inputs::{CLASS, Column};
use crate::number::Number;
use crate::scheduler::{Output, Scheduler};
use crate::tensor::{Compute, Device, Element, Host, PerRow, Register, Tensor};
use crate::threads;
use crate::velocity::{Condition, VelocityField, Vjp};
use num_dual::Dual64;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;
use std::path::Path;

/// A mixture as its file holds it: the `weights` of a card with `"runtime": "mixture"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixtureDocument {
    /// Standard deviation tau of every mode, positive.
    pub std: f64,
    /// Means of the modes, each of `elements` numbers.
    pub means: Vec<Vec<f64>>,
    /// Probability of each mode up to a common factor; absent: all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Vec<f64>>,
    /// Class of each mode; absent: the mixture has no classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Vec<i64>>,
}

/// A Gaussian mixture of common isotropic variance. Immutable; any thread.
#[derive(Clone, Debug)]
pub struct Mixture {
    elements: usize,
    variance: f64,
    /// Means, mode after mode.
    means: Vec<f64>,
    log_weights: Vec<f64>,
    class: Vec<i64>,
}

impl Mixture {
    /// Reads a mixture file.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] naming the key at fault.
    pub fn load(path: &Path) -> Result<Self> {
        Self::new(document::read(path)?).map_err(|e| match e {
            Error::Invalid { field, value, expected } => {
                Error::format(path.display().to_string(), field, format!("is {value}, expected {expected}"))
            }
            other => other,
        })
    }

    /// # Errors
    /// [`Error::Invalid`] naming the key at fault.
    pub fn new(document: MixtureDocument) -> Result<Self> {
        let MixtureDocument { std, means, weights, class } = document;
        if !(std > 0.0 && std.is_finite()) {
            return Err(Error::invalid("std", std, "a positive finite number"));
        }
        let elements = means.first().map_or(0, Vec::len);
        if elements == 0 {
            return Err(Error::invalid("means", "empty", "at least one mean of at least one number"));
        }
        for (m, mean) in means.iter().enumerate() {
            if mean.len() != elements || !mean.iter().all(|v| v.is_finite()) {
                return Err(Error::invalid(
                    format!("means[{m}]"),
                    format!("{mean:?}"),
                    format!("{elements} finite numbers"),
                ));
            }
        }
        let weights = weights.unwrap_or_else(|| vec![1.0; means.len()]);
        if weights.len() != means.len() || !weights.iter().all(|w| *w > 0.0 && w.is_finite()) {
            return Err(Error::invalid("weights", format!("{weights:?}"), format!("{} positive numbers", means.len())));
        }
        let class = class.unwrap_or_default();
        if !class.is_empty() && class.len() != means.len() {
            return Err(Error::invalid("class", format!("of length {}", class.len()), means.len().to_string()));
        }
        let log_weights = weights.iter().map(|w| w.ln()).collect();
        Ok(Self { elements, variance: std * std, means: means.concat(), log_weights, class })
    }

    /// Numbers per sample.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Whether some mode is of `class`.
    pub fn has_class(&self, class: i64) -> bool {
        self.class.contains(&class)
    }

    /// (c, k) and v of the module's formulas at `t`.
    fn coefficients<D: Number>(&self, scheduler: &Scheduler, t: D) -> (D, D, D) {
        let (alpha, alpha_dot) = (scheduler.alpha(t), scheduler.alpha_dot(t));
        let v = alpha * alpha * self.variance + scheduler.sigma_squared(t);
        let c = (alpha_dot * alpha * self.variance + scheduler.sigma_sigma_dot(t)) / v;
        (c, alpha_dot - c * alpha, v)
    }

    /// Responsibilities r_m of the modes of `class` (`None`: all), by a shifted softmax.
    fn responsibilities(&self, alpha: f64, v: f64, x: &[f64], class: Option<i64>) -> Vec<f64> {
        let log_r = |(m, mean): (usize, &[f64])| {
            if class.is_some_and(|class| self.class.get(m).is_some_and(|own| *own != class)) {
                return f64::NEG_INFINITY;
            }
            let distance: f64 = x.iter().zip(mean).map(|(x, mu)| (x - alpha * mu).powi(2)).sum();
            self.log_weights[m] - distance / (2.0 * v)
        };
        let mut r: Vec<f64> = self.means.chunks_exact(self.elements).enumerate().map(log_r).collect();
        let top = r.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        r.iter_mut().for_each(|l| *l = (*l - top).exp());
        let total: f64 = r.iter().sum();
        r.iter_mut().for_each(|r| *r /= total);
        r
    }

    /// sum_m weight_m mu_m.
    fn mix(&self, weights: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; self.elements];
        for (weight, mean) in weights.iter().zip(self.means.chunks_exact(self.elements)) {
            if *weight != 0.0 {
                out.iter_mut().zip(mean).for_each(|(o, mu)| *o += weight * mu);
            }
        }
        out
    }

    /// u_t(x) of one sample.
    pub fn velocity(&self, scheduler: &Scheduler, t: f64, x: &[f64], class: Option<i64>) -> Vec<f64> {
        let (c, k, v) = self.coefficients(scheduler, t);
        let mean = self.mix(&self.responsibilities(scheduler.alpha(t), v, x, class));
        x.iter().zip(&mean).map(|(x, m)| c * x + k * m).collect()
    }

    /// (w^T du/dx, w . du/dt) of one sample for each of `cotangents`.
    pub fn vjp(
        &self,
        scheduler: &Scheduler,
        t: f64,
        x: &[f64],
        class: Option<i64>,
        cotangents: &[&[f64]],
    ) -> Vec<(Vec<f64>, f64)> {
        let dual = Dual64::new(t, 1.0);
        let (c, k, v) = self.coefficients(scheduler, dual);
        let alpha = scheduler.alpha(dual);
        let r = self.responsibilities(alpha.re, v.re, x, class);
        let mean = self.mix(&r);
        // d(log r_m)/dt up to a constant: alpha' (x - alpha mu) . mu / v + |x - alpha mu|^2 v' / 2v^2
        let slope = |mu: &[f64]| -> f64 {
            let (mut along, mut square) = (0.0, 0.0);
            for (x, mu) in x.iter().zip(mu) {
                let offset = x - alpha.re * mu;
                along += offset * mu;
                square += offset * offset;
            }
            alpha.eps * along / v.re + square * v.eps / (2.0 * v.re * v.re)
        };
        let slopes: Vec<f64> = self
            .means
            .chunks_exact(self.elements)
            .zip(&r)
            .map(|(mu, r)| if *r == 0.0 { 0.0 } else { slope(mu) })
            .collect();
        let mean_slope: f64 = slopes.iter().zip(&r).map(|(l, r)| l * r).sum();
        let r_dot: Vec<f64> = slopes.iter().zip(&r).map(|(l, r)| r * (l - mean_slope)).collect();
        let mean_dot = self.mix(&r_dot);
        let one = |w: &&[f64]| {
            // d mean / dx = (alpha / v) Cov_r(mu), symmetric.
            let mean_w: f64 = mean.iter().zip(*w).map(|(m, w)| m * w).sum();
            let along = |(mu, r): (&[f64], &f64)| {
                if *r == 0.0 { 0.0 } else { r * (mu.iter().zip(*w).map(|(mu, w)| mu * w).sum::<f64>() - mean_w) }
            };
            let covariance_w = self.mix(&self.means.chunks_exact(self.elements).zip(&r).map(along).collect::<Vec<_>>());
            let factor = k.re * alpha.re / v.re;
            let x_part = w.iter().zip(&covariance_w).map(|(w, cov)| c.re * w + factor * cov).collect();
            let t_part = (0..x.len()).map(|i| w[i] * (c.eps * x[i] + k.eps * mean[i] + k.re * mean_dot[i])).sum();
            (x_part, t_part)
        };
        cotangents.iter().map(one).collect()
    }
}

/// A mixture on one scheduler, over host memory of dtype `E`; computes in f64.
pub struct MixtureField<E> {
    mixture: Mixture,
    scheduler: Scheduler,
    null_class: Option<i64>,
    element: PhantomData<fn() -> E>,
}

impl<E: Element> MixtureField<E> {
    /// The mixture's field; samples of `null_class` draw on all modes.
    pub fn new(mixture: Mixture, scheduler: Scheduler, null_class: Option<i64>) -> Self {
        Self { mixture, scheduler, null_class, element: PhantomData }
    }

    /// The class of every sample, where the mixture is asked for classes.
    fn classes<'a>(&self, call: &Call<'a, Host<E>>) -> Result<&'a [i64]> {
        let Call { time, x, inputs, .. } = call;
        if x.elements() != self.mixture.elements {
            return Err(Error::invalid("elements of a sample", x.elements(), self.mixture.elements.to_string()));
        }
        time.check("t", x.batch())?;
        let class = inputs.get(CLASS).and_then(Column::integers).unwrap_or_default();
        if !class.is_empty() && class.len() != x.batch() {
            let expected = format!("{}, one a sample", x.batch());
            return Err(Error::invalid(CLASS, format!("{} classes", class.len()), expected));
        }
        match class.iter().find(|c| Some(**c) != self.null_class && !self.mixture.has_class(**c)) {
            Some(c) => Err(Error::invalid(CLASS, c, "the class of a mode")),
            None => Ok(class),
        }
    }

    fn class(&self, class: &[i64], row: usize) -> Option<i64> {
        class.get(row).copied().filter(|c| Some(*c) != self.null_class)
    }
}

fn wide<E: Element>(row: &[E]) -> Vec<f64> {
    row.iter().map(|v| v.to_f64()).collect()
}

/// Joins rows of f64 into a tensor.
fn gather<E: Element>(rows: impl IntoIterator<Item = Vec<f64>>, elements: usize) -> Result<Host<E>> {
    Host::new(rows.into_iter().flatten().map(E::from_f64).collect(), elements)
}

impl<E: Element> Network for MixtureField<E> {
    type Tensor = Host<E>;

    fn upload(&self, values: &[f32], elements: usize) -> Result<Host<E>> {
        Host::from_f32(values, elements)
    }

    fn forward(&self, call: &Call<'_, Host<E>>) -> Result<Host<E>> {
        let class = self.classes(call)?;
        let mut output = call.x.zeros_like(call.x.batch())?;
        let rows = output.data_mut().par_chunks_mut(call.x.elements()).enumerate();
        let row_of = |(row, out): (usize, &mut [E])| {
            let x = wide(call.x.row(row));
            let u = self.mixture.velocity(&self.scheduler, call.time.at(row), &x, self.class(class, row));
            out.iter_mut().zip(u).for_each(|(out, u)| *out = E::from_f64(u));
        };
        threads::shared(|| rows.for_each(row_of));
        Ok(output)
    }

    fn differentiable(&self) -> bool {
        true
    }

    fn vjp(&self, call: &Call<'_, Host<E>>, cotangents: &[Host<E>]) -> Result<(Host<E>, Vjp<Host<E>>)> {
        let (output, class, x) = (self.forward(call)?, self.classes(call)?, call.x);
        if let Some(w) = cotangents.iter().find(|w| w.batch() != x.batch() || w.elements() != x.elements()) {
            let shape = |x: &Host<E>| format!("[{}, {}]", x.batch(), x.elements());
            return Err(Error::invalid("a cotangent's shape", shape(w), shape(x)));
        }
        let row_vjp = |row: usize| {
            let w: Vec<Vec<f64>> = cotangents.iter().map(|w| wide(w.row(row))).collect();
            let w: Vec<&[f64]> = w.iter().map(Vec::as_slice).collect();
            let class = self.class(class, row);
            self.mixture.vjp(&self.scheduler, call.time.at(row), &wide(x.row(row)), class, &w)
        };
        let rows: Vec<_> = threads::shared(|| (0..x.batch()).into_par_iter().map(row_vjp).collect());
        let mut vjp = Vjp { x: Vec::new(), t: Vec::new() };
        for i in 0..cotangents.len() {
            vjp.x.push(gather(rows.iter().map(|row| row[i].0.clone()), x.elements())?);
            vjp.t.push(gather(rows.iter().map(|row| vec![row[i].1]), 1)?);
        }
        Ok((output, vjp))
    }
}

/// A mixture as a field of its own, without a card: solver time is the scheduler's.
impl<E: Element> VelocityField for MixtureField<E> {
    type Tensor = Host<E>;

    fn elements(&self) -> usize {
        self.mixture.elements
    }

    fn upload(&self, values: &[f32], elements: usize) -> Result<Host<E>> {
        Network::upload(self, values, elements)
    }

    fn start(&self, noise: &[f32], elements: usize) -> Result<Host<E>> {
        let x0 = VelocityField::upload(self, noise, elements)?;
        Host::linear_combination(&[(PerRow::All(self.scheduler.initial_scale()), &x0)])
    }

    fn eval(&self, time: PerRow<'_>, x: &Host<E>, condition: &Condition) -> Result<Host<E>> {
        self.forward(&Call { time, x, shape: &[x.elements()], inputs: &condition.inputs })
    }

    fn differentiable(&self) -> bool {
        true
    }

    fn vjp(
        &self,
        time: PerRow<'_>,
        x: &Host<E>,
        condition: &Condition,
        cotangents: &[Host<E>],
    ) -> Result<Vjp<Host<E>>> {
        let call = Call { time, x, shape: &[x.elements()], inputs: &condition.inputs };
        Ok(Network::vjp(self, &call, cotangents)?.1)
    }
}

/// Opens the mixture that `card` names.
///
/// # Errors
/// [`Error::Format`] naming the key of the card that a mixture does not go with; the weights' own.
pub(super) fn open(card: &Card, device: Device, compute: Compute) -> Result<Opened> {
    let wrong = |field: &str, problem: String| Err(Error::format(card.path().display().to_string(), field, problem));
    if compute != Compute::F32 {
        return Err(Error::invalid("dtype", compute, "f32: a mixture is computed in it"));
    }
    if device != Device::Cpu {
        return Err(Error::invalid("device", device, "cpu: a mixture is computed in host memory"));
    }
    if card.output != Output::Velocity || card.time != (Time { end: card.time.end, ..Time::default() }) {
        return wrong("output, time", "a mixture gives the velocity at t, noise to data, scale 1".into());
    }
    if !card.inputs.is_empty() {
        return wrong("inputs", "is there, but a mixture is given a class alone".into());
    }
    let mixture = Mixture::load(&card.weights_path())?;
    if card.shape.numbers().map(|shape| shape.iter().product()) != Some(mixture.elements()) {
        let problem = format!("is {}, but the mixture's samples have {} numbers", card.shape, mixture.elements());
        return wrong("shape", problem);
    }
    if let Some(class) = (0..card.classes).find(|class| Some(*class) != card.null_class && !mixture.has_class(*class)) {
        return wrong("classes", format!("is {}, but no mode of the mixture is of class {class}", card.classes));
    }
    Ok(Opened::Host(Box::new(MixtureField::<f32>::new(mixture, card.scheduler.clone(), card.null_class))))
}
