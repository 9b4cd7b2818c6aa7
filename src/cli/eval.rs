//! `bespoke eval`

use super::measure::{Distances, JudgeArgs, Task, measure};
use super::{ModelArgs, NoiseArgs, PathArgs, ToleranceArgs, arrays, expand_solvers, picture};
use bespoke::evaluate::{Evaluation, Ready};
use bespoke::ranks::Ranks;
use bespoke::solvers::Solver;
use bespoke::{Error, Result, document};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Compare solvers with the ground truth, from the same noises.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  bespoke eval --model models/digits-fm-ot.json --solver theta.json \
    --solver midpoint@10 --solver rk4@12 --count 1000 --json eval.json\n\n\
    The row of gt, where asked for, is its own distance from a solve of a hundredth of its tolerance.")]
pub struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A theta file, LADDER[@NFE], NAME@NFE[:GRID] (see bespoke solvers), or gt; of several nfe at once
    /// NAME@N,N,... May be given several times.
    #[arg(long = "solver", value_name = "SOLVER", required = true)]
    solvers: Vec<String>,
    #[command(flatten)]
    path: PathArgs,
    #[command(flatten)]
    noise: NoiseArgs,
    #[command(flatten)]
    tolerance: ToleranceArgs,
    /// Also the Fréchet distance, precision and recall of the samples, in a network's features: to the
    /// ground truth's samples, and to data where --data is given.
    #[arg(long)]
    frechet: bool,
    #[command(flatten)]
    judge: JudgeArgs,
    /// The table as JSON: into a file, or in place of the table where none is named.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
    /// Show no progress.
    #[arg(long)]
    quiet: bool,
    /// A picture: the ground truth above, then each solver's samples of the same noises with, on
    /// the right, their difference from it, 8 times as large.
    #[arg(long, value_name = "GRID.png")]
    png: Option<PathBuf>,
}

/// Noises where no count is given.
const DEFAULT_COUNT: usize = 1000;

pub fn run(args: EvalArgs, ranks: &Ranks) -> Result<()> {
    let names = expand_solvers(&args.solvers);
    let solvers = names.iter().map(|name| Solver::parse(name)).collect::<Result<Vec<_>>>()?;
    let tolerance = args.tolerance.tolerance()?;
    for (field, given) in [("features", args.judge.features.is_some()), ("data", args.judge.data.is_some())] {
        if given && !args.frechet {
            return Err(Error::invalid(field, "there", "absent without --frechet"));
        }
    }
    let device = ranks.device(&args.model.device)?;
    let (model, conditioning) = args.model.open_on(device)?;
    for solver in &solvers {
        if ranks.is_first() {
            super::warn_foreign(solver, &model)?;
        }
    }
    let card = model.card();
    let path = args.path.on(card.gaussian_path()?)?;
    let ready = solvers
        .iter()
        .map(|solver| Ok((solver.name(), Ready::new(solver, &path, tolerance)?)))
        .collect::<Result<Vec<_>>>()?;
    let noises = arrays::noises(&args.noise, &card.shape, DEFAULT_COUNT)?;
    let judge = match args.judge.card(card) {
        _ if !args.frechet => None,
        Some(features) => Some(args.judge.open(&features, card, device, ranks)?),
        None => return Err(Error::invalid("features", "absent", "a feature card: the model's card names none")),
    };
    let task = Task {
        model: &model,
        conditioning: &conditioning,
        solvers: &ready,
        noises: &noises,
        tolerance,
        ranks,
        quiet: args.quiet || !ranks.is_first(),
    };
    let measured = measure(&task, judge)?;
    if !ranks.is_first() {
        return Ok(());
    }
    let evaluation = &measured.evaluation;
    let whole = || {
        json!({
            "model": card.name(),
            "count": evaluation.count,
            "seed": args.noise.noise.is_none().then_some(args.noise.seed),
            "class": conditioning.class,
            "guidance_scale": conditioning.guidance_scale,
            "path": args.path.path,
            "sigma0": args.path.sigma0,
            "ground_truth": {
                "evaluations": evaluation.ground_truth_evaluations,
                "seconds": evaluation.ground_truth_seconds,
                "tolerance": evaluation.tolerance,
            },
            "distances": measured.distances,
            "results": rows(evaluation, measured.distances.as_ref()),
        })
    };
    match args.json.as_deref() {
        Some(path) if path == Path::new("-") => print!("{}", document::text(&whole(), "eval")?),
        Some(path) => {
            document::write(path, &whole())?;
            print_table(evaluation, measured.distances.as_ref());
        }
        None => print_table(evaluation, measured.distances.as_ref()),
    }
    if let Some(path) = &args.png {
        picture::comparison(card, &measured.first)?.save(path)?;
        if !args.quiet {
            eprintln!("rows of {}: gt, {}", path.display(), names.join(", "));
        }
    }
    Ok(())
}

/// A row for each solver, its distances among the rest.
fn rows(evaluation: &Evaluation, distances: Option<&Distances>) -> Vec<Value> {
    let row = |(i, quality)| {
        let mut row = json!(quality);
        if let (Some(row), Some(distances)) = (row.as_object_mut(), distances)
            && let Value::Object(found) = json!(distances.solvers[i])
        {
            row.extend(found);
        }
        row
    };
    evaluation.results.iter().enumerate().map(row).collect()
}

fn print_table(evaluation: &Evaluation, distances: Option<&Distances>) {
    let width = evaluation.results.iter().map(|row| row.solver.len()).max().unwrap_or(0).max("solver".len());
    print!("{:width$}  {:>6}  {:>6}  {:>10}  {:>9}", "solver", "nfe", "passes", "rmse", "psnr (dB)");
    let data = distances.and_then(|found| found.ground_truth_to_data);
    if distances.is_some() {
        print!("  {:>13}", "frechet to gt");
    }
    if data.is_some() {
        print!("  {:>15}  {:>9}  {:>6}", "frechet to data", "precision", "recall");
    }
    println!();
    for (i, row) in evaluation.results.iter().enumerate() {
        print!("{:width$}  {:>6}  {:>6}  {:>10.6}  {:>9.2}", row.solver, row.nfe, row.passes, row.rmse, row.psnr);
        if let Some(found) = distances.map(|found| &found.solvers[i]) {
            print!("  {:>13.6}", found.to_ground_truth.frechet);
            if let Some(data) = &found.to_data {
                let shares = data.precision_recall.map(|shares| (shares.precision, shares.recall));
                let show = |share: Option<f64>| share.map_or("-".into(), |share| format!("{share:.3}"));
                let (precision, recall) = (show(shares.map(|s| s.0)), show(shares.map(|s| s.1)));
                print!("  {:>15.6}  {precision:>9}  {recall:>6}", data.frechet);
            }
        }
        println!();
    }
    let bespoke::dopri5::Tolerance { rtol, atol } = evaluation.tolerance;
    println!(
        "against the ground truth of {} noises: adaptive RK45 at rtol {rtol:e}, atol {atol:e}, {:.0} evaluations",
        evaluation.count, evaluation.ground_truth_evaluations
    );
    if let Some(distances) = distances {
        print!("Fréchet distances in the features of {}", distances.features);
        if let (Some(data), Some(count)) = (data, distances.data_count) {
            print!("; of the ground truth to {count} samples of data: {:.6}", data.frechet);
        }
        println!();
    }
}
