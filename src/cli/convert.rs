//! `bespoke convert`

use super::say::note;
use bespoke::path::GaussianPath;
use bespoke::theta::{Family, Theta};
use bespoke::{Error, Result};
use clap::ValueEnum;
use serde_json::json;
use std::path::PathBuf;

/// Write the knots (t_r, s_r) that take one scheduler's path to another's, as a theta (Thm 2.3).
#[derive(clap::Args)]
#[command(after_help = "Example:\n  \
    bespoke convert --from fm-ot --to cosine --steps 5 --family rk2 --out theta.json\n\n\
    Run on a model of the one path, the theta is Euler (rk1) or midpoint (rk2) on the other.")]
pub struct ConvertArgs {
    /// The model's scheduler: fm-ot, cosine, vp or edm, or a card's scheduler object.
    #[arg(long, value_name = "SCHED")]
    from: GaussianPath,
    /// The scheduler of the path to sample on.
    #[arg(long, value_name = "SCHED")]
    to: GaussianPath,
    /// Steps n: n + 1 knots for rk1, 2n + 1 for rk2.
    #[arg(long, value_name = "N")]
    steps: usize,
    /// rk1 (one evaluation a step) or rk2 (two).
    #[arg(long, value_name = "FAMILY")]
    family: KnotFamily,
    /// Where the model's solve ends in its scheduler's time, in (0, 1] [default: 1].
    #[arg(long, value_name = "X")]
    end: Option<f64>,
    /// The other path's sigma is this many times its scheduler's.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    sigma0: f64,
    /// Where the theta file is written.
    #[arg(long, value_name = "THETA")]
    out: PathBuf,
}

/// The families that have knots.
#[derive(Clone, Copy, ValueEnum)]
enum KnotFamily {
    Rk1,
    Rk2,
}

pub fn run(args: ConvertArgs) -> Result<()> {
    if !(1..=bespoke::theta::MAX_STEPS).contains(&args.steps) {
        return Err(Error::invalid("steps", args.steps, format!("1 to {}", bespoke::theta::MAX_STEPS)));
    }
    let model = GaussianPath::new(args.from.scheduler().clone(), args.end.unwrap_or(args.from.end()))?;
    let path = model.on(args.to.scheduler().clone(), args.sigma0)?;
    let mut theta = Theta::new(match args.family {
        KnotFamily::Rk1 => Family::Rk1(path.knots(args.steps)),
        KnotFamily::Rk2 => Family::Rk2(path.knots(2 * args.steps)),
    })?;
    theta.model.0.insert("scheduler".into(), json!(model.scheduler()));
    theta.model.0.insert("end".into(), json!(model.end()));
    theta.training.0.insert("path".into(), json!(args.to.scheduler()));
    theta.training.0.insert("sigma0".into(), json!(args.sigma0));
    theta.save(&args.out)?;
    note!("{} steps of {} written to {}", theta.steps(), theta.family_name(), args.out.display());
    Ok(())
}
