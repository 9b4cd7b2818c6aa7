//! Time grids: where a solver steps.

use super::classical::uniform_grid;
use crate::error::{Error, Result};
use crate::path::GaussianPath;
use crate::scheduler::KARRAS_RHO;
use std::f64::consts::FRAC_PI_2;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// How far from a singular end (alpha = 0 or sigma = 0) a grid over the snr, and any level that is
/// divided by alpha, stays: the reference code's 1e-3 of the time.
pub const START: f64 = 1e-3;

/// EDM's noise levels sigma / alpha (Karras et al. 2022, Table 1).
const KARRAS_LEVELS: (f64, f64) = (0.002, 80.0);

/// Times 0 ... 1 of the path that is sampled on.
#[derive(Clone, Debug, PartialEq)]
pub enum Grid {
    /// Equal steps in time: t_i = i / n.
    Uniform,
    /// t_i = 1 - (1 - i / n)^2: short steps at the data end (DDIM's "quadratic", DEIS).
    Quadratic,
    /// t_i = 1 - cos(pi i / 2n): short steps at the noise end (as flow-matching speech models use).
    Cosine,
    /// t_i = (i / n)^p, p from 0.1 to 10: short steps at the noise end for p > 1, at the data end for p < 1.
    Power(f64),
    /// Equal steps in lambda = ln(alpha / sigma) (DPM-Solver's "logSNR"). Infinite ends are cut at 1e-3
    /// of the time, the last step then goes from there to 1.
    Logsnr,
    /// sigma / alpha equidistant in its 7th root (Karras et al. 2022, Eq. 5), from 80 to 0.002 or
    /// as far as the path goes; where its sigma ends at 0, the last step goes from 0.002 to 0.
    Karras,
    /// The user's own: n + 1 increasing times from 0 to 1.
    Times(Vec<f64>),
}

impl Grid {
    /// `n` = `steps` steps as n + 1 increasing times, the last 1. The first is 0, or where alpha is 0
    /// there and the grid goes by the snr, the time that stands for it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for user-given times that are not `steps + 1` or not increasing from 0 to 1, and for a
    /// power out of its range.
    pub fn times(&self, path: &GaussianPath, steps: usize) -> Result<Vec<f64>> {
        let n = steps as f64;
        let uniform = uniform_grid(steps);
        Ok(match self {
            Grid::Uniform => uniform,
            Grid::Quadratic => (0..=steps).map(|i| 1.0 - ((steps - i) as f64 / n).powi(2)).collect(),
            Grid::Cosine => ends(uniform.iter().map(|t| 1.0 - (FRAC_PI_2 * t).cos()).collect()),
            Grid::Power(p) => {
                check_power(*p)?;
                uniform.iter().map(|t| t.powf(*p)).collect()
            }
            Grid::Logsnr => {
                let start = if path.level(0.0).alpha == 0.0 { START } else { 0.0 };
                let end = if path.level(1.0).sigma == 0.0 { 1.0 - START } else { 1.0 };
                let of_nsr = |nsr: f64| -nsr.ln();
                by_level(path, steps, (path.level(start).nsr(), path.level(end).nsr()), of_nsr, |l| (-l).exp())
            }
            Grid::Karras => {
                let (low, high) = KARRAS_LEVELS;
                let end = path.level(1.0).nsr();
                let range = (path.level(0.0).nsr().min(high), if end == 0.0 { low } else { end });
                by_level(path, steps, range, |nsr| nsr.powf(1.0 / KARRAS_RHO), |root| root.powf(KARRAS_RHO))
            }
            Grid::Times(times) => {
                check(times, steps)?;
                times.clone()
            }
        })
    }
}

/// Exact ends for times that rounding may have moved.
fn ends(mut times: Vec<f64>) -> Vec<f64> {
    if let [first, .., last] = times.as_mut_slice() {
        (*first, *last) = (0.0, 1.0);
    }
    times
}

/// Levels of sigma / alpha equidistant in `of_nsr`, then the end of the path where it is beyond them.
fn by_level(
    path: &GaussianPath,
    steps: usize,
    (high, low): (f64, f64),
    of_nsr: impl Fn(f64) -> f64,
    to_nsr: impl Fn(f64) -> f64,
) -> Vec<f64> {
    let intervals = if path.level(1.0).sigma == 0.0 { steps - 1 } else { steps };
    let (first, last) = (of_nsr(high), of_nsr(low));
    // `intervals` is 0 for the one step to sigma = 0: then there is the first level only.
    let level = |i: usize| first + (last - first) * i as f64 / intervals.max(1) as f64;
    let mut times: Vec<f64> = (0..steps).map(|i| path.time_at_nsr(to_nsr(level(i)))).collect();
    if path.level(0.0).nsr() <= high {
        times[0] = 0.0;
    }
    times.push(1.0);
    times
}

fn check(times: &[f64], steps: usize) -> Result<()> {
    let increasing = times.windows(2).all(|pair| pair[0] < pair[1]);
    if times.len() == steps + 1 && increasing && times.first() == Some(&0.0) && times.last() == Some(&1.0) {
        return Ok(());
    }
    Err(Error::invalid("grid", format!("{times:?}"), format!("{} increasing times from 0 to 1", steps + 1)))
}

/// Powers of [`Grid::Power`].
const POWERS: RangeInclusive<f64> = 0.1..=10.0;

fn check_power(p: f64) -> Result<()> {
    if POWERS.contains(&p) {
        return Ok(());
    }
    Err(Error::invalid("grid", Grid::Power(p), format!("a power from {} to {}", POWERS.start(), POWERS.end())))
}

impl FromStr for Grid {
    type Err = Error;

    /// `uniform`, `quadratic`, `cosine`, `power=P`, `logsnr`, `karras`, or times separated by commas.
    fn from_str(text: &str) -> Result<Self> {
        if let Some(p) = text.strip_prefix("power=").and_then(|p| p.parse().ok()) {
            return check_power(p).map(|()| Grid::Power(p));
        }
        let times = || text.split(',').map(|t| t.trim().parse().ok()).collect::<Option<Vec<f64>>>();
        match text {
            "uniform" => Ok(Grid::Uniform),
            "quadratic" => Ok(Grid::Quadratic),
            "cosine" => Ok(Grid::Cosine),
            "logsnr" => Ok(Grid::Logsnr),
            "karras" => Ok(Grid::Karras),
            _ => times().map(Grid::Times).ok_or_else(|| {
                let expected =
                    "uniform, quadratic, cosine, power=P, logsnr, karras, or times from 0 to 1 separated by commas";
                Error::invalid("grid", format!("{text:?}"), expected)
            }),
        }
    }
}

impl std::fmt::Display for Grid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Grid::Uniform => "uniform",
            Grid::Quadratic => "quadratic",
            Grid::Cosine => "cosine",
            Grid::Power(p) => return write!(f, "power={p}"),
            Grid::Logsnr => "logsnr",
            Grid::Karras => "karras",
            Grid::Times(times) => return f.write_str(&times.iter().map(f64::to_string).collect::<Vec<_>>().join(",")),
        })
    }
}
