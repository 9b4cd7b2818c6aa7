//! `bespoke bench`

use super::say::say;
use bespoke::Result;
use bespoke::sampler::{Plan, Sampler};
use bespoke::tableau::Tableau;
use bespoke::tensor::{Crew, Element, Host, PARALLEL, Register};
use bespoke::theta::NsTable;
use bespoke::theta::knots::{Knots, rk1, rk2};
use clap::Subcommand;
use half::bf16;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// Measure the library on this machine.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  bespoke bench step --threads 1 --threads 2\n  \
    bespoke bench train --model models/digits-fm-ot.json --optimizer adam\n  \
    bespoke bench network --model models/digits-fm-ot-onnx.json --batch 16 --callers 1 --callers 8")]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The update of a step against a triad, a[i] = b[i] + s c[i], of the same bytes in the same working set.
    Step(StepArgs),
    /// An iteration of training against the network's calls in it, made again by themselves.
    Train(super::bench_train::TrainArgs),
    /// A model's velocities: how fast one caller and several get them, and what of a solver's step is not the network.
    Network(super::bench_network::NetworkArgs),
}

#[derive(clap::Args)]
struct StepArgs {
    /// Numbers of threads.
    #[arg(long, value_name = "N", default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// Bytes of a batch: 4096, 4K, 1M, 256M.
    #[arg(long, value_name = "BYTES", value_parser = parse_size, default_values = ["4K", "64K", "1M", "16M", "64M", "256M"])]
    size: Vec<usize>,
}

fn parse_size(text: &str) -> std::result::Result<usize, String> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let unit = match &text[digits.len()..] {
        "" => Some(1),
        "K" => Some(1 << 10),
        "M" => Some(1 << 20),
        "G" => Some(1 << 30),
        _ => None,
    };
    let size = unit.and_then(|unit| digits.parse::<usize>().ok()?.checked_mul(unit));
    size.filter(|size| (1024..=1 << 32).contains(size)).ok_or_else(|| format!("{text:?} is not a size from 1K to 4G"))
}

pub fn run(args: BenchArgs) -> Result<()> {
    match args.what {
        What::Step(args) => run_step(args),
        What::Train(args) => super::bench_train::run(args),
        What::Network(args) => super::bench_network::run(args),
    }
}

fn run_step(args: StepArgs) -> Result<()> {
    say!("solver  dtype     threads      size        steps/s      GB/s  triad GB/s  ratio   overhead/step")?;
    for (name, tableau) in tables() {
        let plan = Arc::new(Plan::new(tableau));
        for &threads in &args.threads {
            for &size in &args.size {
                let line = |dtype: &str, found: Measured| {
                    say!("{name:<6}  {dtype:<8}  {threads:>7}  {:>8}  {found}", show_size(size))
                };
                line("float32", measure::<f32>(&plan, size, threads)?)?;
                line("bfloat16", measure::<bf16>(&plan, size, threads)?)?;
            }
        }
    }
    Ok(())
}

/// Eight evaluations of rk1 and rk2, and a table of ten rows that reads all of its velocities.
fn tables() -> [(&'static str, Tableau<f64>); 3] {
    let bent = |intervals: usize| {
        let mut knots = Knots::identity(intervals);
        // Away from the identity no coefficient is zero.
        knots.s_dot.iter_mut().for_each(|s_dot| *s_dot = 0.25);
        knots
    };
    [("rk1", rk1(&bent(8))), ("rk2", rk2(&bent(8))), ("ns", NsTable::compile(&rk1(&bent(10))).tableau())]
}

/// What one size came to, each per step of the solver.
struct Measured {
    /// Seconds of a step's queries and updates.
    update: f64,
    /// Seconds of triads that move as many bytes.
    triad: f64,
    /// Bytes of a step.
    bytes: f64,
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rate = |seconds: f64| self.bytes / seconds * 1e-9;
        let overhead = (self.update - self.triad) * 1e9;
        write!(
            f,
            "{:>13.0}  {:>8.2}  {:>10.2}  {:>5.2}  {overhead:>11.0} ns",
            self.update.recip(),
            rate(self.update),
            rate(self.triad),
            self.triad / self.update
        )
    }
}

