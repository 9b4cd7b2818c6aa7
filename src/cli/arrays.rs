//! Arrays as .npy files.

use bespoke::samples::Noises;
use bespoke::{Error, Result};
use npyz::{NpyWriter, WriterBuilder};
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;

/// The noises that the arguments ask for, `default` of them where no count is given.
pub fn noises(args: &super::NoiseArgs, shape: &[usize], default: usize) -> Result<Noises> {
    let noises = match &args.noise {
        Some(path) => Noises::Given(read(path, shape)?),
        None => Noises::Seed { seed: args.seed, count: args.count.unwrap_or(default) },
    };
    noises.validate(shape.iter().product())?;
    Ok(noises)
}

/// Reads an array [count, shape...] (or [count, elements]) of f32 or f64.
fn read(path: &Path, shape: &[usize]) -> Result<Vec<f32>> {
    let (array, dtype) = open(path, shape)?;
    let failed = |e: std::io::Error| Error::format(path.display().to_string(), "data", e);
    match dtype {
        Dtype::F32 => array.into_vec::<f32>().map_err(failed),
        Dtype::F64 => Ok(array.into_vec::<f64>().map_err(failed)?.into_iter().map(|v| v as f32).collect()),
        Dtype::U8 => Err(Error::format(path.display().to_string(), "dtype", "is uint8, expected float32 or float64")),
    }
}

/// Hands on an array [count, shape...] (or [count, elements]) of f32, f64 or bytes, `chunk` samples at a
/// time; the bytes 0 to 255 become `range`.
pub fn for_each(
    path: &Path,
    shape: &[usize],
    range: [f64; 2],
    chunk: usize,
    mut take: impl FnMut(&[f32]) -> Result<()>,
) -> Result<()> {
    let document = path.display().to_string();
    let (array, dtype) = open(path, shape)?;
    let failed = |e: std::io::Error| Error::format(&document, "data", e);
    let [low, high] = range;
    let level = |byte: u8| (low + (high - low) * f64::from(byte) / 255.0) as f32;
    let values: Box<dyn Iterator<Item = std::io::Result<f32>>> = match dtype {
        Dtype::F32 => Box::new(array.data::<f32>().map_err(|e| failed(std::io::Error::other(e)))?),
        Dtype::F64 => {
            Box::new(array.data::<f64>().map_err(|e| failed(std::io::Error::other(e)))?.map(|v| v.map(|v| v as f32)))
        }
        Dtype::U8 => {
            Box::new(array.data::<u8>().map_err(|e| failed(std::io::Error::other(e)))?.map(move |v| v.map(level)))
        }
    };
    let mut part = Vec::with_capacity(chunk * shape.iter().product::<usize>());
    for value in values {
        let value = value.map_err(failed)?;
        if !value.is_finite() {
            return Err(Error::format(&document, "data", "holds a NaN or an infinity"));
        }
        part.push(value);
        if part.len() == part.capacity() {
            take(&part)?;
            part.clear();
        }
    }
    if part.is_empty() { Ok(()) } else { take(&part) }
}

enum Dtype {
    F32,
    F64,
    U8,
}

/// The array of `path`, if it is one of samples of `shape`.
fn open(path: &Path, shape: &[usize]) -> Result<(npyz::NpyFile<BufReader<File>>, Dtype)> {
    let document = path.display().to_string();
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    let array = npyz::NpyFile::new(BufReader::new(file)).map_err(|e| Error::format(&document, "header", e))?;
    let sizes: Vec<usize> = array.shape().iter().map(|n| *n as usize).collect();
    let elements: usize = shape.iter().product();
    if sizes.len() < 2 || (sizes[1..] != *shape && sizes[1..] != [elements]) {
        return Err(Error::format(document, "shape", format!("is {sizes:?}, expected [count] followed by {shape:?}")));
    }
    if array.order() == npyz::Order::Fortran {
        return Err(Error::format(document, "fortran_order", "is true, expected C order"));
    }
    let descr = array.dtype().descr();
    let dtype = match descr.trim_matches('\'') {
        "<f4" => Dtype::F32,
        "<f8" => Dtype::F64,
        "|u1" => Dtype::U8,
        _ => {
            let problem = format!("is {descr}, expected float32 or float64, or uint8 of data");
            return Err(Error::format(document, "dtype", problem));
        }
    };
    Ok((array, dtype))
}

/// Begins an .npy array [count, shape...] of f32 on `file`.
pub fn begin<'a>(
    file: &'a mut dyn Write,
    count: usize,
    shape: &[usize],
) -> std::io::Result<NpyWriter<f32, &'a mut dyn Write>> {
    let sizes: Vec<u64> = std::iter::once(count).chain(shape.iter().copied()).map(|n| n as u64).collect();
    npyz::WriteOptions::new().default_dtype().shape(&sizes).writer(file).begin_nd()
}
