//! Tensors on disk (safetensors), read and written piece by piece: a file need not fit in memory.

use crate::document;
use crate::error::{Error, Result};
use crate::output;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// No header of ours comes near this size, in bytes.
const MAX_HEADER: u64 = 100 << 20;

/// A file that is there.
pub struct Stored {
    path: PathBuf,
    file: File,
    /// Where the tensors' bytes begin.
    begin: u64,
    tensors: HashMap<String, TensorInfo>,
    metadata: HashMap<String, String>,
}

impl Stored {
    /// The file at `path`, whose header tells the truth about its size; `None` where nothing is there.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] where it is no whole safetensors file.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let failed = |e| Error::io("read", path, e);
        let broken = |problem: &str| unreadable(path, format!("is no whole safetensors file: {problem}"));
        let metadata = match std::fs::metadata(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            found => found.map_err(failed)?,
        };
        // Opening a pipe would wait for a writer.
        if !metadata.is_file() {
            return Err(broken("it is no regular file"));
        }
        let mut file = File::open(path).map_err(failed)?;
        let (begin, header) = header(&mut file, metadata.len()).map_err(|problem| broken(&problem))?;
        let tensors = header.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok(Some(Self { path: path.to_owned(), file, begin, tensors, metadata }))
    }

    /// What stands under `key` in its metadata, as JSON; null for nothing.
    pub fn note(&self, key: &str) -> Value {
        self.metadata.get(key).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// An [`Error::Format`] about the tensor `name`.
    pub fn wrong(&self, name: &str, problem: impl ToString) -> Error {
        Error::format(self.path.display().to_string(), name, problem)
    }

    /// The number of rows of the matrix `name`, which must be of `dtype` and have `columns`.
    pub fn rows(&self, name: &str, dtype: Dtype, columns: usize) -> Result<usize> {
        let info = self.tensors.get(name).ok_or_else(|| self.wrong(name, "is not there"))?;
        match info.shape[..] {
            [rows, found] if found == columns && info.dtype == dtype => Ok(rows),
            _ => {
                let problem = format!("is {:?} {:?}, expected {dtype:?} [_, {columns}]", info.dtype, info.shape);
                Err(self.wrong(name, problem))
            }
        }
    }

    /// The bytes of `count` rows from row `first` on of the matrix `name` of `dtype` and `columns`.
    pub fn read(&self, name: &str, dtype: Dtype, columns: usize, first: usize, count: usize) -> Result<Vec<u8>> {
        let rows = self.rows(name, dtype, columns)?;
        if first.checked_add(count).is_none_or(|end| end > rows) {
            return Err(self.wrong(name, format!("has {rows} rows, expected {}", first.saturating_add(count))));
        }
        // What a file holds is less than what a file can hold.
        let row = columns * dtype.size();
        let start = self.begin + (self.tensors[name].data_offsets.0 + first * row) as u64;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(count * row).map_err(|_| Error::Memory { bytes: count * row })?;
        bytes.resize(count * row, 0);
        let mut file = &self.file;
        let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut bytes));
        read.map_err(|e| Error::io("read", &self.path, e))?;
        Ok(bytes)
    }
}

/// All bytes of the file at `path`. A pipe or a device, which may have no end, is read as far as its header says, and
/// one byte further: one that has more is found out by its size.
///
/// # Errors
/// [`Error::Io`].
pub fn bytes(path: &Path) -> Result<Vec<u8>> {
    let failed = |e| Error::io("read", path, e);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mut bytes = Vec::new();
    let read_on = |bytes: &mut Vec<u8>, most| (&file).take(most).read_to_end(bytes).map_err(failed);
    if metadata.is_file() {
        read_on(&mut bytes, metadata.len())?;
        return Ok(bytes);
    }
    read_on(&mut bytes, 8)?;
    let length = bytes[..].try_into().map_or(0, u64::from_le_bytes);
    if length <= MAX_HEADER {
        read_on(&mut bytes, length)?;
        let header: Option<Metadata> = serde_json::from_slice(bytes.get(8..).unwrap_or_default()).ok();
        let ends = header.iter().flat_map(|header| header.tensors().into_values().map(|info| info.data_offsets.1));
        read_on(&mut bytes, (ends.max().unwrap_or(0) as u64).saturating_add(1))?;
    }
    Ok(bytes)
}

