//! What every function of the C ABI does before and after its work.

use super::status::{self, BESPOKE_ERROR_PANIC, BESPOKE_OK, bespoke_status};
use crate::error::{Error, Result};
use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Runs `body`; its error, or its panic, becomes a status and a message.
pub(super) fn guard(body: impl FnOnce() -> Result<()>) -> bespoke_status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => BESPOKE_OK,
        Ok(Err(error)) => {
            status::remember(&error.to_string());
            status::code(&error)
        }
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            status::remember(&format!("a defect of the library: {}", text.unwrap_or("a panic without a message")));
            BESPOKE_ERROR_PANIC
        }
    }
}

/// As [`guard`], for a function that makes an object: `*out` is NULL unless it succeeds.
///
/// # Safety
/// `out` is NULL or can be written.
pub(super) unsafe fn create<T>(out: *mut *mut T, body: impl FnOnce() -> Result<T>) -> bespoke_status {
    guard(|| {
        // SAFETY: by this function's contract.
        let out = unsafe { required_mut("out", out) }?;
        *out = std::ptr::null_mut();
        *out = Box::into_raw(Box::new(body()?));
        Ok(())
    })
}

/// Frees what [`create`] made; NULL is fine.
///
/// # Safety
/// `object` came from [`create`], and nothing uses it any more.
pub(super) unsafe fn destroy<T>(object: *mut T) {
    if !object.is_null() {
        // SAFETY: by this function's contract.
        let object = unsafe { Box::from_raw(object) };
        // Dropping has nobody to report to.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(object)));
    }
}

fn null(name: &str) -> Error {
    Error::invalid(name, "NULL", "a pointer")
}

/// # Safety
/// `pointer` is NULL or points to a `T` that lives and is not written during the call.
pub(super) unsafe fn required<'a, T>(name: &str, pointer: *const T) -> Result<&'a T> {
    // SAFETY: by this function's contract.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// # Safety
/// `pointer` is NULL or points to a `T` that lives and is used by nobody else during the call.
pub(super) unsafe fn required_mut<'a, T>(name: &str, pointer: *mut T) -> Result<&'a mut T> {
    // SAFETY: by this function's contract.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(name))
}

/// # Safety
/// `text` is NULL or NUL-terminated, and is not written during the call.
pub(super) unsafe fn text<'a>(name: &str, text: *const c_char) -> Result<&'a str> {
    if text.is_null() {
        return Err(null(name));
    }
    // SAFETY: by this function's contract.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|e| not_utf8(name, text.to_bytes(), e.valid_up_to()))
}

/// What is wrong with `text`, UTF-8 in its first `valid` bytes alone: shown from some way before the byte at fault.
fn not_utf8(name: &str, text: &[u8], valid: usize) -> Error {
    let (before, after) = text.split_at(valid);
    let begin = before.len().saturating_sub(SHOWN);
    let shown = before[begin..].escape_ascii().chain(after[..after.len().min(SHOWN)].escape_ascii());
    let shown: String = shown.map(char::from).collect();
    let dots = if begin > 0 { "..." } else { "" };
    Error::invalid(name, format!("\"{dots}{shown}\""), format!("UTF-8, as it is up to byte {valid}"))
}

/// Bytes of a text that [`not_utf8`] shows, before the fault and after.
const SHOWN: usize = 40;

/// As [`text`], a path: of any bytes, where the system's are.
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn path<'a>(name: &str, path: *const c_char) -> Result<&'a Path> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        if path.is_null() {
            return Err(null(name));
        }
        // SAFETY: by this function's contract.
        let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
        Ok(Path::new(std::ffi::OsStr::from_bytes(bytes)))
    }
    // SAFETY: by this function's contract.
    #[cfg(not(unix))]
    Ok(Path::new(unsafe { text(name, path) }?))
}
