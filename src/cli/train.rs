//! `bespoke train`

use super::progress;
use bespoke::ranks::Ranks;
use bespoke::samples::GuidanceScale;
use bespoke::tensor::Compute;
use bespoke::train::{
    Learn, Loss, OneOrMore, Optimizer, Outcome, Progress, TrainConfig, Trained, TrainedFamily, train_config,
};
use bespoke::{Error, Result, document};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Learn a solver for a model.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  bespoke train --model models/digits-fm-ot.json --family rk2 --steps 5 --out theta.json\n  \
    bespoke train --model models/digits-fm-ot.json --family ns --nfe 8,10,16 --out ladder.json\n\n\
    Ctrl-C writes the best theta so far. Options given here win over those of --config."
)]
pub struct TrainArgs {
    /// A JSON document with these options as keys, dashes as underscores.
    #[arg(long, value_name = "FILE.json")]
    config: Option<PathBuf>,
    /// Model card (JSON).
    #[arg(long, value_name = "CARD")]
    model: Option<PathBuf>,
    /// rk1 (one evaluation a step), rk2 (two), or ns (the table itself; a step is an evaluation).
    #[arg(long, value_name = "FAMILY", value_parser = parse::<TrainedFamily>)]
    family: Option<TrainedFamily>,
    /// Steps n [default: 5 for rk2, else 10]; several, as in 4,5,8, share the ground truth and are
    /// written as a ladder.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    steps: Vec<usize>,
    /// The same in evaluations: 2n for rk2, n for the others.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    nfe: Vec<usize>,
    /// What to start from, in place of the base solver: a theta or ladder, of another model too.
    /// For ns also NAME@NFE, published (the best of all published solvers) or rk1 or rk2 (a theta
    /// of that family, trained first) [default for ns: rk2, or rk1 where nfe is odd]. May be given
    /// several times: a tenth of the iterations go to each, the rest to the best.
    #[arg(long, value_name = "START")]
    init: Vec<String>,
    /// What of rk1 and rk2 is learned: t,s (time and scale), t or s [default: t,s].
    #[arg(long, value_name = "T,S", value_parser = parse::<Learn>)]
    learn: Option<Learn>,
    /// Start on this scheduler's path in place of the model's own: fm-ot, cosine, vp or edm.
    #[arg(long, value_name = "SCHEDULER")]
    path: Option<String>,
    /// Start on the path whose noise is this many times larger; 5 to 10 for strong guidance.
    #[arg(long, value_name = "X")]
    sigma0: Option<f64>,
    /// Where the theta file is written.
    #[arg(long, value_name = "THETA")]
    out: Option<PathBuf>,
    /// rmse-bound (the paper's), rmse or log-mse (the error at the end) [default: log-mse]; one
    /// after another, as in rmse-bound,log-mse.
    #[arg(long, value_name = "LOSS", value_delimiter = ',', value_parser = parse::<Loss>)]
    loss: Vec<Loss>,
    /// adam or gauss-newton [default: gauss-newton; rmse-bound takes adam always].
    #[arg(long, value_name = "NAME", value_parser = parse::<Optimizer>)]
    optimizer: Option<Optimizer>,
    /// Iterations, or one count for each loss [default: 1200 for adam, 30 for gauss-newton].
    #[arg(long, value_name = "I", value_delimiter = ',')]
    iterations: Vec<usize>,
    /// Velocity evaluations to end at: forward 1, backward 2; ground truth and validation count.
    #[arg(long, value_name = "EVALS")]
    budget: Option<u64>,
    /// Samples an iteration [default: 60 for adam, 400 for gauss-newton].
    #[arg(long, value_name = "B")]
    batch: Option<usize>,
    /// Adam's first learning rate; it decays to 0 along half a cosine [default: 2e-2].
    #[arg(long, value_name = "X")]
    lr: Option<f64>,
    /// L_tau of the bound: the velocity's Lipschitz constant [default: 1].
    #[arg(long, value_name = "X")]
    l_tau: Option<f64>,
    /// u = u_uncond + S (u_cond - u_uncond); 1 is off [default: 1].
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    guidance_scale: Option<GuidanceScale>,
    /// Conditions (safetensors, [C, ...] for each input of the model): sample i takes row i mod C. May be given
    /// several times.
    #[arg(long, value_name = "FILE")]
    conditions: Vec<PathBuf>,
    /// One class for all samples; without it, sample i gets class i mod classes.
    #[arg(long, value_name = "K")]
    class: Option<i64>,
    /// Seed of everything random [default: 0].
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// cpu, cuda or cuda:INDEX [default: cpu].
    #[arg(long, value_name = "D")]
    device: Option<String>,
    /// What the network computes in: f32, or bf16 (matrix products and convolutions); the solver is f32
    /// always [default: f32].
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<Compute>,
    /// Noises whose ground truth is solved for training [default: 1500].
    #[arg(long, value_name = "P")]
    pool: Option<usize>,
    /// Iterations after which the pool is drawn and solved anew; 0 for never [default: 0].
    #[arg(long, value_name = "I")]
    pool_refresh: Option<usize>,
    /// Solve for fresh noises at every iteration, as the paper does.
    #[arg(long)]
    resolve: bool,
    /// Fresh noises for validation [default: 1000].
    #[arg(long, value_name = "C")]
    validation: Option<usize>,
    /// Iterations between validations [default: a twelfth of all].
    #[arg(long, value_name = "I")]
    validate_every: Option<usize>,
    /// Validations without a better one after which a stage ends [default: no limit].
    #[arg(long, value_name = "K")]
    patience: Option<usize>,
    /// Where the run is kept, at every validation and when it is stopped [default: THETA.checkpoint].
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Go on from the checkpoint where there is one, to the very same theta.
    #[arg(long)]
    resume: bool,
    /// Loss, validation, evaluations and seconds of every iteration, a JSON object a line.
    #[arg(long, value_name = "FILE.jsonl")]
    log: Option<PathBuf>,
    /// Keep the ground truth in this file: it is read where it is there, else solved and written.
    #[arg(long, value_name = "FILE.safetensors")]
    pool_file: Option<PathBuf>,
    /// Relative tolerance of the ground truth [default: 1e-5].
    #[arg(long, value_name = "X")]
    rtol: Option<f64>,
    /// Absolute tolerance of the ground truth [default: 1e-5].
    #[arg(long, value_name = "X")]
    atol: Option<f64>,
    /// Progress and outcome as JSON, a line each, on standard output.
    #[arg(long)]
    json: bool,
    /// Show no progress and no outcome.
    #[arg(long)]
    quiet: bool,
}

