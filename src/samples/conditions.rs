//! Conditions as data: safetensors files whose keys are the inputs' names, each `[C, ...]`.

use crate::card::{Card, Sizes};
use crate::error::{Error, Result};
use crate::inputs::{CLASS, Column, Inputs};
use crate::stored;
use crate::tensor::Dtype;
use half::{bf16, f16};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The conditions of a run: sample i takes row i mod C. Immutable; any thread.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// By size, in the order of the files.
    groups: Vec<Group>,
    /// Of each condition its group, and its row there.
    places: Vec<(usize, usize)>,
    digest: String,
}

/// Conditions of samples of one size.
#[derive(Clone, Debug, PartialEq)]
struct Group {
    inputs: Inputs,
    sizes: Sizes,
    /// Numbers of a sample, where its sizes are known.
    elements: Option<usize>,
}

impl Conditions {
    /// Reads `files`, in order, for the model of `card`. Files may be of different sizes. Classes are in all of them or
    /// in none: samples then take them in turn.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] naming the file and the input: a file that is no safetensors file, an
    /// input that is missing, not known, of another type or shape; rows that disagree; no rows; sizes that no sample
    /// has.
    pub fn read(files: &[PathBuf], card: &Card) -> Result<Self> {
        let mut hash = Sha256::new();
        let (mut parts, mut places): (Vec<(Sizes, Vec<Inputs>, usize)>, _) = (Vec::new(), Vec::new());
        let mut unsaid = Vec::new();
        for file in files {
            let (inputs, sizes) = read(file, card, &mut hash)?;
            let classes = |inputs: &Inputs| inputs.get(CLASS).is_some();
            let differs = |other: &Inputs| classes(other) != classes(&inputs);
            if parts.iter().any(|(_, own, _)| own.iter().any(differs)) {
                let problem = "is in some of the files of conditions, expected in all or in none";
                return Err(Error::format(file.display().to_string(), CLASS, problem));
            }
            unsaid.extend(card.shape.names().find(|name| !sizes.contains_key(*name)).map(|name| (file, name)));
            let group = parts.iter().position(|(known, ..)| *known == sizes).unwrap_or(parts.len());
            if group == parts.len() {
                parts.push((sizes, Vec::new(), 0));
            }
            let (_, own, rows) = &mut parts[group];
            let count = inputs.columns().first().map_or(0, Column::batch);
            places.extend((*rows..*rows + count).map(|row| (group, row)));
            *rows += count;
            own.push(inputs);
        }
        if places.is_empty() {
            return Err(Error::invalid("conditions", "no file", "at least one"));
        }
        // Given noise can say the size of all samples, not of some.
        if let [(file, name), ..] = unsaid[..]
            && unsaid.len() < files.len()
        {
            let problem = "is a size that neither an input nor the metadata says, but other files of conditions do";
            return Err(Error::format(file.display().to_string(), name, problem));
        }
        let group = |(sizes, own, _): (Sizes, Vec<Inputs>, usize)| {
            let shape = card.shape.resolve(&sizes);
            let elements = shape.ok().map(|shape| shape.iter().product());
            Ok(Group { inputs: joined(&own)?, sizes, elements })
        };
        let groups = parts.into_iter().map(group).collect::<Result<_>>()?;
        let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { groups, places, digest: format!("sha256:{digits}") })
    }

    /// Number of conditions, at least 1.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// Number of different sizes, at least 1.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Which of the different sizes sample `index` has.
    pub fn group_of(&self, index: usize) -> usize {
        self.places[index % self.count()].0
    }

    /// What those of `group` say the card's named sizes are.
    pub fn sizes(&self, group: usize) -> &Sizes {
        &self.groups[group].sizes
    }

    /// Numbers of a sample of `group`, where its sizes are known.
    pub fn elements(&self, group: usize) -> Option<usize> {
        self.groups[group].elements
    }

    /// Whether they say what the input called `name` is given.
    pub fn have(&self, name: &str) -> bool {
        self.groups.iter().any(|group| group.inputs.get(name).is_some())
    }

    /// SHA-256 of the files.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What the samples `indices` are given, which are of one size.
    ///
    /// # Errors
    /// [`Error::Memory`]; [`Error::Invalid`] for samples of several sizes.
    pub fn of(&self, indices: impl Iterator<Item = usize>) -> Result<Inputs> {
        let places: Vec<(usize, usize)> = indices.map(|i| self.places[i % self.count()]).collect();
        let group = places.first().map_or(0, |(group, _)| *group);
        if places.iter().any(|(other, _)| *other != group) {
            return Err(Error::invalid("conditions", "of several sizes", "samples of one size in a batch"));
        }
        self.groups[group].inputs.select(&places.iter().map(|(_, row)| *row).collect::<Vec<_>>())
    }
}

