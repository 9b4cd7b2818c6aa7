//! Readings of a network, and how well each explains it.

use crate::card::{Card, Direction, Time};
use crate::document;
use crate::scheduler::{Betas, Output, Scheduler, Steps, Training};

/// The levels of noise, sigma / alpha, at which readings are compared.
pub const LEVELS: [f64; 6] = [6.0, 3.0, 1.5, 0.75, 0.4, 0.2];

/// How much greater than the card's the error of every other reading must be.
const MARGIN: f64 = 1.1;

/// The error, as a share of that of guessing the mean, from which on nothing is explained.
const UNEXPLAINED: f64 = 0.95;

/// No error is counted for more than this: one level alone does not decide.
const WORST: f64 = 1e4;

/// Readings whose times and shares of noise differ by less than this share are one.
const SAME: f64 = 0.02;

/// A reading and its denoising errors.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The card as it would be: its `output`, `scheduler` and `time` are the reading.
    pub card: Card,
    /// Whether it is the card's own.
    pub own: bool,
    /// Mean square error at each of [`LEVELS`], as a share of that of guessing the data's mean.
    pub errors: [f64; LEVELS.len()],
    /// Their geometric mean.
    pub score: f64,
}

/// What the errors say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// The card's reading is the best, its error this many times less than that of any other.
    Right(f64),
    /// The card's is the best, but others (the index of the first) are as good.
    Unclear(usize),
    /// Another reading is the best, the first.
    Wrong,
    /// The card's is not the best, but the best is no better than others (the index of the first).
    Alike(usize),
    /// No reading explains the network.
    Unexplained,
}

impl Verdict {
    /// What `readings`, the best first, say.
    pub(super) fn of(readings: &[Judged]) -> Self {
        let own = readings.iter().find(|reading| reading.own);
        let (Some(best), Some(own)) = (readings.first(), own) else { return Verdict::Unexplained };
        if best.score >= UNEXPLAINED {
            return Verdict::Unexplained;
        }
        if own.score > best.score && !best.same_as(own) {
            // Not a hair's breadth apart: then neither is clear.
            if own.score < best.score * MARGIN {
                return Verdict::Unclear(0);
            }
            // What explains a network stands out; where nothing does, the best of many is a matter of chance.
            let rival = readings.iter().position(|other| !other.same_as(best));
            return match rival.filter(|rival| readings[*rival].score < best.score * MARGIN) {
                Some(rival) => Verdict::Alike(rival),
                None => Verdict::Wrong,
            };
        }
        match readings.iter().position(|other| !other.own && !other.same_as(own)) {
            Some(rival) if readings[rival].score < own.score * MARGIN => Verdict::Unclear(rival),
            Some(rival) => Verdict::Right(readings[rival].score / own.score),
            None => Verdict::Right(f64::INFINITY),
        }
    }
}

/// Every combination of output, direction, scale and scheduler, those of one [`same_call`] side by side.
pub(super) fn all(card: &Card) -> Vec<Judged> {
    let mut readings: Vec<Judged> = Vec::new();
    for scheduler in schedulers(&card.scheduler) {
        for time in clocks(&card.time, &scheduler) {
            for output in [Output::Velocity, Output::Flow, Output::Epsilon, Output::X1, Output::V] {
                let mut read = card.clone();
                (read.output, read.time, read.scheduler) = (output, time, scheduler.clone());
                let own = output == card.output && time == card.time && scheduler == card.scheduler;
                readings.push(Judged { card: read, own, errors: [0.0; LEVELS.len()], score: 0.0 });
            }
        }
    }
    readings
}

/// Whether two readings ask the network the same.
pub(super) fn same_call(a: &Judged, b: &Judged) -> bool {
    a.card.time == b.card.time && a.card.scheduler == b.card.scheduler
}

/// The usual schedulers, and the card's.
fn schedulers(own: &Scheduler) -> Vec<Scheduler> {
    let usual = [Scheduler::FmOt, Scheduler::Cosine, Scheduler::VP, Scheduler::EDM];
    let latent = Steps::Linear { scaled: true, beta_start: 0.00085, beta_end: 0.012, steps: 1000 };
    let latent = Betas::new(Training { steps: latent, rescale_zero_terminal_snr: false }).map(Scheduler::Betas);
    let mut schedulers = vec![own.clone()];
    schedulers.extend(usual.into_iter().chain(latent).filter(|other| other != own));
    schedulers
}

