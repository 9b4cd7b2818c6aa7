//! A package of AOTInductor: what is in it, and libtorch's loader, which runs it.

use super::ports::{self, Port};
use super::umbrella;
use crate::error::{Error, Result};
use crate::torch::{explained, reported};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{NonNull, null_mut};
use torch_sys::C_tensor;

/// Instances of a package, each for one call at a time; they share the weights, and what one has of its own is small.
const RUNNERS: usize = 16;

/// Where the models of a package lie in it.
const MODELS: &str = "data/aotinductor/";

/// Outputs that are taken from a network at most.
const OUTPUTS: usize = 3;

/// A package that is ready to run. Any number of threads: as many calls run side by side as there are runners, the
/// others wait.
pub(super) struct Package {
    loader: NonNull<Loader>,
    inputs: Vec<Port>,
    document: String,
}

// SAFETY: the loader is run alone after it was made, which its container of several runners lets any thread do at any time,
// and is closed by its last owner, on any thread.
unsafe impl Send for Package {}
// SAFETY: as above.
unsafe impl Sync for Package {}

/// A package that has been read, and not loaded yet.
pub(super) struct Unloaded {
    path: CString,
    model: CString,
    inputs: Vec<Port>,
    document: String,
    device: tch::Device,
}

impl Unloaded {
    /// Reads the package at `path`, to be run on `device`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] naming the file, where it is no package for this device and processor.
    pub fn read(path: &Path, device: tch::Device) -> Result<Self> {
        let document = path.display().to_string();
        let wrong = |problem: String| Error::format(&document, ".", problem);
        std::fs::File::open(path).map_err(|e| Error::io("read", path, e))?;
        let name =
            CString::new(path.as_os_str().as_bytes()).map_err(|_| wrong("is a path with a NUL inside".into()))?;
        let contents = Contents::read(&name).map_err(|e| wrong(format!("is no package of AOTInductor: {e}")))?;
        let model = contents.model().map_err(wrong)?;
        let folder = format!("{MODELS}{model}/");
        let metadata = contents.file(&folder, METADATA).unwrap_or_default();
        suits(&serde_json::from_slice(metadata).unwrap_or_default(), device).map_err(wrong)?;
        let wrapper = contents.file(&folder, WRAPPER).unwrap_or_default();
        let inputs = ports::of(&String::from_utf8_lossy(wrapper));
        if inputs.is_empty() {
            return Err(wrong(format!(
                "says nothing of its inputs: expected the source of its wrapper, {folder}*{WRAPPER}, as PyTorch 2.11 \
                 writes it"
            )));
        }
        let model = CString::new(model).map_err(|_| wrong("has a model with a NUL in its name".into()))?;
        Ok(Self { path: name, model, inputs, document, device })
    }

    /// What it takes, in order.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The file that it came from, for messages.
    pub fn document(&self) -> &str {
        &self.document
    }

    /// The package, ready to run.
    ///
    /// # Errors
    /// [`Error::Format`] naming the file that libtorch cannot load.
    pub fn load(self) -> Result<Package> {
        let loader = loaded(&self.path, &self.model, self.device)
            .map_err(|e| Error::format(&self.document, ".", format!("cannot be loaded: {e}")))?;
        Ok(Package { loader, inputs: self.inputs, document: self.document })
    }
}

impl Package {
    /// The file that it came from, for messages.
    pub fn document(&self) -> &str {
        &self.document
    }

    /// Its outputs for the tensors `given`, each with its name for messages: exactly `N`, 3 at most.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a size is none that it takes, or it has another number of outputs; libtorch's own.
    pub fn run<const N: usize>(&self, given: &[(&str, tch::Tensor)]) -> Result<[tch::Tensor; N]> {
        const { assert!(N <= OUTPUTS) };
        if given.len() != self.inputs.len() {
            let expected = format!("{}, as the package says", self.inputs.len());
            return Err(Error::invalid("the network's inputs", given.len(), expected));
        }
        for (port, (name, tensor)) in self.inputs.iter().zip(given) {
            port.check(name, tensor)?;
        }
        let dense =
            given.iter().map(|(_, tensor)| tensor.f_contiguous()).collect::<std::result::Result<Vec<_>, _>>()?;
        let inputs: Vec<*const C_tensor> = dense.iter().map(tch::Tensor::as_ptr).collect();
        let (mut outputs, mut count, mut refused) = ([null_mut::<C_tensor>(); OUTPUTS], 0, 0);
        // SAFETY: the loader lives, the inputs live and are what it was compiled for, and there is room for as many
        // outputs as it is told.
        let answer = unsafe {
            bespoke_pt2_run(
                self.loader.as_ptr(),
                inputs.as_ptr(),
                inputs.len(),
                outputs.as_mut_ptr(),
                outputs.len(),
                &mut count,
                &mut refused,
            )
        };
        // SAFETY: those that are there are tensors of ours, which nothing else frees.
        let found: Vec<tch::Tensor> =
            outputs.into_iter().filter(|out| !out.is_null()).map(|out| unsafe { tch::Tensor::from_ptr(out) }).collect();
        checked(answer).map_err(|message| self.failed(&message, refused, given))?;
        let expected = match N {
            1 => "one tensor: the samples' prediction",
            _ => "three: the prediction, its gradients by x and by time",
        };
        let many = |_| Error::invalid("the outputs of the network", format!("{count} tensors"), expected);
        match count > N {
            true => Err(many(found)),
            false => <[tch::Tensor; N]>::try_from(found).map_err(many),
        }
    }

