//! A ladder: thetas of one model for several counts of evaluations, chosen from at serving time.

use crate::document;
use crate::error::{Error, Result};
use crate::theta::{MODEL_KEYS, Theta, ThetaFile};
use serde::{Deserialize, Serialize};
use std::path::Path;

const FORMAT: &str = "bespoke-ladder";
const VERSION: u64 = 1;

/// Rungs at most: one file holds one model's thetas, not an archive.
pub const MAX_RUNGS: usize = 1000;

/// Thetas of one model, by increasing nfe. Immutable once made.
/// ```
/// use bespoke::ladder::Ladder;
/// use bespoke::path::GaussianPath;
/// use bespoke::reference::Solver;
/// use bespoke::scheduler::Scheduler;
///
/// let path = GaussianPath::new(Scheduler::FmOt, 1.0)?;
/// let rungs = ["euler@4", "midpoint@8"].map(|name| Solver::parse(name)?.theta(&path));
/// let ladder = Ladder::new(rungs.into_iter().collect::<Result<_, _>>()?)?;
/// assert_eq!(ladder.best(10)?.nfe(), 8);
/// assert!(ladder.best(3).is_err());
/// # Ok::<(), bespoke::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Ladder {
    rungs: Vec<Theta>,
}

/// The file (version 1), see `docs/formats.md`: a theta document in each rung.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    version: u64,
    rungs: Vec<ThetaFile>,
}

/// What tells a ladder from a theta.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    format: String,
}

impl Ladder {
    /// A ladder of `rungs`, in any order.
    ///
    /// # Errors
    /// [`Error::Invalid`] for none, for two of the same nfe, and for thetas of different models
    /// (by the `fingerprint` and `velocity_model` of their `model`, where both have them).
    pub fn new(mut rungs: Vec<Theta>) -> Result<Self> {
        if rungs.is_empty() || rungs.len() > MAX_RUNGS {
            return Err(Error::invalid("rungs", format!("{} thetas", rungs.len()), format!("1 to {MAX_RUNGS} thetas")));
        }
        rungs.sort_by_key(Theta::nfe);
        if let Some(i) = (1..rungs.len()).find(|&i| rungs[i].nfe() == rungs[i - 1].nfe()) {
            let expected = "an nfe that no other rung has";
            return Err(Error::invalid(format!("rungs[{i}]"), format!("a theta of nfe {}", rungs[i].nfe()), expected));
        }
        for key in MODEL_KEYS {
            let mut known: Option<&str> = None;
            for (i, rung) in rungs.iter().enumerate() {
                let Some(own) = rung.model.text(key) else { continue };
                let first = *known.get_or_insert(own);
                if own != first {
                    let expected = format!("{first}, the model of the rungs before it");
                    return Err(Error::invalid(format!("rungs[{i}].model.{key}"), own, expected));
                }
            }
        }
        Ok(Self { rungs })
    }

    /// Reads a ladder file; a theta file is a ladder of one rung.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] naming the key at fault.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&document::read_text(path)?, &path.display().to_string())
    }

    /// Parses the text of a ladder or theta file; `name` is what messages call it.
    ///
    /// # Errors
    /// [`Error::Format`] naming the key at fault.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let head: Head = document::parse(text, name)?;
        if head.format != FORMAT {
            return Ok(Self { rungs: vec![Theta::parse(text, name)?] });
        }
        let file: File = document::parse(text, name)?;
        document::check_format(name, (FORMAT, file.version), (FORMAT, VERSION))?;
        let rung = |(i, file): (usize, ThetaFile)| {
            Theta::from_file(file, name).map_err(|e| match e {
                Error::Format { document, field, problem } => {
                    Error::Format { document, field: format!("rungs[{i}].{field}"), problem }
                }
                other => other,
            })
        };
        let rungs = file.rungs.into_iter().enumerate().map(rung).collect::<Result<Vec<_>>>()?;
        if let Some(i) = (1..rungs.len()).find(|&i| rungs[i].nfe() <= rungs[i - 1].nfe()) {
            let problem = format!("has nfe {} after {}, expected increasing nfe", rungs[i].nfe(), rungs[i - 1].nfe());
            return Err(Error::format(name, format!("rungs[{i}]"), problem));
        }
        Self::new(rungs).map_err(|e| match e {
            Error::Invalid { field, value, expected } => {
                Error::format(name, field, format!("is {value}, expected {expected}"))
            }
            other => other,
        })
    }

    /// Writes a ladder file, atomically.
    ///
    /// # Errors
    /// [`Error::Io`]; an earlier file is then untouched.
    pub fn save(&self, path: &Path) -> Result<()> {
        let rungs = self.rungs.iter().map(Theta::to_file).collect();
        document::write(path, &File { format: FORMAT.into(), version: VERSION, rungs })
    }

    /// The thetas, by increasing nfe; at least one.
    pub fn rungs(&self) -> &[Theta] {
        &self.rungs
    }

    /// The theta of the greatest nfe that is at most `nfe_at_most`.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the least nfe there is, where that is more.
    pub fn best(&self, nfe_at_most: usize) -> Result<&Theta> {
        self.rungs.iter().rfind(|rung| rung.nfe() <= nfe_at_most).ok_or_else(|| {
            let least = self.rungs.first().map_or(0, Theta::nfe);
            Error::invalid("nfe_at_most", nfe_at_most, format!("at least {least}, the least nfe of this ladder"))
        })
    }
}
