//! Headers of .npy and safetensors files, and files of conditions: refused with a message, or true of the bytes that
//! follow. The first byte says which.
#![no_main]

use bespoke::card::Card;
use bespoke::npy::Samples;
use bespoke::samples::{Conditioning, Conditions};
use bespoke::stored::Stored;
use libfuzzer_sys::fuzz_target;
use safetensors::Dtype;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The shapes that are asked for.
const SHAPES: [&[usize]; 4] = [&[3], &[1, 8, 8], &[0, 2], &[1 << 40, 1 << 40]];

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    let choice = usize::from(kind / 4);
    let outcome = match kind % 4 {
        0 => npy(bytes, choice),
        1 => tensors(bytes),
        2 => conditions(bytes, choice),
        _ => conditions(&described(bytes), choice),
    };
    if let Err(error) = outcome {
        assert!(!error.to_string().is_empty());
    }
});

fn npy(bytes: &[u8], choice: usize) -> bespoke::Result<()> {
    let shape = SHAPES[choice % SHAPES.len()];
    let open = || Samples::read(bytes, Some(bytes.len() as u64), "input", shape);
    let (samples, again) = (open()?, open()?);
    let elements: usize = shape.iter().product();
    let count = samples.count();
    assert!(count.saturating_mul(elements) <= bytes.len());
    let mut seen = 0;
    let outcome = samples.for_each([-1.0, 1.0], 2, |part| {
        assert!(part.len() <= 2 * elements.max(1) && part.iter().all(|v| v.is_finite()));
        seen += part.len();
        Ok(())
    });
    match again.into_vec() {
        Ok(all) => assert!(outcome.is_ok() && all.len() == count * elements),
        // Bytes are data, and no noise.
        Err(_) => assert!(outcome.is_err() || seen == count * elements),
    }
    outcome
}

/// A file of this process's own: what is read piece by piece is read from a file.
fn file() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| std::env::temp_dir().join(format!("bespoke-fuzz-{}.safetensors", std::process::id())))
}

fn tensors(bytes: &[u8]) -> bespoke::Result<()> {
    std::fs::write(file(), bytes).expect("a temporary file");
    let Some(stored) = Stored::open(file())? else { panic!("it was written") };
    stored.note("bespoke");
    for (name, dtype, columns) in [("x", Dtype::F32, 2), ("train.x1", Dtype::F32, 64), ("t", Dtype::F64, 2)] {
        let Ok(rows) = stored.rows(name, dtype, columns) else { continue };
        let all = stored.read(name, dtype, columns, 0, rows)?;
        assert!(all.len() == rows * columns * dtype.size() && all.len() <= bytes.len());
        assert!(stored.read(name, dtype, columns, rows, 1).is_err());
        assert!(stored.read(name, dtype, columns, 1, usize::MAX).is_err());
    }
    Ok(())
}

/// Models that files of conditions are read for.
fn cards() -> &'static [Card] {
    static CARDS: OnceLock<Vec<Card>> = OnceLock::new();
    CARDS.get_or_init(|| {
        let keys = [
            r#""shape": [2], "inputs": [{"name": "a", "dtype": "float32", "shape": [2]}]"#,
            r#""shape": ["n", 2], "inputs": [{"name": "a", "dtype": "float32", "shape": ["m"]},
               {"name": "b", "dtype": "int64", "shape": []}]"#,
            r#""shape": ["n", "m"], "inputs": [{"name": "a", "dtype": "bool", "shape": ["n", "n"], "null": 0},
               {"name": "b", "dtype": "float16", "shape": ["m", 3]}]"#,
        ];
        let text = |keys| {
            format!(
                r#"{{"format": "bespoke-model", "version": 1, "runtime": "host", "output": "velocity",
                   "scheduler": {{"name": "fm-ot"}}, {keys}}}"#
            )
        };
        keys.map(|keys| Card::parse(&text(keys), Path::new("card.json")).expect("a card")).into()
    })
}

fn conditions(bytes: &[u8], choice: usize) -> bespoke::Result<()> {
    let card = &cards()[choice % cards().len()];
    std::fs::write(file(), bytes).expect("a temporary file");
    let read = Conditions::read(&[file().clone()], card)?;
    assert!(read.count() > 0);
    // As many rows as there are bytes, at least: each is of one byte or more.
    assert!(read.count() <= bytes.len());
    let sized = card.with_sizes(read.sizes(0));
    if sized.shape.numbers().is_some() {
        let elements = sized.sample_shape()?.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        assert!(elements.is_some_and(|elements| elements > 0));
    }
    let count = read.count();
    let conditioning = Conditioning { conditions: Some(Arc::new(read)), ..Conditioning::default() };
    let of = |first: usize| conditioning.of(first..first + 2);
    assert_eq!(of(0)?.inputs, of(count)?.inputs);
    assert_eq!(sized.signature().bind(2, &of(1)?.inputs)?.0.len(), card.inputs.len());
    Ok(())
}

/// A safetensors file as `bytes` describe it, four to a tensor: name, dtype, shape, and whether its place is told
/// truly. Most of them are whole; what they hold is another matter.
fn described(bytes: &[u8]) -> Vec<u8> {
    const SIZES: [u64; 8] = [1, 2, 3, 0, 2, 1 << 31, 1 << 62, u64::MAX];
    const DTYPES: [(&str, u64); 8] =
        [("F32", 4), ("I64", 8), ("BOOL", 1), ("F16", 2), ("F32", 4), ("U8", 1), ("F64", 8), ("I32", 4)];
    let (about, tensors) = bytes.split_at(bytes.len().min(2));
    let mut header = String::from("{");
    if let [first, second] = about {
        // Named sizes, as text.
        let (key, size) = (["n", "m", "k"][usize::from(first % 3)], SIZES[usize::from(second % 8)]);
        let _ = write!(header, r#""__metadata__":{{"{key}":"{size}"}}"#);
    }
    let mut end = 0u64;
    for part in tensors.chunks_exact(4).take(6) {
        let [name, dtype, shape, place] = [part[0], part[1], part[2], part[3]];
        let (dtype, size) = DTYPES[usize::from(dtype % 8)];
        let rank = usize::from(shape / 16 % 5) * if shape >= 0xf0 { 25 } else { 1 };
        let shape: Vec<u64> =
            (0..rank).map(|i| SIZES[(usize::from(shape) + i * usize::from(place / 16)) % 8]).collect();
        let product = shape.iter().try_fold(size, |product, n| product.checked_mul(*n)).filter(|n| *n < 1 << 12);
        let next = end + product.unwrap_or_default();
        let told = if place % 16 == 0 { next + 1 } else { next };
        let comma = if header.len() > 1 { "," } else { "" };
        let name = ["a", "b", "c", "a"][usize::from(name % 4)];
        let _ =
            write!(header, r#"{comma}"{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{end},{told}]}}"#);
        end = next;
    }
    header.push('}');
    let data = (0..end).map(|i| (i % 2) as u8);
    (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()).chain(data).collect()
}
