//! `bespoke solvers`

use super::say::say;
use bespoke::solvers::{Allowed, SolverName};
use bespoke::{Result, document};
use serde_json::{Value, json};

/// List the published solvers: name, order, allowed nfe, grid, what it is, source.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  bespoke solvers --json\n\n\
    A solver is named NAME@NFE, or NAME@NFE:GRID on another grid than its own: uniform, quadratic, cosine, \
    power=P, logsnr, karras, or times from 0 to 1 separated by commas. docs/solvers.md tells more of each.")]
pub struct SolversArgs {
    /// As JSON, the allowed nfe as least, step and most.
    #[arg(long)]
    json: bool,
}

pub fn run(args: SolversArgs) -> Result<()> {
    if args.json {
        let list: Vec<Value> = SolverName::ALL.iter().map(entry).collect();
        return super::say::text(document::text(&list, "solvers")?.as_bytes());
    }
    let columns = ["name", "order", "nfe", "grid", "description", "source"].map(String::from);
    let rows: Vec<[String; 6]> = std::iter::once(columns).chain(SolverName::ALL.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    for row in &rows {
        let padded: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        say!("{}  {}", padded.join("  "), row[5])?;
    }
    Ok(())
}

fn entry(solver: &SolverName) -> Value {
    let (least, step, most) = solver.nfe.range();
    json!({
        "name": solver.name,
        "order": solver.order,
        "nfe": { "least": least, "step": step, "most": most },
        "grid": solver.grid.to_string(),
        "description": solver.description,
        "source": solver.source,
    })
}

fn row(solver: &SolverName) -> [String; 6] {
    let nfe = match solver.nfe {
        Allowed::Multiples(1) => "any".into(),
        Allowed::Multiples(stages) => format!("{stages}, {}, ...", 2 * stages),
        Allowed::Odd => "odd".into(),
    };
    let (grid, order) = (solver.grid.to_string(), solver.order.to_string());
    [solver.name.into(), order, nfe, grid, solver.description.into(), solver.source.into()]
}
