//! What a run carries from one iteration to the next. Everything random follows from the seed and
//! the counts in here: with the settings, this is all of a run.

use super::accuracy::Accuracy;
use super::config::Optimizer;
use super::objective::Objective;
use super::optimize::OptimizerState;
use super::parameters::Parameters;
use super::schedule::Leg;
use crate::document;
use crate::samples::Quality;
use crate::theta::Theta;
use crate::velocity::Evaluations;
use serde::{Deserialize, Serialize};

/// A theta on its way from one start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// What it started from.
    pub from: String,
    /// Validation of that.
    pub start: Quality,
    /// The numbers now.
    pub parameters: Parameters,
    /// Of what moves them.
    pub optimizer: OptimizerState,
    /// The last batch's loss; NaN before the first.
    #[serde(with = "document::any_number")]
    pub loss: f64,
    /// The last validation.
    pub validation: Quality,
    /// The best validation and its numbers.
    pub best: (Quality, Parameters),
}

impl Candidate {
    /// Keeps the numbers if `validation`, which is theirs, is by the `objective` the best so far, and says whether it
    /// is.
    pub fn judge(&mut self, validation: Quality, objective: &Objective) -> bool {
        self.validation = validation;
        let better = objective.score(&validation) < objective.score(&self.best.0);
        if better {
            self.best = (validation, self.parameters.clone());
        }
        better
    }

    fn fits(&self, leg: &Leg) -> bool {
        let complete = |parameters: &Parameters| parameters.structure == leg.structure && parameters.is_whole();
        complete(&self.parameters)
            && complete(&self.best.1)
            && self.optimizer.fits(leg.phase.optimizer, self.parameters.values.len())
    }
}

/// How far a run has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// What the field's velocities are worth, where a leg differentiates by them: measured once, so that a run that goes on
    /// takes the differences that it began with.
    pub accuracy: Option<Accuracy>,
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
    /// Validations of the leg since the best.
    pub stale: usize,
    /// What is trained.
    pub candidate: Candidate,
    /// What came of the rung's earlier starts.
    pub others: Vec<Candidate>,
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
    /// The best of the rung so far, by the `objective`.
    pub fn best(&self, objective: &Objective) -> &Candidate {
        let score = |candidate: &Candidate| objective.score(&candidate.best.0);
        let least = |best, other| if score(other) < score(best) { other } else { best };
        self.others.iter().fold(&self.candidate, least)
    }
}

impl State {
    /// Whether it is a state of a run of these legs.
    pub fn fits(&self, legs: &[Leg]) -> bool {
        let Some(leg) = legs.get(self.leg) else { return false };
        // Every start of a rung has the rung's structure, except while the theta that it begins with is trained.
        let known = || legs.iter().filter(|other| other.rung == leg.rung);
        let differentiates = |leg: &Leg| leg.phase.optimizer == Optimizer::ForwardGaussNewton;
        self.iteration <= leg.phase.iterations
            && self.accuracy.is_some() == legs.iter().any(differentiates)
            && self.candidate.fits(leg)
            && self.others.iter().all(|other| known().any(|leg| other.fits(leg)))
            && self.done.len() == leg.rung
            && self.draws > 0
    }
}

/// A solver that was trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trained {
    /// The best by validation, with notes in its `training`.
    #[serde(with = "theta_document")]
    pub theta: Theta,
    /// Its validation.
    pub best: Quality,
    /// Validation of the solver that it started from.
    pub start: Quality,
    /// What the field was asked for: the ground truth, and for this solver.
    pub evaluations: Evaluations,
}

/// Serde of a theta as its file.
mod theta_document {
    use crate::theta::Theta;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};
    use serde_json::Value;

    pub fn serialize<S: Serializer>(theta: &Theta, serializer: S) -> Result<S::Ok, S::Error> {
        let text = theta.to_json().map_err(S::Error::custom)?;
        serde_json::from_str::<Value>(&text).map_err(S::Error::custom)?.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Theta, D::Error> {
        Theta::parse(&Value::deserialize(deserializer)?.to_string(), "theta").map_err(D::Error::custom)
    }
}
