//! The command line: a thin user of the library.

mod arrays;
mod bench;
mod bench_network;
mod bench_train;
mod check;
mod compile;
mod convert;
mod eval;
mod font;
mod generate;
mod judge;
mod ladder;
mod measure;
mod picture;
mod plane;
mod progress;
mod report;
mod sample;
mod say;
mod show;
mod signals;
mod solvers;
mod task;
mod train;

use bespoke::document::Notes;
use bespoke::model::{self, Model};
use bespoke::networks::Served;
use bespoke::path::GaussianPath;
use bespoke::ranks::Ranks;
use bespoke::reference::Solver;
use bespoke::samples::{Conditioning, GuidanceScale};
use bespoke::tensor::{Compute, Device};
use bespoke::theta::{MODEL_KEYS, different_models, model_name};
use bespoke::train::Asked;
use bespoke::{Error, Result};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use say::note;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Learned few-step solvers for flow and diffusion models.
#[derive(Parser)]
#[command(version, about, after_help = "Exit codes: 0 done, 1 a run that failed, 2 bad usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(Box<train::TrainArgs>),
    Sample(sample::SampleArgs),
    Eval(eval::EvalArgs),
    Show(show::ShowArgs),
    Solvers(solvers::SolversArgs),
    Compile(compile::CompileArgs),
    Ladder(ladder::LadderArgs),
    Convert(convert::ConvertArgs),
    Report(report::ReportArgs),
    Check(check::CheckArgs),
    Bench(bench::BenchArgs),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
}

/// Where a server has the network of a card.
#[derive(Args)]
struct ServedArgs {
    /// A Triton server, http://HOST:PORT, that has the network of the card, whose runtime is then host.
    #[arg(long, value_name = "URL")]
    triton: Option<String>,
    /// What the network is called there: NAME or NAME:VERSION.
    #[arg(long, value_name = "NAME")]
    velocity_model: Option<String>,
    /// What it calls states, times and classes; the card's other inputs have the same names there [default: X,T,CLASS].
    #[arg(long, value_name = "NAMES")]
    velocity_inputs: Option<String>,
    /// What it calls its output [default: U].
    #[arg(long, value_name = "NAME")]
    velocity_output: Option<String>,
}

impl ServedArgs {
    fn place(&self) -> Result<Option<Served>> {
        let Self { triton, velocity_model, velocity_inputs, velocity_output } = self;
        Served::given(
            triton.as_deref(),
            velocity_model.as_deref(),
            velocity_inputs.as_deref(),
            velocity_output.as_deref(),
        )
    }
}

/// Which model, where, and what its samples are conditioned on.
#[derive(Args)]
struct ModelArgs {
    /// Model card (JSON).
    #[arg(long, value_name = "CARD")]
    model: PathBuf,
    /// cpu, cuda, cuda:INDEX, and for ONNX tensorrt or tensorrt:INDEX.
    #[arg(long, default_value = "cpu", value_name = "D", value_parser = device_name)]
    device: String,
    /// What the network computes in: f32, or bf16 (matrix products and convolutions).
    #[arg(long, default_value_t = Compute::F32, value_name = "DTYPE")]
    dtype: Compute,
    #[command(flatten)]
    served: ServedArgs,
    /// One class for all samples; without it, sample i gets class i mod classes.
    #[arg(long, value_name = "K")]
    class: Option<i64>,
    /// u = u_uncond + S (u_cond - u_uncond); 1 is off. Of a range A..B each sample draws its own. A model with
    /// several scales is given NAME=S,NAME=S.
    #[arg(long, value_name = "S")]
    guidance_scale: Option<GuidanceScale>,
    /// Conditions (safetensors, [C, ...] for each input of the model): sample i takes row i mod C. May be given
    /// several times.
    #[arg(long, value_name = "FILE")]
    conditions: Vec<PathBuf>,
}

impl ModelArgs {
    /// Opens the model; `seed` is that of the noises.
    fn open(&self, seed: u64) -> Result<(Model, Conditioning)> {
        self.open_on(self.device.parse()?, seed)
    }

    fn open_on(&self, device: Device, seed: u64) -> Result<(Model, Conditioning)> {
        let mut model = model::open_served(&self.model, self.served.place()?.as_ref(), device, self.dtype)?;
        let asked = Asked {
            class: self.class,
            guidance_scale: self.guidance_scale.clone(),
            seed,
            conditions: &self.conditions,
        };
        let conditioning = bespoke::train::conditioning(&mut model, asked)?;
        Ok((model, conditioning))
    }

    /// Warns where a theta was trained for another model than this one, which is `opened`.
    fn warn_foreign(&self, solver: &Solver, opened: &Model) -> Result<()> {
        let Solver::Theta(path, theta) = solver else { return Ok(()) };
        // The weights are read for a fingerprint, which nothing may be held against.
        if MODEL_KEYS.iter().all(|key| theta.model.text(key).is_none()) {
            return Ok(());
        }
        let mut own = Notes::default();
        own.0.insert("fingerprint".into(), json!(opened.card().fingerprint()?));
        own.0.insert("velocity_model".into(), json!(self.served.velocity_model));
        if different_models(&theta.model, &own) {
            let name = opened.card().path().display().to_string();
            let ours = self.served.velocity_model.as_ref().unwrap_or(&name);
            tracing::warn!("{path} was trained for {}, not for {ours}", model_name(&theta.model));
        }
        Ok(())
    }
}

