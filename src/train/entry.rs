//! A training run as a document asks for it: on a model card, or on a field of the caller.

use super::config::{Loss, LossTerm, Optimizer, TrainConfig};
use super::job::Job;
use super::progress::Observer;
use super::run::{Outcome, train_job};
use super::settings::Settings;
use crate::distance::Features;
use crate::document::Notes;
use crate::error::{Error, Result};
use crate::inputs::CLASS;
use crate::ladder::Ladder;
use crate::model::{self, FieldTask, Model};
use crate::networks::Served;
use crate::ranks::Ranks;
use crate::samples::{Conditioning, Conditions, GuidanceScale};
use crate::tensor::{Compute, Device};
use crate::theta::{different_models, model_name};
use crate::velocity::VelocityField;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// Trains as `config` says, on the model that it names, by all `ranks`, of which the first sees to the files.
///
/// # Errors
/// [`Error::Invalid`] naming the key at fault; the model's, the field's and the file's own.
pub fn train_config(config: &TrainConfig, ranks: &Ranks, observer: &mut Observer<'_>) -> Result<Outcome> {
    if !ranks.is_first() {
        let fileless =
            TrainConfig { out: None, checkpoint: None, resume: None, log: None, pool_file: None, ..config.clone() };
        return train_model(&fileless, ranks, observer);
    }
    train_model(config, ranks, observer)
}

fn train_model(config: &TrainConfig, ranks: &Ranks, observer: &mut Observer<'_>) -> Result<Outcome> {
    if config.field.is_some() {
        return Err(Error::invalid("field", "there", "absent: only a host that gives its functions can train on them"));
    }
    let path = config.model.as_deref().ok_or_else(|| Error::invalid("model", "absent", "the path of a model card"))?;
    let device = ranks.device(config.device.as_deref().unwrap_or("cpu"))?;
    let compute = config.dtype.unwrap_or_default();
    let mut model = model::open_served(path, served(config)?.as_ref(), device, compute)?;
    let [low, high] = model.card().data_range;
    let path = model.card().gaussian_path()?.on_named(config.path.as_deref(), config.sigma0)?;
    let config = &suited_to(config, model.differentiable())?;
    let settings = config.settings(high - low, Some(&path))?;
    let mut job = config.job(Some(model.card().fingerprint()?))?;
    let asked = Asked {
        class: config.class,
        guidance_scale: config.guidance_scale.clone(),
        seed: settings.seed,
        conditions: &config.conditions,
    };
    let conditioning = conditioning(&mut model, asked)?;
    if let Some(conditions) = &conditioning.conditions {
        job.config.insert("conditions".into(), json!(conditions.digest()));
    }
    let mut notes = model_notes(&model, &conditioning, config.dtype)?;
    notes.0.extend(config.velocity_model.as_ref().map(|name| ("velocity_model".into(), json!(name))));
    if ranks.is_first() {
        warn_of_others(&settings, &notes);
    }
    let features =
        features(config, &settings, &mut job, device, model.card().data_range, || model.card().sample_shape())?;
    let run = Training {
        conditioning: &conditioning,
        settings: &settings,
        features: features.as_ref(),
        job: &job,
        ranks,
        observer,
    };
    let mut outcome = model.with(run)?;
    outcome.rungs.iter_mut().for_each(|rung| rung.theta.model = notes.clone());
    save(config, &outcome)?;
    Ok(outcome)
}

/// Where the network is served, if it is.
fn served(config: &TrainConfig) -> Result<Option<Served>> {
    let TrainConfig { triton, velocity_model, velocity_inputs, velocity_output, .. } = config;
    Served::given(triton.as_deref(), velocity_model.as_deref(), velocity_inputs.as_deref(), velocity_output.as_deref())
}

struct Training<'a, 'o> {
    conditioning: &'a Conditioning,
    settings: &'a Settings,
    features: Option<&'a Features>,
    job: &'a Job,
    ranks: &'a Ranks,
    observer: &'a mut Observer<'o>,
}

