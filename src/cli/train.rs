//! `bespoke train`

use super::progress::{self, Share};
use super::say::{note, say};
use super::signals;
use bespoke::ranks::Ranks;
use bespoke::train::{Optimizer, Outcome, Progress, TrainConfig, Trained, Watch, parts_beside, train_config};
use bespoke::{Error, Result, document, output};
use clap::{ArgMatches, FromArgMatches};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

/// Learn a solver for a model.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  bespoke train --model models/digits-fm-ot.json --family rk2 --steps 5 --out theta.json\n  \
    bespoke train --model models/digits-fm-ot.json --family ns --nfe 8,10,16 --out ladder.json\n\n\
    Ctrl-C, SIGTERM and SIGHUP write the best theta so far. Options given here win over those of --config."
)]
pub struct TrainArgs {
    /// A JSON document with these options as keys, dashes as underscores.
    #[arg(long, value_name = "FILE.json")]
    config: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
    /// Progress and outcome as JSON, a line each, on standard output.
    #[arg(long)]
    json: bool,
    /// Show no progress and no outcome.
    #[arg(long)]
    quiet: bool,
    /// Print the JSON schema of --config, and do no more.
    #[arg(long, exclusive = true)]
    schema: bool,
}

/// The options of a training configuration, as the command line gives them.
struct Given(ArgMatches);

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        Ok(Self(matches.clone()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        self.0 = matches.clone();
        Ok(())
    }
}

impl clap::Args for Given {
    fn augment_args(command: clap::Command) -> clap::Command {
        TrainConfig::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        TrainConfig::augment_args_for_update(command)
    }
}

impl Given {
    /// `document`, with what the command line says on top.
    fn over(&self, mut document: TrainConfig) -> Result<TrainConfig> {
        // Either says what both in the document say.
        if ["steps", "nfe"].iter().any(|id| self.0.contains_id(id)) {
            (document.steps, document.nfe) = (Vec::new(), Vec::new());
        }
        let failed = |e: clap::Error| Error::State(format!("the options cannot be read: {e}"));
        document.update_from_arg_matches(&self.0).map_err(failed)?;
        Ok(document)
    }
}

impl TrainArgs {
    /// The document, the options given, and where the checkpoint goes if neither says so.
    fn config(&self) -> Result<TrainConfig> {
        let document = self.config.as_deref().map(document::read).transpose()?;
        let mut config = self.given.over(document.unwrap_or_default())?;
        for (field, given) in [("model", config.model.is_some()), ("out", config.out.is_some())] {
            if !given {
                return Err(Error::invalid(field, "absent", format!("--{field}, or the key {field:?} in --config")));
            }
        }
        config.checkpoint = config.checkpoint.or_else(|| {
            // Beside a pipe or a device is no place for one.
            let mut beside = config.out.clone().filter(|out| output::is_file(out))?.into_os_string();
            beside.push(".checkpoint");
            Some(beside.into())
        });
        Ok(config)
    }
}

/// What a run shows as it goes.
struct Shown {
    json: bool,
    /// Neither bars nor lines.
    silent: bool,
    started: Instant,
    /// The first failure to say something ends the run as a signal does: with the best theta so far.
    said: Result<()>,
    /// From the first of the ground truth until the first iteration.
    truth: Option<Share>,
    iterations: Option<ProgressBar>,
    /// What was last said to be learned, and how.
    learned: Option<(usize, Optimizer)>,
}

/// A line of `--json`.
#[derive(serde::Serialize)]
struct Line<'a> {
    progress: &'a Progress,
    seconds: f64,
}

impl Watch for Shown {
    fn ground_truth(&mut self, share: f64) {
        let silent = self.silent;
        let truth = self.truth.get_or_insert_with(|| {
            if !silent && !std::io::stderr().is_terminal() {
                note!("solving the ground truth");
            }
            Share::new("solving the ground truth", silent)
        });
        truth.set(share);
    }

    fn is_asked_to_end(&mut self) -> bool {
        signals::asked()
    }

