//! The training loop (BES Algorithm 3): pool, iterations, validation, the best theta kept.

use super::accuracy::{Accuracy, Differences};
use super::checkpoint::Checkpoint;
use super::config::{Learn, Optimizer, one_or_more};
use super::iteration::{Iteration, TRIED_ON};
use super::job::Job;
use super::journal::Journal;
use super::kept::Kept;
use super::objective::Objective;
use super::optimize::OptimizerState;
use super::parameters::Parameters;
use super::paths::Pool;
use super::pools::{self, Pools};
use super::progress::{Observer, Progress};
use super::schedule::{Leg, Origin, legs};
use super::settings::Settings;
use super::start::Start;
use super::state::{Candidate, State, Trained};
use super::validate;
use crate::distance::Features;
use crate::document::Notes;
use crate::error::{Error, Result};
use crate::ranks::Ranks;
use crate::sampler::Plan;
use crate::samples::{Conditioning, Quality};
use crate::velocity::{Counted, Evaluations, VelocityField};
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;

/// What a run comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The solvers, by increasing nfe; those that were not begun when the run was stopped are missing.
    pub rungs: Vec<Trained>,
    /// Whether the observer stopped it.
    pub stopped: bool,
    /// What the field was asked for, ground truth and validation included.
    pub evaluations: Evaluations,
    /// What the ground truth took of that, before the first iteration.
    pub ground_truth: Evaluations,
}

/// Trains solvers for `field`.
///
/// # Errors
/// The field's own; [`Error::NonFinite`], [`Error::Numeric`] where the ground truth has none.
pub fn train<F: VelocityField>(
    field: &F,
    conditioning: &Conditioning,
    settings: &Settings,
    observer: &mut Observer<'_>,
) -> Result<Outcome> {
    train_job(field, conditioning, settings, None, &Job::default(), &Ranks::alone(), observer)
}

/// [`train`] as a job of all `ranks`: it keeps on disk what `job` says, and goes on from there. Each rank calls this
/// with an observer of its own, any of which stops all ranks, and gets the same outcome. Where there are `features`,
/// distances in them are told at every validation, and losses may be of them.
///
/// # Errors
/// As [`train`]; the features' own; [`Error::State`] for a loss of features without any; [`Error::Io`] and
/// [`Error::Format`] for the job's files.
pub fn train_job<F: VelocityField>(
    field: &F,
    conditioning: &Conditioning,
    settings: &Settings,
    features: Option<&Features>,
    job: &Job,
    ranks: &Ranks,
    observer: &mut Observer<'_>,
) -> Result<Outcome> {
    let field = Counted::new(field, Evaluations::default());
    let legs = legs(settings);
    let mut journal = Journal::open(job, settings)?;
    let resumed = journal.resume(&legs, ranks)?;
    let on_disk = resumed.is_some();
    let draws = resumed.as_ref().map_or(1, |checkpoint| checkpoint.state.draws);
    let watch = &mut |share| observer.ground_truth(share);
    let pools = Pools::prepare(&field, conditioning, settings, job, draws, ranks, watch)?;
    let task = Task { field: &field, conditioning, settings, features, ranks };
    let mut run = Run::begin(task, legs, pools, resumed)?;
    let is_stopped =
        |run: &Run<'_, F>, observer: &mut Observer<'_>| ranks.any(observer.iteration(&run.progress()).is_break());
    let mut stopped = is_stopped(&run, observer);
    if !on_disk {
        run.record(&mut journal, stopped)?;
    }
    loop {
        while !stopped && run.goes_on() {
            match run.iterate() {
                // Several ranks would have to agree on it; there the checkpoint has the best theta.
                Err(error) if ranks.count() == 1 && observer.is_asked_to_end() => {
                    tracing::warn!("the iteration that was under way failed, and was given up: {error}");
                    stopped = true;
                }
                done => {
                    done?;
                    stopped = is_stopped(&run, observer);
                    run.record(&mut journal, stopped)?;
                }
            }
        }
        if stopped || run.state.leg + 1 == run.legs.len() {
            break;
        }
        run.next_leg()?;
        stopped = is_stopped(&run, observer);
        run.record(&mut journal, stopped)?;
    }
    run.finish_rung(stopped)?;
    if !stopped {
        run.kept.clear();
    }
    let (evaluations, ground_truth) = (field.evaluations(), run.ground_truth);
    Ok(Outcome { rungs: run.state.done, stopped, evaluations, ground_truth })
}

