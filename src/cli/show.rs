//! `bespoke show`

use super::say::say;
use bespoke::ladder::Ladder;
use bespoke::reference::{Reference, Solver};
use bespoke::theta::{Family, Theta};
use bespoke::{Error, Result};
use std::path::Path;

/// Print a theta: family, steps, knots, and what it was trained for; of a ladder, its rungs.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  bespoke show theta.json\n  bespoke show ladder.json\n  bespoke show ladder.json@8")]
pub struct ShowArgs {
    /// Theta file, ladder file, or LADDER@NFE.
    #[arg(value_name = "THETA")]
    theta: String,
}

pub fn run(args: ShowArgs) -> Result<()> {
    if let Reference::File { name, nfe_at_most: None } = Reference::on_disk(&args.theta)? {
        let ladder = Ladder::load(Path::new(name))?;
        if let [_, _, ..] = ladder.rungs() {
            return print_ladder(&ladder);
        }
    }
    match Solver::parse(&args.theta)? {
        Solver::Theta(_, theta) => print_theta(&theta),
        _ => Err(Error::invalid("theta", format!("{:?}", args.theta), "a theta or ladder file")),
    }
}

fn print_ladder(ladder: &Ladder) -> Result<()> {
    say!("{:>5}  {:6}  {:>5}  {:>16}", "nfe", "family", "steps", "validation rmse")?;
    for rung in ladder.rungs() {
        let rmse = rung.training.0.get("validation").and_then(|v| v["rmse"].as_f64());
        let rmse = rmse.map_or("-".into(), |rmse| format!("{rmse:.6}"));
        say!("{:>5}  {:6}  {:>5}  {rmse:>16}", rung.nfe(), rung.family_name(), rung.steps())?;
    }
    Ok(())
}

fn print_theta(theta: &Theta) -> Result<()> {
    say!("family  {}", theta.family_name())?;
    say!("steps   {}", theta.steps())?;
    say!("nfe     {}", theta.nfe())?;
    for (title, notes) in [("model", &theta.model), ("training", &theta.training)] {
        if !notes.is_empty() {
            say!("{title}")?;
        }
        for (key, value) in &notes.0 {
            say!("  {key} = {value}")?;
        }
    }
    match &theta.family {
        Family::Rk1(knots) | Family::Rk2(knots) => {
            say!("{:>6} {:>10} {:>10} {:>10} {:>10}", "r", "t", "t'", "s", "s'")?;
            let intervals = knots.t_dot.len();
            for i in 0..=intervals {
                let r = i as f64 / intervals as f64;
                let (t, s) = (knots.t[i], knots.s[i]);
                match knots.t_dot.get(i) {
                    Some(t_dot) => say!("{r:>6.3} {t:>10.6} {t_dot:>10.6} {s:>10.6} {:>10.6}", knots.s_dot[i])?,
                    None => say!("{r:>6.3} {t:>10.6} {:>10} {s:>10.6}", "")?,
                }
            }
        }
        Family::Ns(table) => {
            say!("{:>10} {:>10}  b", "t", "a")?;
            for ((t, a), b) in table.t.iter().zip(&table.a).zip(&table.b) {
                let b: Vec<String> = b.iter().map(|b| format!("{b:.6}")).collect();
                say!("{t:>10.6} {a:>10.6}  {}", b.join(" "))?;
            }
        }
    }
    Ok(())
}