/// Reads a choice as the config document writes it.
pub fn parse<T: serde::de::DeserializeOwned>(text: &str) -> std::result::Result<T, String> {
    serde_json::from_value(text.into()).map_err(|e| e.to_string())
}

impl TrainArgs {
    /// The document, with what the command line says on top.
    fn config(self) -> Result<TrainConfig> {
        let base: TrainConfig = match &self.config {
            Some(path) => document::read(path)?,
            None => TrainConfig::default(),
        };
        let base = if self.steps.is_empty() && self.nfe.is_empty() {
            base
        } else {
            // Either says what both in the document say.
            TrainConfig { steps: None, nfe: None, ..base }
        };
        let out = self.out.or(base.out);
        let beside = out.as_ref().map(|out| {
            let mut name = out.clone().into_os_string();
            name.push(".checkpoint");
            PathBuf::from(name)
        });
        let config = TrainConfig {
            model: self.model.or(base.model),
            field: base.field,
            family: self.family.or(base.family),
            steps: OneOrMore::new(self.steps).or(base.steps),
            nfe: OneOrMore::new(self.nfe).or(base.nfe),
            init: OneOrMore::new(self.init).or(base.init),
            path: self.path.or(base.path),
            sigma0: self.sigma0.or(base.sigma0),
            out,
            learn: self.learn.or(base.learn),
            loss: OneOrMore::new(self.loss).or(base.loss),
            optimizer: self.optimizer.or(base.optimizer),
            iterations: OneOrMore::new(self.iterations).or(base.iterations),
            budget: self.budget.or(base.budget),
            batch: self.batch.or(base.batch),
            lr: self.lr.or(base.lr),
            l_tau: self.l_tau.or(base.l_tau),
            guidance_scale: self.guidance_scale.or(base.guidance_scale),
            conditions: if self.conditions.is_empty() { base.conditions } else { Some(self.conditions) },
            class: self.class.or(base.class),
            seed: self.seed.or(base.seed),
            device: self.device.or(base.device),
            dtype: self.dtype.or(base.dtype),
            pool: self.pool.or(base.pool),
            pool_refresh: self.pool_refresh.or(base.pool_refresh),
            resolve: self.resolve.then_some(true).or(base.resolve),
            validation: self.validation.or(base.validation),
            validate_every: self.validate_every.or(base.validate_every),
            patience: self.patience.or(base.patience),
            checkpoint: self.checkpoint.or(base.checkpoint).or(beside),
            resume: self.resume.then_some(true).or(base.resume),
            log: self.log.or(base.log),
            pool_file: self.pool_file.or(base.pool_file),
            rtol: self.rtol.or(base.rtol),
            atol: self.atol.or(base.atol),
        };
        for (field, given) in [("model", config.model.is_some()), ("out", config.out.is_some())] {
            if !given {
                return Err(Error::invalid(field, "absent", format!("--{field}, or the key {field:?} in --config")));
            }
        }
        Ok(config)
    }
}

