//! A run on disk. What is random follows from the seed and the counts in here, so that a run that
//! goes on from one comes to the same numbers, bit for bit.

use super::job::{Job, check_all_same, check_same};
use super::schedule::Leg;
use super::settings::Settings;
use super::state::State;
use crate::document;
use crate::error::{Error, Result};
use crate::output;
use crate::velocity::Evaluations;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

const FORMAT: &str = "bespoke-checkpoint";
const VERSION: u64 = 5;

/// What tells a checkpoint from other files.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    format: String,
    #[serde(default)]
    version: u64,
}

/// A checkpoint; `S` is the state or a reference to it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint<S> {
    format: String,
    version: u64,
    /// Fingerprint of the model.
    model: Option<String>,
    /// The document of the run.
    config: Map<String, Value>,
    /// SHA-256 over all choices made, what the run started from included.
    settings: String,
    /// What the field was asked for.
    pub evaluations: Evaluations,
    /// What the ground truth took of that.
    pub ground_truth: Evaluations,
    /// How long the run has taken.
    pub seconds: f64,
    /// Length of the log.
    pub log_bytes: u64,
    /// The run.
    pub state: S,
}

/// What a checkpoint says beside the state.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    pub evaluations: Evaluations,
    pub ground_truth: Evaluations,
    pub seconds: f64,
    pub log_bytes: u64,
}

fn digest(settings: &Settings) -> String {
    let hash = Sha256::digest(format!("{settings:?}"));
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Writes a run; the earlier checkpoint goes when this one is whole.
///
/// # Errors
/// [`Error::Io`]; the earlier file, if any, is then untouched.
pub fn save(path: &Path, job: &Job, settings: &Settings, spent: Spent, state: &State) -> Result<()> {
    let Spent { evaluations, ground_truth, seconds, log_bytes } = spent;
    let checkpoint = Checkpoint {
        format: FORMAT.to_owned(),
        version: VERSION,
        model: job.model.clone(),
        config: job.config.clone(),
        settings: digest(settings),
        evaluations,
        ground_truth,
        seconds,
        log_bytes,
        state,
    };
    let text = document::line(&checkpoint, &path.display().to_string())?;
    output::write_bytes(path, text.as_bytes())
}

/// Reads the run that `job` is, if there is one; another run's is refused.
///
/// # Errors
/// [`Error::Io`], or [`Error::Format`] naming what is wrong or differs.
pub fn load(path: &Path, job: &Job, settings: &Settings, legs: &[Leg]) -> Result<Option<Checkpoint<State>>> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|e| Error::io("read", path, e))?,
    };
    let text = document::without_mark(&text);
    let name = path.display().to_string();
    let hint = "; without --resume, training begins anew";
    let header: Header = serde_json::from_str(text).map_err(|e| {
        let problem = format!("is no whole checkpoint: {e}{hint}");
        Error::format(&name, ".", problem)
    })?;
    check_same(&name, "format", &json!(header.format), &json!(FORMAT), "")?;
    check_same(&name, "version", &json!(header.version), &json!(VERSION), hint)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let found: Checkpoint<State> = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|e| Error::format(&name, e.path().to_string(), e.inner()))?;
    check_same(&name, "model", &json!(found.model), &json!(job.model), &format!(": the model changed{hint}"))?;
    check_all_same(&name, &found.config, &job.config, hint)?;
    let changed = format!(": a theta that training starts from changed{hint}");
    check_same(&name, "settings", &json!(found.settings), &json!(digest(settings)), &changed)?;
    if !found.state.fits(legs) || found.evaluations.forward < found.ground_truth.forward {
        return Err(Error::format(&name, "state", "is not of this run"));
    }
    Ok(Some(found))
}
