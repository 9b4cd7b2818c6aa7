//! The noise that a seed names.

use super::dlpack::DLTensor;
use super::guard::guard;
use super::layout::{HostTensor, SampleDtype};
use super::status::bespoke_status;
use crate::error::Error;
use crate::noise::{Purpose, normal};

/// Writes standard normal noise into `x`, `[count, ...]`: that of the samples `first`, `first` + 1, ... of
/// `seed`. A sample's noise depends on the seed, its index and its number of elements alone, and is
/// what `bespoke sample --seed` starts from.
///
/// # Safety
/// `x` is NULL or describes memory that may be written, and that no other thread uses, during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_noise(seed: u64, first: u64, x: *mut DLTensor) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let x = HostTensor::new("x", x)?;
        x.check_writable()?;
        let first = usize::try_from(first).ok().filter(|first| first.checked_add(x.batch()).is_some());
        let first = first.ok_or_else(|| Error::invalid("first", "too great", "an index below 2^64 - count"))?;
        x.scatter(&normal(seed, Purpose::Sample, first..first + x.batch(), x.elements())?, SampleDtype::F32);
        Ok(())
    })
}
