//! The two pools of a run: solved, or read from where an earlier run kept them.

use super::exchange::exchange;
use super::job::{Job, check_all_same, check_same};
use super::paths::{Pool, PoolOptions, Solved, starts};
use super::settings::Settings;
use crate::document;
use crate::dopri5::Dense;
use crate::error::{Error, Result};
use crate::noise::Purpose;
use crate::ranks::Ranks;
use crate::samples::{Conditioning, chunk};
use crate::tensor::Tensor;
use crate::velocity::{Counted, Evaluations, VelocityField};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

const FORMAT: &str = "bespoke-pool";
const VERSION: u64 = 1;

/// Ground truth for validation and for training.
pub struct Pools<T> {
    pub validation: Pool<T>,
    pub train: Pool<T>,
    /// What it took.
    pub evaluations: Evaluations,
}

type Batches<T> = Vec<Solved<T>>;

/// The batches of both pools, validation's first, and what they took.
type Kept<T> = ([Batches<T>; 2], Evaluations);

/// The training noises of the `draw`th time, from 0.
fn drawn(elements: usize, settings: &Settings, draw: usize) -> PoolOptions {
    options(elements, settings, Purpose::Train, draw * settings.pool..(draw + 1) * settings.pool)
}

fn options(elements: usize, settings: &Settings, purpose: Purpose, indices: Range<usize>) -> PoolOptions {
    let dense = purpose == Purpose::Train && settings.dense();
    let Settings { seed, tolerance, .. } = *settings;
    PoolOptions { purpose, seed, indices, chunk: chunk(elements), tolerance, dense }
}

/// Solves the pool of the `draw`th time.
pub fn draw<F: VelocityField>(
    field: &F,
    conditioning: &Conditioning,
    settings: &Settings,
    draw: usize,
    ranks: &Ranks,
) -> Result<Pool<F::Tensor>> {
    Pool::solve_shared(field, conditioning, &drawn(field.elements(), settings, draw), ranks)
}

impl<T: Tensor> Pools<T> {
    /// Both pools, that of training as it is after `draws` times. A file is the first rank's alone.
    ///
    /// # Errors
    /// As [`Pool::solve`]; [`Error::Format`] for a file of other pools.
    pub fn prepare<F: VelocityField<Tensor = T>>(
        field: &Counted<'_, F>,
        conditioning: &Conditioning,
        settings: &Settings,
        job: &Job,
        draws: usize,
        ranks: &Ranks,
    ) -> Result<Self> {
        let file = job.pool_file.as_deref().filter(|_| ranks.is_first());
        let elements = field.elements();
        let about = about(elements, conditioning, settings, job);
        let of_validation = options(elements, settings, Purpose::Validation, 0..settings.validation);
        let (stored, evaluations) = file.map(|path| read(path, field, settings, &about)).transpose()?.flatten().unzip();
        if let Some(evaluations) = ranks.of_first(evaluations)? {
            field.set(evaluations);
            let [validation, train] = stored.unwrap_or_default();
            let pool = |solved: Batches<T>, options: &PoolOptions| {
                let solved = exchange(field, options, solved.into_iter().enumerate().collect(), |_| 0, ranks)?;
                Pool::assemble(conditioning, options, &starts(field, options)?, solved)
            };
            return Ok(Self {
                validation: pool(validation, &of_validation)?,
                train: pool(train, &drawn(elements, settings, 0))?,
                evaluations,
            });
        }
        let validation = Pool::solve_shared(field, conditioning, &of_validation, ranks)?;
        let train = draw(field, conditioning, settings, draws.saturating_sub(1), ranks)?;
        field.settle(ranks);
        let pools = Self { validation, train, evaluations: field.evaluations() };
        if let Some(path) = file {
            write(path, &pools, &about)?;
        }
        Ok(pools)
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

fn unreadable(path: &Path, problem: impl ToString) -> Error {
    Error::format(path.display().to_string(), ".", problem)
}

/// Numbers as little-endian bytes.
fn bytes<const N: usize, E: Copy>(values: &[E], of: impl Fn(E) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| of(*value)).collect()
}

fn write<T: Tensor>(path: &Path, pools: &Pools<T>, about: &Map<String, Value>) -> Result<()> {
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut add = |name: String, tensor: &T| -> Result<()> {
        let shape = vec![tensor.batch(), tensor.elements()];
        tensors.push((name, Dtype::F32, shape, bytes(&tensor.to_f32()?, f32::to_le_bytes)));
        Ok(())
    };
    add("validation.x1".into(), &pools.validation.x1)?;
    add("train.x1".into(), &pools.train.x1)?;
    let mut times = Vec::new();
    for (chunk, path) in pools.train.paths.iter().enumerate() {
        let mut of_chunk = Vec::new();
        for (segment, (start, h, coefficients)) in path.segments().enumerate() {
            of_chunk.extend([start, h]);
            for (i, coefficient) in coefficients.iter().enumerate() {
                add(format!("train.dense.{chunk}.{segment}.{i}"), coefficient)?;
            }
        }
        times.push((format!("train.times.{chunk}"), of_chunk));
    }
    for (name, of_chunk) in times {
        tensors.push((name, Dtype::F64, vec![of_chunk.len() / 2, 2], bytes(&of_chunk, f64::to_le_bytes)));
    }
    let metadata = HashMap::from([
        ("bespoke".to_owned(), Value::Object(about.clone()).to_string()),
        ("evaluations".to_owned(), json!(pools.evaluations).to_string()),
    ]);
    let mut views = Vec::with_capacity(tensors.len());
    for (name, dtype, shape, bytes) in &tensors {
        views.push((name, TensorView::new(*dtype, shape.clone(), bytes).map_err(|e| unreadable(path, e))?));
    }
    document::write_at(path, |temporary| {
        serialize_to_file(views, &Some(metadata), temporary).map_err(|e| match e {
            safetensors::SafeTensorError::IoError(e) => Error::io("write", path, e),
            other => unreadable(path, other),
        })
    })
}

/// The tensors of a pool file.
struct Stored<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
}

