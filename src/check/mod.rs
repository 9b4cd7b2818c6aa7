//! Whether a card reads its network rightly: the one thing of a model that people write by hand, where a mistake
//! makes plausible noise.
//!
//! A network was trained to denoise, so its true reading (what it predicts, how it counts time, on which scheduler)
//! is the one by which its denoising error is least at every level of noise. [`check`] tries every combination on
//! noised data, and says which explains the network.

mod inputs;
mod reading;

pub use inputs::Source;
pub use reading::{Judged, LEVELS, Verdict};

use crate::card::Card;
use crate::error::{Error, Result};
use crate::memory;
use crate::networks::{Call, Network, Opened};
use crate::noise::{self, Purpose};
use crate::samples::{Conditions, chunk};
use crate::tensor::{PerRow, Tensor};
use std::ops::Range;

/// What a card is checked with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence<'a> {
    /// Samples of the data that the network was trained on, `[count, elements]`, in the card's range.
    pub data: Option<&'a [f32]>,
    /// Which sample of its file each of them is; empty where they are the first.
    pub places: &'a [usize],
    /// What they are conditioned on: sample i of the file has row i mod C. All inputs of the card, its class included.
    pub conditions: Option<&'a Conditions>,
    /// What a network is given that takes the guidance scale as an input.
    pub guidance_scale: f64,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// What each input was given.
    pub inputs: Vec<(String, Source)>,
    /// The network's times at the two ends of the solve, noise and data.
    pub ends: [f64; 2],
    /// Every reading, the best first; none without data.
    pub readings: Vec<Judged>,
    /// What follows; `None` without data.
    pub verdict: Option<Verdict>,
}

/// Runs `network` as `card` says at both ends of the solve, and with data as every reading says.
///
/// # Errors
/// [`Error::Invalid`] naming an input that has neither conditions nor a null; [`Error::Format`] naming the end at
/// which the output is not finite; the network's own, where the signature does not agree.
pub fn check(card: &Card, network: &Opened, evidence: &Evidence<'_>) -> Result<Report> {
    match network {
        Opened::Host(network) => check_network(card, network.as_ref(), evidence),
        #[cfg(feature = "torch")]
        Opened::Torch(network) => check_network(card, network.as_ref(), evidence),
    }
}

fn check_network<T: Tensor>(card: &Card, network: &dyn Network<Tensor = T>, evidence: &Evidence<'_>) -> Result<Report> {
    let shape = card.sample_shape()?;
    let bench = Bench { network, elements: shape.iter().product(), shape, inputs: inputs::Giver::new(card, evidence)? };
    let ends = bench.ends(card, evidence.data)?;
    let readings = match evidence.data {
        None => Vec::new(),
        Some(data) => bench.judge(card, data)?,
    };
    let verdict = (!readings.is_empty()).then(|| Verdict::of(&readings));
    Ok(Report { inputs: bench.inputs.sources(), ends, readings, verdict })
}

/// Samples that are run at both ends.
const AT_ENDS: usize = 2;

/// A network and what it is given.
struct Bench<'a, T> {
    network: &'a dyn Network<Tensor = T>,
    shape: Vec<usize>,
    elements: usize,
    inputs: inputs::Giver<'a>,
}

