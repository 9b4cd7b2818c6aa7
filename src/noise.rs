//! Standard normal noise that depends on seed, purpose and index alone: not on batches or devices.

use crate::error::Result;
use crate::memory;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64;

/// What noise is for: each purpose has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// `sample` and `eval`.
    Sample = 1,
    /// The pool that training draws from.
    Train = 2,
    /// Validation during training.
    Validation = 3,
    /// Which samples of the pool an iteration takes.
    Choice = 4,
    /// The trainer's random projections.
    Sketch = 5,
    /// The guidance scale of a sample, where it is drawn from a range.
    Guidance = 6,
}

/// A generator for item `index` of `purpose`.
pub fn generator(seed: u64, purpose: Purpose, index: u64) -> Pcg64 {
    let keyed = mix(mix(seed ^ (purpose as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(index));
    Pcg64::seed_from_u64(keyed)
}

/// The finaliser of SplitMix64: neighbouring inputs give unrelated outputs.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Standard normal numbers for the samples `indices`, `elements` each.
/// ```
/// use bespoke::noise::{Purpose, normal};
///
/// let together = normal(7, Purpose::Sample, 0..3, 2)?;
/// let last = normal(7, Purpose::Sample, 2..3, 2)?;
/// assert_eq!(together[4..], last);
/// # Ok::<(), bespoke::Error>(())
/// ```
///
/// # Errors
/// [`crate::Error::Memory`].
pub fn normal(
    seed: u64,
    purpose: Purpose,
    indices: impl ExactSizeIterator<Item = usize>,
    elements: usize,
) -> Result<Vec<f32>> {
    let mut values = memory::room(memory::numbers(indices.len(), elements)?)?;
    for index in indices {
        let rng = generator(seed, purpose, index as u64);
        values.extend(Distribution::<f32>::sample_iter(StandardNormal, rng).take(elements));
    }
    Ok(values)
}