pub fn run(args: TrainArgs, ranks: &Ranks) -> Result<()> {
    let (json, quiet) = (args.json && ranks.is_first(), args.quiet || !ranks.is_first());
    let config = args.config()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst))
        .map_err(|e| Error::State(format!("cannot listen for Ctrl-C: {e}")))?;
    let started = Instant::now();
    let mut bar = None;
    let terminal = std::io::stderr().is_terminal();
    let lines = !terminal && !json && !quiet;
    if lines {
        eprintln!("solving the ground truth");
    }
    let outcome = train_config(&config, ranks, &mut |progress: &Progress| {
        let bar = bar.get_or_insert_with(|| progress::bar(progress.iterations, "training", json || quiet));
        bar.set_position(progress.iteration as u64);
        bar.set_message(format!("rmse {:.6}, best {:.6}", progress.validation.rmse, progress.best.rmse));
        if json && progress.validated {
            println!("{}", json!({ "progress": progress, "seconds": started.elapsed().as_secs_f64() }));
        }
        if lines && progress.validated {
            eprintln!(
                "iteration {}/{}  loss {:.6}  validation rmse {:.6} ({:.2} dB)  best {:.6}  {:.0} s",
                progress.iteration,
                progress.iterations,
                progress.loss,
                progress.validation.rmse,
                progress.validation.psnr,
                progress.best.rmse,
                started.elapsed().as_secs_f64()
            );
        }
        if interrupted.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let seconds = started.elapsed().as_secs_f64();
    if json {
        println!("{}", outcome_document(&config, &outcome, seconds));
    } else if !quiet {
        report(&config, &outcome, seconds);
    }
    Ok(())
}

/// The last line of `--json`.
fn outcome_document(config: &TrainConfig, outcome: &Outcome, seconds: f64) -> Value {
    let rung = |rung: &Trained| json!({ "nfe": rung.theta.nfe(), "best": rung.best, "start": rung.start });
    json!({
        "done": {
            "out": config.out,
            "rungs": outcome.rungs.iter().map(rung).collect::<Vec<_>>(),
            "stopped": outcome.stopped,
            "evaluations": outcome.evaluations,
            "ground_truth": outcome.ground_truth,
        },
        "seconds": seconds,
    })
}

fn report(config: &TrainConfig, outcome: &Outcome, seconds: f64) {
    let how = if outcome.stopped { "interrupted: the best theta so far is" } else { "the best theta is" };
    let out = config.out.as_deref().unwrap_or("".as_ref()).display();
    for rung in &outcome.rungs {
        println!(
            "{how} in {out}: nfe {}, validation rmse {:.6} ({:.2} dB), from {:.6} ({:.2} dB) at the start",
            rung.theta.nfe(),
            rung.best.rmse,
            rung.best.psnr,
            rung.start.rmse,
            rung.start.psnr
        );
    }
    let (spent, truth) = (outcome.evaluations, outcome.ground_truth);
    let share = config.budget.map(|budget| {
        let percent = 100.0 * spent.equivalents() as f64 / budget as f64;
        format!(", {percent:.1} % of the budget of {budget}")
    });
    println!(
        "{} forward evaluations ({} of them ground truth) and {} backward: as {} forward{}; {seconds:.0} s",
        spent.forward,
        truth.forward,
        spent.backward,
        spent.equivalents(),
        share.unwrap_or_default()
    );
}
