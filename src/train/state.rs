//! What a run carries from one iteration to the next. Everything random follows from the seed and
//! the counts in here: with the settings, this is all of a run.

use super::optimize::OptimizerState;
use super::parameters::{Parameters, Shape};
use super::validate::Quality;
use crate::theta::Theta;
use crate::velocity::Evaluations;

/// A theta on its way from one start.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// What it started from.
    pub from: String,
    /// The numbers now.
    pub parameters: Parameters,
    /// Of what moves them.
    pub optimizer: OptimizerState,
    /// The last batch's loss; NaN before the first.
    pub loss: f64,
    /// The last validation.
    pub validation: Quality,
    /// The best validation and its numbers.
    pub best: (Quality, Parameters),
}

impl Candidate {
    /// Keeps the numbers if `validation`, which is theirs, is the best so far.
    pub fn judge(&mut self, validation: Quality) {
        self.validation = validation;
        if validation.rmse < self.best.0.rmse {
            self.best = (validation, self.parameters.clone());
        }
    }
}

/// How far a run has come.
#[derive(Clone, Debug)]
pub struct State {
    /// The leg under way.
    pub leg: usize,
    /// Its iterations done.
    pub iteration: usize,
    /// Iterations done for the rung, over its legs.
    pub rung_iteration: usize,
    /// Evaluations at which the leg ends.
    pub limit: Option<u64>,
    /// What the leg's last iteration took of them.
    pub iteration_cost: u64,
    /// Whether the last validation is of this iteration.
    pub validated: bool,
    /// What is trained.
    pub candidate: Candidate,
    /// What came of the rung's earlier starts.
    pub others: Vec<Candidate>,
    /// Validation of the rung's first start.
    pub start: Quality,
    /// At every validation of the rung: forward-equivalent evaluations of the whole run so far, best rmse.
    pub log: Vec<(u64, f64)>,
    /// Evaluations before the rung, ground truth aside.
    pub before: Evaluations,
    /// How often the pool was drawn.
    pub draws: usize,
    /// Rungs done.
    pub done: Vec<Trained>,
}

impl State {
    /// The best of the rung so far.
    pub fn best(&self) -> &Candidate {
        let least = |best, other| if rmse(other) < rmse(best) { other } else { best };
        self.others.iter().fold(&self.candidate, least)
    }
}

fn rmse(candidate: &Candidate) -> f64 {
    candidate.best.0.rmse
}

/// The same solver in another family: a table of its own stands for any.
pub fn in_shape(parameters: &Parameters, shape: Shape) -> Parameters {
    if parameters.shape == shape { parameters.clone() } else { Parameters::from_tableau(&parameters.tableau()) }
}

/// A solver that was trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The best by validation, with notes in its `training`.
    pub theta: Theta,
    /// Its validation.
    pub best: Quality,
    /// Validation of the solver that training started from.
    pub start: Quality,
    /// What the field was asked for: the ground truth, and for this solver.
    pub evaluations: Evaluations,
}
