//! `bespoke ladder`

use super::say::note;
use bespoke::ladder::Ladder;
use bespoke::theta::Theta;
use bespoke::{Error, Result};
use std::path::PathBuf;

/// Join thetas of one model into a ladder: one file, from which a host picks by nfe.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  bespoke ladder theta-4.json theta-6.json theta-10.json --out ladder.json\n  \
    bespoke sample --model models/digits-fm-ot.json --solver ladder.json@8 --out samples.npy\n\n\
    LADDER@NFE is the theta of the greatest nfe that is at most NFE; LADDER alone that of the greatest.")]
pub struct LadderArgs {
    /// Theta or ladder files, in any order; no two thetas of the same nfe.
    #[arg(value_name = "THETA", required = true)]
    thetas: Vec<PathBuf>,
    /// Where the ladder file is written.
    #[arg(long, value_name = "LADDER")]
    out: PathBuf,
}

pub fn run(args: LadderArgs) -> Result<()> {
    let mut rungs: Vec<(String, Theta)> = Vec::new();
    for path in &args.thetas {
        let file = path.display().to_string();
        for theta in Ladder::load(path)?.rungs() {
            check(&rungs, &file, theta)?;
            rungs.push((file.clone(), theta.clone()));
        }
    }
    let ladder = Ladder::new(rungs.into_iter().map(|(_, theta)| theta).collect())?;
    ladder.save(&args.out)?;
    let nfe: Vec<String> = ladder.rungs().iter().map(|rung| rung.nfe().to_string()).collect();
    note!("nfe {} written to {}", nfe.join(", "), args.out.display());
    Ok(())
}

/// Whether `theta` may stand beside `rungs`; the library asks the same, but knows no files.
fn check(rungs: &[(String, Theta)], file: &str, theta: &Theta) -> Result<()> {
    if let Some((other, _)) = rungs.iter().find(|(_, rung)| rung.nfe() == theta.nfe()) {
        let expected = format!("another nfe than that of {other}");
        return Err(Error::invalid(file, format!("a theta of nfe {}", theta.nfe()), expected));
    }
    let Some(own) = model(theta) else { return Ok(()) };
    match rungs.iter().find_map(|(file, rung)| Some((file, model(rung)?))) {
        Some((other, (name, fingerprint))) if fingerprint != own.1 => {
            let expected = format!("one for {name} ({fingerprint}), as {other} is");
            Err(Error::invalid(file, format!("a theta for {} ({})", own.0, own.1), expected))
        }
        _ => Ok(()),
    }
}

/// Name and fingerprint of what it was made for.
fn model(theta: &Theta) -> Option<(&str, &str)> {
    let note = |key| theta.model.text(key);
    Some((note("name").unwrap_or("a model without a name"), note("fingerprint")?))
}
