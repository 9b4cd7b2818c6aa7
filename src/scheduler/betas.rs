//! Discrete training: N betas say how much noise each step adds, and the model knows alpha at N times alone.
//!
//! Step i of N stands at s = (i + 1) / N, t = 1 - s, so that step -1 is the data (alpha = 1, sigma = 0); a network
//! that counts steps from 0 has the card's time scale N and offset -1. Between the steps alpha goes by the monotone
//! cubic of Fritsch and Carlson (1980), whose slope is continuous. Published samplers interpolate ln alpha or
//! sigma / alpha by straight lines: equal at every step, but the velocity then jumps there, and at an end without
//! noise or without data (zero terminal snr) they are infinite, where alpha is as smooth as elsewhere.

use super::Document;
use crate::error::{Error, Result};
use crate::number::Number;
use std::f64::consts::FRAC_PI_2;
use std::sync::Arc;

/// Steps at most.
const MOST_STEPS: usize = 1 << 16;

/// The usual constants of discrete training (Ho et al. 2020).
const BETA_START: f64 = 1e-4;
const BETA_END: f64 = 0.02;
const STEPS: usize = 1000;

/// A discrete scheduler: what a card says of it, and its table. Immutable, shared by clones; any thread.
#[derive(Clone, Debug)]
pub struct Betas(Arc<Table>);

#[derive(Debug)]
struct Table {
    training: Training,
    /// 1 - alpha at s = 0, 1/N, ..., 1: increasing from 0. Exact where alpha is close to 1.
    lack: Vec<f64>,
    /// Its slopes by s N.
    slopes: Vec<f64>,
}

/// What a card says of discrete training.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// Where the steps come from.
    pub steps: Steps,
    /// Whether alpha is shifted to 0 at the last step and scaled to keep its first (Lin et al. 2023, algorithm 1).
    pub rescale_zero_terminal_snr: bool,
}

/// Where the steps of discrete training come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Steps {
    /// beta, or its root, goes linearly from one constant to the other.
    Linear {
        /// Whether it is the root.
        scaled: bool,
        /// First beta.
        beta_start: f64,
        /// Last beta.
        beta_end: f64,
        /// Number of steps.
        steps: usize,
    },
    /// alpha^2 goes by a squared cosine, betas are at most .999 (Nichol and Dhariwal 2021).
    SquaredCosine {
        /// Number of steps.
        steps: usize,
    },
    /// All betas.
    Betas(Vec<f64>),
    /// All alpha^2.
    AlphasCumprod(Vec<f64>),
}

impl PartialEq for Betas {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.training == other.0.training
    }
}

impl Betas {
    /// The scheduler of a discrete training.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the constant that makes none.
    pub fn new(training: Training) -> Result<Self> {
        let mut lack = training.steps.lack()?;
        if training.rescale_zero_terminal_snr {
            rescale(&mut lack);
        }
        // Step -1: the data.
        lack.insert(0, 0.0);
        let increasing = lack.windows(2).all(|pair| pair[0] < pair[1]);
        if !increasing || lack.last().is_some_and(|last| *last > 1.0) {
            return Err(Error::invalid(training.steps.field(), "such", "betas that leave less data at every step"));
        }
        let slopes = monotone_slopes(&lack);
        Ok(Self(Arc::new(Table { training, lack, slopes })))
    }

    /// What a card says of it.
    pub fn training(&self) -> &Training {
        &self.0.training
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.0.slopes.len() - 1
    }

    /// The t of step 0, the last that the network knows before the data.
    pub fn first_step(&self) -> f64 {
        1.0 - 1.0 / self.steps() as f64
    }

    /// 1 - alpha_t.
    pub(super) fn lack<D: Number>(&self, t: D) -> D {
        let (i, h) = self.place(t);
        let [a, b, c, d] = self.cubic(i);
        ((h * d + c) * h + b) * h + a
    }

    /// d(1 - alpha) / dt.
    pub(super) fn lack_dot<D: Number>(&self, t: D) -> D {
        let (i, h) = self.place(t);
        let [_, b, c, d] = self.cubic(i);
        ((h * (3.0 * d) + 2.0 * c) * h + b) * -(self.steps() as f64)
    }

    /// The t at which 1 - alpha_t is `lack`; beyond the noise end along the slope there.
    pub(super) fn time_at<D: Number>(&self, lack: D) -> D {
        let (n, table) = (self.steps(), &self.0);
        let target = lack.re();
        let i = table.lack.partition_point(|known| *known <= target).clamp(1, n) - 1;
        let [a, b, c, d] = self.cubic(i);
        let value = |h: f64| ((h * d + c) * h + b) * h + a;
        let slope = |h: f64| (h * (3.0 * d) + 2.0 * c) * h + b;
        let h = if target >= table.lack[n] {
            1.0 + (target - table.lack[n]) / table.slopes[n]
        } else {
            root(target, value, slope)
        };
        // A step of Newton's method in dual numbers leaves the root where it is and adds its derivatives, one order
        // by the first step, two more by the second.
        let mut h = D::from(h);
        if target < table.lack[n] {
            for _ in 0..2 {
                let (value, slope) = (((h * d + c) * h + b) * h + a, (h * (3.0 * d) + 2.0 * c) * h + b);
                h += (lack - value) / slope;
            }
        } else {
            h += (lack - target) / table.slopes[n];
        }
        -((h + i as f64) / n as f64) + 1.0
    }