/// What a run is of, from its beginning to its end.
struct Task<'a, F: VelocityField> {
    field: &'a Counted<'a, F>,
    conditioning: &'a Conditioning,
    settings: &'a Settings,
    features: Option<&'a Features>,
    ranks: &'a Ranks,
}

impl<F: VelocityField> Clone for Task<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: VelocityField> Copy for Task<'_, F> {}

/// A run under way.
struct Run<'a, F: VelocityField> {
    task: Task<'a, F>,
    legs: Vec<Leg>,
    validation: Pool<F::Tensor>,
    pool: Pool<F::Tensor>,
    ground_truth: Evaluations,
    kept: Kept,
    state: State,
}

impl<'a, F: VelocityField> Run<'a, F> {
    /// Enters the first leg with the ground truth that was solved, or goes on from where the run was.
    fn begin(
        task: Task<'a, F>,
        legs: Vec<Leg>,
        pools: Pools<F::Tensor>,
        resumed: Option<Checkpoint<State>>,
    ) -> Result<Self> {
        let first = *legs.first().ok_or_else(|| Error::invalid("steps", "no count", "at least one"))?;
        let Pools { validation, train: pool, evaluations, kept } = pools;
        let accuracy = match &resumed {
            Some(checkpoint) => checkpoint.state.accuracy,
            None => accuracy(task.field, &legs, &pool, task.ranks)?,
        };
        if let Some(warning) = accuracy.as_ref().and_then(Accuracy::warning).filter(|_| task.ranks.is_first()) {
            tracing::warn!("{warning}");
        }
        let (on_disk, ground_truth, state) = match resumed {
            Some(Checkpoint { evaluations, ground_truth, state, .. }) => (Some(evaluations), ground_truth, state),
            None => {
                let candidate = task.enter(&validation, &first, 0)?;
                let state = State {
                    accuracy,
                    leg: 0,
                    iteration: 0,
                    rung_iteration: 0,
                    limit: None,
                    iteration_cost: first.iteration_cost(),
                    validated: true,
                    stale: 0,
                    log: vec![(task.field.evaluations().equivalents(), candidate.validation.rmse)],
                    candidate,
                    others: Vec::new(),
                    before: Evaluations::default(),
                    draws: 1,
                    done: Vec::new(),
                };
                (None, evaluations, state)
            }
        };
        let mut run = Run { task, legs, validation, pool, ground_truth, kept, state };
        match on_disk {
            Some(evaluations) => {
                run.restore()?;
                task.field.set(evaluations);
            }
            None => run.state.limit = run.limit(),
        }
        Ok(run)
    }

    /// Makes again what of the state a checkpoint does not hold.
    fn restore(&mut self) -> Result<()> {
        let phase = self.leg().phase;
        let (iteration, key) = (self.state.iteration, self.state.rung_iteration);
        let (Task { field, settings, features, ranks, .. }, pool, differences) =
            (self.task, &self.pool, self.state.accuracy.map(Differences::new));
        let step = Iteration { field, features, pool, ranks, settings, phase: &phase, iteration, key, differences };
        let Candidate { parameters, optimizer, .. } = &mut self.state.candidate;
        if let OptimizerState::ForwardGaussNewton(state) = optimizer { step.restore(parameters, state) } else { Ok(()) }
    }

    /// Has it written down how far the run is.
    fn record(&self, journal: &mut Journal<'_>, stopped: bool) -> Result<()> {
        journal.record(&self.progress(), self.ground_truth, &self.state, stopped)
    }

    fn leg(&self) -> &Leg {
        &self.legs[self.state.leg]
    }

    /// The best of the rung so far.
    fn best(&self) -> &Candidate {
        self.state.best(&self.leg().phase.objective)
    }

    fn spent(&self) -> u64 {
        self.task.field.evaluations().equivalents()
    }

    /// Evaluations at which the leg ends: its share of what is left of the budget, by the estimated costs.
    fn limit(&self) -> Option<u64> {
        let budget = self.task.settings.budget?;
        let costs = self.legs[self.state.leg..].iter().map(Leg::cost);
        let share = self.leg().cost() as f64 / costs.fold(0.0, |sum, cost| sum + cost as f64).max(1.0);
        let spent = self.spent();
        Some(spent + (budget.saturating_sub(spent) as f64 * share) as u64)
    }

