//! A model in ONNX Runtime, and tensors over memory of ours: what this library needs of its C interface.
//!
//! The crate `ort` loads the library and makes options. Its own session wants to be borrowed mutably for a run, so
//! that threads would wait for each other or each hold all weights, and reads element types that it does not know
//! into an enumeration; so sessions are made and run here.

use super::library;
use crate::error::{Error, Result};
use crate::tensor::{Device, Dtype};
use ort::AsPointer;
use ort::environment::Environment;
use ort::ep::{CUDA, ExecutionProvider, ExecutionProviderDispatch, TensorRT};
use ort::logging::LogLevel;
use ort::session::builder::SessionBuilder;
use ort::sys;
use parking_lot::Mutex;
use std::ffi::{CStr, CString, c_char, c_int};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;

/// An input or output of a graph.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub name: CString,
    /// The type of its numbers; what it is, where it is none that this library has.
    pub dtype: Result<Dtype, String>,
    /// Its sizes, negative where they are the call's; empty also where the graph does not say.
    pub shape: Vec<i64>,
}

impl Port {
    pub fn name(&self) -> std::borrow::Cow<'_, str> {
        self.name.to_string_lossy()
    }
}

/// A model ready to run. Any number of threads.
pub(super) struct Session {
    session: NonNull<sys::OrtSession>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// Where runs are one at a time: on a device they would be so in any case, and not every provider's are safe.
    turn: Option<Mutex<()>>,
    /// Outlives the session.
    _environment: Arc<Environment>,
}

// SAFETY: a session is used through `Run` alone after `open`, which ONNX Runtime lets any number of threads call on one
// session (its processor provider; the others take turns), and is released by its last owner, on any thread.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