/// Whether the header of a whole file in memory tells the truth about it; `name` is what messages call it.
///
/// # Errors
/// [`Error::Format`].
pub fn check(mut bytes: &[u8], name: &str) -> Result<()> {
    let size = bytes.len() as u64;
    let broken = |problem| Error::format(name, ".", format!("is no whole safetensors file: {problem}"));
    header(&mut bytes, size).map(drop).map_err(broken)
}

/// The header of a file of `size` bytes, and where the tensors' bytes begin; or what is wrong with it.
fn header(file: &mut impl Read, size: u64) -> std::result::Result<(u64, Metadata), String> {
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| "it is shorter than 8 bytes".to_owned())?;
    let length = u64::from_le_bytes(length);
    let begin = length.checked_add(8).filter(|begin| length <= MAX_HEADER && *begin <= size);
    let begin = begin.ok_or_else(|| format!("its header is of {length} bytes"))?;
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text).map_err(|e| e.to_string())?;
    let text = String::from_utf8(text).map_err(|e| format!("its header is not UTF-8: {e}"))?;
    // Parsed strictly first: of a name that is there twice the crate would take the last.
    let strict: document::Notes = document::parse(&text, "its header").map_err(|e| e.to_string())?;
    let header: Metadata = serde_json::from_value(Value::Object(strict.0)).map_err(|e| e.to_string())?;
    let wrong = check_layout(&header.tensors(), size - begin).map(|(name, problem)| format!("{name}: {problem}"));
    wrong.map_or(Ok((begin, header)), Err)
}

/// A tensor whose bytes are not those that its shape asks for, or do not begin where the last one's end: together
/// they are the `size` bytes of the file.
fn check_layout<'a>(tensors: &'a HashMap<String, &TensorInfo>, size: u64) -> Option<(&'a str, String)> {
    let mut in_order: Vec<_> = tensors.iter().collect();
    in_order.sort_by_key(|(name, info)| (info.data_offsets, name.as_str()));
    let mut end = 0;
    for (name, info) in in_order {
        let (from, to) = info.data_offsets;
        let product = info.shape.iter().try_fold(info.dtype.size(), |product, n| product.checked_mul(*n));
        if to.checked_sub(from) != product || to as u64 > size {
            return Some((
                name,
                format!("{:?} {:?} is not its bytes {from} to {to} of {size}", info.dtype, info.shape),
            ));
        }
        if from as u64 != end {
            return Some((name, format!("begins at {from}, but the bytes before it end at {end}")));
        }
        end = to as u64;
    }
    (end != size).then(|| (".", format!("its tensors end after {end} of {size} bytes")))
}

fn unreadable(path: &Path, problem: impl ToString) -> Error {
    Error::format(path.display().to_string(), ".", problem)
}

/// A tensor to be written, whose bytes come when their turn does.
pub struct Written<'a> {
    /// Its key in the file.
    pub name: String,
    /// Of its numbers.
    pub dtype: Dtype,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Gives its bytes, in pieces.
    pub bytes: Box<Pieces<'a>>,
}

/// Hands pieces of bytes to whoever takes them, one after another.
pub type Pieces<'a> = dyn Fn(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> + 'a;

/// Writes `tensors` with `notes` as their metadata.
///
/// # Errors
/// [`Error::Io`], or what the tensors' bytes give.
pub fn write(path: &Path, mut tensors: Vec<Written<'_>>, notes: &[(&str, Value)]) -> Result<()> {
    // By falling alignment, as the format recommends.
    tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
    let mut header = Map::new();
    let texts: Map<String, Value> =
        notes.iter().map(|(key, note)| ((*key).to_owned(), note.to_string().into())).collect();
    header.insert("__metadata__".into(), texts.into());
    let mut end = 0;
    for Written { name, dtype, shape, .. } in &tensors {
        let size = shape.iter().try_fold(dtype.size(), |product, n| product.checked_mul(*n));
        let next = size.and_then(|size| size.checked_add(end)).ok_or_else(|| unreadable(path, "is too large"))?;
        header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [end, next] }));
        end = next;
    }
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    output::write_with(path, |file| {
        let mut add = |bytes: &[u8]| file.write_all(bytes).map_err(|e| Error::io("write", path, e));
        add(&(header.len() as u64).to_le_bytes())?;
        add(header.as_bytes())?;
        tensors.iter().try_for_each(|tensor| (tensor.bytes)(&mut add))
    })
}
