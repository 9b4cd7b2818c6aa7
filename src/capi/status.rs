//! Status codes and the message of the last error.

use crate::error::Error;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char};

/// Outcome of a call: `BESPOKE_OK`, or the kind of failure; `bespoke_last_error_message` says more.
/// The numbers never change; new ones may be added.
pub type bespoke_status = i32;

/// Done.
pub const BESPOKE_OK: bespoke_status = 0;
/// An argument is NULL, out of range, of another shape, dtype or device than can be handled.
pub const BESPOKE_ERROR_INVALID: bespoke_status = 1;
/// A theta, model card, config or other document is not what its format asks for.
pub const BESPOKE_ERROR_FORMAT: bespoke_status = 2;
/// The operating system refused to read or write a file.
pub const BESPOKE_ERROR_IO: bespoke_status = 3;
/// This build, machine or model cannot do what was asked.
pub const BESPOKE_ERROR_UNSUPPORTED: bespoke_status = 4;
/// The velocity, a vector-Jacobian product of it, or a state computed from it, holds a NaN or an infinity.
pub const BESPOKE_ERROR_NON_FINITE: bespoke_status = 5;
/// A callback answered non-zero.
pub const BESPOKE_ERROR_CALLBACK: bespoke_status = 6;
/// The call came in an order that the object does not allow, or while another call uses it.
pub const BESPOKE_ERROR_STATE: bespoke_status = 7;
/// A computation failed: a step size underflowed, a matrix had no factor.
pub const BESPOKE_ERROR_NUMERIC: bespoke_status = 8;
/// libtorch reported an error.
pub const BESPOKE_ERROR_TORCH: bespoke_status = 9;
/// Memory could not be had.
pub const BESPOKE_ERROR_MEMORY: bespoke_status = 10;
/// A defect of the library, caught before it could unwind into the caller. The objects of the call
/// can still be freed, nothing else.
pub const BESPOKE_ERROR_PANIC: bespoke_status = 11;
/// ONNX Runtime reported an error.
pub const BESPOKE_ERROR_ONNX: bespoke_status = 12;

/// Names in the order of the codes.
const NAMES: [&CStr; 13] = [
    c"BESPOKE_OK",
    c"BESPOKE_ERROR_INVALID",
    c"BESPOKE_ERROR_FORMAT",
    c"BESPOKE_ERROR_IO",
    c"BESPOKE_ERROR_UNSUPPORTED",
    c"BESPOKE_ERROR_NON_FINITE",
    c"BESPOKE_ERROR_CALLBACK",
    c"BESPOKE_ERROR_STATE",
    c"BESPOKE_ERROR_NUMERIC",
    c"BESPOKE_ERROR_TORCH",
    c"BESPOKE_ERROR_MEMORY",
    c"BESPOKE_ERROR_PANIC",
    c"BESPOKE_ERROR_ONNX",
];

/// The code of `error`.
pub(super) fn code(error: &Error) -> bespoke_status {
    match error {
        Error::Invalid { .. } => BESPOKE_ERROR_INVALID,
        Error::Format { .. } => BESPOKE_ERROR_FORMAT,
        Error::Io { .. } => BESPOKE_ERROR_IO,
        Error::Unsupported(_) => BESPOKE_ERROR_UNSUPPORTED,
        Error::NonFinite { .. } | Error::NonFiniteProduct => BESPOKE_ERROR_NON_FINITE,
        Error::Callback { .. } => BESPOKE_ERROR_CALLBACK,
        Error::State(_) => BESPOKE_ERROR_STATE,
        Error::Numeric(_) => BESPOKE_ERROR_NUMERIC,
        Error::Onnx(_) => BESPOKE_ERROR_ONNX,
        Error::Torch(_) => BESPOKE_ERROR_TORCH,
        Error::Memory { .. } => BESPOKE_ERROR_MEMORY,
    }
}

thread_local! {
    static LAST_ERROR: RefCell<Option<CString>> = const { RefCell::new(None) };
    static FAILURES: Cell<u64> = const { Cell::new(0) };
}

/// Keeps `message` for `bespoke_last_error_message` on this thread.
pub(super) fn remember(message: &str) {
    let text = CString::new(message.replace('\0', "\u{fffd}")).unwrap_or_default();
    // A thread that is being torn down keeps no message.
    let _ = FAILURES.try_with(|failures| failures.set(failures.get() + 1));
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = Some(text));
}

/// How many messages were kept on this thread.
pub(super) fn failures() -> u64 {
    FAILURES.try_with(Cell::get).unwrap_or_default()
}

/// The message kept last.
pub(super) fn last() -> String {
    let text = |last: &RefCell<Option<CString>>| last.borrow().as_ref().map(|text| text.to_string_lossy().into_owned());
    LAST_ERROR.try_with(text).ok().flatten().unwrap_or_default()
}

/// What the last failed call on this thread has to say: the field, its value, what was expected.
/// Empty before the first failure; success leaves it as it is.
///
/// The text is the library's, UTF-8, and lives until the next failed call on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn bespoke_last_error_message() -> *const c_char {
    LAST_ERROR
        .try_with(|last| last.borrow().as_ref().map_or(c"".as_ptr(), |text| text.as_ptr()))
        .unwrap_or(c"".as_ptr())
}

/// The name of a status, as in this header; `"unknown"` for a number that is none.
/// The text lives as long as the library is loaded.
#[unsafe(no_mangle)]
pub extern "C" fn bespoke_status_name(status: bespoke_status) -> *const c_char {
    usize::try_from(status).ok().and_then(|index| NAMES.get(index)).unwrap_or(&c"unknown").as_ptr()
}

/// The library's version, `MAJOR.MINOR.PATCH`. The text lives as long as the library is loaded.
#[unsafe(no_mangle)]
pub extern "C" fn bespoke_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
