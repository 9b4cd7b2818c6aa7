//! `bespoke bench network`

use super::ModelArgs;
use super::say::say;
use bespoke::model::FieldTask;
use bespoke::reference::Solver;
use bespoke::sampler::{Plan, Sampler};
use bespoke::samples::{Conditioning, Noises};
use bespoke::tensor::{PerRow, Register, Tensor};
use bespoke::velocity::{Condition, VelocityField};
use bespoke::{Error, Result};
use clap::value_parser;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct NetworkArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Samples of a batch.
    #[arg(long, value_name = "B", default_values_t = [1, 16, 250], value_parser = value_parser!(u32).range(1..=65536))]
    batch: Vec<u32>,
    /// Threads that ask one model at a time.
    #[arg(long, value_name = "N", default_values_t = [1], value_parser = value_parser!(u32).range(1..=1024))]
    callers: Vec<u32>,
    /// How long each measurement goes on, at least.
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = value_parser!(u32).range(1..=3600))]
    seconds: u32,
}

pub fn run(args: NetworkArgs) -> Result<()> {
    let (model, conditioning) = args.model.open(0)?;
    super::arrays::one_size("conditions", &conditioning)?;
    let table = Solver::parse("midpoint@2")?.tableau(&model.card().gaussian_path()?)?;
    let table = table.ok_or_else(|| Error::State("midpoint has no table".into()))?;
    model.with(Measure { args: &args, conditioning: &conditioning, plan: Arc::new(Plan::new(table)) })
}

struct Measure<'a> {
    args: &'a NetworkArgs,
    conditioning: &'a Conditioning,
    plan: Arc<Plan>,
}

impl FieldTask for Measure<'_> {
    type Output = Result<()>;

    fn run<F: VelocityField + Sync>(self, field: &F) -> Result<()> {
        say!("batch  callers  evaluations/s  samples/s  fastest, ms  outside the network, % of a step")?;
        for &batch in &self.args.batch {
            let batch = batch as usize;
            let shared = Asked { field, batch, condition: self.conditioning.of(0..batch)? };
            for &callers in &self.args.callers {
                let long = Duration::from_secs(self.args.seconds.into());
                let (rate, fastest) = shared.together(callers as usize, long)?;
                // Both of one caller, in one breath: the machine may be another a second later.
                let share = (callers == 1).then(|| shared.outside(&self.plan, long)).transpose()?;
                let share = share.map_or_else(|| "-".to_owned(), |share| format!("{:.2}", 100.0 * share));
                let (samples, fastest) = (rate * batch as f64, fastest.as_secs_f64() * 1e3);
                say!("{batch:>5}  {callers:>7}  {rate:>13.1}  {samples:>9.1}  {fastest:>11.3}  {share:>6}")?;
            }
        }
        Ok(())
    }
}

/// One question, asked again and again.
struct Asked<'a, F> {
    field: &'a F,
    batch: usize,
    condition: Condition,
}

/// Time of the question.
const TIME: PerRow<'static> = PerRow::All(0.4);

/// By how much an answer may differ from the first: a network rounds as its threads share the work.
const ROUNDING: f32 = 1e-5;

impl<F: VelocityField + Sync> Asked<'_, F> {
    /// The states.
    fn state(&self) -> Result<F::Tensor> {
        let elements = self.field.elements();
        self.field.start(&Noises::Seed { seed: 0, count: self.batch }.read(0..self.batch, elements)?, elements)
    }

    fn velocity(&self, x: &F::Tensor) -> Result<F::Tensor> {
        self.field.eval(TIME, x, &self.condition)
    }

    /// Answers a second where `callers` threads ask for as long as `long`, and the fastest answer: all else on the
    /// machine only slows. Each answer is looked at.
    fn together(&self, callers: usize, long: Duration) -> Result<(f64, Duration)> {
        let expected = self.velocity(&self.state()?)?.to_f32()?;
        let begun = Instant::now();
        let ask = || -> Result<(usize, Duration)> {
            let x = self.state()?;
            let (mut count, mut fastest) = (0, Duration::MAX);
            while begun.elapsed() < long || count == 0 {
                let asked = Instant::now();
                let answer = self.velocity(&x)?;
                fastest = fastest.min(asked.elapsed());
                self.check(&answer, &expected)?;
                count += 1;
            }
            Ok((count, fastest))
        };
        let answers = thread::scope(|scope| {
            let asking: Vec<_> = (0..callers).map(|_| scope.spawn(ask)).collect();
            let failed = || Error::State("a caller's thread ended by a panic".into());
            asking.into_iter().map(|caller| caller.join().map_err(|_| failed())?).collect::<Result<Vec<_>>>()
        })?;
        let count: usize = answers.iter().map(|(count, _)| count).sum();
        let fastest = answers.iter().map(|(_, fastest)| *fastest).min().unwrap_or_default();
        Ok((count as f64 / begun.elapsed().as_secs_f64(), fastest))
    }

    /// Whether an answer is the first one again.
    fn check(&self, found: &F::Tensor, expected: &[f32]) -> Result<()> {
        let found = found.to_f32()?;
        let largest = expected.iter().fold(0f32, |largest, u| largest.max(u.abs()));
        let same = |(u, v): &(&f32, &f32)| (*u - *v).abs() <= ROUNDING * largest.max(1.0);
        match found.iter().zip(expected).find(|pair| !same(pair)) {
            Some((u, v)) => Err(Error::Numeric(format!("one caller was answered {u}, where another was {v}"))),
            None => Ok(()),
        }
    }

    /// What of a solver's step is not the network, over solves for as long as `long`.
    fn outside(&self, plan: &Arc<Plan>, long: Duration) -> Result<f64> {
        let x0 = self.state()?;
        let mut sampler = Sampler::new(&x0)?;
        let (mut network, begun) = (Duration::ZERO, Instant::now());
        while begun.elapsed() < long || network == Duration::ZERO {
            sampler.start(plan, &x0)?;
            while let Some((times, x)) = sampler.query()? {
                let asked = Instant::now();
                let velocity = self.field.eval(PerRow::All(times[0]), x, &self.condition)?;
                network += asked.elapsed();
                sampler.update(velocity.view())?;
            }
        }
        Ok(1.0 - network.as_secs_f64() / begun.elapsed().as_secs_f64())
    }
}
