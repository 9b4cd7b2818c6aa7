//! ONNX Runtime's shared library: where it is looked for, and that it is loaded once.

use crate::error::{Error, Result};
use ort::environment::Environment;
use parking_lot::Mutex;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The environment variable that names the library to be taken, and no other.
const VARIABLE: &str = "BESPOKE_ONNXRUNTIME";
const FILE: &str = "libonnxruntime.so";
/// Where Python's package `onnxruntime` has it, from `site-packages` on.
const IN_PYTHON: &str = "onnxruntime/capi";

/// ONNX Runtime's environment, of the library that was found first. Any thread; what was loaded stays.
///
/// # Errors
/// [`Error::Unsupported`] naming every place that was tried, and what was wrong there.
pub(super) fn environment() -> Result<Arc<Environment>> {
    static LOADED: Mutex<bool> = Mutex::new(false);
    let mut loaded = LOADED.lock();
    if !*loaded {
        load()?;
        *loaded = true;
    }
    drop(loaded);
    Environment::current().map_err(|e| Error::Onnx(e.to_string()))
}

fn load() -> Result<()> {
    let minor = ort::MINOR_VERSION;
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return open(Path::new(&path)).map_err(|problem| {
            Error::Unsupported(format!("ONNX Runtime: {VARIABLE} is {}: {problem}", Path::new(&path).display()))
        });
    }
    let mut tried = Vec::new();
    for path in candidates() {
        match open(&path) {
            Ok(()) => return Ok(()),
            Err(problem) => tried.push(format!("{}: {problem}", path.display())),
        }
    }
    Err(Error::Unsupported(format!(
        "ONNX Runtime: no {FILE} of version 1.{minor} or later was found; set {VARIABLE} to the path of one, as \
         Python's package onnxruntime has it in {IN_PYTHON}. Tried: {}",
        tried.join("; ")
    )))
}

/// Loads the library at `path`, or says why not. Paths without a slash are the system's to find.
///
/// `ort` could load it too, but takes one that it could not load for loaded when it is asked again.
fn open(path: &Path) -> Result<(), String> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| "is a path with a NUL inside".to_owned())?;
    // SAFETY: a NUL-terminated name; constructors of a library are trusted as the library is.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        // SAFETY: dlerror answers NULL or a NUL-terminated string that lives until the next dl call.
        let reason = unsafe { libc::dlerror().as_ref().map(|text| CStr::from_ptr(text).to_string_lossy()) };
        return Err(reason.unwrap_or_default().into_owned());
    }
    // SAFETY: the handle is open, the name NUL-terminated.
    let symbol = unsafe { libc::dlsym(handle, c"OrtGetApiBase".as_ptr()) };
    if symbol.is_null() {
        return Err("is not ONNX Runtime: it has no OrtGetApiBase".into());
    }
    // SAFETY: the function of that name has this type in every version of ONNX Runtime; what it gives lives as long as
    // the library, which is never closed.
    let base = unsafe { std::mem::transmute::<*mut libc::c_void, GetApiBase>(symbol)().as_ref() };
    let base = base.ok_or("is not ONNX Runtime: it has no interface")?;
    // SAFETY: as above; the version is a NUL-terminated text, and an interface that the library is too old for is NULL.
    let (version, api) = unsafe {
        (CStr::from_ptr((base.GetVersionString)()).to_string_lossy(), (base.GetApi)(ort::sys::ORT_API_VERSION).as_ref())
    };
    let api = api.ok_or_else(|| format!("is version {version}, expected 1.{} or later", ort::MINOR_VERSION))?;
    // A host program that has set up `ort` for itself keeps what it has.
    let _ = ort::set_api(api.clone());
    let _ = ort::init().with_name("bespoke").with_telemetry(false).commit();
    Ok(())
}

type GetApiBase = unsafe extern "system" fn() -> *const ort::sys::OrtApiBase;

/// Where the library may be, the likeliest first.
fn candidates() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Some(own) = own_folder() {
        folders.push(own.clone());
        folders.push(own.join("../lib"));
        // A wheel of this library lies beside that of ONNX Runtime.
        folders.push(own.join("..").join(IN_PYTHON));
        folders.extend(own.ancestors().find(|folder| folder.ends_with("target")).into_iter().flat_map(in_build_tree));
    }
    let mut found: Vec<PathBuf> = folders.iter().filter_map(|folder| in_folder(folder)).collect();
    found.extend([FILE.into(), format!("{FILE}.1").into()]);
    found
}

/// The folders of Python's packages in the `.venv` beside cargo's folder `target`.
fn in_build_tree(target: &Path) -> Vec<PathBuf> {
    let Ok(pythons) = std::fs::read_dir(target.with_file_name(".venv").join("lib")) else { return Vec::new() };
    pythons.flatten().map(|python| python.path().join("site-packages").join(IN_PYTHON)).collect()
}

/// The newest library in `folder`: `libonnxruntime.so`, or with a version behind it.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    let version = |name: &OsStr| -> Option<Vec<u64>> {
        let rest = name.to_str()?.strip_prefix(FILE)?;
        rest.split('.').skip(1).map(|part| part.parse().ok()).collect()
    };
    let files = std::fs::read_dir(folder).ok()?.flatten();
    let versioned = files.filter_map(|file| Some((version(&file.file_name())?, file.path())));
    versioned.max().map(|(_, path)| path)
}

/// The folder of the shared library or program that holds this function.
fn own_folder() -> Option<PathBuf> {
    // SAFETY: all of it is plain old data that dladdr fills.
    let mut place: libc::Dl_info = unsafe { std::mem::zeroed() };
    let here = own_folder as *const libc::c_void;
    // SAFETY: dladdr reads the address as a number, and writes `place`.
    let known = unsafe { libc::dladdr(here, &mut place) } != 0 && !place.dli_fname.is_null();
    // SAFETY: the loader's own string, which lives as long as what it names is loaded: this code.
    let name = known.then(|| unsafe { CStr::from_ptr(place.dli_fname) });
    // A program is called as its caller pleased; a library's name is a path.
    let named = name.map(|name| PathBuf::from(OsStr::from_bytes(name.to_bytes())));
    let file = named.and_then(|path| path.canonicalize().ok()).or_else(|| std::env::current_exe().ok())?;
    file.parent().map(Path::to_owned)
}