    /// The interval that `t` is in, and where in it, from 0 to 1.
    fn place<D: Number>(&self, t: D) -> (usize, D) {
        let n = self.steps();
        let s = (-t + 1.0) * n as f64;
        let i = (s.re().floor().max(0.0) as usize).min(n - 1);
        (i, s - i as f64)
    }

    /// Coefficients of interval `i`.
    fn cubic(&self, i: usize) -> [f64; 4] {
        let Table { lack, slopes, .. } = &*self.0;
        let (rise, from, to) = (lack[i + 1] - lack[i], slopes[i], slopes[i + 1]);
        [lack[i], from, 3.0 * rise - 2.0 * from - to, from + to - 2.0 * rise]
    }
}

/// Where in [0, 1] an increasing cubic is `target`: Newton's method, by halves where it would leave the bracket.
fn root(target: f64, value: impl Fn(f64) -> f64, slope: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    let mut h = 0.5;
    for _ in 0..60 {
        let error = value(h) - target;
        if error > 0.0 {
            high = h
        } else {
            low = h
        }
        let newton = h - error / slope(h);
        let next = if newton >= low && newton <= high { newton } else { 0.5 * (low + high) };
        if (next - h).abs() <= f64::EPSILON * next.abs() {
            return next;
        }
        h = next;
    }
    h
}

/// Slopes of the monotone cubic through `values` at 0, 1, 2, ... (Fritsch and Butland 1984; at the ends of three
/// points, as far as that leaves it increasing).
fn monotone_slopes(values: &[f64]) -> Vec<f64> {
    let rises: Vec<f64> = values.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let end = |rise: f64, next: f64| (1.5 * rise - 0.5 * next).clamp(0.1 * rise, 2.5 * rise);
    let (first, last) = match rises.as_slice() {
        [] => return vec![0.0; values.len()],
        [rise] => (*rise, *rise),
        [rise, next, ..] => (end(*rise, *next), end(rises[rises.len() - 1], rises[rises.len() - 2])),
    };
    let inner = rises.windows(2).map(|pair| 2.0 * pair[0] * pair[1] / (pair[0] + pair[1]));
    [first].into_iter().chain(inner).chain([last]).collect()
}

/// Shifts alpha to 0 at the last step and scales it to keep the first.
fn rescale(lack: &mut [f64]) {
    let (Some(first), Some(last)) = (lack.first().copied(), lack.last().copied()) else { return };
    // alpha' = (alpha - alpha_N) alpha_1 / (alpha_1 - alpha_N), as 1 - alpha'.
    let factor = (1.0 - first) / (last - first);
    for own in lack.iter_mut() {
        *own = first + (*own - first) * factor;
    }
    if let Some(end) = lack.last_mut() {
        *end = 1.0;
    }
}

