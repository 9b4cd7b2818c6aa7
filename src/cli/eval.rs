//! `bespoke eval`

use super::{ModelArgs, NoiseArgs, PathArgs, ToleranceArgs, arrays, picture, progress};
use bespoke::evaluate::{Evaluation, Ready, evaluate};
use bespoke::solvers::Solver;
use bespoke::{Result, document, with_field};
use serde_json::json;
use std::path::PathBuf;

/// Compare solvers with the ground truth, from the same noises.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  bespoke eval --model models/digits-fm-ot.json --solver theta.json \
    --solver midpoint@10 --solver rk4@12 --count 1000 --json eval.json\n\n\
    The row of gt, where asked for, is its own distance from a solve of a hundredth of its tolerance.")]
pub struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A theta file, LADDER[@NFE], NAME@NFE[:GRID] (see bespoke solvers), or gt. May be given several times.
    #[arg(long = "solver", value_name = "SOLVER", required = true)]
    solvers: Vec<String>,
    #[command(flatten)]
    path: PathArgs,
    #[command(flatten)]
    noise: NoiseArgs,
    #[command(flatten)]
    tolerance: ToleranceArgs,
    /// The table as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A picture: the ground truth above, then each solver's samples of the same noises with, on
    /// the right, their difference from it, 8 times as large.
    #[arg(long, value_name = "GRID.png")]
    png: Option<PathBuf>,
}

/// Noises where no count is given.
const DEFAULT_COUNT: usize = 1000;

pub fn run(args: EvalArgs) -> Result<()> {
    let solvers = args.solvers.iter().map(|name| Solver::parse(name)).collect::<Result<Vec<_>>>()?;
    let tolerance = args.tolerance.tolerance()?;
    let (model, conditioning) = args.model.open()?;
    for solver in &solvers {
        super::warn_foreign(solver, &model)?;
    }
    let card = model.card();
    let path = args.path.on(card.gaussian_path()?)?;
    let ready = solvers
        .iter()
        .map(|solver| Ok((solver.name(), Ready::new(solver, &path, tolerance)?)))
        .collect::<Result<Vec<_>>>()?;
    let noises = arrays::noises(&args.noise, &card.shape, DEFAULT_COUNT)?;
    let range = card.data_range[1] - card.data_range[0];
    let bar = progress::bar(noises.count(card.elements()), "evaluating");
    let mut first = Vec::new();
    let observe = |done: usize, samples: &[Vec<f32>]| {
        if !samples.is_empty() {
            first = samples.to_vec();
        }
        bar.set_position(done as u64);
        Ok(())
    };
    let evaluation = with_field!(&model, field => {
        evaluate(field, &conditioning, &ready, &noises, tolerance, range, observe)?
    });
    bar.finish_and_clear();
    print_table(&evaluation);
    if let Some(path) = &args.json {
        let seed = args.noise.noise.is_none().then_some(args.noise.seed);
        document::write(
            path,
            &json!({
                "model": card.name(),
                "count": evaluation.count,
                "seed": seed,
                "class": conditioning.class,
                "guidance_scale": conditioning.guidance_scale,
                "path": args.path.path,
                "sigma0": args.path.sigma0,
                "ground_truth": { "evaluations": evaluation.ground_truth_evaluations, "tolerance": evaluation.tolerance },
                "results": evaluation.results,
            }),
        )?;
    }
    if let Some(path) = &args.png {
        picture::comparison(card, &first)?.save(path)?;
        eprintln!("rows of {}: gt, {}", path.display(), args.solvers.join(", "));
    }
    Ok(())
}

fn print_table(evaluation: &Evaluation) {
    let width = evaluation.results.iter().map(|row| row.solver.len()).max().unwrap_or(0).max("solver".len());
    println!("{:width$}  {:>6}  {:>6}  {:>10}  {:>9}", "solver", "nfe", "passes", "rmse", "psnr (dB)");
    for row in &evaluation.results {
        println!("{:width$}  {:>6}  {:>6}  {:>10.6}  {:>9.2}", row.solver, row.nfe, row.passes, row.rmse, row.psnr);
    }
    let bespoke::dopri5::Tolerance { rtol, atol } = evaluation.tolerance;
    println!(
        "against the ground truth of {} noises: adaptive RK45 at rtol {rtol:e}, atol {atol:e}, {:.0} evaluations",
        evaluation.count, evaluation.ground_truth_evaluations
    );
}