    fn iteration(&mut self, progress: &Progress) -> ControlFlow<()> {
        if let Some(truth) = self.truth.take() {
            truth.finish();
        }
        let bar = self.iterations.get_or_insert_with(|| progress::bar(progress.iterations, "training", self.silent));
        bar.set_position(progress.iteration as u64);
        let seen =
            progress.validation.features.map_or_else(String::new, |distance| format!(", features {distance:.6}"));
        bar.set_message(format!("rmse {:.6}{seen}, best {:.6}", progress.validation.rmse, progress.best.rmse));
        let seconds = self.started.elapsed().as_secs_f64();
        if self.json && progress.validated {
            let line = document::line(&Line { progress, seconds }, "progress");
            self.said = line.and_then(|line| say!("{line}"));
        } else if !self.silent && progress.validated && !std::io::stderr().is_terminal() {
            let learned = (progress.nfe, progress.optimizer);
            if self.learned.replace(learned) != Some(learned) {
                let how = json!(progress.optimizer);
                note!("nfe {}, by {}", progress.nfe, how.as_str().unwrap_or_default());
            }
            // No batch was taken before the first iteration.
            let loss = if progress.loss.is_nan() { String::new() } else { format!("  loss {:.6}", progress.loss) };
            note!(
                "iteration {}/{}{loss}  validation rmse {:.6} ({:.2} dB){seen}  best {:.6}  {seconds:.0} s",
                progress.iteration,
                progress.iterations,
                progress.validation.rmse,
                progress.validation.psnr,
                progress.best.rmse,
            );
        }
        if signals::asked() || self.said.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Shown {
    fn finish(self) -> Result<()> {
        if let Some(bar) = &self.iterations {
            bar.finish_and_clear();
        }
        self.said
    }
}

pub fn run(args: TrainArgs, ranks: &Ranks) -> Result<()> {
    if args.schema {
        return super::say::text(document::text(&schemars::schema_for!(TrainConfig), "schema")?.as_bytes());
    }
    let (json, quiet) = (args.json && ranks.is_first(), args.quiet || !ranks.is_first());
    let config = args.config()?;
    let aside = config.out.as_deref().is_some_and(output::is_stdout);
    if json && aside {
        return Err(Error::invalid("out", "-", "a file: --json has standard output"));
    }
    let (started, begun) = (Instant::now(), SystemTime::now());
    let silent = json || quiet;
    let mut shown = Shown { json, silent, started, said: Ok(()), truth: None, iterations: None, learned: None };
    let outcome = train_config(&config, ranks, &mut shown).inspect_err(|_| {
        if ranks.is_first() && was_kept(&config, begun) {
            note!("what was done before the error is kept: the same command with --resume goes on from there");
        }
    })?;
    shown.finish()?;
    let seconds = started.elapsed().as_secs_f64();
    if json {
        say!("{}", document::line(&outcome_document(&config, &outcome, seconds), "done")?)?;
    } else if !quiet {
        let print = |line: std::fmt::Arguments<'_>| {
            if aside {
                note!("{line}");
                return Ok(());
            }
            say!("{line}")
        };
        report(&config, &outcome, seconds, print)?;
    }
    Ok(())
}

/// Whether the run that began at `begun` has written a checkpoint, or parts of its ground truth.
fn was_kept(config: &TrainConfig, begun: SystemTime) -> bool {
    let places = config.checkpoint.iter().flat_map(|path| [path.clone(), parts_beside(path)]);
    let mut written = places.filter_map(|path| path.metadata().ok()?.modified().ok());
    written.any(|time| time >= begun)
}

/// The last line of `--json`.
fn outcome_document(config: &TrainConfig, outcome: &Outcome, seconds: f64) -> Value {
    let rung = |rung: &Trained| json!({ "nfe": rung.theta.nfe(), "best": rung.best, "start": rung.start });
    json!({
        "done": {
            "out": config.out.as_ref().map(|out| out.to_string_lossy()),
            "rungs": outcome.rungs.iter().map(rung).collect::<Vec<_>>(),
            "stopped": outcome.stopped,
            "evaluations": outcome.evaluations,
            "ground_truth": outcome.ground_truth,
        },
        "seconds": seconds,
    })
}

fn report(
    config: &TrainConfig,
    outcome: &Outcome,
    seconds: f64,
    print: impl Fn(std::fmt::Arguments<'_>) -> Result<()>,
) -> Result<()> {
    let how = if outcome.stopped { "interrupted: the best theta so far is" } else { "the best theta is" };
    let out = config.out.as_deref().unwrap_or("".as_ref()).display();
    for rung in &outcome.rungs {
        print(format_args!(
            "{how} in {out}: nfe {}, validation rmse {:.6} ({:.2} dB), from {:.6} ({:.2} dB) at the start",
            rung.theta.nfe(),
            rung.best.rmse,
            rung.best.psnr,
            rung.start.rmse,
            rung.start.psnr
        ))?;
    }
    let (spent, truth) = (outcome.evaluations, outcome.ground_truth);
    let share = config.budget.map(|budget| {
        let percent = 100.0 * spent.equivalents() as f64 / budget as f64;
        format!(", {percent:.1} % of the budget of {budget}")
    });
    print(format_args!(
        "{} forward evaluations ({} of them ground truth) and {} backward: as {} forward{}; {seconds:.0} s",
        spent.forward,
        truth.forward,
        spent.backward,
        spent.equivalents(),
        share.unwrap_or_default()
    ))
}
