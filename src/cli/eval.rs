//! `bespoke eval`

use super::measure::{Distances, measure};
use super::say::{note, say};
use super::task::TaskArgs;
use super::{arrays, picture};
use bespoke::evaluate::Evaluation;
use bespoke::path::GaussianPath;
use bespoke::ranks::Ranks;
use bespoke::reference::Solver;
use bespoke::solvers::SolverName;
use bespoke::{Error, Result, document, output};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Compare solvers with the ground truth, from the same noises.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  bespoke eval --model models/digits-fm-ot.json --solver theta.json \
    --solver midpoint@10 --solver rk4@12 --count 1000 --json eval.json\n\n\
    The row of gt, where asked for, is its own distance from a solve of a hundredth of its tolerance.")]
pub struct EvalArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// Also the Fréchet distance, precision and recall of the samples, in a network's features: to the
    /// ground truth's samples, and to data where --data is given.
    #[arg(long)]
    frechet: bool,
    /// The table as JSON: into a file, or in place of the table where none is named.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
    /// A picture: the ground truth above, then each solver's samples of the same noises with, on
    /// the right, their difference from it, 8 times as large. Points in the plane are scatter plots.
    #[arg(long, value_name = "GRID.png")]
    png: Option<PathBuf>,
}

pub fn run(args: EvalArgs, ranks: &Ranks) -> Result<()> {
    let asked = &args.task;
    for (field, given) in [("features", asked.judge.features.is_some()), ("data", asked.judge.data.is_some())] {
        if given && !args.frechet {
            return Err(Error::invalid(field, "there", "absent without --frechet"));
        }
    }
    for path in args.json.iter().chain(&args.png).filter(|_| ranks.is_first()) {
        output::check(path)?;
    }
    let solvers = asked.solvers()?;
    let task = asked.open(&solvers, ranks)?;
    let card = task.model.card();
    if args.frechet {
        arrays::one_size("frechet", &task.conditioning)?;
    }
    let judge = match asked.judge.card(card) {
        _ if !args.frechet => None,
        Some(features) => Some(asked.judge.open(&features, card, task.device, ranks)?),
        None => return Err(Error::invalid("features", "absent", "a feature card: the model's card names none")),
    };
    let measured = measure(&task, judge, ranks, asked.quiet)?;
    if !ranks.is_first() {
        return Ok(());
    }
    let evaluation = &measured.evaluation;
    let notes = notes(&solvers, &asked.path.on(card.gaussian_path()?)?);
    let whole = || -> Result<Value> {
        Ok(json!({
            "model": card.name(),
            "count": evaluation.count,
            "seed": asked.noise.noise.is_none().then_some(asked.noise.seed),
            "class": task.conditioning.class,
            "guidance_scale": document::value(&task.conditioning.guidance_scale, "guidance_scale")?,
            "dtype": asked.model.dtype,
            "path": asked.path.path,
            "sigma0": asked.path.sigma0,
            "ground_truth": {
                "evaluations": evaluation.ground_truth_evaluations,
                "seconds": evaluation.ground_truth_seconds,
                "tolerance": evaluation.tolerance,
            },
            "distances": document::value(&measured.distances, "distances")?,
            "notes": notes,
            "results": rows(evaluation, measured.distances.as_ref())?,
        }))
    };
    let said = || {
        print_table(evaluation, measured.distances.as_ref())?;
        notes.iter().try_for_each(|note| say!("{note}"))
    };
    match args.json.as_deref() {
        Some(path) => {
            document::write(path, &whole()?)?;
            if !output::is_stdout(path) {
                said()?;
            }
        }
        None => said()?,
    }
    if let Some(path) = &args.png {
        let names: Vec<&str> = task.comparison.solvers.iter().map(|(name, _)| name.as_str()).collect();
        picture::comparison(&task.conditioning.card(card, 0), &measured.first, &names)?.save(path)?;
        if !asked.quiet {
            note!("{}: gt, {}", path.display(), names.join(", "));
        }
    }
    Ok(())
}

/// What the table does not say of its solvers.
fn notes(solvers: &[Solver], path: &GaussianPath) -> Vec<String> {
    let lowered = solvers.iter().filter_map(|solver| match solver {
        Solver::Named(named) if named.solver.lowers_last_orders(named.nfe, path) => Some(format!(
            "{named} lowers the order of its last steps, as published for fewer than {} evaluations (lower_order_final)",
            SolverName::FULL_LAST_ORDERS
        )),
        _ => None,
    });
    lowered.collect()
}

/// A row for each solver, its distances among the rest.
fn rows(evaluation: &Evaluation, distances: Option<&Distances>) -> Result<Vec<Value>> {
    let row = |(i, quality)| {
        let mut row = document::value(quality, "results")?;
        if let (Some(row), Some(distances)) = (row.as_object_mut(), distances)
            && let Value::Object(found) = document::value(&distances.solvers[i], "distances")?
        {
            row.extend(found);
        }
        Ok(row)
    };
    evaluation.results.iter().enumerate().map(row).collect()
}

fn print_table(evaluation: &Evaluation, distances: Option<&Distances>) -> Result<()> {
    let width = evaluation.results.iter().map(|row| row.solver.len()).max().unwrap_or(0).max("solver".len());
    let mut line = format!("{:width$}  {:>6}  {:>6}  {:>10}  {:>9}", "solver", "nfe", "passes", "rmse", "psnr (dB)");
    let data = distances.and_then(|found| found.ground_truth_to_data);
    if distances.is_some() {
        line += &format!("  {:>13}", "frechet to gt");
    }
    if data.is_some() {
        line += &format!("  {:>15}  {:>9}  {:>6}", "frechet to data", "precision", "recall");
    }
    say!("{line}")?;
    for (i, row) in evaluation.results.iter().enumerate() {
        line =
            format!("{:width$}  {:>6}  {:>6}  {:>10.6}  {:>9.2}", row.solver, row.nfe, row.passes, row.rmse, row.psnr);
        if let Some(found) = distances.map(|found| &found.solvers[i]) {
            line += &format!("  {:>13.6}", found.to_ground_truth.frechet);
            if let Some(data) = &found.to_data {
                let shares = data.precision_recall.map(|shares| (shares.precision, shares.recall));
                let show = |share: Option<f64>| share.map_or("-".into(), |share| format!("{share:.3}"));
                let (precision, recall) = (show(shares.map(|s| s.0)), show(shares.map(|s| s.1)));
                line += &format!("  {:>15.6}  {precision:>9}  {recall:>6}", data.frechet);
            }
        }
        say!("{line}")?;
    }
    let bespoke::dopri5::Tolerance { rtol, atol } = evaluation.tolerance;
    say!(
        "against the ground truth of {} noises: adaptive RK45 at rtol {rtol:e}, atol {atol:e}, {:.0} evaluations",
        evaluation.count,
        evaluation.ground_truth_evaluations
    )?;
    let Some(distances) = distances else { return Ok(()) };
    line = format!("Fréchet distances in the features of {}", distances.features);
    if let (Some(data), Some(count)) = (data, distances.data_count) {
        line += &format!("; of the ground truth to {count} samples of data: {:.6}", data.frechet);
    }
    say!("{line}")
}