/// The usual ways of counting time, and the card's.
fn clocks(own: &Time, scheduler: &Scheduler) -> Vec<Time> {
    let mut scales = vec![(own.scale, own.offset), (1.0, 0.0), (1000.0, 0.0)];
    if let Scheduler::Betas(betas) = scheduler {
        scales.push((betas.steps() as f64, -1.0));
    }
    let mut clocks: Vec<Time> = Vec::new();
    for (scale, offset) in scales {
        for direction in [Direction::NoiseToData, Direction::DataToNoise] {
            let time = Time { direction, scale, offset, ..*own };
            if !clocks.contains(&time) {
                clocks.push(time);
            }
        }
    }
    clocks
}

impl Judged {
    /// Adds the squared errors of samples `x1`, which are `x` at `t`, by the network's output.
    pub(super) fn add(&mut self, level: usize, t: f64, x1: &[f32], x: &[f32], output: &[f32]) {
        let (p, q) = self.card.output.velocity_coefficients(&self.card.scheduler, t);
        let (of_x, of_u) = self.card.scheduler.data_coefficients(t);
        // x1hat = of_x x + of_u (p x + q output)
        let (a, b) = (of_x + of_u * p, of_u * q);
        let error =
            |((x1, x), o): ((&f32, &f32), &f32)| (a * f64::from(*x) + b * f64::from(*o) - f64::from(*x1)).powi(2);
        self.errors[level] += x1.iter().zip(x).zip(output).map(error).sum::<f64>();
    }

    /// Makes shares of `scale` of the sums.
    pub(super) fn finish(&mut self, scale: f64) {
        for error in &mut self.errors {
            // A NaN is as bad as any error.
            *error = if error.is_nan() { f64::INFINITY } else { *error / scale };
        }
        let logs = self.errors.iter().map(|error| error.clamp(WORST.recip().powi(2), WORST).ln());
        self.score = (logs.sum::<f64>() / LEVELS.len() as f64).exp();
    }

    /// Whether both ask the network nearly the same and read the answer alike: nothing could tell them apart.
    fn same_as(&self, other: &Self) -> bool {
        let times = |reading: &Self| LEVELS.map(|nsr| reading.card.network_time(reading.time_at(nsr)));
        let alphas = |reading: &Self| LEVELS.map(|nsr| reading.card.scheduler.alpha(reading.time_at(nsr)));
        let (own, others) = (times(self), times(other));
        let width = own.iter().fold(0.0f64, |most, time| most.max((time - own[0]).abs()));
        let near = |a: &[f64], b: &[f64], least: f64| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= least);
        self.card.output == other.card.output
            && near(&own, &others, SAME * width)
            && near(&alphas(self), &alphas(other), SAME)
    }

    fn time_at(&self, nsr: f64) -> f64 {
        self.card.scheduler.time_at(1.0, nsr)
    }

    /// The keys of the card in which this reading differs from `other`.
    pub fn differs_in(&self, other: &Self) -> Vec<&'static str> {
        let (a, b) = (&self.card, &other.card);
        let keys = [
            ("output", a.output != b.output),
            ("time.direction", a.time.direction != b.time.direction),
            ("time.scale", a.time.scale != b.time.scale),
            ("time.offset", a.time.offset != b.time.offset),
            ("scheduler", a.scheduler != b.scheduler),
        ];
        keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }
}

impl std::fmt::Display for Judged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Card { output, time, scheduler, .. } = &self.card;
        let word = |value: crate::Result<serde_json::Value>| match value {
            Ok(serde_json::Value::String(word)) => word,
            _ => String::new(),
        };
        let direction = word(document::value(&time.direction, "direction"));
        write!(f, "{}, {direction}, scale {}", word(document::value(output, "output")), time.scale)?;
        if time.offset != 0.0 {
            write!(f, ", offset {}", time.offset)?;
        }
        write!(f, ", {}", scheduler.name())?;
        match scheduler {
            Scheduler::FmOt | Scheduler::Cosine => Ok(()),
            Scheduler::Vp { beta_min: from, beta_max: to } => write!(f, " {from} to {to}"),
            Scheduler::Edm { sigma_min: to, sigma_max: from } => write!(f, " {from} to {to}"),
            Scheduler::Betas(betas) => {
                let Training { steps, rescale_zero_terminal_snr } = betas.training();
                match steps {
                    Steps::Linear { scaled, beta_start, beta_end, .. } => {
                        let schedule = if *scaled { "scaled_linear" } else { "linear" };
                        write!(f, " {schedule} {beta_start} to {beta_end}")?;
                    }
                    Steps::SquaredCosine { .. } => write!(f, " squaredcos_cap_v2")?,
                    Steps::Betas(_) | Steps::AlphasCumprod(_) => write!(f, " of its own")?,
                }
                write!(f, " in {} steps", betas.steps())?;
                if *rescale_zero_terminal_snr { write!(f, ", zero terminal snr") } else { Ok(()) }
            }
        }
    }
}