fn show_size(bytes: usize) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

/// Rounds of a measurement; the fastest counts, since everything else on the machine only slows.
const ROUNDS: usize = 7;

fn measure<E: Element>(plan: &Arc<Plan>, size: usize, threads: usize) -> Result<Measured> {
    let numbers = size / size_of::<E>();
    // They begin with a cache line, as other libraries' tensors do.
    let mut x0 = Host::<E>::zeros(1, numbers)?;
    x0.data_mut().iter_mut().enumerate().for_each(|(i, x)| *x = E::from_f64((i % 251) as f64 * 0.004 - 0.5));
    let mut velocity = Host::<E>::zeros(1, numbers)?;
    velocity.data_mut().copy_from_slice(x0.data());
    let crew = || Crew::new(threads).map_err(|e| bespoke::Error::State(format!("no {threads} threads: {e}")));
    let mut sampler = Sampler::new(&x0)?;
    if threads > 1 {
        sampler.set_crew(Some(crew()?));
    }
    let bytes = plan.streams() * numbers * size_of::<E>();
    // What does not fit a cache on one side does not on the other.
    let mut triad = Triad::new(plan.working_set() * size / (3 * size_of::<f32>()), numbers >= PARALLEL, crew()?);
    // Some tens of milliseconds a round.
    let repeats = ((1usize << 28) / bytes).max(1);
    let (mut update, mut plain) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        let mut spent = 0.0;
        for _ in 0..repeats {
            sampler.start(plan, &x0)?;
            let begun = Instant::now();
            while let Some((times, x)) = sampler.query()? {
                black_box((times, x));
                sampler.update(velocity.view())?;
            }
            spent += begun.elapsed().as_secs_f64();
        }
        update = update.min(spent / repeats as f64);
        plain = plain.min(triad.seconds(bytes * repeats) / repeats as f64);
    }
    let steps = plan.steps() as f64;
    Ok(Measured { update: update / steps, triad: plain / steps, bytes: bytes as f64 / steps })
}

/// The yardstick: a loop over three arrays as anybody would write it.
struct Triad {
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    /// Threads that share it, where it is large enough.
    crew: Option<Crew>,
}

impl Triad {
    fn new(numbers: usize, shared: bool, crew: Crew) -> Self {
        let crew = Some(crew).filter(|crew| shared && crew.size() > 1);
        Self { a: vec![0.0; numbers], b: vec![0.5; numbers], c: vec![0.25; numbers], crew }
    }

    /// Seconds for about `bytes` bytes.
    fn seconds(&mut self, bytes: usize) -> f64 {
        let once = 3 * size_of::<f32>() * self.a.len();
        let repeats = bytes.div_ceil(once);
        let share = self.a.len().div_ceil(self.crew.as_ref().map_or(1, Crew::size));
        let begun = Instant::now();
        for _ in 0..repeats {
            let scale = black_box(3.0f32);
            let a = SharedOut(self.a.as_mut_ptr());
            let (b, c) = (&self.b, &self.c);
            let part = |part: usize| {
                let range = (part * share).min(b.len())..((part + 1) * share).min(b.len());
                // SAFETY: the shares do not overlap, and the array outlives the call.
                let a = unsafe { std::slice::from_raw_parts_mut(a.get().add(range.start), range.len()) };
                for ((a, b), c) in a.iter_mut().zip(&b[range.clone()]).zip(&c[range]) {
                    *a = b + scale * c;
                }
            };
            match &mut self.crew {
                None => part(0),
                Some(crew) => crew.run(&part),
            }
            black_box(&mut self.a);
        }
        begun.elapsed().as_secs_f64() * bytes as f64 / (repeats * once) as f64
    }
}

#[derive(Clone, Copy)]
struct SharedOut(*mut f32);

impl SharedOut {
    fn get(&self) -> *mut f32 {
        self.0
    }
}

// SAFETY: every thread writes its own share.
unsafe impl Sync for SharedOut {}