impl Session {
    /// Opens the model at `path` on `device`, with `threads` threads within an operator.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where there is no ONNX Runtime, or it lacks the device's provider; [`Error::Format`]
    /// where the file is no model that it can run, in its own words.
    pub fn open(path: &Path, device: Device, threads: usize) -> Result<Self> {
        let environment = library::environment()?;
        let options = options(device, threads)?;
        let document = path.display().to_string();
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| Error::format(&document, ".", "is a path with a NUL inside"))?;
        let mut session = null_mut();
        // SAFETY: environment and options live, the name is NUL-terminated.
        let status = unsafe { (api().CreateSession)(environment.ptr(), name.as_ptr(), options.ptr(), &mut session) };
        checked(status).map_err(|e| match reported(e) {
            Error::Onnx(e) => Error::format(&document, ".", format!("is not a model that ONNX Runtime can run: {e}")),
            other => other,
        })?;
        let session = NonNull::new(session).ok_or_else(|| Error::Onnx("made no session".into()))?;
        let turn = (device != Device::Cpu).then(Mutex::default);
        let mut opened = Self { session, inputs: Vec::new(), outputs: Vec::new(), turn, _environment: environment };
        opened.inputs = opened.ports(api().SessionGetInputCount, api().SessionGetInputName, |session, i, info| {
            // SAFETY: `ports` calls it with a session that lives and an index that is there.
            unsafe { (api().SessionGetInputTypeInfo)(session, i, info) }
        })?;
        opened.outputs =
            opened.ports(api().SessionGetOutputCount, api().SessionGetOutputName, |session, i, info| {
                // SAFETY: as above.
                unsafe { (api().SessionGetOutputTypeInfo)(session, i, info) }
            })?;
        Ok(opened)
    }

    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// For a binding.
    pub fn as_ptr(&self) -> *mut sys::OrtSession {
        self.session.as_ptr()
    }

    /// Runs the graph on what is bound, into what is bound.
    ///
    /// # Errors
    /// [`Error::Onnx`] in ONNX Runtime's words, as where an output has another shape than its memory;
    /// [`Error::Memory`].
    pub fn run(&self, binding: NonNull<sys::OrtIoBinding>) -> Result<()> {
        let _turn = self.turn.as_ref().map(Mutex::lock);
        // SAFETY: session and binding live, and what is bound lies over memory that is borrowed for this call, the one
        // output's mutably. On a device copies may be under way before and after the run.
        unsafe {
            checked((api().SynchronizeBoundInputs)(binding.as_ptr())).map_err(reported)?;
            checked((api().RunWithBinding)(self.session.as_ptr(), null(), binding.as_ptr())).map_err(reported)?;
            checked((api().SynchronizeBoundOutputs)(binding.as_ptr())).map_err(reported)
        }
    }

    /// The graph's inputs or outputs.
    fn ports(
        &self,
        count: unsafe extern "system" fn(*const sys::OrtSession, *mut usize) -> sys::OrtStatusPtr,
        name: unsafe extern "system" fn(
            *const sys::OrtSession,
            usize,
            *mut sys::OrtAllocator,
            *mut *mut c_char,
        ) -> sys::OrtStatusPtr,
        info: impl Fn(*const sys::OrtSession, usize, *mut *mut sys::OrtTypeInfo) -> sys::OrtStatusPtr,
    ) -> Result<Vec<Port>> {
        let (session, mut length, mut allocator) = (self.session.as_ptr().cast_const(), 0, null_mut());
        // SAFETY: the session lives, and what is asked for is written where there is room for it.
        checked(unsafe { count(session, &mut length) }).map_err(Error::Onnx)?;
        // SAFETY: the allocator is the library's own and is not freed.
        checked(unsafe { (api().GetAllocatorWithDefaultOptions)(&mut allocator) }).map_err(Error::Onnx)?;
        let port = |i| {
            let (mut text, mut type_info) = (null_mut(), null_mut());
            // SAFETY: as above; `i` is below the count.
            checked(unsafe { name(session, i, allocator, &mut text) }).map_err(Error::Onnx)?;
            // SAFETY: the name is NUL-terminated and ours to free, by the allocator that it came from.
            let name = unsafe {
                let name = CStr::from_ptr(text).to_owned();
                checked((api().AllocatorFree)(allocator, text.cast())).map_err(Error::Onnx)?;
                name
            };
            checked(info(session, i, &mut type_info)).map_err(Error::Onnx)?;
            let (dtype, shape) = TypeInfo(type_info).tensor()?;
            Ok(Port { name, dtype, shape })
        };
        (0..length).map(port).collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: it is released once, and nothing uses it any more.
        unsafe { (api().ReleaseSession)(self.session.as_ptr()) }
    }
}

/// The type of a port, freed when done with.
struct TypeInfo(*mut sys::OrtTypeInfo);

impl TypeInfo {
    /// Type and sizes of a tensor; what it is, where it is no tensor of a type of ours.
    fn tensor(&self) -> Result<(Result<Dtype, String>, Vec<i64>)> {
        let (mut info, mut element, mut rank) = (null(), 0 as c_int, 0);
        // SAFETY: the type's information lives; a NULL comes back where it is no tensor.
        checked(unsafe { (api().CastTypeInfoToTensorInfo)(self.0, &mut info) }).map_err(Error::Onnx)?;
        if info.is_null() {
            return Ok((Err("no tensor".into()), Vec::new()));
        }
        // SAFETY: the element type is a C enumeration, of which newer libraries have more: it is read as the number
        // that it is. `shape` has room for as many sizes as there are.
        unsafe {
            checked((api().GetTensorElementType)(info, (&raw mut element).cast())).map_err(Error::Onnx)?;
            checked((api().GetDimensionsCount)(info, &mut rank)).map_err(Error::Onnx)?;
            let mut shape = vec![0; rank];
            checked((api().GetDimensions)(info, shape.as_mut_ptr(), rank)).map_err(Error::Onnx)?;
            let known = DTYPES.iter().find(|(_, code)| *code as c_int == element).map(|(dtype, _)| *dtype);
            Ok((known.ok_or_else(|| format!("a tensor of ONNX's element type {element}")), shape))
        }
    }
}

impl Drop for TypeInfo {
    fn drop(&mut self) {
        // SAFETY: it is released once.
        unsafe { (api().ReleaseTypeInfo)(self.0) }
    }
}

