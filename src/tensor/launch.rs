//! Memory of a device that the host program owns: the operations that it lends, and what one launch of them does.

use super::dtype::DLDataType;
use crate::error::Result;
use parking_lot::Mutex;
use std::ffi::c_void;

/// What is added to a sum: `coefficient` times an array, number by number.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// The array's first number, on the device; NULL for an array of ones.
    pub numbers: *const c_void,
    /// What its numbers are multiplied by: as float32, or as float64 where the sum is float64.
    pub coefficient: f64,
    /// The array's type: float32, float64, float16 or bfloat16.
    pub dtype: DLDataType,
    /// 0.
    pub reserved: u32,
}

/// An array that is written: the sum of its terms, number by number, in their order.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Sum {
    /// Its first number, on the device.
    pub out: *mut c_void,
    /// Its type, to which the sum is rounded: float32, float64, float16 or bfloat16. That of all sums of a launch.
    pub dtype: DLDataType,
    /// The first of its terms among the launch's.
    pub first_term: u32,
    /// How many terms follow from there, at least 1.
    pub term_count: u32,
    /// 0.
    pub reserved: u32,
}

/// Sums over arrays of one length. All terms of all its sums are read at a place before any sum is written there: an
/// array may be read and written. Parts of one launch touch nothing that another one writes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Numbers in each array.
    pub count: u64,
    /// The first of its sums among the launch's.
    pub first_sum: u32,
    /// How many sums follow from there: 1 to 4.
    pub sum_count: u32,
}

/// All that one launch does.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Combination {
    /// sizeof(bespoke_device_combination) of the library.
    pub struct_size: u32,
    /// Length of `parts`, at least 1.
    pub part_count: u32,
    /// Length of `sums`.
    pub sum_count: u32,
    /// Length of `terms`.
    pub term_count: u32,
    /// In host memory, valid during the call.
    pub parts: *const Part,
    /// In host memory, valid during the call.
    pub sums: *const Sum,
    /// In host memory, valid during the call.
    pub terms: *const Term,
}

/// What a host program does with its device's memory. Each operation is queued behind the ones before it.
pub trait Operations: Send + Sync {
    /// Memory for `bytes` bytes, at least 1.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] where there is none.
    fn allocate(&self, bytes: usize) -> Result<*mut c_void>;

    /// Takes memory back, once what was queued before is done.
    fn release(&self, memory: *mut c_void);

    /// Computes sums.
    ///
    /// # Errors
    /// The host's.
    fn combine(&self, combination: &Combination) -> Result<()>;

    /// Copies bytes between arrays of the device that do not overlap.
    ///
    /// # Errors
    /// The host's.
    fn copy(&self, to: *mut c_void, from: *const c_void, bytes: usize) -> Result<()>;

    /// Waits, and says of each of `finite.len()` rows of `elements` numbers whether all of them are finite: 1 or 0.
    ///
    /// # Errors
    /// The host's.
    fn finite(&self, numbers: *const c_void, dtype: DLDataType, elements: usize, finite: &mut [u8]) -> Result<()>;
}

/// A device's operations, and the parts that wait for the next launch.
pub struct DeviceMemory {
    operations: Box<dyn Operations>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    parts: Vec<Part>,
    sums: Vec<Sum>,
    terms: Vec<Term>,
}

// SAFETY: addresses of the device, which nobody here follows.
unsafe impl Send for Waiting {}

impl DeviceMemory {
    /// The memory that `operations` work on.
    pub fn new(operations: Box<dyn Operations>) -> Self {
        Self { operations, waiting: Mutex::default() }
    }

    /// What can be done with it.
    pub fn operations(&self) -> &dyn Operations {
        self.operations.as_ref()
    }

    /// Adds a part of `count` numbers to the next launch: each sum is where it goes, in one place or two, and its terms.
    pub(super) fn add<Terms: Iterator<Item = Term>>(
        &self,
        count: usize,
        dtype: DLDataType,
        sums: impl Iterator<Item = (*mut c_void, Option<*mut c_void>, Terms)>,
    ) {
        let mut waiting = self.waiting.lock();
        // The lists are as long as the updates of a batch: a few thousand at most.
        let first_sum = waiting.sums.len() as u32;
        for (out, also, terms) in sums {
            let first_term = waiting.terms.len() as u32;
            waiting.terms.extend(terms);
            let term_count = waiting.terms.len() as u32 - first_term;
            for out in std::iter::once(out).chain(also) {
                waiting.sums.push(Sum { out, dtype, first_term, term_count, reserved: 0 });
            }
        }
        let sum_count = waiting.sums.len() as u32 - first_sum;
        if count > 0 && sum_count > 0 {
            waiting.parts.push(Part { count: count as u64, first_sum, sum_count });
        }
    }

    /// Adds to the part that was added last a sum of one term, which goes to `out`.
    pub(super) fn add_to_part(&self, out: *mut c_void, dtype: DLDataType, term: Term) {
        let mut waiting = self.waiting.lock();
        let first_term = waiting.terms.len() as u32;
        waiting.terms.push(term);
        waiting.sums.push(Sum { out, dtype, first_term, term_count: 1, reserved: 0 });
        if let Some(part) = waiting.parts.last_mut() {
            part.sum_count += 1;
        }
    }

    /// Launches all parts that wait, as one.
    ///
    /// # Errors
    /// The host's; nothing waits then either.
    pub(super) fn launch(&self) -> Result<()> {
        let mut waiting = self.waiting.lock();
        let outcome = if waiting.parts.is_empty() {
            Ok(())
        } else {
            self.operations.combine(&Combination {
                struct_size: size_of::<Combination>() as u32,
                part_count: waiting.parts.len() as u32,
                sum_count: waiting.sums.len() as u32,
                term_count: waiting.terms.len() as u32,
                parts: waiting.parts.as_ptr(),
                sums: waiting.sums.as_ptr(),
                terms: waiting.terms.as_ptr(),
            })
        };
        waiting.parts.clear();
        waiting.sums.clear();
        waiting.terms.clear();
        outcome
    }
}
