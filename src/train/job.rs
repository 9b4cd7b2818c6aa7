//! A run as a job: what it keeps on disk, so that it can be gone on with.

use super::config::TrainConfig;
use crate::document;
use crate::error::{Error, Result};
use crate::output;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// What a run keeps on disk, and what it is of.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// The model's fingerprint; `None` for a field of the caller.
    pub model: Option<String>,
    /// The document, without what says where things are.
    pub config: Map<String, Value>,
    /// Where the run is written to be gone on with.
    pub checkpoint: Option<PathBuf>,
    /// Whether to go on from there, where there is something.
    pub resume: bool,
    /// Where the ground truth is kept.
    pub pool_file: Option<PathBuf>,
    /// Where a line is written for every iteration.
    pub log: Option<PathBuf>,
}

impl TrainConfig {
    /// What the run keeps on disk; `model` is the fingerprint of the model, where there is one.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming keys that do not go together; [`Error::Io`] where a file could not
    /// be written at its end.
    pub fn job(&self, model: Option<String>) -> Result<Job> {
        let resume = self.resume.unwrap_or(false);
        if resume && self.checkpoint.is_none() {
            return Err(Error::invalid("resume", true, "a checkpoint beside it"));
        }
        if self.pool_file.is_some() && (self.pool_refresh.unwrap_or(0) > 0 || self.resolve == Some(true)) {
            let expected = "absent beside pool_refresh and resolve: a pool that is drawn anew is not kept";
            return Err(Error::invalid("pool_file", "there", expected));
        }
        let mut files: Vec<(&str, &PathBuf)> = Vec::new();
        for (key, file) in
            [("out", &self.out), ("checkpoint", &self.checkpoint), ("pool_file", &self.pool_file), ("log", &self.log)]
        {
            let Some(file) = file else { continue };
            if !(key == "pool_file" && file.is_file()) {
                output::check(file)?;
            }
            let again = key == "pool_file" || key == "checkpoint" && resume;
            if again && !output::is_file(file) {
                return Err(Error::invalid(key, file.display(), "a regular file: it is read again"));
            }
            if let Some((other, _)) = files.iter().find(|(_, other)| *other == file) {
                return Err(Error::invalid(key, file.display(), format!("another file than {other}")));
            }
            files.push((key, file));
        }
        let config = self.without_places()?;
        let TrainConfig { checkpoint, pool_file, log, .. } = self.clone();
        Ok(Job { model, config, checkpoint, resume, pool_file, log })
    }

    /// The document without the keys that do not change what comes out, and without `conditions` and `features`, which
    /// are told by what is in them.
    fn without_places(&self) -> Result<Map<String, Value>> {
        let placeless = Self {
            model: None,
            out: None,
            checkpoint: None,
            resume: None,
            pool_file: None,
            log: None,
            device: None,
            triton: None,
            conditions: Vec::new(),
            features: None,
            ..self.clone()
        };
        match document::value(&placeless, "the training configuration")? {
            Value::Object(config) => Ok(config),
            _ => Err(Error::State("a training configuration is a JSON object".into())),
        }
    }
}

/// Refuses a `document` that was made for something else: `key` is what it has, `expected` what
/// this run asks for.
pub(super) fn check_same(document: &str, key: &str, found: &Value, expected: &Value, hint: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let show = |value: &Value| if value.is_null() { "absent".to_owned() } else { value.to_string() };
    Err(Error::format(document, key, format!("is {}, but this run has {}{hint}", show(found), show(expected))))
}

/// [`check_same`] for every key of either object.
pub(super) fn check_all_same(
    document: &str,
    found: &Map<String, Value>,
    expected: &Map<String, Value>,
    hint: &str,
) -> Result<()> {
    for key in found.keys().chain(expected.keys()) {
        let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
        check_same(document, key, &of(found), &of(expected), hint)?;
    }
    Ok(())
}
