//! Ground truth on disk: a file for each batch while it is being solved, one for all where that is asked for.

use super::job::{Job, check_all_same, check_same};
use super::paths::{PoolOptions, Solved};
use crate::dopri5::Dense;
use crate::error::{Error, Result};
use crate::noise::Purpose;
use crate::output;
use crate::samples::Batch;
use crate::stored::{self, Stored, Written};
use crate::tensor::Tensor;
use crate::velocity::{Evaluations, VelocityField};
use safetensors::tensor::Dtype;
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::path::{Path, PathBuf};

/// Numbers of a dense segment's polynomial.
const COEFFICIENTS: usize = 5;

/// What this process keeps of a run's ground truth.
pub enum Kept {
    /// Nothing: another rank does, or nothing was asked for.
    Nothing,
    /// Both pools, which need not be solved.
    Whole(Stored),
    /// A folder of batches.
    Parts(Parts),
}

/// The folder of the batches that have been solved.
pub struct Parts {
    folder: PathBuf,
    /// What they are the ground truth of.
    about: Map<String, Value>,
    hint: &'static str,
    /// The file that they become.
    whole: Option<PathBuf>,
    /// Whether no more of them are written: the folder took none.
    failed: Cell<bool>,
}

/// The pools' names in files.
fn name(purpose: Purpose) -> &'static str {
    if purpose == Purpose::Validation { "validation" } else { "train" }
}

impl Kept {
    /// What `job` has of the ground truth of `about`: in its pool file, in the folder beside that, or else
    /// beside its checkpoint.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] for a file of other pools.
    pub fn open(job: &Job, about: Map<String, Value>) -> Result<Self> {
        if let Some(file) = &job.pool_file {
            let hint = ": it is another run's pool";
            if let Some(stored) = Stored::open(file)? {
                check_about(&stored, file, &about, hint)?;
                return Ok(Kept::Whole(stored));
            }
            let (folder, whole) = (parts_beside(file), Some(file.clone()));
            return Ok(Kept::Parts(Parts { folder, about, hint, whole, failed: Cell::default() }));
        }
        // What can only be written once is not gone on with.
        let Some(checkpoint) = job.checkpoint.as_deref().filter(|path| output::is_file(path)) else {
            return Ok(Kept::Nothing);
        };
        let hint = "; without --resume, training begins anew";
        let parts = Parts { folder: parts_beside(checkpoint), about, hint, whole: None, failed: Cell::default() };
        if !job.resume {
            parts.clear();
        }
        Ok(Kept::Parts(parts))
    }

    /// Batch `i` of a pool and what it took, if it is there.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] where it is another one.
    pub fn read<F: VelocityField>(
        &self,
        field: &F,
        options: &PoolOptions,
        batches: &[Batch],
        i: usize,
    ) -> Result<Option<(Solved<F::Tensor>, Evaluations)>> {
        match self {
            Kept::Nothing => Ok(None),
            // What both pools took is counted together.
            Kept::Whole(stored) => {
                let before = batches[..i].iter().filter(|other| other.size == batches[i].size);
                let first = before.map(Batch::len).sum();
                Ok(Some((read_batch(stored, field, options, (&batches[i], i), first)?, Evaluations::default())))
            }
            Kept::Parts(parts) => {
                let path = parts.path(options.purpose, i);
                let Some(stored) = Stored::open(&path)? else { return Ok(None) };
                check_about(&stored, &path, &parts.about, parts.hint)?;
                Ok(Some((read_batch(&stored, field, options, (&batches[i], i), 0)?, evaluations(&stored)?)))
            }
        }
    }

    /// Keeps batch `i` of a pool.
    ///
    /// # Errors
    /// [`Error::Io`], where a pool file was asked for.
    pub fn write<T: Tensor>(
        &self,
        options: &PoolOptions,
        (batch, i): (&Batch, usize),
        solved: &Solved<T>,
        took: Evaluations,
    ) -> Result<()> {
        match self {
            Kept::Parts(parts) => parts.write(options.purpose, (batch, i), solved, took),
            Kept::Nothing | Kept::Whole(_) => Ok(()),
        }
    }

    /// What both pools took, where they are kept together.
    ///
    /// # Errors
    /// [`Error::Format`] where the file does not say.
    pub fn evaluations(&self) -> Result<Option<Evaluations>> {
        match self {
            Kept::Whole(stored) => evaluations(stored).map(Some),
            Kept::Nothing | Kept::Parts(_) => Ok(None),
        }
    }

