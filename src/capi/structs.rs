//! Structs that cross the boundary: they start with `uint32_t struct_size` and only grow at the end.

use crate::error::{Error, Result};

/// A struct of the header whose first member is `struct_size`.
///
/// # Safety
/// `repr(C)`, made of integers and nullable pointers only (all zeros is a value), `u32` first;
/// `ENDS` holds the end of every member and, last, the struct's size.
pub(super) unsafe trait Sized32: Copy {
    /// What messages call it.
    const NAME: &'static str;
    /// Offsets at which an older version of the struct may end.
    const ENDS: &'static [usize];
}

/// Implements [`Sized32`] for a struct by naming all of its members but `struct_size`, in order.
macro_rules! sized_struct {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        // SAFETY: only used on structs of the header, whose layout `tests/c/layout.c` asserts.
        unsafe impl $crate::capi::structs::Sized32 for $name {
            const NAME: &'static str = stringify!($name);
            // An older struct ends where one of today's members begins.
            const ENDS: &'static [usize] = &[$(std::mem::offset_of!($name, $field),)+ std::mem::size_of::<$name>()];
        }
    };
}
pub(super) use sized_struct;

/// How much of a `T` the caller's struct holds.
///
/// # Safety
/// `pointer` points to a struct that starts with its `struct_size`.
unsafe fn known_size<T: Sized32>(pointer: *const T) -> Result<usize> {
    // SAFETY: `struct_size` is the first member.
    let size = unsafe { pointer.cast::<u32>().read() } as usize;
    if size >= std::mem::size_of::<T>() || T::ENDS.contains(&size) {
        return Ok(size);
    }
    let expected = format!("sizeof({}), {} in this version", T::NAME, std::mem::size_of::<T>());
    Err(Error::invalid(format!("{}.struct_size", T::NAME), size, expected))
}

/// Reads a struct of any version. Members that an older one lacks are zero; members of a newer one that this library
/// does not know must be zero, since it cannot honour them.
///
/// # Safety
/// `pointer` is NULL or points to `struct_size` readable bytes.
pub(super) unsafe fn read<T: Sized32>(name: &str, pointer: *const T) -> Result<T> {
    if pointer.is_null() {
        return Err(Error::invalid(name, "NULL", "a pointer"));
    }
    // SAFETY: all zeros is a value of a `Sized32`, and only readable bytes are copied.
    unsafe {
        let size = known_size(pointer)?;
        let own = std::mem::size_of::<T>();
        let tail = std::slice::from_raw_parts(pointer.cast::<u8>(), size).get(own..).unwrap_or_default();
        if tail.iter().any(|byte| *byte != 0) {
            let problem = format!("{} has members that this version of the library does not know", T::NAME);
            return Err(Error::Unsupported(problem));
        }
        let mut value = std::mem::zeroed::<T>();
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), (&raw mut value).cast::<u8>(), size.min(own));
        Ok(value)
    }
}

/// Fills the caller's struct of any version, whose `struct_size` stays; a newer one's further members become zero.
///
/// # Safety
/// `pointer` is NULL or points to `struct_size` writable bytes.
pub(super) unsafe fn write<T: Sized32>(name: &str, pointer: *mut T, value: &T) -> Result<()> {
    if pointer.is_null() {
        return Err(Error::invalid(name, "NULL", "a pointer"));
    }
    // SAFETY: only bytes within the caller's `struct_size` are written.
    unsafe {
        let size = known_size(pointer)?;
        let own = std::mem::size_of::<T>();
        let first = std::mem::size_of::<u32>();
        let (to, from) = (pointer.cast::<u8>(), (&raw const *value).cast::<u8>());
        std::ptr::copy_nonoverlapping(from.add(first), to.add(first), size.min(own) - first);
        if size > own {
            std::ptr::write_bytes(to.add(own), 0, size - own);
        }
    }
    Ok(())
}
