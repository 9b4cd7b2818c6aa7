//! Arrays of samples as .npy files.

use crate::error::{Error, Result};
use npyz::{NpyFile, NpyHeader, NpyWriter, WriterBuilder};
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Write};
use std::path::Path;

/// No header of ours comes near this size, in bytes.
const MAX_HEADER: usize = 1 << 13;
/// Nor are there as many opening brackets: the dictionary's and the shape's are two. The parser takes twice as long
/// for each that lies in another.
const MAX_BRACKETS: usize = 8;

/// An array [count, shape...] (or [count, elements]) that is there to be read.
/// ```
/// use bespoke::npy::{Samples, begin};
///
/// let mut file = Vec::new();
/// let mut array = begin(&mut file, 2, &[3])?;
/// array.extend([1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// array.finish()?;
/// let samples = Samples::read(file.as_slice(), None, "an example", &[3])?;
/// assert_eq!(samples.count(), 2);
/// assert_eq!(samples.into_vec()?, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
/// # Ok::<(), anyhow::Error>(())
/// ```
pub struct Samples<R: Read> {
    file: NpyFile<R>,
    dtype: Encoding,
    name: String,
    count: usize,
    elements: usize,
}

#[derive(Clone, Copy)]
enum Encoding {
    F32,
    F64,
    U8,
}

impl Samples<BufReader<File>> {
    /// The array of `path`, if it is one of samples of `shape`.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] naming the part of its header at fault.
    pub fn open(path: &Path, shape: &[usize]) -> Result<Self> {
        Self::open_as(path, |_| Ok(shape.to_vec()))
    }

    /// The same, of the shape that `shape` answers when it is told the file's, without the count.
    ///
    /// # Errors
    /// Those of `shape`, and as [`Samples::open`].
    pub fn open_as(path: &Path, shape: impl FnOnce(&[usize]) -> Result<Vec<usize>>) -> Result<Self> {
        let (file, size) = opened(path)?;
        Self::read_as(BufReader::new(file), size, &path.display().to_string(), shape)
    }
}

impl<R: Read> Samples<R> {
    /// The array that `reader` gives, of `size` bytes in all where that is known; `name` is what messages call it.
    ///
    /// # Errors
    /// As [`Samples::open`].
    pub fn read(reader: R, size: Option<u64>, name: &str, shape: &[usize]) -> Result<Self> {
        Self::read_as(reader, size, name, |_| Ok(shape.to_vec()))
    }

    fn read_as(
        reader: R,
        size: Option<u64>,
        name: &str,
        shape: impl FnOnce(&[usize]) -> Result<Vec<usize>>,
    ) -> Result<Self> {
        let file = array(reader, size, name)?;
        let rows = file.shape().iter().skip(1).map(|n| usize::try_from(*n).unwrap_or(usize::MAX)).collect::<Vec<_>>();
        let shape = shape(&rows)?;
        let wrong = |field: &str, problem: String| Error::format(name, field, problem);
        let shown = || format!("is {:?}, expected [count] followed by {shape:?}", file.shape());
        let expected: Vec<u64> = shape.iter().map(|n| *n as u64).collect();
        let elements = product(&expected).ok_or_else(|| wrong("shape", shown()))?;
        let count = match file.shape() {
            [count, rest @ ..] if !rest.is_empty() && (rest == expected || rest == [elements]) => *count,
            _ => return Err(wrong("shape", shown())),
        };
        if file.order() == npyz::Order::Fortran {
            return Err(wrong("fortran_order", "is true, expected C order".into()));
        }
        let descr = file.dtype().descr();
        let dtype = match descr.trim_matches('\'') {
            "<f4" => Encoding::F32,
            "<f8" => Encoding::F64,
            "|u1" => Encoding::U8,
            _ => return Err(wrong("dtype", format!("is {descr}, expected float32 or float64, or uint8 of data"))),
        };
        let sizes = usize::try_from(count).and_then(|count| Ok((count, usize::try_from(elements)?)));
        let (count, elements) = sizes.map_err(|_| wrong("shape", shown()))?;
        Ok(Self { file, dtype, name: name.to_owned(), count, elements })
    }

    /// Number of samples.
    pub fn count(&self) -> usize {
        self.count
    }

    /// All numbers, of an array of f32 or f64.
    ///
    /// # Errors
    /// [`Error::Format`].
    pub fn into_vec(self) -> Result<Vec<f32>> {
        if matches!(self.dtype, Encoding::U8) {
            return Err(Error::format(self.name, "dtype", "is uint8, expected float32 or float64"));
        }
        let mut all = Vec::new();
        let most = self.count;
        self.for_each([0.0, 1.0], most, |part| {
            all.extend_from_slice(part);
            Ok(())
        })?;
        Ok(all)
    }

