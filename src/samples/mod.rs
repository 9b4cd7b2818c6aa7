//! What training and evaluation share: which noises, on what condition, how many at once, and how far
//! the samples are from the ground truth's.

mod batches;
mod conditioning;
mod conditions;
mod noises;
mod quality;

pub use batches::Batch;
pub use conditioning::{Conditioning, Extent, GuidanceScale};
pub use conditions::Conditions;
pub use noises::Noises;
pub use quality::{Errors, Quality};

/// Samples in flight at once at most.
const CHUNK: usize = 250;
/// Numbers in flight at once at most, but for a sample larger than that.
const CHUNK_NUMBERS: usize = 1 << 23;

/// Samples in flight at once, of `elements` numbers each: memory does not grow with the count, nor
/// much with their size. The ground truth holds some twenty arrays of a batch.
pub fn chunk(elements: usize) -> usize {
    (CHUNK_NUMBERS / elements.max(1)).clamp(1, CHUNK)
}