    /// Whether the leg has iterations left, patience left, and budget for one more iteration and a validation.
    fn goes_on(&self) -> bool {
        let next = self.state.iteration_cost + (self.task.settings.validation * self.leg().structure.nfe()) as u64;
        self.state.iteration < self.leg().phase.iterations
            && self.task.settings.patience.is_none_or(|patience| self.state.stale < patience)
            && self.state.limit.is_none_or(|limit| self.spent() + next <= limit)
    }

    fn progress(&self) -> Progress {
        let State { leg, iteration, validated, candidate, .. } = &self.state;
        let before: usize = self.legs[..*leg].iter().map(|leg| leg.phase.iterations).sum();
        Progress {
            iteration: before + iteration,
            iterations: self.legs.iter().map(|leg| leg.phase.iterations).sum(),
            nfe: self.leg().structure.nfe(),
            optimizer: self.leg().phase.optimizer,
            loss: candidate.loss,
            validation: candidate.validation,
            best: self.best().best.0,
            validated: *validated,
            evaluations: self.task.field.evaluations(),
        }
    }

    fn iterate(&mut self) -> Result<()> {
        let before = self.spent();
        let key = self.state.rung_iteration;
        let refresh = self.task.settings.pool_refresh;
        if refresh > 0 && key > 0 && key.is_multiple_of(refresh) {
            let Task { field, conditioning, settings, ranks, .. } = self.task;
            self.pool = pools::draw(field, conditioning, settings, self.state.draws, ranks, &mut |_| ())?;
            self.state.draws += 1;
            self.state.candidate.optimizer.forget_samples();
        }
        let phase = self.leg().phase;
        let (Task { field, settings, features, ranks, .. }, pool) = (self.task, &self.pool);
        let candidate = &mut self.state.candidate;
        let (iteration, differences) = (self.state.iteration, self.state.accuracy.map(Differences::new));
        let step = Iteration { field, features, pool, ranks, settings, phase: &phase, iteration, key, differences };
        candidate.loss = step.take(&mut candidate.parameters, &mut candidate.optimizer)?;
        field.settle(ranks);
        self.state.iteration += 1;
        self.state.rung_iteration += 1;
        // The next one makes this one's samples' errors anew, beside those of the samples before.
        let growth = match phase.optimizer {
            Optimizer::ForwardGaussNewton => (phase.batch * self.leg().structure.nfe()) as u64,
            Optimizer::Adam | Optimizer::GaussNewton => 0,
        };
        self.state.iteration_cost = self.spent() - before + growth;
        let every = settings.validate_every.unwrap_or((phase.iterations / 12).max(1));
        self.state.validated = self.state.iteration.is_multiple_of(every) || !self.goes_on();
        if self.state.validated {
            let quality = self.task.quality(&self.validation, &self.state.candidate.parameters)?;
            let better = self.state.candidate.judge(quality, &phase.objective);
            self.state.stale = if better { 0 } else { self.state.stale + 1 };
            let entry = (self.spent(), self.best().best.0.rmse);
            self.state.log.push(entry);
        }
        Ok(())
    }

    /// Goes from a leg that is done to the next.
    fn next_leg(&mut self) -> Result<()> {
        let next = self.legs[self.state.leg + 1];
        let new_rung = next.rung != self.leg().rung;
        if new_rung {
            self.finish_rung(false)?;
        }
        match next.origin {
            Origin::Start(i) => {
                let entered = self.task.enter(&self.validation, &next, i)?;
                let mut last = std::mem::replace(&mut self.state.candidate, entered);
                last.optimizer.forget_samples();
                if !new_rung {
                    self.state.others.push(last);
                }
            }
            Origin::Carried => {
                let last = &mut self.state.candidate;
                let coordinates = next.coordinates(last.parameters.learn);
                last.parameters = last.best.1.in_structure(next.structure).in_coordinates(coordinates)?;
                last.best.1 = last.parameters.clone();
                last.validation = last.best.0;
                last.optimizer = OptimizerState::new(next.phase.optimizer, last.parameters.values.len());
            }
            Origin::Winner => {
                let score = |candidate: &Candidate| self.leg().phase.objective.score(&candidate.best.0);
                let best = score(self.best());
                let is_best = |other: &Candidate| score(other) == best;
                if let Some(i) = self.state.others.iter().position(is_best) {
                    std::mem::swap(&mut self.state.candidate, &mut self.state.others[i]);
                }
            }
        }
        self.state.validated = matches!(next.origin, Origin::Start(_));
        self.state.leg += 1;
        self.state.iteration = 0;
        self.state.stale = 0;
        self.state.iteration_cost = next.iteration_cost();
        self.state.limit = self.limit();
        Ok(())
    }