/// The types that both sides have.
const DTYPES: [(Dtype, sys::ONNXTensorElementDataType); 7] = {
    use sys::ONNXTensorElementDataType as E;
    [
        (Dtype::Float64, E::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE),
        (Dtype::Float32, E::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT),
        (Dtype::Float16, E::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16),
        (Dtype::Bfloat16, E::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16),
        (Dtype::Int64, E::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64),
        (Dtype::Int32, E::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32),
        (Dtype::Bool, E::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL),
    ]
};

/// A tensor of ONNX Runtime over memory that it does not own.
struct Value(NonNull<sys::OrtValue>);

impl Value {
    /// # Safety
    /// `data` may be read, and written where the value is an output, for as long as the value lives.
    unsafe fn over(data: *mut u8, length: usize, dtype: Dtype, shape: &[i64]) -> Result<Self> {
        let [(_, element)] = DTYPES.iter().filter(|(own, _)| *own == dtype).collect::<Vec<_>>()[..] else {
            return Err(Error::Onnx(format!("{dtype} is no element type of ONNX's")));
        };
        let (mut memory, mut value) = (null_mut(), null_mut());
        // SAFETY: the value is made over `length` bytes at `data`, by this function's contract; the description of the
        // memory is copied into it and released.
        unsafe {
            use sys::{OrtAllocatorType::OrtArenaAllocator, OrtMemType::OrtMemTypeDefault};
            checked((api().CreateCpuMemoryInfo)(OrtArenaAllocator, OrtMemTypeDefault, &mut memory))
                .map_err(Error::Onnx)?;
            let status = (api().CreateTensorWithDataAsOrtValue)(
                memory,
                data.cast(),
                length,
                shape.as_ptr(),
                shape.len(),
                *element,
                &mut value,
            );
            (api().ReleaseMemoryInfo)(memory);
            checked(status).map_err(reported)?;
        }
        NonNull::new(value).map(Self).ok_or_else(|| Error::Onnx("made no tensor".into()))
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: it is released once; the memory is not its own.
        unsafe { (api().ReleaseValue)(self.0.as_ptr()) }
    }
}

/// A tensor to be read.
pub(super) struct View<'a>(Value, PhantomData<&'a [u8]>);

impl<'a> View<'a> {
    /// A tensor of these `bytes`.
    ///
    /// # Errors
    /// [`Error::Onnx`] where they are fewer than `shape` has.
    pub fn new(dtype: Dtype, shape: &[i64], bytes: &'a [u8]) -> Result<Self> {
        // SAFETY: the bytes are borrowed for as long as the view lives, and `Session::run` writes no input.
        unsafe { Value::over(bytes.as_ptr().cast_mut(), bytes.len(), dtype, shape) }
            .map(|value| Self(value, PhantomData))
    }

    pub fn as_ptr(&self) -> *const sys::OrtValue {
        self.0.0.as_ptr()
    }
}

/// A tensor to be written.
pub(super) struct ViewMut<'a>(Value, PhantomData<&'a mut [u8]>);

impl<'a> ViewMut<'a> {
    /// A tensor over these `bytes`.
    ///
    /// # Errors
    /// As [`View::new`].
    pub fn new(dtype: Dtype, shape: &[i64], bytes: &'a mut [u8]) -> Result<Self> {
        // SAFETY: the bytes are borrowed, mutably, for as long as the view lives.
        unsafe { Value::over(bytes.as_mut_ptr(), bytes.len(), dtype, shape) }.map(|value| Self(value, PhantomData))
    }

    pub fn as_ptr(&mut self) -> *mut sys::OrtValue {
        self.0.0.as_ptr()
    }
}