impl<T: Tensor> Bench<'_, T> {
    /// The network's answer for the samples `indices`, in the states `x`.
    fn answer(&self, indices: Range<usize>, time: f64, x: &[f32]) -> Result<Vec<f32>> {
        let inputs = self.inputs.of(indices)?;
        let x = self.network.upload(x, self.elements)?;
        let call = Call { time: PerRow::All(time), x: &x, shape: &self.shape, inputs: &inputs };
        self.network.forward(&call)?.to_f32()
    }

    /// The network's times at noise and at data, where its output must be finite.
    fn ends(&self, card: &Card, data: Option<&[f32]>) -> Result<[f64; 2]> {
        let x0 = noise::normal(0, Purpose::Sample, 0..AT_ENDS, self.elements)?;
        let mut times = [0.0; 2];
        for ((time, t), end) in times.iter_mut().zip([0.0, card.time.end]).zip(["noise", "data"]) {
            let regular = card.output.regular_time(&card.scheduler, t);
            *time = card.network_time(regular);
            let (alpha, sigma) = (card.scheduler.alpha(regular), card.scheduler.sigma(regular));
            let x1 = data.and_then(|data| data.get(..x0.len()));
            let x1 = |i: usize| x1.map_or(0.0, |x1| f64::from(x1[i]));
            let x = x0.iter().enumerate().map(|(i, x0)| (alpha * x1(i) + sigma * f64::from(*x0)) as f32);
            let output = self.answer(0..AT_ENDS, *time, &x.collect::<Vec<f32>>())?;
            if !output.iter().all(|v| v.is_finite()) {
                let problem = format!("gives a NaN or an infinity at the {end} end, at its time {time}");
                return Err(Error::format(card.path().display().to_string(), "output", problem));
            }
        }
        Ok(times)
    }

    /// The denoising errors of all readings of `data`, the best first.
    fn judge(&self, card: &Card, data: &[f32]) -> Result<Vec<Judged>> {
        let count = data.len() / self.elements;
        if count == 0 || !data.len().is_multiple_of(self.elements) {
            let expected = format!("one sample or more of {} numbers", self.elements);
            return Err(Error::invalid("data", format!("{} numbers", data.len()), expected));
        }
        let variance = variance(data, self.elements);
        if variance == 0.0 {
            return Err(Error::invalid("data", "the same sample again and again", "samples that differ"));
        }
        let mut readings = reading::all(card);
        for clocked in readings.chunk_by_mut(reading::same_call) {
            for (level, nsr) in LEVELS.into_iter().enumerate() {
                self.judge_level(clocked, data, nsr, level)?;
            }
        }
        let scale = (count * self.elements) as f64 * variance;
        readings.iter_mut().for_each(|reading| reading.finish(scale));
        readings.sort_by(|a, b| a.score.total_cmp(&b.score));
        Ok(readings)
    }

    /// Adds up the squared errors of readings that differ by their output alone, at one level of noise.
    fn judge_level(&self, readings: &mut [Judged], data: &[f32], nsr: f64, level: usize) -> Result<()> {
        let Some(first) = readings.first() else { return Ok(()) };
        let (scheduler, t) = (first.card.scheduler.clone(), first.card.scheduler.time_at(1.0, nsr));
        let (time, alpha, sigma) = (first.card.network_time(t), scheduler.alpha(t), scheduler.sigma(t));
        let size = chunk(self.elements);
        for (part, x1) in data.chunks(size * self.elements).enumerate() {
            let indices = part * size..part * size + x1.len() / self.elements;
            let x0 = noise::normal(0, Purpose::Sample, indices.clone(), self.elements)?;
            let x = x1.iter().zip(&x0).map(|(x1, x0)| (alpha * f64::from(*x1) + sigma * f64::from(*x0)) as f32);
            let x = memory::collected(x)?;
            let output = self.answer(indices, time, &x)?;
            readings.iter_mut().for_each(|reading| reading.add(level, t, x1, &x, &output));
        }
        Ok(())
    }
}

/// Mean square distance of samples from their mean.
fn variance(data: &[f32], elements: usize) -> f64 {
    let count = (data.len() / elements) as f64;
    let mut moments = vec![(0.0, 0.0); elements];
    for sample in data.chunks(elements) {
        for ((sum, squares), value) in moments.iter_mut().zip(sample) {
            *sum += f64::from(*value);
            *squares += f64::from(*value) * f64::from(*value);
        }
    }
    let of = |(sum, squares): &(f64, f64)| (squares / count - (sum / count).powi(2)).max(0.0);
    moments.iter().map(of).sum::<f64>() / elements as f64
}