impl Steps {
    /// The key that an error of all steps names.
    fn field(&self) -> &'static str {
        match self {
            Steps::Linear { .. } => "scheduler.beta_start, beta_end",
            Steps::SquaredCosine { .. } => "scheduler.steps",
            Steps::Betas(_) => "scheduler.betas",
            Steps::AlphasCumprod(_) => "scheduler.alphas_cumprod",
        }
    }

    /// 1 - alpha after each step.
    fn lack(&self) -> Result<Vec<f64>> {
        let of_betas = |betas: &mut dyn Iterator<Item = f64>| -> Vec<f64> {
            let mut log = 0.0;
            betas
                .map(|beta| {
                    log += (-beta).ln_1p();
                    -(0.5f64 * log).exp_m1()
                })
                .collect()
        };
        match self {
            Steps::Linear { scaled, beta_start, beta_end, steps } => {
                check_steps(*steps)?;
                if !(*beta_start > 0.0 && beta_start <= beta_end && *beta_end < 1.0) {
                    let found = format!("{beta_start}, {beta_end}");
                    return Err(Error::invalid(self.field(), found, "0 < beta_start <= beta_end < 1"));
                }
                let of = |beta: f64| if *scaled { beta.sqrt() } else { beta };
                let (from, to) = (of(*beta_start), of(*beta_end));
                let beta = |i: usize| {
                    let value = from + (to - from) * (i as f64 / (steps - 1) as f64);
                    if *scaled { value * value } else { value }
                };
                Ok(of_betas(&mut (0..*steps).map(beta)))
            }
            Steps::SquaredCosine { steps } => {
                check_steps(*steps)?;
                let square = |i: usize| ((i as f64 / *steps as f64 + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
                Ok(of_betas(&mut (0..*steps).map(|i| (1.0 - square(i + 1) / square(i)).min(0.999))))
            }
            Steps::Betas(betas) => {
                check_steps(betas.len())?;
                check_each("scheduler.betas", betas, |beta, last| {
                    *beta > 0.0 && (*beta < 1.0 || last && *beta == 1.0)
                })?;
                Ok(of_betas(&mut betas.iter().copied()))
            }
            Steps::AlphasCumprod(squares) => {
                check_steps(squares.len())?;
                let between = |a: &f64, last| *a < 1.0 && (*a > 0.0 || last && *a == 0.0);
                check_each("scheduler.alphas_cumprod", squares, between)?;
                // 1 - sqrt(a), in the form that keeps its digits where a is close to 1.
                Ok(squares.iter().map(|a| (1.0 - a) / (1.0 + a.sqrt())).collect())
            }
        }
    }
}

fn check_steps(steps: usize) -> Result<()> {
    if (2..=MOST_STEPS).contains(&steps) {
        return Ok(());
    }
    Err(Error::invalid("scheduler.steps", steps, format!("2 to {MOST_STEPS}")))
}

fn check_each(field: &str, values: &[f64], good: impl Fn(&f64, bool) -> bool) -> Result<()> {
    let wrong = values.iter().enumerate().find(|(i, value)| !good(value, i + 1 == values.len()));
    match wrong {
        None => Ok(()),
        Some((i, value)) => {
            let expected = if field.ends_with("betas") {
                "numbers in (0, 1), the last of which may be 1"
            } else {
                "numbers in (0, 1), the last of which may be 0"
            };
            Err(Error::invalid(format!("{field}[{i}]"), value, expected))
        }
    }
}

impl TryFrom<Document> for Betas {
    type Error = Error;

    fn try_from(document: Document) -> Result<Self> {
        let Document { schedule, beta_start, beta_end, steps, betas, alphas_cumprod, .. } = document;
        let rescale_zero_terminal_snr = document.rescale_zero_terminal_snr.unwrap_or(false);
        let absent = |name: &str, there: Option<String>, by: &str| match there {
            None => Ok(()),
            Some(value) => Err(Error::invalid(format!("scheduler.{name}"), value, format!("absent beside {by}"))),
        };
        let number = |value: &Option<f64>| value.as_ref().map(f64::to_string);
        let listed = match (betas, alphas_cumprod) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid("scheduler.alphas_cumprod", "there", "absent beside scheduler.betas"));
            }
            (Some(betas), None) => Some(("scheduler.betas", Steps::Betas(betas))),
            (None, Some(squares)) => Some(("scheduler.alphas_cumprod", Steps::AlphasCumprod(squares))),
            (None, None) => None,
        };
        if let Some((by, listed)) = listed {
            absent("schedule", schedule, by)?;
            absent("beta_start", number(&beta_start), by)?;
            absent("beta_end", number(&beta_end), by)?;
            absent("steps", steps.map(|n| n.to_string()), by)?;
            return Betas::new(Training { steps: listed, rescale_zero_terminal_snr });
        }
        let count = steps.unwrap_or(STEPS);
        let linear = |scaled| Steps::Linear {
            scaled,
            beta_start: beta_start.unwrap_or(BETA_START),
            beta_end: beta_end.unwrap_or(BETA_END),
            steps: count,
        };
        let steps = match schedule.as_deref() {
            Some("linear") => linear(false),
            Some("scaled_linear") => linear(true),
            Some("squaredcos_cap_v2") => {
                absent("beta_start", number(&beta_start), "schedule squaredcos_cap_v2")?;
                absent("beta_end", number(&beta_end), "schedule squaredcos_cap_v2")?;
                Steps::SquaredCosine { steps: count }
            }
            other => {
                let expected = "linear, scaled_linear or squaredcos_cap_v2, or betas or alphas_cumprod in its place";
                return Err(Error::invalid("scheduler.schedule", other.unwrap_or("absent"), expected));
            }
        };
        Betas::new(Training { steps, rescale_zero_terminal_snr })
    }
}

impl Betas {
    /// As model cards write it.
    pub(super) fn write(&self, document: &mut Document) {
        let Training { steps, rescale_zero_terminal_snr } = &self.0.training;
        document.rescale_zero_terminal_snr = rescale_zero_terminal_snr.then_some(true);
        match steps {
            Steps::Linear { scaled, beta_start, beta_end, steps } => {
                document.schedule = Some(if *scaled { "scaled_linear" } else { "linear" }.to_owned());
                (document.beta_start, document.beta_end) = (Some(*beta_start), Some(*beta_end));
                document.steps = Some(*steps);
            }
            Steps::SquaredCosine { steps } => {
                document.schedule = Some("squaredcos_cap_v2".to_owned());
                document.steps = Some(*steps);
            }
            Steps::Betas(betas) => document.betas = Some(betas.clone()),
            Steps::AlphasCumprod(squares) => document.alphas_cumprod = Some(squares.clone()),
        }
    }
}
