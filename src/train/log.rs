//! What a run says as it goes: a JSON object a line.

use super::progress::Progress;
use crate::document;
use crate::error::{Error, Result};
use crate::output::{self, Appended};
use crate::samples::Quality;
use crate::velocity::Evaluations;
use serde::Serialize;
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
    output: Appended,
    bytes: u64,
    keep: Option<u64>,
}

impl Log {
    /// Opens the log at `path`, behind what is there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), output: output::append(path)?, bytes: 0, keep: None })
    }

    /// Cuts the log to its first `bytes` before the next line is written: the run writes again what came after
    /// its checkpoint.
    pub fn keep(&mut self, bytes: u64) {
        self.keep = Some(bytes);
    }

    /// Drops what does not stay.
    fn cut(&mut self) -> std::io::Result<()> {
        // What went into a pipe or to a terminal cannot be taken back.
        if let Some(keep) = self.keep.take()
            && self.output.is_file
        {
            self.bytes = keep.min(self.output.file.metadata()?.len());
            self.output.file.set_len(self.bytes)?;
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
        let mut text = document::line(&line, &self.path.display().to_string())?;
        text.push('\n');
        let written = self.cut().and_then(|()| self.output.file.write_all(text.as_bytes()));
        written.map_err(|e| Error::io("write", &self.path, e))?;
        self.bytes += text.len() as u64;
        Ok(())
    }
}
