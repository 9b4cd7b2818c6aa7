//! Arrays as .npy files.

use bespoke::evaluate::Noises;
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
    let dtype = array.dtype().descr();
    let failed = |e: std::io::Error| Error::format(&document, "data", e);
    match dtype.trim_matches('\'') {
        "<f4" => array.into_vec::<f32>().map_err(failed),
        "<f8" => Ok(array.into_vec::<f64>().map_err(failed)?.into_iter().map(|v| v as f32).collect()),
        _ => Err(Error::format(&document, "dtype", format!("is {dtype}, expected float32 or float64"))),
    }
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