    /// The best of the rung, with its notes, joins those that are done.
    fn finish_rung(&mut self, stopped: bool) -> Result<()> {
        let leg = *self.leg();
        let best = self.best();
        let mut theta = best.best.1.in_structure(self.task.settings.rungs[leg.rung].structure).theta()?;
        let (all, before, truth) = (self.task.field.evaluations(), self.state.before, self.ground_truth);
        let evaluations =
            Evaluations { forward: all.forward - before.forward, backward: all.backward - before.backward };
        theta.training = self.notes(best, evaluations, stopped);
        let trained = Trained { theta, best: best.best.0, start: best.start, evaluations };
        self.state.done.push(trained);
        self.state.others.clear();
        self.state.log.clear();
        self.state.rung_iteration = 0;
        self.state.before =
            Evaluations { forward: all.forward - truth.forward, backward: all.backward - truth.backward };
        Ok(())
    }

    fn notes(&self, best: &Candidate, evaluations: Evaluations, stopped: bool) -> Notes {
        let (settings, leg, state) = (self.task.settings, self.leg(), &self.state);
        let phase = leg.phase;
        let phases = &settings.rungs[leg.rung].phases;
        let losses: Vec<_> = phases.iter().flat_map(|phase| phase.objective.list()).collect();
        let all = self.spent();
        let notes = json!({
            "loss": one_or_more::json(&losses),
            "features": self.task.features.map(|features| features.card().name()),
            "optimizer": phase.optimizer,
            "learn": (state.candidate.parameters.learn != Learn::Both).then_some(state.candidate.parameters.learn),
            "iterations": state.rung_iteration,
            "batch": phase.batch,
            "lr": phases.iter().any(|phase| phase.optimizer == Optimizer::Adam).then_some(settings.lr),
            "accuracy": self.state.accuracy,
            "warnings": self.state.accuracy.as_ref().and_then(Accuracy::warning).map(|warning| [warning]),
            "l_tau": settings.dense().then_some(settings.l_tau),
            "seed": settings.seed,
            "pool": settings.pool,
            "pool_refresh": settings.pool_refresh,
            "patience": settings.patience,
            "tolerance": settings.tolerance,
            "evaluations": evaluations,
            "ground_truth_evaluations": self.ground_truth.forward,
            "budget": settings.budget.map(|budget| json!({ "evaluations": budget, "spent": all })),
            "validation": Measured { what: json!({ "count": settings.validation }), quality: best.best.0 },
            "start": Measured { what: json!({ "solver": best.from }), quality: best.start },
            "log": state.log,
            "stopped": stopped,
            "version": env!("CARGO_PKG_VERSION"),
        });
        match notes {
            serde_json::Value::Object(mut map) => {
                map.retain(|_, value| !value.is_null());
                Notes(map)
            }
            _ => Notes::default(),
        }
    }
}

/// A quality, and what it is of.
#[derive(Serialize)]
struct Measured {
    #[serde(flatten)]
    what: serde_json::Value,
    #[serde(flatten)]
    quality: Quality,
}

/// What the field's velocities are worth, where a leg differentiates it by forward passes; the first rank measures it.
fn accuracy<F: VelocityField>(
    field: &Counted<'_, F>,
    legs: &[Leg],
    pool: &Pool<F::Tensor>,
    ranks: &Ranks,
) -> Result<Option<Accuracy>> {
    if legs.iter().all(|leg| leg.phase.optimizer != Optimizer::ForwardGaussNewton) {
        return Ok(None);
    }
    let measured = ranks.is_first().then(|| Accuracy::measure(field, pool)).transpose()?;
    let found = ranks.of_first(measured)?;
    field.settle(ranks);
    Ok(found)
}