    /// The error of a run that libtorch reports so, in which `refused` bytes could not be had.
    fn failed(&self, message: &str, refused: i64, given: &[(&str, tch::Tensor)]) -> Error {
        if let Some(bytes) = usize::try_from(refused).ok().filter(|bytes| *bytes > 0) {
            return Error::Memory { bytes };
        }
        // What a package fails of, it prints and does not hand on.
        let cause = match message.contains("API call failed") {
            true => Error::Torch("the compiled network failed: AOTInductor prints why to standard error alone".into()),
            false => reported(message),
        };
        match explained(cause, given) {
            Error::Torch(cause) => Error::Torch(format!("{}: {cause}", self.document)),
            other => other,
        }
    }
}

impl Drop for Package {
    fn drop(&mut self) {
        // SAFETY: it is closed once, and nothing uses it any more.
        unsafe { bespoke_pt2_close(self.loader.as_ptr()) }
    }
}

/// Ends of the names of the files that are read.
const METADATA: &str = "wrapper_metadata.json";
const WRAPPER: &str = "wrapper.cpp";

/// The names in a package, and the files that this library reads.
#[derive(Default)]
struct Contents {
    names: Vec<String>,
    files: Vec<(String, Vec<u8>)>,
}

impl Contents {
    fn read(path: &CStr) -> Result<Self, Error> {
        let mut contents = Self::default();
        let reader = Reader { context: (&raw mut contents).cast(), wanted, found };
        // SAFETY: the path is NUL-terminated, and the functions are given the contents, which live.
        checked(unsafe { bespoke_pt2_read(path.as_ptr(), &reader) }).map_err(|message| reported(&message))?;
        Ok(contents)
    }

    /// The file in `folder` whose name ends so.
    fn file(&self, folder: &str, end: &str) -> Option<&[u8]> {
        let named = |(name, _): &&(String, Vec<u8>)| name.starts_with(folder) && name.ends_with(end);
        self.files.iter().find(named).map(|(_, data)| data.as_slice())
    }

    /// The one model of the package, or that called `model`; what is wrong otherwise.
    fn model(&self) -> Result<&str, String> {
        let below = self.names.iter().filter_map(|name| name.strip_prefix(MODELS)?.split_once('/'));
        let models: BTreeSet<&str> = below.map(|(model, _)| model).collect();
        match (models.get("model"), models.len()) {
            (Some(model), _) => Ok(model),
            (None, 1) => Ok(models.first().copied().unwrap_or_default()),
            (None, 0) => Err("is no package of AOTInductor: it holds no compiled model, as \
                              torch._inductor.aoti_compile_and_package makes it from an exported program"
                .into()),
            (None, _) => {
                let names: Vec<&str> = models.into_iter().collect();
                Err(format!("holds several models ({}), expected one, or one called \"model\"", names.join(", ")))
            }
        }
    }
}

/// What of `metadata` does not suit the device and the processor, if anything does not.
fn suits(metadata: &Value, device: tch::Device) -> Result<(), String> {
    let said = |key: &str| metadata[key].as_str().unwrap_or_default();
    let (compiled, asked) = (said("AOTI_DEVICE_KEY"), if device.is_cuda() { "cuda" } else { "cpu" });
    if compiled.is_empty() {
        return Err("is no package of AOTInductor: it does not say what device it was compiled for".into());
    }
    if compiled != asked {
        return Err(format!("was compiled for the device {compiled}, but {asked} is asked for"));
    }
    let machine = said("AOTI_MACHINE");
    if !machine.is_empty() && machine != std::env::consts::ARCH {
        return Err(format!("was compiled for {machine}, but this is {}", std::env::consts::ARCH));
    }
    match said("AOTI_CPU_ISA").split_whitespace().find(|instructions| lacks(instructions)) {
        Some(instructions) => Err(format!("was compiled for processors with {instructions}, which this one has not")),
        None => Ok(()),
    }
}