impl FieldTask for Training<'_, '_> {
    type Output = Result<Outcome>;

    fn run<F: VelocityField + Sync>(self, field: &F) -> Result<Outcome> {
        train_job(field, self.conditioning, self.settings, self.features, self.job, self.ranks, self.observer)
    }
}

/// The features that a run of these `settings` is asked for, of samples of a `shape`, tried out before anything is solved; the
/// `job` is told which.
///
/// # Errors
/// The card's own; [`Error::Invalid`] for one that no loss can be made of, and for samples of several sizes.
fn features(
    config: &TrainConfig,
    settings: &Settings,
    job: &mut Job,
    device: Device,
    data_range: [f64; 2],
    shape: impl FnOnce() -> Result<Vec<usize>>,
) -> Result<Option<Features>> {
    let Some(path) = &config.features else { return Ok(None) };
    let features = Features::open(path, device, &shape()?, data_range)?;
    features.try_loss(
        settings
            .phases()
            .any(|phase| phase.objective.has_features() && phase.optimizer != Optimizer::ForwardGaussNewton),
    )?;
    job.config.insert("features".into(), json!(features.card().fingerprint()?));
    Ok(Some(features))
}

/// Trains as `config` says, on a `field` of the caller that `config.field` describes.
///
/// A field without a vector-Jacobian product is trained by forward passes alone.
///
/// # Errors
/// [`Error::Invalid`] naming the key at fault; the field's and the file's own.
pub fn train_field<F: VelocityField>(config: &TrainConfig, field: &F, observer: &mut Observer<'_>) -> Result<Outcome> {
    let description = config.field.as_ref().ok_or_else(|| Error::invalid("field", "absent", "the caller's field"))?;
    description.validate()?;
    for (key, given) in [
        ("model", config.model.is_some()),
        ("device", config.device.is_some()),
        ("dtype", config.dtype.is_some()),
        ("guidance_scale", config.guidance_scale.is_some()),
        ("conditions", !config.conditions.is_empty()),
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
    let config = suited_to(config, field.differentiable())?;
    let settings = config.settings(high - low, None)?;
    let conditioning = Conditioning { classes: description.classes, class: config.class, ..Conditioning::default() };
    let mut job = config.job(None)?;
    let features =
        features(&config, &settings, &mut job, Device::Cpu, description.data_range, || Ok(description.shape.clone()))?;
    let mut outcome = train_job(field, &conditioning, &settings, features.as_ref(), &job, &Ranks::alone(), observer)?;
    let mut notes = serde_json::Map::new();
    notes.extend(description.name.as_ref().map(|name| ("name".into(), json!(name))));
    notes.insert("shape".into(), json!(description.shape));
    notes.extend(config.class.map(|class| ("class".into(), json!(class))));
    outcome.rungs.iter_mut().for_each(|rung| rung.theta.model = Notes(notes.clone()));
    save(&config, &outcome)?;
    Ok(outcome)
}

/// The document for a field that has a vector-Jacobian product or has not: without one, direct losses are minimised
/// by forward passes alone.
///
/// # Errors
/// [`Error::Invalid`] for an optimizer that would need the product.
pub fn suited_to(config: &TrainConfig, differentiable: bool) -> Result<TrainConfig> {
    let mut config = config.clone();
    let direct = |term: &LossTerm| term.loss != Loss::RmseBound;
    if differentiable || (!config.loss.is_empty() && !config.loss.iter().any(direct)) {
        return Ok(config);
    }
    match config.optimizer {
        None | Some(Optimizer::ForwardGaussNewton) => config.optimizer = Some(Optimizer::ForwardGaussNewton),
        Some(other) => {
            let expected = "forward-gauss-newton, or the loss rmse-bound: the field has no vector-Jacobian product";
            return Err(Error::invalid("optimizer", json!(other), expected));
        }
    }
    Ok(config)
}

/// Writes what was asked for: a theta, or a ladder where several counts were.
fn save(config: &TrainConfig, outcome: &Outcome) -> Result<()> {
    let Some(out) = &config.out else { return Ok(()) };
    let thetas = outcome.rungs.iter().map(|rung| &rung.theta);
    match outcome.rungs.as_slice() {
        [rung] if config.steps.len() <= 1 && config.nfe.len() <= 1 => rung.theta.save(out),
        _ => Ladder::new(thetas.cloned().collect())?.save(out),
    }
}

/// Thetas move between models: what they were trained for is worth a warning.
fn warn_of_others(settings: &Settings, model: &Notes) {
    for (file, notes) in settings.given() {
        if different_models(notes, model) {
            let (theirs, ours) = (model_name(notes), model_name(model));
            tracing::warn!("{file}, where training starts, was trained for {theirs}, not for {ours}");
        }
    }
}

/// What samples are conditioned on, as a run is asked for it.
#[derive(Clone, Debug, Default)]
pub struct Asked<'a> {
    /// One class for all samples.
    pub class: Option<i64>,
    /// Guidance of all samples.
    pub guidance_scale: Option<GuidanceScale>,
    /// Seed of guidance scales that are drawn from a range.
    pub seed: u64,
    /// Files of conditions, in order.
    pub conditions: &'a [PathBuf],
}