impl Stored<'_> {
    fn numbers<const N: usize, E>(
        &self,
        name: &str,
        dtype: Dtype,
        columns: usize,
        of: impl Fn([u8; N]) -> E,
    ) -> Result<Vec<E>> {
        let wrong = |problem: String| Error::format(self.path.display().to_string(), name, problem);
        let tensor = self.tensors.tensor(name).map_err(|e| wrong(e.to_string()))?;
        match tensor.shape() {
            [_, found] if *found == columns && tensor.dtype() == dtype => {}
            shape => {
                return Err(wrong(format!("is {:?} {shape:?}, expected {dtype:?} [_, {columns}]", tensor.dtype())));
            }
        }
        let (numbers, _) = tensor.data().as_chunks::<N>();
        Ok(numbers.iter().map(|number| of(*number)).collect())
    }

    /// `count` samples, where the field computes.
    fn samples<F: VelocityField>(&self, field: &F, name: &str, count: usize) -> Result<F::Tensor> {
        let values = self.numbers(name, Dtype::F32, field.elements(), f32::from_le_bytes)?;
        if values.len() != count * field.elements() || !values.iter().all(|v| v.is_finite()) {
            let problem = format!("is not {count} samples of finite numbers");
            return Err(Error::format(self.path.display().to_string(), name, problem));
        }
        field.upload(&values)
    }

    /// The batches of the pool called `name`.
    fn batches<F: VelocityField>(&self, field: &F, name: &str, options: &PoolOptions) -> Result<Batches<F::Tensor>> {
        let ends = self.samples(field, &format!("{name}.x1"), options.indices.len())?;
        let solved = |(c, batch): (usize, Range<usize>)| {
            let first = batch.start - options.indices.start;
            let count = batch.len();
            let path = || self.path_of(field, &format!("{name}.dense.{c}"), &format!("{name}.times.{c}"), count);
            let path = options.dense.then(path).transpose()?;
            Ok(Solved { x1: ends.narrow(first..first + count)?, path })
        };
        options.batches().enumerate().map(solved).collect()
    }

    fn path_of<F: VelocityField>(&self, field: &F, name: &str, times: &str, count: usize) -> Result<Dense<F::Tensor>> {
        let times = self.numbers(times, Dtype::F64, 2, f64::from_le_bytes)?;
        let (times, _) = times.as_chunks::<2>();
        if times.is_empty() {
            return Err(Error::format(self.path.display().to_string(), name, "has no steps"));
        }
        let mut segments = Vec::with_capacity(times.len());
        for (segment, [start, h]) in times.iter().enumerate() {
            let read = |i: usize| self.samples(field, &format!("{name}.{segment}.{i}"), count);
            segments.push((*start, *h, [read(0)?, read(1)?, read(2)?, read(3)?, read(4)?]));
        }
        Ok(Dense::from_segments(segments))
    }
}

/// What is kept at `path`, if it is there.
fn read<F: VelocityField>(
    path: &Path,
    field: &F,
    settings: &Settings,
    about: &Map<String, Value>,
) -> Result<Option<Kept<F::Tensor>>> {
    let bytes = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|e| Error::io("read", path, e))?,
    };
    let name = path.display().to_string();
    let broken = |e| unreadable(path, format!("is no whole safetensors file: {e}"));
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
    let written = |key: &str| {
        let text = metadata.metadata().as_ref().and_then(|map| map.get(key));
        serde_json::from_str::<Value>(text.map_or("null", String::as_str)).unwrap_or_default()
    };
    let Value::Object(found) = written("bespoke") else {
        return Err(unreadable(path, "is not a pool of ground truths"));
    };
    let hint = ": it is another run's pool";
    check_same(&name, "format", found.get("format").unwrap_or(&Value::Null), &json!(FORMAT), hint)?;
    check_all_same(&name, &found, about, hint)?;
    let evaluations: Evaluations =
        serde_json::from_value(written("evaluations")).map_err(|e| Error::format(&name, "evaluations", e))?;
    let stored = Stored { path, tensors: SafeTensors::deserialize(&bytes).map_err(broken)? };
    let validation = options(field.elements(), settings, Purpose::Validation, 0..settings.validation);
    let validation = stored.batches(field, "validation", &validation)?;
    let train = stored.batches(field, "train", &drawn(field.elements(), settings, 0))?;
    Ok(Some(([validation, train], evaluations)))
}