/// Whether this processor is known to lack these instructions.
#[cfg(target_arch = "x86_64")]
fn lacks(instructions: &str) -> bool {
    match instructions {
        "AVX2" => !is_x86_feature_detected!("avx2"),
        "AVX512" => !is_x86_feature_detected!("avx512f"),
        "AVX512_VNNI" => !is_x86_feature_detected!("avx512vnni"),
        _ => false,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn lacks(_instructions: &str) -> bool {
    false
}

/// libtorch's loader of the package.
fn loaded(path: &CStr, model: &CStr, device: tch::Device) -> Result<NonNull<Loader>, Error> {
    // Making several at once races in libtorch.
    static ONE: Mutex<()> = Mutex::new(());
    let index = if let tch::Device::Cuda(index) = device { i8::try_from(index).unwrap_or(i8::MAX) } else { -1 };
    let mut loader = null_mut();
    umbrella::load()?;
    let _one = ONE.lock();
    // SAFETY: the names are NUL-terminated, and there is room for the loader.
    checked(unsafe { bespoke_pt2_open(path.as_ptr(), model.as_ptr(), RUNNERS, index, &mut loader) })
        .map_err(|message| reported(&message))?;
    NonNull::new(loader).ok_or_else(|| Error::Torch("made no loader".into()))
}

/// What went wrong, where something did.
fn checked(answer: *mut c_char) -> Result<(), String> {
    if answer.is_null() {
        return Ok(());
    }
    // SAFETY: a text of loader.cpp, NUL-terminated, that is given back once.
    unsafe {
        let message = CStr::from_ptr(answer).to_string_lossy().into_owned();
        bespoke_pt2_free(answer);
        Err(message)
    }
}

/// libtorch's.
#[repr(C)]
struct Loader {
    _opaque: [u8; 0],
}

/// As in loader.cpp.
#[repr(C)]
struct Reader {
    context: *mut c_void,
    wanted: unsafe extern "C" fn(*mut c_void, *const c_char) -> bool,
    found: unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char, usize),
}

unsafe extern "C" fn wanted(context: *mut c_void, name: *const c_char) -> bool {
    // SAFETY: `Contents::read` gives the contents, and loader.cpp a NUL-terminated name.
    let (contents, name) = unsafe { (&mut *context.cast::<Contents>(), CStr::from_ptr(name).to_string_lossy()) };
    let wanted = name.ends_with(METADATA) || name.ends_with(WRAPPER);
    contents.names.push(name.into_owned());
    wanted
}

unsafe extern "C" fn found(context: *mut c_void, name: *const c_char, data: *const c_char, length: usize) {
    // SAFETY: as above; the data are `length` bytes.
    let (contents, name, data) = unsafe {
        let data = if length == 0 { &[] } else { std::slice::from_raw_parts(data.cast::<u8>(), length) };
        (&mut *context.cast::<Contents>(), CStr::from_ptr(name).to_string_lossy(), data)
    };
    contents.files.push((name.into_owned(), data.to_vec()));
}

unsafe extern "C" {
    fn bespoke_pt2_read(path: *const c_char, reader: *const Reader) -> *mut c_char;
    fn bespoke_pt2_open(
        path: *const c_char,
        model: *const c_char,
        runners: usize,
        device: i8,
        loader: *mut *mut Loader,
    ) -> *mut c_char;
    fn bespoke_pt2_run(
        loader: *mut Loader,
        inputs: *const *const C_tensor,
        length: usize,
        outputs: *mut *mut C_tensor,
        most: usize,
        count: *mut usize,
        refused: *mut i64,
    ) -> *mut c_char;
    fn bespoke_pt2_close(loader: *mut Loader);
    fn bespoke_pt2_free(message: *mut c_char);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_package_for_another_device_or_processor_says_so() {
        let suits = |metadata: Value, device| suits(&metadata, device).err().unwrap_or_default();
        let here = json!({ "AOTI_DEVICE_KEY": "cpu", "AOTI_MACHINE": std::env::consts::ARCH, "AOTI_CPU_ISA": "VSX" });
        assert_eq!(suits(here.clone(), tch::Device::Cpu), "");
        let cuda = suits(here, tch::Device::Cuda(1));
        assert!(cuda.contains("compiled for the device cpu") && cuda.contains("cuda is asked for"), "{cuda}");
        let machine = suits(json!({ "AOTI_DEVICE_KEY": "cpu", "AOTI_MACHINE": "pdp11" }), tch::Device::Cpu);
        assert!(machine.contains("pdp11") && machine.contains(std::env::consts::ARCH), "{machine}");
        assert!(suits(Value::Null, tch::Device::Cpu).contains("does not say"));
    }
}
