//! Memory of a host tensor, placed for the processor's caches.

use crate::error::{Error, Result};
use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

/// Bytes of a page.
const PAGE: usize = 4096;

/// How far apart, within a page, the arrays of neighbouring places begin. The number of lines is odd, so that all 64
/// lines of a page are used. It is large, because a processor compares only addresses within a page when it decides
/// whether a read must wait for a write: reads of one array should not come close behind writes of another.
const STAGGER: usize = 13 * LINE;

/// Numbers that begin behind an unused lead. Without it, large allocations would all begin at the same place of a page,
/// and a dozen of them, read side by side, would displace each other's lines from the first-level cache. Most would
/// also begin in the middle of a line, so that every vector lay across two.
#[derive(Clone, Debug)]
pub(super) struct Numbers<E> {
    all: Vec<E>,
    lead: usize,
    place: usize,
}

impl<E: Copy + Default> Numbers<E> {
    /// None yet; they will begin where the `place`-th of several arrays should.
    pub fn at(place: usize) -> Self {
        Self { all: Vec::new(), lead: 0, place }
    }

    /// Keeps the first `length`, or appends zeros. Memory once had is kept.
    ///
    /// # Errors
    /// [`Error::Memory`]; the numbers are then as before.
    pub fn resize(&mut self, length: usize) -> Result<()> {
        if self.lead.saturating_add(length) > self.all.capacity() {
            self.grow(length)?;
        }
        self.all.resize(self.lead + length, E::default());
        Ok(())
    }

    fn grow(&mut self, length: usize) -> Result<()> {
        // Doubling keeps an array that grows row by row from being copied for each row.
        let least = if self.is_empty() { length } else { length.max(2 * self.len()) };
        let mut all: Vec<E> = Vec::new();
        all.try_reserve_exact(least.saturating_add(PAGE / size_of::<E>()))
            .map_err(|_| Error::Memory { bytes: length.saturating_mul(size_of::<E>()) })?;
        let lead = (self.place * STAGGER).wrapping_sub(all.as_ptr() as usize) % PAGE / size_of::<E>();
        all.resize(lead, E::default());
        all.extend_from_slice(self);
        *self = Self { all, lead, place: self.place };
        Ok(())
    }
}

/// As the methods of `Vec`: neither invalidates a pointer that the other gave.
impl<E> Numbers<E> {
    pub fn as_ptr(&self) -> *const E {
        self.all.as_ptr().wrapping_add(self.lead)
    }

    pub fn as_mut_ptr(&mut self) -> *mut E {
        self.all.as_mut_ptr().wrapping_add(self.lead)
    }
}

/// As they lie.
impl<E> From<Vec<E>> for Numbers<E> {
    fn from(all: Vec<E>) -> Self {
        Self { all, lead: 0, place: 0 }
    }
}

impl<E> Deref for Numbers<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        &self.all[self.lead..]
    }
}

impl<E> DerefMut for Numbers<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.all[self.lead..]
    }
}

impl<E: PartialEq> PartialEq for Numbers<E> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(numbers: &Numbers<u16>) -> usize {
        numbers.as_ptr() as usize % PAGE
    }

    #[test]
    fn places_are_so_far_apart_wherever_the_allocator_puts_them() {
        // Miri takes minutes for what is large.
        let lengths: &[usize] = if cfg!(miri) { &[1, 100, 2048] } else { &[1, 100, 2048, 1 << 22] };
        for &length in lengths {
            for place in 0..13 {
                let mut numbers = Numbers::at(place);
                numbers.resize(length).unwrap();
                assert_eq!(offset(&numbers), place * STAGGER % PAGE, "{length} numbers at place {place}");
            }
        }
    }

    #[test]
    fn resizing_keeps_what_stays_and_appends_zeros() {
        let mut numbers = Numbers::at(3);
        for (length, kept) in [(5, 0), (2, 2), (700, 2), (0, 0), (5000, 0)] {
            numbers.resize(length).unwrap();
            assert!(numbers[..kept].iter().all(|v| *v == 7), "{length}");
            assert!(numbers[kept..].iter().all(|v| *v == 0), "{length}");
            assert_eq!((numbers.len(), offset(&numbers) % LINE), (length, 0));
            numbers.fill(7);
        }
        // Miri ends where there is no such memory.
        if !cfg!(miri) {
            assert!(matches!(numbers.resize(usize::MAX / 8), Err(Error::Memory { .. })));
            assert_eq!(numbers.len(), 5000);
        }
    }
}