/// `name`, if a device has it.
fn device_name(name: &str) -> Result<String> {
    name.parse::<Device>().map(|_| name.to_owned())
}

/// Which path published solvers sample the model on.
#[derive(Args)]
struct PathArgs {
    /// Path that a published solver (NAME@NFE) samples on, the model's own where absent: fm-ot, cosine,
    /// vp or edm. A theta has learned its path, and gt is the same on any.
    #[arg(long, value_name = "NAME")]
    path: Option<String>,
    /// Sample with the path's sigma this many times as large (for high guidance, 5 to 10) [default: 1].
    #[arg(long, value_name = "X")]
    sigma0: Option<f64>,
}

impl PathArgs {
    fn on(&self, own: GaussianPath) -> Result<GaussianPath> {
        own.on_named(self.path.as_deref(), self.sigma0)
    }

    /// What was given, as documents say it.
    fn notes(&self) -> impl Iterator<Item = (String, Value)> {
        let path = self.path.iter().map(|path| ("path".into(), json!(path)));
        path.chain(self.sigma0.iter().map(|sigma0| ("sigma0".into(), json!(sigma0))))
    }
}

/// Which noises.
#[derive(Args)]
struct NoiseArgs {
    /// Number of samples.
    #[arg(long, value_name = "C")]
    count: Option<usize>,
    /// Seed of the noises.
    #[arg(long, value_name = "S", default_value_t = 0, conflicts_with = "noise")]
    seed: u64,
    /// Noises of your own, standard normal: an .npy array [count, shape...] of f32 or f64.
    #[arg(long, value_name = "X0.npy", conflicts_with = "count")]
    noise: Option<PathBuf>,
}

/// How exact the ground truth is.
#[derive(Args)]
struct ToleranceArgs {
    /// Relative tolerance of the ground truth.
    #[arg(long, default_value_t = 1e-5, value_name = "X")]
    rtol: f64,
    /// Absolute tolerance of the ground truth.
    #[arg(long, default_value_t = 1e-5, value_name = "X")]
    atol: f64,
}

impl ToleranceArgs {
    fn tolerance(&self) -> Result<bespoke::dopri5::Tolerance> {
        let tolerance = bespoke::dopri5::Tolerance { rtol: self.rtol, atol: self.atol };
        tolerance.validate()?;
        Ok(tolerance)
    }
}

/// What the program was asked.
fn parse() -> std::result::Result<Cli, clap::Error> {
    let mut command = taking_negatives(Cli::command());
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|e| e.format(&mut command))
}

/// `command`, where a number below zero is the value of the option before it, and no option of that name: then it is
/// the option's own range that refuses it.
fn taking_negatives(command: clap::Command) -> clap::Command {
    let taking = |arg: clap::Arg| {
        let takes = arg.get_action().takes_values();
        arg.allow_negative_numbers(takes)
    };
    command.mut_args(taking).mut_subcommands(taking_negatives)
}

/// Levels by target, as `RUST_LOG` gives them; warnings where it gives none that can be read.
fn log_to_stderr() {
    let given = std::env::var("RUST_LOG").ok().and_then(|levels| levels.parse().ok());
    let levels = given.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .with_filter(levels);
    tracing_subscriber::registry().with(layer).init();
}

/// Runs the program and says how it ended.
pub fn run() -> ExitCode {
    // A reader that closes its end, like `head`, ends the program as it ends others.
    #[cfg(unix)]
    // SAFETY: before any thread is started, to the handler every process starts with in C.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
    log_to_stderr();
    let command = match parse() {
        Ok(cli) => cli.command,
        Err(said) => return ended_early(&said),
    };
    let result = signals::listen().and_then(|()| run_command(command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note!("error: {error}");
            ExitCode::from(code(&error))
        }
    }
}

/// Help, the version, or what is wrong with the arguments.
fn ended_early(said: &clap::Error) -> ExitCode {
    if said.use_stderr() {
        // Nobody is left to hear of a failure.
        let _ = said.print();
        return ExitCode::from(2);
    }
    match say::checked(|_| said.print()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_command(command: Command) -> Result<()> {
    match command {
        Command::Train(args) => together(|ranks| train::run(*args, ranks)),
        Command::Sample(args) => sample::run(args),
        Command::Eval(args) => together(|ranks| eval::run(args, ranks)),
        Command::Show(args) => show::run(args),
        Command::Solvers(args) => solvers::run(args),
        Command::Compile(args) => compile::run(args),
        Command::Ladder(args) => ladder::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Report(args) => report::run(args),
        Command::Check(args) => check::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Completions(args) => generate::completions(args),
        Command::Man(args) => generate::man(args),
    }
}

/// An argument that can be mended is bad usage; all else is a run that failed.
fn code(error: &Error) -> u8 {
    if matches!(error, Error::Invalid { .. }) { 2 } else { 1 }
}

/// What fails on all ranks is said by the first, within this time; after it, the others speak for themselves.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs a command by all ranks of the job that this process is in; where one fails, all end.
fn together(command: impl FnOnce(&Ranks) -> Result<()>) -> Result<()> {
    let ranks = Ranks::join()?;
    let result = command(&ranks);
    if let Err(error) = &result
        && ranks.count() > 1
    {
        if ranks.is_first() {
            note!("error: {error}");
        } else {
            std::thread::sleep(PATIENCE);
            note!("error: {error} (rank {} of {})", ranks.rank(), ranks.count());
        }
        ranks.abort(code(error).into());
    }
    result
}