    /// Makes the pool file of the batches of both `pools`, which took so many `evaluations`, where one was asked for.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn join(&self, pools: [(&PoolOptions, &[Batch]); 2], evaluations: Evaluations) -> Result<()> {
        let Kept::Parts(parts) = self else { return Ok(()) };
        let Some(whole) = &parts.whole else { return Ok(()) };
        parts.join(whole, pools, evaluations)?;
        parts.clear();
        Ok(())
    }

    /// Removes the batches: the run is done.
    pub fn clear(&self) {
        if let Kept::Parts(parts) = self {
            parts.clear();
        }
    }
}

/// The folder of the batches that belong to `file`.
pub fn parts_beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".parts");
    name.into()
}

impl Parts {
    fn path(&self, purpose: Purpose, i: usize) -> PathBuf {
        self.folder.join(format!("{}-{i}.safetensors", name(purpose)))
    }

    /// Removes what [`Parts::path`] names, and the folder where nothing else is in it.
    fn clear(&self) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let file_name = entry.file_name();
            let number = |purpose| {
                let rest = file_name.to_str()?.strip_prefix(name(purpose))?.strip_prefix('-')?;
                rest.strip_suffix(".safetensors")?.parse::<usize>().ok()
            };
            if number(Purpose::Validation).or_else(|| number(Purpose::Train)).is_some() {
                // What stays is read by nobody: a run that would goes by what it is of.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        let _ = std::fs::remove_dir(&self.folder);
    }

    fn write<T: Tensor>(
        &self,
        purpose: Purpose,
        (batch, i): (&Batch, usize),
        solved: &Solved<T>,
        took: Evaluations,
    ) -> Result<()> {
        if self.failed.get() {
            return Ok(());
        }
        let made = std::fs::create_dir(&self.folder).or_else(|e| if self.folder.is_dir() { Ok(()) } else { Err(e) });
        let made = made.map_err(|e| Error::io("create", &self.folder, e));
        let notes = [("bespoke", Value::Object(self.about.clone())), ("evaluations", json!(took))];
        let written = made
            .and_then(|()| stored::write(&self.path(purpose, i), tensors(name(purpose), (batch, i), solved)?, &notes));
        match written {
            Err(error) if self.whole.is_none() => {
                tracing::warn!("{error}: the ground truth is not kept, and a run that is cut short solves it again");
                self.failed.set(true);
                let _ = std::fs::remove_dir(&self.folder);
                Ok(())
            }
            done => done,
        }
    }

    /// One file of all batches, piece by piece.
    fn join(&self, whole: &Path, pools: [(&PoolOptions, &[Batch]); 2], evaluations: Evaluations) -> Result<()> {
        let mut written = Vec::new();
        for (options, batches) in pools {
            let name = name(options.purpose);
            let part = |i: usize| self.part(options.purpose, i);
            for (i, batch) in batches.iter().enumerate().filter(|_| options.dense) {
                let stored = part(i)?;
                let times = format!("{name}.times.{i}");
                let segments = stored.rows(&times, Dtype::F64, 2)?;
                let copy = |tensor: String, dtype, shape: [usize; 2]| {
                    let from = tensor.clone();
                    let bytes = move |add: &mut dyn FnMut(&[u8]) -> Result<()>| {
                        add(&part(i)?.read(&from, dtype, shape[1], 0, shape[0])?)
                    };
                    Written { name: tensor, dtype, shape, bytes: Box::new(bytes) }
                };
                let shape = [batch.len(), batch.elements];
                for (segment, j) in (0..segments).flat_map(|segment| (0..COEFFICIENTS).map(move |j| (segment, j))) {
                    written.push(copy(format!("{name}.dense.{i}.{segment}.{j}"), Dtype::F32, shape));
                }
                written.push(copy(times, Dtype::F64, [segments, 2]));
            }
            let mut first = 0;
            for own in batches.chunk_by(|a, b| a.size == b.size) {
                let (ends, numbers) = (ends(name, own[0].size), first..first + own.len());
                first += own.len();
                let from = ends.clone();
                let bytes = move |add: &mut dyn FnMut(&[u8]) -> Result<()>| {
                    let each = |(i, batch): (usize, &Batch)| {
                        add(&part(i)?.read(&from, Dtype::F32, batch.elements, 0, batch.len())?)
                    };
                    numbers.clone().zip(own).try_for_each(each)
                };
                let shape = [own.iter().map(Batch::len).sum(), own[0].elements];
                written.push(Written { name: ends, dtype: Dtype::F32, shape, bytes: Box::new(bytes) });
            }
        }
        let notes = [("bespoke", Value::Object(self.about.clone())), ("evaluations", json!(evaluations))];
        stored::write(whole, written, &notes)
    }

