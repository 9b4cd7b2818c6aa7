//! The training loop (BES Algorithm 3): pool, iterations, validation, the best theta kept.

use super::config::{Optimizer, Settings, TrainConfig};
use super::loss::{Direct, bound_loss, direct_loss, direct_residual};
use super::optimize::{Adam, GaussNewton, Trial, cosine_decay, gauss_newton_weights};
use super::parameters::Parameters;
use super::paths::{Conditioning, Pool, PoolOptions};
use super::start::start_on_path;
use super::validate::{self, Quality};
use crate::document::Notes;
use crate::error::{Error, Result};
use crate::model::{self, Device, Model};
use crate::noise::{self, Purpose};
use crate::sampler::Plan;
use crate::tensor::Tensor;
use crate::theta::Theta;
use crate::velocity::{Counted, Evaluations, VelocityField};
use crate::with_field;
use rand::seq::index;
use serde::Serialize;
use serde_json::json;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Samples solved at once for ground truth and validation.
const CHUNK: usize = 250;
/// Samples of the pool on which Gauss-Newton's steps are tried, and which it does not learn from.
const TRIED_ON: usize = 100;

/// What a run reports as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// Iterations done.
    pub iteration: usize,
    /// Iterations in all.
    pub iterations: usize,
    /// The last batch's loss; NaN before the first.
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

/// Called after every iteration; `Break` stops the run with the best theta so far.
pub type Observer<'a> = dyn FnMut(&Progress) -> ControlFlow<()> + 'a;

/// What a run comes to.
pub struct Outcome {
    /// The best by validation, with notes in its `training`.
    pub theta: Theta,
    /// Its validation.
    pub best: Quality,
    /// Validation of the solver that training started from.
    pub start: Quality,
    /// Whether the observer stopped it.
    pub stopped: bool,
    /// What the field was asked for, ground truth and validation included.
    pub evaluations: Evaluations,
}

/// Trains as `config` says, on the model that it names.
///
/// # Errors
/// [`Error::Invalid`] naming the key at fault; the model's, the field's and the file's own.
pub fn train_config(config: &TrainConfig, observer: &mut Observer<'_>) -> Result<Outcome> {
    if config.field.is_some() {
        return Err(Error::invalid("field", "there", "absent: only a host that gives its functions can train on them"));
    }
    let path = config.model.as_deref().ok_or_else(|| Error::invalid("model", "absent", "the path of a model card"))?;
    let device: Device = config.device.as_deref().unwrap_or("cpu").parse()?;
    let model = model::open(path, device)?;
    let [low, high] = model.card().data_range;
    let mut settings = config.settings(high - low)?;
    if config.path.is_some() || config.sigma0.is_some() {
        let path = model.card().gaussian_path()?.on_named(config.path.as_deref(), config.sigma0)?;
        settings.start = start_on_path(settings.start.shape, &path)?;
    }
    let conditioning = conditioning(&model, config.class, config.guidance_scale)?;
    let mut outcome = with_field!(&model, field => train(field, &conditioning, &settings, observer))?;
    outcome.theta.model = model_notes(&model, &conditioning)?;
    if let Some(out) = &config.out {
        outcome.theta.save(out)?;
    }
    Ok(outcome)
}

