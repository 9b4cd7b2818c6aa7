//! What an unconditional pass gets in place of an input.

use crate::card::{Card, Input, Null, Sizes};
use crate::error::{Error, Result};
use crate::inputs::Column;
use crate::memory;
use crate::npy;
use npyz::NpyFile;
use std::io::BufReader;
use std::path::Path;

/// The null row of an input.
pub enum NullRow {
    /// The input itself.
    Keep,
    /// This number in every place, as its bytes.
    Number(Vec<u8>),
    /// These numbers.
    Row(Column),
}

/// The nulls of all of a card's inputs, class included, in its order. Files are read.
///
/// # Errors
/// [`Error::Io`] or [`Error::Format`] naming the file.
pub fn load(card: &Card) -> Result<Vec<NullRow>> {
    let null = |input: &Input| match &input.null {
        Null::Keep(_) => Ok(NullRow::Keep),
        Null::Number(number) => Ok(NullRow::Number(input.dtype.encode(*number)?)),
        Null::File(file) => Ok(NullRow::Row(read(&card.beside(file), input)?)),
    };
    card.signature().inputs().iter().map(null).collect()
}

/// The row in the .npy file at `path`: of the input's shape, of any type whose numbers the input's type holds.
fn read(path: &Path, input: &Input) -> Result<Column> {
    let wrong =
        |problem: String| Error::format(path.display().to_string(), format!("inputs.{}.null", input.name), problem);
    let array = npy::open(path).map_err(|e| match e {
        Error::Io { source, .. } => wrong(format!("cannot be read: {source}")),
        other => other,
    })?;
    let shape = array.shape().iter().map(|n| usize::try_from(*n)).collect::<Result<Vec<usize>, _>>();
    let shape = shape.map_err(|_| wrong(format!("is of shape {:?}", array.shape())))?;
    input.shape.learn(&path.display().to_string(), &shape, &mut Sizes::new())?;
    if array.order() != npyz::Order::C {
        return Err(wrong("is in Fortran order, expected C order".into()));
    }
    let kind = array.dtype();
    let numbers: Vec<f64> = match Numbers::of(&kind.descr()) {
        Some(Numbers::F32) => values::<f32>(array).map(|v| v.into_iter().map(f64::from).collect()),
        Some(Numbers::F64) => values::<f64>(array),
        Some(Numbers::I32) => values::<i32>(array).map(|v| v.into_iter().map(f64::from).collect()),
        Some(Numbers::I64) => values::<i64>(array).map(|v| v.into_iter().map(|v| v as f64).collect()),
        Some(Numbers::Bool) => values::<bool>(array).map(|v| v.into_iter().map(|v| f64::from(u8::from(v))).collect()),
        None => return Err(wrong(format!("is of dtype {}, expected f4, f8, i4, i8 or b1", kind.descr()))),
    }
    .map_err(|e| wrong(e.to_string()))?;
    let mut bytes = Vec::with_capacity(numbers.len() * input.dtype.size());
    for number in numbers {
        bytes.extend(input.dtype.encode(number)?);
    }
    Column::new(&input.name, input.dtype, &shape, 1, &bytes)
}

/// The types of .npy files that are read.
enum Numbers {
    F32,
    F64,
    I32,
    I64,
    Bool,
}

impl Numbers {
    fn of(descr: &str) -> Option<Self> {
        match descr.trim_matches('\'') {
            "<f4" => Some(Numbers::F32),
            "<f8" => Some(Numbers::F64),
            "<i4" => Some(Numbers::I32),
            "<i8" => Some(Numbers::I64),
            "|b1" => Some(Numbers::Bool),
            _ => None,
        }
    }
}

fn values<T: npyz::Deserialize>(array: NpyFile<BufReader<std::fs::File>>) -> std::io::Result<Vec<T>> {
    array.data::<T>().map_err(std::io::Error::other)?.collect()
}

impl NullRow {
    /// The bytes of an unconditional row where the conditional one is `row`, of `shape`.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the input whose null is of another shape than the row; [`Error::Memory`].
    pub fn bytes(&self, input: &str, shape: &[usize], row: &[u8]) -> Result<Vec<u8>> {
        match self {
            NullRow::Keep => memory::copied(row),
            NullRow::Number(number) => memory::cycled(number, row.len()),
            NullRow::Row(null) if null.shape() == shape => memory::copied(null.row(0)),
            NullRow::Row(null) => {
                let expected = format!("{:?}, as its null has: a null of a file fits that size alone", null.shape());
                Err(Error::invalid(format!("inputs.{input}.shape"), format!("{shape:?}"), expected))
            }
        }
    }
}
