//! What a network is given besides time and state: named columns of tensors, one row a sample.
//!
//! The library hands them on as they are: it never computes on them.

use crate::error::{Error, Result};
use crate::memory;
use crate::tensor::Dtype;
use parking_lot::Mutex;
use std::any::Any;
use std::sync::Arc;

/// One input of a batch: `[batch, shape...]` numbers of one type, row after row. Immutable; clones share the numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    name: String,
    dtype: Dtype,
    /// Of one row.
    shape: Vec<usize>,
    batch: usize,
    row_bytes: usize,
    /// The bytes, in words so that numbers of every type are aligned.
    words: Arc<Vec<u64>>,
}

impl Column {
    /// A column of `bytes`, the numbers in the machine's order; a row is of `shape`, `[]` for one number.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the input, where a size is 0, or the bytes are not those of `batch` rows, or a
    /// boolean is neither 0 nor 1; [`Error::Memory`].
    pub fn new(name: &str, dtype: Dtype, shape: &[usize], batch: usize, bytes: &[u8]) -> Result<Self> {
        let row_bytes = shape.iter().try_fold(dtype.size(), |product, n| product.checked_mul(*n));
        let wrong = |value: String, expected: &str| Error::invalid(format!("inputs.{name}"), value, expected);
        let row_bytes = row_bytes
            .filter(|bytes| *bytes > 0)
            .ok_or_else(|| wrong(format!("of shape {shape:?}"), "sizes of at least 1 that memory can hold"))?;
        if row_bytes.checked_mul(batch) != Some(bytes.len()) {
            let value = format!("{} bytes", bytes.len());
            return Err(wrong(value, &format!("{batch} rows of {dtype} {shape:?}, {row_bytes} bytes each")));
        }
        if dtype == Dtype::Bool
            && let Some(byte) = bytes.iter().find(|byte| **byte > 1)
        {
            return Err(wrong(format!("a boolean of {byte}"), "0 or 1"));
        }
        let mut words = memory::filled(bytes.len().div_ceil(size_of::<u64>()), 0u64)?;
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Ok(Self { name: name.to_owned(), dtype, shape: shape.to_vec(), batch, row_bytes, words: Arc::new(words) })
    }

    /// A column of one int64 a sample, as classes are.
    ///
    /// # Errors
    /// As [`Column::new`].
    pub fn of_integers(name: &str, values: &[i64]) -> Result<Self> {
        Self::new(name, Dtype::Int64, &[], values.len(), bytemuck::cast_slice(values))
    }

    /// What the network or its card calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its numbers.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Shape of one row; empty for one number.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of rows.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// All its bytes, aligned to 8.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.batch * self.row_bytes]
    }

    /// The bytes of row `row`, which must be one.
    pub fn row(&self, row: usize) -> &[u8] {
        &self.bytes()[row * self.row_bytes..][..self.row_bytes]
    }

    /// Its numbers, where they are int64.
    pub fn integers(&self) -> Option<&[i64]> {
        (self.dtype == Dtype::Int64).then(|| bytemuck::cast_slice(self.bytes()))
    }

    /// The rows at `rows`, in that order; each must be one.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn select(&self, rows: &[usize]) -> Result<Self> {
        self.of_rows(&memory::collected(rows.iter().map(|row| self.row(*row)))?)
    }

    /// A column like this one, of these rows' bytes.
    ///
    /// # Errors
    /// [`Error::Memory`], or [`Error::Invalid`] where a row has another length.
    pub fn of_rows(&self, rows: &[&[u8]]) -> Result<Self> {
        let mut bytes = memory::room(rows.iter().map(|row| row.len()).sum())?;
        rows.iter().for_each(|row| bytes.extend_from_slice(row));
        Self::new(&self.name, self.dtype, &self.shape, rows.len(), &bytes)
    }
}

/// The inputs of a batch, in the order in which they were given. Columns have one row a sample each.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    columns: Vec<Column>,
    /// What a field made of them: a solve asks for the same at each of its evaluations.
    kept: Kept,
}

impl PartialEq for Inputs {
    fn eq(&self, other: &Self) -> bool {
        self.columns == other.columns
    }
}

/// The last thing that was made of something that does not change. Clones share it.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Option<Arc<dyn Any + Send + Sync>>>>);

impl Kept {
    /// What is kept, where that is a `T` that `fits`; else what `make` makes, which is kept from then on.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get<T: Any + Send + Sync>(
        &self,
        fits: impl FnOnce(&T) -> bool,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<Arc<T>> {
        let kept = self.0.lock().clone();
        if let Some(kept) = kept.and_then(|kept| kept.downcast::<T>().ok()).filter(|kept| fits(kept)) {
            return Ok(kept);
        }
        let made = Arc::new(make()?);
        *self.0.lock() = Some(made.clone());
        Ok(made)
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.lock().is_some() { "Kept(something)" } else { "Kept(nothing)" })
    }
}

impl Inputs {
    /// These columns.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming an input that is there twice, or has another number of rows than the first.
    pub fn new(columns: Vec<Column>) -> Result<Self> {
        for (i, column) in columns.iter().enumerate() {
            if columns[..i].iter().any(|other| other.name == column.name) {
                return Err(Error::invalid(format!("inputs.{}", column.name), "there twice", "each input once"));
            }
            if column.batch != columns[0].batch {
                let expected = format!("{}, as inputs.{} has", columns[0].batch, columns[0].name);
                return Err(Error::invalid(
                    format!("inputs.{}", column.name),
                    format!("{} rows", column.batch),
                    expected,
                ));
            }
        }
        Ok(Self { columns, kept: Kept::default() })
    }

    /// What was made of these inputs.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// The columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The input called `name`.
    pub fn get(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The samples `rows`, in that order; each must be one.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn select(&self, rows: &[usize]) -> Result<Self> {
        let columns = self.columns.iter().map(|column| column.select(rows)).collect::<Result<_>>()?;
        Ok(Self { columns, kept: Kept::default() })
    }
}

/// The classes of a batch as inputs: one column `class`; none for no classes.
///
/// # Errors
/// [`Error::Memory`].
pub fn of_classes(classes: &[i64]) -> Result<Inputs> {
    if classes.is_empty() {
        return Ok(Inputs::default());
    }
    Inputs::new(vec![Column::of_integers(CLASS, classes)?])
}

/// The name of the input that a card's `classes` stands for.
pub const CLASS: &str = "class";