/// Trains as `config` says, on a `field` of the caller that `config.field` describes.
///
/// A field without a vector-Jacobian product is trained by differences, with the `rmse-bound` loss.
///
/// # Errors
/// [`Error::Invalid`] naming the key at fault; the field's and the file's own.
pub fn train_field<F: VelocityField>(config: &TrainConfig, field: &F, observer: &mut Observer<'_>) -> Result<Outcome> {
    let description = config.field.as_ref().ok_or_else(|| Error::invalid("field", "absent", "the caller's field"))?;
    description.validate()?;
    for (key, given) in [
        ("model", config.model.is_some()),
        ("device", config.device.is_some()),
        ("guidance_scale", config.guidance_scale.is_some()),
        ("path", config.path.is_some()),
        ("sigma0", config.sigma0.is_some()),
    ] {
        if given {
            return Err(Error::invalid(key, "there", "absent beside field: the caller's functions see to it"));
        }
    }
    if let Some(class) = config.class.filter(|class| !(0..description.classes).contains(class)) {
        let expected = format!("0 to {}", description.classes - 1);
        return Err(Error::invalid("class", class, if description.classes > 0 { &expected } else { "absent" }));
    }
    let [low, high] = description.data_range;
    let mut config = config.clone();
    if !field.differentiable() {
        config.loss = config.loss.or(Some(super::config::Loss::RmseBound));
    }
    let settings = config.settings(high - low)?;
    if !field.differentiable() && settings.loss.direct().is_some() {
        let expected = "rmse-bound: the field has no vector-Jacobian product";
        return Err(Error::invalid("loss", json!(settings.loss), expected));
    }
    let conditioning = Conditioning { classes: description.classes, class: config.class, guidance_scale: 1.0 };
    let mut outcome = train(field, &conditioning, &settings, observer)?;
    let mut notes = serde_json::Map::new();
    notes.extend(description.name.as_ref().map(|name| ("name".into(), json!(name))));
    notes.insert("shape".into(), json!(description.shape));
    notes.extend(config.class.map(|class| ("class".into(), json!(class))));
    outcome.theta.model = Notes(notes);
    if let Some(out) = &config.out {
        outcome.theta.save(out)?;
    }
    Ok(outcome)
}

/// The conditioning that a class and a guidance scale ask of a model.
///
/// # Errors
/// [`Error::Invalid`] naming what the model does not have.
pub fn conditioning(model: &Model, class: Option<i64>, guidance_scale: Option<f64>) -> Result<Conditioning> {
    let card = model.card();
    if let Some(class) = class
        && !((0..card.classes).contains(&class) || Some(class) == card.null_class)
    {
        let expected = match card.classes {
            0 => "absent: the model has no classes".to_owned(),
            classes => format!("0 to {}", classes - 1),
        };
        return Err(Error::invalid("class", class, expected));
    }
    let guidance_scale = guidance_scale.unwrap_or(1.0);
    if !guidance_scale.is_finite() || (guidance_scale != 1.0 && card.null_class.is_none()) {
        let expected = if card.null_class.is_none() { "1: the model has no null_class" } else { "a finite number" };
        return Err(Error::invalid("guidance_scale", guidance_scale, expected));
    }
    Ok(Conditioning { classes: card.classes, class, guidance_scale })
}

fn model_notes(model: &Model, conditioning: &Conditioning) -> Result<Notes> {
    let card = model.card();
    let mut notes = serde_json::Map::new();
    notes.insert("name".into(), json!(card.name()));
    notes.insert("fingerprint".into(), json!(card.fingerprint()?));
    notes.insert("shape".into(), json!(card.shape));
    notes.insert("output".into(), json!(card.output));
    notes.insert("scheduler".into(), json!(card.scheduler));
    notes.insert("end".into(), json!(card.time.end));
    notes.insert("guidance_scale".into(), json!(conditioning.guidance_scale));
    if let Some(class) = conditioning.class {
        notes.insert("class".into(), json!(class));
    }
    Ok(Notes(notes))
}

/// What the loop carries.
struct Run<'a, F: VelocityField> {
    field: Counted<'a, F>,
    conditioning: &'a Conditioning,
    settings: &'a Settings,
    parameters: Parameters,
    pool: Pool<F::Tensor>,
    /// How often the pool was drawn.
    draws: usize,
}

