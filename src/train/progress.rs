//! What a run says of itself as it goes.

use super::config::Optimizer;
use crate::document;
use crate::samples::Quality;
use crate::velocity::Evaluations;
use serde::Serialize;
use std::ops::ControlFlow;

/// What a run reports as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// Iterations done, over all solvers and their phases.
    pub iteration: usize,
    /// Iterations in all, where no budget ends a phase before.
    pub iterations: usize,
    /// Evaluations of the solver under training.
    pub nfe: usize,
    /// What minimises its loss.
    pub optimizer: Optimizer,
    /// The last batch's loss; NaN before the first.
    #[serde(serialize_with = "document::or_null")]
    pub loss: f64,
    /// The last validation.
    pub validation: Quality,
    /// The best validation so far.
    pub best: Quality,
    /// Whether the last validation is this iteration's.
    pub validated: bool,
    /// What the field was asked for so far.
    pub evaluations: Evaluations,
}

/// Who watches a run: a closure that takes the [`Progress`], or a type of its own.
pub trait Watch {
    /// Called while the ground truth is solved, with the share that is, from 0 to 1; not where it is
    /// read from a file.
    fn ground_truth(&mut self, share: f64) {
        let _ = share;
    }

    /// Called before the first iteration and after every one; `Break` stops the run with the best theta
    /// so far.
    fn iteration(&mut self, progress: &Progress) -> ControlFlow<()>;

    /// Asked where an iteration of a run of one process fails: whether an end was asked for meanwhile. The run then ends with
    /// the best theta so far in place of the error. No by default.
    fn is_asked_to_end(&mut self) -> bool {
        false
    }
}

impl<F: FnMut(&Progress) -> ControlFlow<()>> Watch for F {
    fn iteration(&mut self, progress: &Progress) -> ControlFlow<()> {
        self(progress)
    }
}

/// Whoever watches.
pub type Observer<'a> = dyn Watch + 'a;
