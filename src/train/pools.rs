//! The two pools of a run: solved, or read from where an earlier run kept them.

use super::job::Job;
use super::kept::Kept;
use super::paths::{Pool, PoolOptions};
use super::settings::Settings;
use super::solve::solve;
use crate::error::Result;
use crate::noise::Purpose;
use crate::ranks::Ranks;
use crate::samples::{Conditioning, chunk};
use crate::tensor::Tensor;
use crate::velocity::{Counted, Evaluations, VelocityField};
use serde_json::{Map, Value, json};
use std::ops::Range;

const FORMAT: &str = "bespoke-pool";
const VERSION: u64 = 1;

/// Ground truth for validation and for training.
pub struct Pools<T> {
    pub validation: Pool<T>,
    pub train: Pool<T>,
    /// What it took.
    pub evaluations: Evaluations,
    /// What of it is on disk.
    pub kept: Kept,
}

/// The training noises of the `draw`th time, from 0.
fn drawn(elements: usize, settings: &Settings, draw: usize) -> PoolOptions {
    options(elements, settings, Purpose::Train, draw * settings.pool..(draw + 1) * settings.pool)
}

fn options(elements: usize, settings: &Settings, purpose: Purpose, indices: Range<usize>) -> PoolOptions {
    let dense = purpose == Purpose::Train && settings.dense();
    let Settings { seed, tolerance, .. } = *settings;
    PoolOptions { purpose, seed, indices, chunk: chunk(elements), tolerance, dense }
}

/// Solves the pool of the `draw`th time; `watch` gets the share of it that is solved.
pub fn draw<F: VelocityField>(
    field: &Counted<'_, F>,
    conditioning: &Conditioning,
    settings: &Settings,
    draw: usize,
    ranks: &Ranks,
    watch: &mut dyn FnMut(f64),
) -> Result<Pool<F::Tensor>> {
    solve(field, conditioning, &drawn(field.elements(), settings, draw), &Kept::Nothing, ranks, watch)
}

impl<T: Tensor> Pools<T> {
    /// Both pools, that of training as it is after `draws` times. What is on disk is the first rank's alone.
    /// `watch` gets the share of both that is solved, from 0 to 1.
    ///
    /// # Errors
    /// As [`Pool::solve`]; [`crate::Error::Format`] for a file of other pools.
    pub fn prepare<F: VelocityField<Tensor = T>>(
        field: &Counted<'_, F>,
        conditioning: &Conditioning,
        settings: &Settings,
        job: &Job,
        draws: usize,
        ranks: &Ranks,
        watch: &mut dyn FnMut(f64),
    ) -> Result<Self> {
        let elements = field.elements();
        let about = about(elements, conditioning, settings, job);
        let kept = if ranks.is_first() { Kept::open(job, about)? } else { Kept::Nothing };
        let of_validation = options(elements, settings, Purpose::Validation, 0..settings.validation);
        let first = settings.validation as f64 / (settings.validation + settings.pool) as f64;
        let of_first = &mut |share: f64| watch(first * share);
        let validation = solve(field, conditioning, &of_validation, &kept, ranks, of_first)?;
        let of_second = &mut |share: f64| watch(first + (1.0 - first) * share);
        let train = match draws.saturating_sub(1) {
            0 => solve(field, conditioning, &drawn(elements, settings, 0), &kept, ranks, of_second)?,
            // A pool that is drawn anew is not kept.
            again => draw(field, conditioning, settings, again, ranks, of_second)?,
        };
        field.settle(ranks);
        if let Some(evaluations) = ranks.of_first(kept.evaluations()?)? {
            field.set(evaluations);
        }
        let evaluations = field.evaluations();
        let of_training = drawn(elements, settings, 0);
        let batches = [&of_validation, &of_training].map(|options| options.batches(conditioning, elements));
        kept.join([(&of_validation, &batches[0]), (&of_training, &batches[1])], evaluations)?;
        Ok(Self { validation, train, evaluations, kept })
    }
}

/// All that the ground truth depends on.
fn about(elements: usize, conditioning: &Conditioning, settings: &Settings, job: &Job) -> Map<String, Value> {
    let about = json!({
        "format": FORMAT,
        "version": VERSION,
        "model": job.model,
        "dtype": job.config.get("dtype"),
        "field": job.config.get("field"),
        "velocity_model": job.config.get("velocity_model"),
        "velocity_inputs": job.config.get("velocity_inputs"),
        "velocity_output": job.config.get("velocity_output"),
        "elements": elements,
        "classes": conditioning.classes,
        "class": conditioning.class,
        "guidance_scale": conditioning.guidance_scale,
        "conditions": conditioning.conditions.as_ref().map(|conditions| conditions.digest()),
        "seed": settings.seed,
        "pool": settings.pool,
        "validation": settings.validation,
        "tolerance": settings.tolerance,
        "dense": settings.dense(),
        "chunk": chunk(elements),
    });
    match about {
        Value::Object(about) => about,
        _ => Map::new(),
    }
}
