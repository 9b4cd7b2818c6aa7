//! Headers of .npy and safetensors files: refused with a message, or true of the bytes that follow. The first byte
//! says which.
#![no_main]

use bespoke::npy::Samples;
use bespoke::stored::Stored;
use libfuzzer_sys::fuzz_target;
use safetensors::Dtype;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The shapes that are asked for.
const SHAPES: [&[usize]; 4] = [&[3], &[1, 8, 8], &[0, 2], &[1 << 40, 1 << 40]];

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    let outcome = if kind % 2 == 0 { npy(bytes, usize::from(kind / 2)) } else { tensors(bytes) };
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