/// Trains a solver for `field`.
///
/// # Errors
/// The field's own; [`Error::NonFinite`], [`Error::Numeric`] where the ground truth has none.
pub fn train<F: VelocityField>(
    field: &F,
    conditioning: &Conditioning,
    settings: &Settings,
    observer: &mut Observer<'_>,
) -> Result<Outcome> {
    let field = Counted::new(field, Evaluations::default());
    let validation_options = PoolOptions {
        purpose: Purpose::Validation,
        seed: settings.seed,
        indices: 0..settings.validation,
        chunk: CHUNK,
        tolerance: settings.tolerance,
        dense: false,
    };
    let validation = Pool::solve(&field, conditioning, &validation_options)?;
    let pool = Pool::solve(&field, conditioning, &pool_options(settings, 0))?;
    let gt = field.evaluations();
    let parameters = settings.start.clone();
    let mut run = Run { field, conditioning, settings, parameters, pool, draws: 1 };
    let start = run.validate(&validation)?;
    let mut best = (start, run.parameters.clone());
    let mut progress = Progress {
        iteration: 0,
        iterations: settings.iterations,
        loss: f64::NAN,
        validation: start,
        best: start,
        validated: true,
        evaluations: run.field.evaluations(),
    };
    let mut stopped = observer(&progress).is_break();
    let mut optimizer = run.optimizer();
    while progress.iteration < settings.iterations && !stopped {
        progress.loss = run.iterate(progress.iteration, &mut optimizer)?;
        progress.iteration += 1;
        progress.validated =
            progress.iteration.is_multiple_of(settings.validate_every) || progress.iteration == settings.iterations;
        if progress.validated {
            progress.validation = run.validate(&validation)?;
            if progress.validation.rmse < best.0.rmse {
                best = (progress.validation, run.parameters.clone());
            }
            progress.best = best.0;
        }
        progress.evaluations = run.field.evaluations();
        stopped = observer(&progress).is_break();
    }
    let mut theta = best.1.theta()?;
    theta.training = training_notes(settings, &progress, start, gt, stopped);
    Ok(Outcome { theta, best: best.0, start, stopped, evaluations: progress.evaluations })
}

/// The pool's noises: the `draw`th lot.
fn pool_options(settings: &Settings, draw: usize) -> PoolOptions {
    PoolOptions {
        purpose: Purpose::Train,
        seed: settings.seed,
        indices: draw * settings.pool..(draw + 1) * settings.pool,
        chunk: CHUNK,
        tolerance: settings.tolerance,
        dense: settings.loss.direct().is_none(),
    }
}

