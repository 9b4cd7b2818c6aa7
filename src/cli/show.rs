//! `bespoke show`

use bespoke::ladder::Ladder;
use bespoke::reference::Solver;
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
    if Path::new(&args.theta).exists() {
        let ladder = Ladder::load(Path::new(&args.theta))?;
        if let [_, _, ..] = ladder.rungs() {
            print_ladder(&ladder);
            return Ok(());
        }
    }
    match Solver::parse(&args.theta)? {
        Solver::Theta(_, theta) => print_theta(&theta),
        _ => return Err(Error::invalid("theta", format!("{:?}", args.theta), "a theta or ladder file")),
    }
    Ok(())
}

fn print_ladder(ladder: &Ladder) {
    println!("{:>5}  {:6}  {:>5}  {:>16}", "nfe", "family", "steps", "validation rmse");
    for rung in ladder.rungs() {
        let rmse = rung.training.0.get("validation").and_then(|v| v["rmse"].as_f64());
        let rmse = rmse.map_or("-".into(), |rmse| format!("{rmse:.6}"));
        println!("{:>5}  {:6}  {:>5}  {rmse:>16}", rung.nfe(), rung.family_name(), rung.steps());
    }
}

fn print_theta(theta: &Theta) {
    println!("family  {}", theta.family_name());
    println!("steps   {}", theta.steps());
    println!("nfe     {}", theta.nfe());
    for (title, notes) in [("model", &theta.model), ("training", &theta.training)] {
        if !notes.is_empty() {
            println!("{title}");
        }
        for (key, value) in &notes.0 {
            println!("  {key} = {value}");
        }
    }
    match &theta.family {
        Family::Rk1(knots) | Family::Rk2(knots) => {
            println!("{:>6} {:>10} {:>10} {:>10} {:>10}", "r", "t", "t'", "s", "s'");
            let intervals = knots.t_dot.len();
            for i in 0..=intervals {
                let r = i as f64 / intervals as f64;
                print!("{r:>6.3} {:>10.6} ", knots.t[i]);
                match knots.t_dot.get(i) {
                    Some(t_dot) => println!("{t_dot:>10.6} {:>10.6} {:>10.6}", knots.s[i], knots.s_dot[i]),
                    None => println!("{:>10} {:>10.6}", "", knots.s[i]),
                }
            }
        }
        Family::Ns(table) => {
            println!("{:>10} {:>10}  b", "t", "a");
            for ((t, a), b) in table.t.iter().zip(&table.a).zip(&table.b) {
                let b: Vec<String> = b.iter().map(|b| format!("{b:.6}")).collect();
                println!("{t:>10.6} {a:>10.6}  {}", b.join(" "));
            }
        }
    }
}