/// The conditioning that is `asked` of a model; the model learns what its named sizes are.
///
/// # Errors
/// [`Error::Invalid`] naming what the model does not have, or asks for and is not given; the files' own.
pub fn conditioning(model: &mut Model, asked: Asked<'_>) -> Result<Conditioning> {
    let card = model.card().clone();
    if let Some(class) = asked.class
        && !((0..card.classes).contains(&class) || Some(class) == card.null_class)
    {
        let expected = match card.classes {
            0 => "absent: the model has no classes".to_owned(),
            classes => format!("0 to {}", classes - 1),
        };
        return Err(Error::invalid("class", class, expected));
    }
    let conditions = match asked.conditions {
        [] => None,
        files => Some(Arc::new(Conditions::read(files, &card)?)),
    };
    if let (Some(class), Some(_)) = (asked.class, conditions.as_ref().filter(|conditions| conditions.have(CLASS))) {
        return Err(Error::invalid("class", class, "absent: the conditions say each sample's"));
    }
    if conditions.is_none()
        && let Some(input) = card.without_classes().signature().given().next()
    {
        let expected = format!("files with the model's inputs, {} among them", input.name);
        return Err(Error::invalid("conditions", "absent", expected));
    }
    match &conditions {
        Some(conditions) if conditions.groups() > 1 => {
            // Each must be whole: a batch cannot ask for it.
            for group in 0..conditions.groups() {
                card.shape.resolve(conditions.sizes(group))?;
            }
        }
        Some(conditions) => model.set_sizes(conditions.sizes(0)),
        None => {}
    }
    let guidance_scale = asked.guidance_scale.unwrap_or_default();
    let conditioning =
        Conditioning { classes: card.classes, class: asked.class, guidance_scale, seed: asked.seed, conditions };
    model.check_guidance(&conditioning.of(0..1)?)?;
    Ok(conditioning)
}

fn model_notes(model: &Model, conditioning: &Conditioning, dtype: Option<Compute>) -> Result<Notes> {
    let card = model.card();
    let mut notes = serde_json::Map::new();
    notes.insert("name".into(), json!(card.name()));
    notes.insert("fingerprint".into(), json!(card.fingerprint()?));
    notes.insert("shape".into(), json!(card.shape));
    notes.insert("output".into(), json!(card.output));
    notes.insert("scheduler".into(), json!(card.scheduler));
    notes.insert("end".into(), json!(card.time.end));
    notes.insert("guidance_scale".into(), json!(conditioning.guidance_scale));
    notes.extend(conditioning.class.map(|class| ("class".into(), json!(class))));
    notes.extend(conditioning.conditions.as_ref().map(|conditions| ("conditions".into(), json!(conditions.digest()))));
    notes.extend(dtype.map(|dtype| ("dtype".into(), json!(dtype))));
    Ok(Notes(notes))
}
