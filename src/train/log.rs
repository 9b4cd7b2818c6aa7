//! What a run says as it goes: a JSON object a line.

use super::run::Progress;
use crate::error::{Error, Result};
use crate::samples::Quality;
use crate::velocity::Evaluations;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// One line.
#[derive(Serialize)]
struct Line {
    iteration: usize,
    nfe: usize,
    /// Of the iteration's batch; `None` before the first.
    loss: Option<f64>,
    /// Where the iteration was validated.
    #[serde(skip_serializing_if = "Option::is_none")]
    validation: Option<Quality>,
    evaluations: Evaluations,
    seconds: f64,
}

/// A log that is being written.
pub struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
    keep: Option<u64>,
}

impl Log {
    /// Opens the log at `path`, behind what is there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(|e| Error::io("write", path, e))?;
        Ok(Self { path: path.to_owned(), file, bytes: 0, keep: None })
    }

    /// Of what is there, only the first `bytes` stay once a line is written: what was said after a
    /// checkpoint is said again.
    pub fn keep(&mut self, bytes: u64) {
        self.keep = Some(bytes);
    }

    /// Drops what does not stay.
    fn cut(&mut self) -> std::io::Result<()> {
        let metadata = self.file.metadata()?;
        // A pipe or a terminal has said what it has said.
        if let Some(keep) = self.keep.take()
            && metadata.is_file()
        {
            self.bytes = keep.min(metadata.len());
            self.file.set_len(self.bytes)?;
        }
        Ok(())
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.keep.unwrap_or(self.bytes)
    }

    /// Writes a line, past any buffer of this process.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&mut self, progress: &Progress, seconds: f64) -> Result<()> {
        let line = Line {
            iteration: progress.iteration,
            nfe: progress.nfe,
            loss: progress.loss.is_finite().then_some(progress.loss),
            validation: progress.validated.then_some(progress.validation),
            evaluations: progress.evaluations,
            seconds,
        };
        let mut text =
            serde_json::to_string(&line).map_err(|e| Error::format(self.path.display().to_string(), ".", e))?;
        text.push('\n');
        let written = self.cut().and_then(|()| self.file.write_all(text.as_bytes()));
        written.map_err(|e| Error::io("write", &self.path, e))?;
        self.bytes += text.len() as u64;
        Ok(())
    }
}
