//! `bespoke show`

use bespoke::Result;
use bespoke::theta::{Family, Theta};
use std::path::PathBuf;

/// Print a theta: family, steps, knots, and what it was trained for.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  bespoke show theta.json")]
pub struct ShowArgs {
    /// Theta file.
    #[arg(value_name = "THETA")]
    theta: PathBuf,
}

pub fn run(args: ShowArgs) -> Result<()> {
    let theta = Theta::load(&args.theta)?;
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
    Ok(())
}