/// Of many solvers to start from, so many are left after all were seen on a quarter of the validation noises, at most
/// so many, and each time no more than a share of the budget's rest pays for.
const FINALISTS: usize = 6;
const SEEN_FIRST: usize = 20;
const CHOICE_SHARE: u64 = 10;

impl<F: VelocityField> Task<'_, F> {
    fn quality(&self, validation: &Pool<F::Tensor>, parameters: &Parameters) -> Result<Quality> {
        let plan = Arc::new(Plan::new(parameters.tableau()));
        let Task { field, settings, features, ranks, .. } = self;
        let errors =
            validate::errors(&plan, *field, validation, &validation.first(validation.size()), *features, ranks)?;
        field.settle(ranks);
        Ok(errors.quality(settings.range))
    }

    /// The `index`th start of the rung that `leg` is of, validated.
    fn enter(&self, validation: &Pool<F::Tensor>, leg: &Leg, index: usize) -> Result<Candidate> {
        let objective = &leg.phase.objective;
        let (from, parameters) = match &self.settings.rungs[leg.rung].starts[index] {
            Start::Given { name, parameters, .. } => (name.clone(), parameters.clone()),
            Start::BestOf(solvers) => self.best_of(validation, solvers, objective)?,
            Start::Bespoke(structure, solvers) => {
                let family = if structure.stages_per_step() == 2 { "rk2" } else { "rk1" };
                (format!("{family}@{}", structure.nfe()), self.best_of(validation, solvers, objective)?.1)
            }
        };
        let coordinates = leg.coordinates(parameters.learn);
        let parameters = parameters.in_coordinates(coordinates)?;
        let validated = self.quality(validation, &parameters)?;
        let optimizer = OptimizerState::new(leg.phase.optimizer, parameters.values.len());
        let best = (validated, parameters.clone());
        Ok(Candidate { from, start: validated, parameters, optimizer, loss: f64::NAN, validation: validated, best })
    }

    /// The solver that the objective prefers on a few samples; of many, of those that it prefers on fewer.
    fn best_of(
        &self,
        validation: &Pool<F::Tensor>,
        solvers: &[(String, Parameters)],
        objective: &Objective,
    ) -> Result<(String, Parameters)> {
        if let [only] = solvers {
            return Ok(only.clone());
        }
        let mut solvers: Vec<_> = solvers.iter().collect();
        if solvers.len() > FINALISTS {
            let few = validation.size().div_ceil(4).min(SEEN_FIRST);
            solvers = self.ranked(validation, few, &solvers, objective)?;
            solvers.truncate(FINALISTS);
        }
        let none = || Error::Numeric("no solver to start from has a finite error at this nfe".into());
        self.ranked(validation, TRIED_ON, &solvers, objective)?.first().map(|best| (*best).clone()).ok_or_else(none)
    }

    /// Those of `solvers` that have a finite error on the first `count` of the samples, the best first; on fewer, where
    /// the budget is short, and on one at least.
    fn ranked<'a>(
        &self,
        validation: &Pool<F::Tensor>,
        count: usize,
        solvers: &[&'a (String, Parameters)],
        objective: &Objective,
    ) -> Result<Vec<&'a (String, Parameters)>> {
        let Task { field, settings, features, ranks, .. } = self;
        let evaluations = solvers.iter().map(|(_, parameters)| parameters.structure.nfe() as u64).sum::<u64>();
        let spare = |budget: u64| budget.saturating_sub(field.evaluations().equivalents()) / CHOICE_SHARE;
        let affordable = settings.budget.map_or(u64::MAX, |budget| spare(budget) / evaluations.max(1)).max(1);
        let rows = validation.first(count.min(usize::try_from(affordable).unwrap_or(usize::MAX)));
        let mut scored = Vec::with_capacity(solvers.len());
        for solver in solvers {
            let plan = Arc::new(Plan::new(solver.1.tableau()));
            match validate::errors(&plan, *field, validation, &rows, *features, ranks) {
                Ok(errors) => scored.push((objective.score(&errors.quality(settings.range)), *solver)),
                // A solver that diverges here is not the best.
                Err(Error::NonFinite { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        field.settle(ranks);
        scored.retain(|(score, _)| score.is_finite());
        scored.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        Ok(scored.into_iter().map(|(_, solver)| solver).collect())
    }
}