/// How a session is to run.
fn options(device: Device, threads: usize) -> Result<SessionBuilder> {
    let words = |e: ort::Error<SessionBuilder>| Error::Onnx(e.to_string());
    let builder = SessionBuilder::new().map_err(|e| Error::Onnx(e.to_string()))?;
    // What fails is in the status, so that nothing need be written to the program's standard error.
    let builder = builder.with_log_level(LogLevel::Fatal).map_err(words)?;
    let builder = builder.with_intra_threads(threads).map_err(words)?;
    let providers = match device {
        Device::Cpu => return Ok(builder),
        Device::Cuda(index) => vec![provider(device, CUDA::default().with_device_id(id(index)))?],
        Device::TensorRt(index) => {
            // Operators that TensorRT does not have are computed by CUDA, where that is to be had.
            let fallback = CUDA::default().with_device_id(id(index)).build();
            vec![provider(device, TensorRT::default().with_device_id(id(index)))?, fallback]
        }
    };
    builder
        .with_execution_providers(providers)
        .map_err(|e| Error::Unsupported(format!("device {device}: ONNX Runtime: {}", first_line(e.message()))))
}

fn id(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

/// The provider, to be had or to fail.
///
/// # Errors
/// [`Error::Unsupported`] where the library at hand was built without it.
fn provider<P: ExecutionProvider + Into<ExecutionProviderDispatch>>(
    device: Device,
    provider: P,
) -> Result<ExecutionProviderDispatch> {
    if !provider.is_available().map_err(|e| Error::Onnx(e.to_string()))? {
        return Err(Error::Unsupported(format!(
            "device {device}: this ONNX Runtime has no {}; a build that has it (Python's onnxruntime-gpu) can be named \
             in BESPOKE_ONNXRUNTIME",
            provider.name()
        )));
    }
    Ok(provider.into().error_on_failure())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The functions of the library, which `library::environment` has loaded.
pub(super) fn api() -> &'static sys::OrtApi {
    ort::api()
}

/// ONNX Runtime's own words, where it failed.
pub(super) fn checked(status: sys::OrtStatusPtr) -> Result<(), String> {
    // SAFETY: a status that a function of the library answered, and that is given away here.
    unsafe { ort::Error::result_from_status(status) }.map_err(|e| e.message().to_owned())
}

/// The error that ONNX Runtime's words are: memory that it could not have is said in three ways.
pub(super) fn reported(words: String) -> Error {
    let number = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
    let wanted = words.split_once("requested buffer of size ").and_then(|(_, rest)| number(rest));
    let unnamed = ["bad_alloc", "bad allocation"].iter().any(|said| words.contains(said)).then_some(0);
    match wanted.or(unnamed) {
        Some(bytes) => Error::Memory { bytes },
        None => Error::Onnx(without_source(&words)),
    }
}

/// The words without the place in ONNX Runtime's own source where it failed: the node's, and what was wrong.
fn without_source(words: &str) -> String {
    let parts = words.split_once(" Status Message: ").zip(words.rsplit_once("[ONNXRuntimeError] : "));
    match parts {
        // A code and its name come before what is said.
        Some(((node, _), (_, status))) => {
            format!("{node} {}", status.splitn(3, " : ").last().unwrap_or(status)).trim_end().to_owned()
        }
        None => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_cannot_be_had_is_recognised() {
        let arena = "Exception during initialization: bfc_arena.cc:359 Failed to allocate memory for requested buffer \
                     of size 4096\n";
        assert!(matches!(reported(arena.into()), Error::Memory { bytes: 4096 }));
        let error = reported("Non-zero status code returned while running Conv node. std::bad_alloc".into());
        assert_eq!(error.to_string(), "cannot allocate memory");
        assert!(matches!(reported("Got invalid dimensions".into()), Error::Onnx(_)));
    }

    #[test]
    fn what_failed_is_said_without_the_place_in_the_runtimes_source() {
        let words = "Non-zero status code returned while running Concat node. Name:'' Status Message: /a/b.cc:87 virtual \
                     OrtValue* f(int, const X&) [ONNXRuntimeError] : 2 : INVALID_ARGUMENT : The output has another shape\n";
        let said = "Non-zero status code returned while running Concat node. Name:'' The output has another shape";
        assert_eq!(without_source(words), said);
        assert_eq!(without_source("no such file"), "no such file");
    }
}