fn training_notes(settings: &Settings, progress: &Progress, start: Quality, gt: Evaluations, stopped: bool) -> Notes {
    let adam = settings.optimizer == Optimizer::Adam;
    let notes = json!({
        "loss": settings.loss,
        "optimizer": settings.optimizer,
        "iterations": progress.iteration,
        "batch": settings.batch,
        "lr": adam.then_some(settings.lr),
        "l_tau": settings.loss.direct().is_none().then_some(settings.l_tau),
        "seed": settings.seed,
        "pool": settings.pool,
        "pool_refresh": settings.pool_refresh,
        "tolerance": settings.tolerance,
        "evaluations": progress.evaluations,
        "ground_truth_evaluations": gt.forward,
        "validation": { "count": settings.validation, "rmse": progress.best.rmse, "psnr": progress.best.psnr },
        "start": { "rmse": start.rmse, "psnr": start.psnr },
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

/// State of either optimiser.
enum State {
    Adam(Adam),
    GaussNewton(GaussNewton),
}

impl<F: VelocityField> Run<'_, F> {
    fn optimizer(&self) -> State {
        match self.settings.optimizer {
            Optimizer::Adam => State::Adam(Adam::new(self.parameters.values.len())),
            Optimizer::GaussNewton => State::GaussNewton(GaussNewton::default()),
        }
    }

    fn validate(&self, pool: &Pool<F::Tensor>) -> Result<Quality> {
        let plan = Arc::new(Plan::new(self.parameters.tableau()));
        Ok(validate::errors(&plan, &self.field, pool, 0..pool.size(), CHUNK)?.quality(self.settings.range))
    }

    /// One iteration; gives the batch's loss.
    fn iterate(&mut self, iteration: usize, state: &mut State) -> Result<f64> {
        let refresh = self.settings.pool_refresh;
        if refresh > 0 && iteration > 0 && iteration.is_multiple_of(refresh) {
            self.pool = Pool::solve(&self.field, self.conditioning, &pool_options(self.settings, self.draws))?;
            self.draws += 1;
        }
        match state {
            State::Adam(adam) => self.adam(iteration, adam),
            State::GaussNewton(gauss_newton) => self.gauss_newton(iteration, gauss_newton),
        }
    }

    /// `count` of the first `among` samples of the pool, in increasing order.
    fn choose(&self, iteration: usize, count: usize, among: usize) -> Vec<usize> {
        let mut rng = noise::generator(self.settings.seed, Purpose::Choice, iteration as u64);
        let mut rows = index::sample(&mut rng, among, count).into_vec();
        rows.sort_unstable();
        rows
    }

    fn adam(&mut self, iteration: usize, adam: &mut Adam) -> Result<f64> {
        let Settings { batch, loss, l_tau, lr, iterations, .. } = *self.settings;
        let rows = self.choose(iteration, batch, self.pool.size());
        let found = match loss.direct() {
            None => bound_loss(&self.parameters, l_tau, &self.field, &self.pool, &rows)?,
            Some(direct) => direct_loss(direct, &self.parameters, &self.field, &self.pool, &rows)?,
        };
        adam.step(&mut self.parameters.values, &found.gradient, cosine_decay(lr, iteration, iterations));
        Ok(found.loss)
    }

    fn gauss_newton(&mut self, iteration: usize, state: &mut GaussNewton) -> Result<f64> {
        let size = self.pool.size();
        // A small pool cannot spare samples that are only tried on.
        let tried_on = if size >= self.settings.batch + TRIED_ON { TRIED_ON } else { 0 };
        let rows = self.choose(iteration, self.settings.batch.min(size - tried_on), size - tried_on);
        let loss = self.settings.loss.direct().unwrap_or(Direct::LogMse);
        let residual = direct_residual(&self.parameters, &self.field, &self.pool, &rows)?;
        let sketch = self.sketch(iteration, &rows)?;
        let by_scalar = residual.pull_back(&self.field, vec![residual.error.duplicate()?, sketch])?;
        let jacobian = self.parameters.table_jacobian().jacobian;
        let weights = gauss_newton_weights(&residual.rms, loss.power());
        let trials = state.propose(&(&by_scalar[0] * &jacobian), &(&by_scalar[1] * &jacobian), &weights);
        let judged = if tried_on > 0 { size - tried_on..size } else { 0..size };
        let taken = self.try_steps(loss, &trials, judged)?;
        state.settle(taken.map(|i| &trials[i]));
        if let Some(i) = taken {
            self.parameters = moved(&self.parameters, &trials[i]);
        }
        Ok(loss.mean(&residual.rms))
    }

    /// A standard normal cotangent for each of `rows`.
    fn sketch(&self, iteration: usize, rows: &[usize]) -> Result<F::Tensor> {
        let first = (iteration + 1) * self.settings.batch;
        let noise =
            noise::normal(self.settings.seed, Purpose::Sketch, first..first + rows.len(), self.field.elements());
        self.field.upload(&noise)
    }

    /// The trial under which the mean loss of the samples `judged` is least, if it falls.
    fn try_steps(&self, loss: Direct, trials: &[Trial], judged: std::ops::Range<usize>) -> Result<Option<usize>> {
        let mean = |parameters: &Parameters| {
            let plan = Arc::new(Plan::new(parameters.theta()?.tableau()));
            Ok(loss.mean(&validate::errors(&plan, &self.field, &self.pool, judged.clone(), CHUNK)?.rms))
        };
        let mut least = mean(&self.parameters)?;
        let mut taken = None;
        for (i, trial) in trials.iter().enumerate() {
            match mean(&moved(&self.parameters, trial)) {
                Ok(value) if value < least => (least, taken) = (value, Some(i)),
                // A step too far may leave the constraints or blow the solve up: it is not taken.
                Ok(_) | Err(Error::Invalid { .. } | Error::NonFinite { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(taken)
    }
}

fn moved(parameters: &Parameters, trial: &Trial) -> Parameters {
    let values = parameters.values.iter().zip(trial.step.iter()).map(|(v, d)| v + d).collect();
    Parameters { shape: parameters.shape, values }
}
