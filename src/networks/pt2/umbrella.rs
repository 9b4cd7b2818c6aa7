//! `libtorch.so`, by name: packages are linked against it beside `libtorch_cpu.so`. It holds nothing, but in PyTorch's
//! wheels it brings all of CUDA with it, or fails to load where CUDA's libraries are not installed; so a library of its
//! name that brings nothing stands in for it.

use crate::error::{Error, Result};
use parking_lot::Mutex;
use std::ffi::{CStr, CString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

/// What build.rs makes of umbrella.c.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/umbrella.so"));

/// Sees to it that a library of that name is loaded, for the life of the process.
///
/// # Errors
/// [`Error::Io`] or [`Error::Torch`] where none can be, as where the folder for temporary files lets nothing run.
pub(super) fn load() -> Result<()> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    // SAFETY: a NUL-terminated name; nothing is loaded by this call, and a handle is never closed.
    if !unsafe { libc::dlopen(c"libtorch.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) }.is_null() {
        return Ok(());
    }
    let folder = std::env::temp_dir();
    let written = tempfile::NamedTempFile::new().and_then(|mut file| file.write_all(LIBRARY).map(|()| file));
    let file = written.map_err(|e| Error::io("write", &folder, e))?;
    let path = CString::new(file.path().as_os_str().as_bytes())
        .map_err(|_| Error::invalid("TMPDIR", folder.display(), "a path without a NUL"))?;
    // SAFETY: a NUL-terminated path of a library of ours that has no constructors.
    if !unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) }.is_null() {
        return Ok(());
    }
    // SAFETY: dlerror answers NULL or a NUL-terminated string that lives until the next dl call.
    let reason = unsafe { libc::dlerror().as_ref().map(|text| CStr::from_ptr(text).to_string_lossy()) };
    Err(Error::Torch(format!("the stand-in for libtorch.so: {}", reason.unwrap_or_default())))
}
