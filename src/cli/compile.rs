//! `bespoke compile`

use super::PathArgs;
use super::say::note;
use bespoke::card::Card;
use bespoke::path::GaussianPath;
use bespoke::reference::Solver;
use bespoke::theta::Theta;
use bespoke::{Error, Result};
use serde_json::json;
use std::path::PathBuf;

/// Write any solver as a theta file of family ns, which runs wherever thetas do.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  \
    bespoke compile dpm++2m@10 --model models/digits-fm-ot.json --out dpm.json\n  \
    bespoke compile unipc@8 --scheduler vp --end 0.999 --out unipc.json\n  \
    bespoke compile theta.json --out table.json\n\n\
    A published solver is a table for a scheduler; a theta is one already, and needs no model.")]
pub struct CompileArgs {
    /// NAME@NFE (see bespoke solvers), a theta file, or LADDER[@NFE].
    #[arg(value_name = "SOLVER")]
    solver: String,
    /// Model card (JSON) whose scheduler the table is for; the model itself is not opened.
    #[arg(long, value_name = "CARD", conflicts_with = "scheduler")]
    model: Option<PathBuf>,
    #[command(flatten)]
    scheduler: SchedulerArgs,
    #[command(flatten)]
    path: PathArgs,
    /// Where the theta file is written.
    #[arg(long, value_name = "THETA")]
    out: PathBuf,
}

/// A scheduler without a model.
#[derive(clap::Args)]
struct SchedulerArgs {
    /// fm-ot, cosine, vp or edm, or a card's scheduler object with its constants.
    #[arg(long, value_name = "NAME")]
    scheduler: Option<GaussianPath>,
    /// Where the solve ends in the scheduler's time, in (0, 1] [default: 1].
    #[arg(long, value_name = "X", requires = "scheduler")]
    end: Option<f64>,
}

impl SchedulerArgs {
    fn path(&self) -> Result<Option<GaussianPath>> {
        let of = |path: &GaussianPath| GaussianPath::new(path.scheduler().clone(), self.end.unwrap_or(path.end()));
        self.scheduler.as_ref().map(of).transpose()
    }
}

pub fn run(args: CompileArgs) -> Result<()> {
    let solver = Solver::parse(&args.solver)?;
    let theta = match &solver {
        Solver::Theta(_, theta) => args.of_theta(theta)?,
        _ => args.of_published(&solver)?,
    };
    theta.save(&args.out)?;
    note!("{} written to {}: {} evaluations", solver.name(), args.out.display(), theta.nfe());
    Ok(())
}

impl CompileArgs {
    /// A theta is a table on any path; its notes stay true.
    fn of_theta(&self, theta: &Theta) -> Result<Theta> {
        let given = [
            ("model", self.model.is_some()),
            ("scheduler", self.scheduler.scheduler.is_some()),
            ("path", self.path.path.is_some()),
            ("sigma0", self.path.sigma0.is_some()),
        ];
        if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
            return Err(Error::invalid(*option, "there", "absent: a theta is a table for its own model already"));
        }
        let table = Theta::compile(&theta.tableau())?;
        Ok(Theta { model: theta.model.clone(), training: theta.training.clone(), ..table })
    }

    fn of_published(&self, solver: &Solver) -> Result<Theta> {
        let card = self.model.as_deref().map(Card::load).transpose()?;
        let own = match &card {
            Some(card) => Some(card.gaussian_path()?),
            None => self.scheduler.path()?,
        };
        let own = own.ok_or_else(|| Error::invalid("scheduler", "absent", "--model CARD or --scheduler NAME"))?;
        let mut theta = solver.theta(&self.path.on(own)?)?;
        if let Some(card) = &card {
            theta.model.0.insert("name".into(), json!(card.name()));
            theta.model.0.insert("fingerprint".into(), json!(card.fingerprint()?));
        }
        theta.training.0.extend(self.path.notes());
        Ok(theta)
    }
}