    /// A batch that was kept before.
    fn part(&self, purpose: Purpose, i: usize) -> Result<Stored> {
        let path = self.path(purpose, i);
        Stored::open(&path)?.ok_or_else(|| Error::io("read", &path, std::io::ErrorKind::NotFound.into()))
    }
}

/// Numbers as little-endian bytes.
fn bytes<const N: usize, E: Copy>(values: &[E], of: impl Fn(E) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| of(*value)).collect()
}

/// What the ends of the pool called `name` are called, of samples of the `size`th of the run's sizes.
fn ends(name: &str, size: usize) -> String {
    if size == 0 { format!("{name}.x1") } else { format!("{name}.x1.{size}") }
}

/// The `i`th batch of the pool called `name`.
fn tensors<'a, T: Tensor>(name: &str, (batch, i): (&Batch, usize), solved: &'a Solved<T>) -> Result<Vec<Written<'a>>> {
    let samples = |name: String, tensor: &'a T| Written {
        name,
        dtype: Dtype::F32,
        shape: [tensor.batch(), tensor.elements()],
        bytes: Box::new(|add| add(&bytes(&tensor.to_f32()?, f32::to_le_bytes))),
    };
    let mut all = vec![samples(ends(name, batch.size), &solved.x1)];
    let Some(path) = &solved.path else { return Ok(all) };
    let mut times = Vec::new();
    for (segment, (start, h, coefficients)) in path.segments().enumerate() {
        times.extend([start, h]);
        let each = coefficients.iter().enumerate();
        all.extend(each.map(|(j, coefficient)| samples(format!("{name}.dense.{i}.{segment}.{j}"), coefficient)));
    }
    let shape = [times.len() / 2, 2];
    let bytes = Box::new(move |add: &mut dyn FnMut(&[u8]) -> Result<()>| add(&bytes(&times, f64::to_le_bytes)));
    all.push(Written { name: format!("{name}.times.{i}"), dtype: Dtype::F64, shape, bytes });
    Ok(all)
}

fn check_about(stored: &Stored, path: &Path, about: &Map<String, Value>, hint: &str) -> Result<()> {
    let Value::Object(found) = stored.note("bespoke") else {
        return Err(stored.wrong(".", "is not a pool of ground truths"));
    };
    let name = path.display().to_string();
    let format = |map: &Map<String, Value>| map.get("format").cloned().unwrap_or_default();
    check_same(&name, "format", &format(&found), &format(about), hint)?;
    check_all_same(&name, &found, about, hint)
}

fn evaluations(stored: &Stored) -> Result<Evaluations> {
    serde_json::from_value(stored.note("evaluations")).map_err(|e| stored.wrong("evaluations", e))
}

/// The `i`th batch of a pool, whose ends are the rows from `first` on.
fn read_batch<F: VelocityField>(
    stored: &Stored,
    field: &F,
    options: &PoolOptions,
    (batch, i): (&Batch, usize),
    first: usize,
) -> Result<Solved<F::Tensor>> {
    let name = name(options.purpose);
    let x1 = samples(stored, field, &ends(name, batch.size), batch, first)?;
    if !options.dense {
        return Ok(Solved { x1, path: None });
    }
    let times = format!("{name}.times.{i}");
    let segments = stored.rows(&times, Dtype::F64, 2)?;
    if segments == 0 {
        return Err(stored.wrong(&times, "has no steps"));
    }
    let bytes = stored.read(&times, Dtype::F64, 2, 0, segments)?;
    let (numbers, _) = bytes.as_chunks::<8>();
    let (steps, _) = numbers.as_chunks::<2>();
    let mut all = Vec::with_capacity(segments);
    for (segment, step) in steps.iter().enumerate() {
        let [start, h] = step.map(f64::from_le_bytes);
        let read = |j: usize| samples(stored, field, &format!("{name}.dense.{i}.{segment}.{j}"), batch, 0);
        all.push((start, h, [read(0)?, read(1)?, read(2)?, read(3)?, read(4)?]));
    }
    Ok(Solved { x1, path: Some(Dense::from_segments(all)) })
}

/// The samples of `batch` from row `first` on, where the field computes.
fn samples<F: VelocityField>(stored: &Stored, field: &F, name: &str, batch: &Batch, first: usize) -> Result<F::Tensor> {
    let bytes = stored.read(name, Dtype::F32, batch.elements, first, batch.len())?;
    let (numbers, _) = bytes.as_chunks::<4>();
    let values: Vec<f32> = numbers.iter().map(|number| f32::from_le_bytes(*number)).collect();
    if !values.iter().all(|v| v.is_finite()) {
        return Err(stored.wrong(name, "holds a NaN or an infinity"));
    }
    field.upload(&values, batch.elements)
}