    /// Hands on `chunk` samples at a time; the bytes 0 to 255 become `range`.
    ///
    /// # Errors
    /// [`Error::Format`], or what `take` gives.
    pub fn for_each(self, range: [f64; 2], chunk: usize, take: impl FnMut(&[f32]) -> Result<()>) -> Result<()> {
        let Self { file, dtype, name, elements, .. } = self;
        let size = chunk.max(1).saturating_mul(elements.max(1));
        let [low, high] = range;
        let level = |byte: u8| (low + (high - low) * f64::from(byte) / 255.0) as f32;
        match dtype {
            Encoding::F32 => hand_on(file.data::<f32>(), |value| value, size, &name, take),
            Encoding::F64 => hand_on(file.data::<f64>(), |value| value as f32, size, &name, take),
            Encoding::U8 => hand_on(file.data::<u8>(), level, size, &name, take),
        }
    }
}

/// Hands on what `values` become, `size` of them at a time.
fn hand_on<T, E: std::fmt::Display>(
    values: std::result::Result<impl Iterator<Item = std::io::Result<T>>, E>,
    of: impl Fn(T) -> f32,
    size: usize,
    name: &str,
    mut take: impl FnMut(&[f32]) -> Result<()>,
) -> Result<()> {
    let failed = |problem: String| Error::format(name, "data", problem);
    let mut part = Vec::new();
    for value in values.map_err(|e| failed(e.to_string()))? {
        let value = of(value.map_err(|e| failed(e.to_string()))?);
        if !value.is_finite() {
            return Err(failed("holds a NaN or an infinity".into()));
        }
        part.push(value);
        if part.len() == size {
            take(&part)?;
            part.clear();
        }
    }
    if part.is_empty() { Ok(()) } else { take(&part) }
}

/// The array that `reader` gives, of `size` bytes in all where that is known: whatever its header says that it holds
/// is there. `name` is what messages call it.
///
/// # Errors
/// [`Error::Format`].
pub fn array<R: Read>(mut reader: R, size: Option<u64>, name: &str) -> Result<NpyFile<R>> {
    let wrong = |field: &str, problem: String| Error::format(name, field, problem);
    let header = header(&mut reader).map_err(|problem| wrong("header", problem))?;
    let begin = header.len() as u64;
    let header = NpyHeader::from_reader(Cursor::new(header)).map_err(|e| wrong("header", e.to_string()))?;
    let item = header.dtype().num_bytes().unwrap_or(1).max(1) as u64;
    let end = product(header.shape()).and_then(|count| count.checked_mul(item)?.checked_add(begin));
    if end.is_none_or(|end| size.is_some_and(|size| end > size)) {
        let held = size.map_or_else(|| "can hold".into(), |size| format!("holds in {size} bytes"));
        return Err(wrong("shape", format!("is {:?}, more than the file {held}", header.shape())));
    }
    Ok(NpyFile::with_header(header, reader))
}

/// [`array()`], of the file at `path`.
///
/// # Errors
/// [`Error::Io`], or as [`array()`].
pub fn open(path: &Path) -> Result<NpyFile<BufReader<File>>> {
    let (file, size) = opened(path)?;
    array(BufReader::new(file), size, &path.display().to_string())
}

/// The file at `path`, and its size: of a pipe nobody knows that.
fn opened(path: &Path) -> Result<(File, Option<u64>)> {
    let failed = |e| Error::io("read", path, e);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    Ok((file, metadata.is_file().then_some(metadata.len())))
}

/// None where no u64 holds it.
fn product(sizes: &[u64]) -> Option<u64> {
    sizes.iter().try_fold(1u64, |product, n| product.checked_mul(*n))
}

/// The bytes of a header that a parser may be given: of a size and depth that ours have.
fn header(reader: &mut impl Read) -> std::result::Result<Vec<u8>, String> {
    let mut header = vec![0; 10];
    let read =
        |reader: &mut dyn Read, bytes: &mut [u8]| reader.read_exact(bytes).map_err(|e| format!("is not whole: {e}"));
    read(reader, &mut header)?;
    if !header.starts_with(b"\x93NUMPY") {
        return Err("is not that of an .npy file".into());
    }
    let mut length = usize::from(header[8]) | usize::from(header[9]) << 8;
    if header[6] != 1 {
        let mut high = [0; 2];
        read(reader, &mut high)?;
        header.extend(high);
        length |= usize::from(high[0]) << 16 | usize::from(high[1]) << 24;
    }
    if length > MAX_HEADER {
        return Err(format!("is of {length} bytes, more than {MAX_HEADER}"));
    }
    let begin = header.len();
    header.resize(begin + length, 0);
    read(reader, &mut header[begin..])?;
    let brackets = header[begin..].iter().filter(|byte| matches!(byte, b'(' | b'[' | b'{')).count();
    if brackets > MAX_BRACKETS {
        return Err(format!("has {brackets} brackets, more than {MAX_BRACKETS}"));
    }
    Ok(header)
}

/// Begins an array [count, shape...] of f32 on `file`.
///
/// # Errors
/// The file's own.
pub fn begin<'a>(
    file: &'a mut dyn Write,
    count: usize,
    shape: &[usize],
) -> std::io::Result<NpyWriter<f32, &'a mut dyn Write>> {
    let sizes: Vec<u64> = std::iter::once(count).chain(shape.iter().copied()).map(|n| n as u64).collect();
    npyz::WriteOptions::new().default_dtype().shape(&sizes).writer(file).begin_nd()
}