/// The rows of all `parts`, which have the same columns.
fn joined(parts: &[Inputs]) -> Result<Inputs> {
    let Some(first) = parts.first() else { return Ok(Inputs::default()) };
    let column = |column: &Column| {
        let own: Vec<&Column> = parts.iter().filter_map(|part| part.get(column.name())).collect();
        let rows: Vec<&[u8]> = own.iter().flat_map(|part| (0..part.batch()).map(|row| part.row(row))).collect();
        column.of_rows(&rows)
    };
    Inputs::new(first.columns().iter().map(column).collect::<Result<_>>()?)
}

/// The inputs in one file, and the sizes that they and its metadata say.
fn read(path: &Path, card: &Card, hash: &mut Sha256) -> Result<(Inputs, Sizes)> {
    let document = path.display().to_string();
    let bytes = stored::bytes(path)?;
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(&bytes);
    let wrong = |field: &str, problem: String| Error::format(&document, field, problem);
    stored::check(&bytes, &document)?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| wrong(".", e.to_string()))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| wrong(".", e.to_string()))?;
    let mut columns = Vec::new();
    for (name, tensor) in tensors.tensors() {
        let Some(dtype) = dtype_of(tensor.dtype()) else {
            let problem = format!("is {:?}, expected F64, F32, F16, BF16, I64, I32 or BOOL", tensor.dtype());
            return Err(wrong(&name, problem));
        };
        let [rows, shape @ ..] = tensor.shape() else {
            return Err(wrong(&name, "is a single number, expected [C, ...], a row for each condition".into()));
        };
        if *rows == 0 {
            return Err(wrong(&name, "has no rows, expected at least one".into()));
        }
        let column = Column::new(&name, dtype, shape, *rows, tensor.data()).map_err(|e| within(&document, e))?;
        if let Some(row) = (0..*rows).find(|row| has_nan(dtype, column.row(*row))) {
            return Err(wrong(&name, format!("has a NaN in row {row}, expected numbers")));
        }
        columns.push(column);
    }
    let batch = columns.first().map_or(0, Column::batch);
    let inputs = Inputs::new(columns).map_err(|e| within(&document, e))?;
    let signature = match inputs.get(CLASS) {
        Some(_) => card.signature(),
        None => card.without_classes().signature(),
    };
    let (columns, mut sizes) = signature.bind(batch, &inputs).map_err(|e| within(&document, e))?;
    if columns.is_empty() {
        return Err(wrong(".", "holds no input, and the model has none".into()));
    }
    for (name, text) in metadata.metadata().iter().flatten() {
        let named = card.shape.names().any(|own| own == name);
        if !named {
            continue;
        }
        let size = text.parse::<usize>().ok().filter(|n| *n > 0);
        let size = size.ok_or_else(|| wrong(name, format!("is {text:?} in the metadata, expected a size")))?;
        let known = *sizes.entry(name.clone()).or_insert(size);
        if known != size {
            return Err(wrong(name, format!("is {size} in the metadata, but the inputs say {known}")));
        }
    }
    // Sizes may be such as no sample has.
    if card.shape.with(&sizes).numbers().is_some() {
        card.shape.resolve(&sizes).map_err(|e| within(&document, e))?;
    }
    Ok((Inputs::new(columns)?, sizes))
}

/// Whether one of the numbers is none. Infinities may be meant: masks that are added have them.
fn has_nan(dtype: Dtype, bytes: &[u8]) -> bool {
    let bits = |size: usize| bytes.chunks_exact(size);
    match dtype {
        Dtype::Float64 => bits(8).any(|b| f64::from_ne_bytes(b.try_into().unwrap_or_default()).is_nan()),
        Dtype::Float32 => bits(4).any(|b| f32::from_ne_bytes(b.try_into().unwrap_or_default()).is_nan()),
        Dtype::Float16 => bits(2).any(|b| f16::from_ne_bytes(b.try_into().unwrap_or_default()).is_nan()),
        Dtype::Bfloat16 => bits(2).any(|b| bf16::from_ne_bytes(b.try_into().unwrap_or_default()).is_nan()),
        Dtype::Int64 | Dtype::Int32 | Dtype::Bool => false,
    }
}

fn dtype_of(dtype: safetensors::Dtype) -> Option<Dtype> {
    Some(match dtype {
        safetensors::Dtype::F64 => Dtype::Float64,
        safetensors::Dtype::F32 => Dtype::Float32,
        safetensors::Dtype::F16 => Dtype::Float16,
        safetensors::Dtype::BF16 => Dtype::Bfloat16,
        safetensors::Dtype::I64 => Dtype::Int64,
        safetensors::Dtype::I32 => Dtype::Int32,
        safetensors::Dtype::BOOL => Dtype::Bool,
        _ => return None,
    })
}

/// An error about an input, of the file it is in.
fn within(document: &str, error: Error) -> Error {
    match error {
        Error::Invalid { field, value, expected } => {
            Error::format(document, field, format!("is {value}, expected {expected}"))
        }
        other => other,
    }
}
