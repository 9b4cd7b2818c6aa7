//! Where memory runs out for a batch, a call says so: the process goes on.
//!
//! Each case runs in a process of its own, this very program again, whose address space is bounded at one level after
//! another: at every level the call succeeds or answers `BESPOKE_ERROR_MEMORY`, at the lowest the latter.
#![cfg(target_os = "linux")]

use crate::native::ring_card;
use bespoke::capi::*;
use bespoke::card::Card;
use serde_json::json;
use std::ffi::{CString, c_void};
use std::path::Path;
use std::process::Command;
use std::ptr::{null, null_mut};

/// What a child process is told to do.
const CASE: &str = "BESPOKE_MEMORY_CASE";
/// How the C library's allocator is to work: one arena, and pages of the system's own for all that is large, so that
/// the bound counts it.
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "65536")];

/// Runs `case` in a child, which must end well.
fn in_a_child(case: &str) {
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture", &format!("{module}::child")]).env(CASE, case).envs(ALLOCATOR);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{case}: {}\n{text}", output.status);
    assert!(text.contains("done"), "{case} did not run: {text}");
}

#[test]
#[ignore = "what the other tests run in a process of its own"]
fn child() {
    let folder = tempfile::tempdir().unwrap();
    match std::env::var(CASE).as_deref() {
        Ok("noise") => noise(),
        Ok("velocity") => velocity(folder.path()),
        Ok("guided") => guided(folder.path()),
        Ok("prediction") => prediction(folder.path()),
        #[cfg(feature = "onnx")]
        Ok("onnx") => onnx(),
        Ok("training") => training(),
        Ok("fingerprint") => fingerprint(folder.path()),
        other => panic!("no case {other:?}"),
    }
    eprintln!("done");
}

/// The address space in use, in bytes.
fn in_use() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split_whitespace().next().unwrap().parse().unwrap();
    // SAFETY: asks for a number.
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64
}

/// Bounds the address space to `bytes`, or not at all.
fn bound(bytes: Option<u64>) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads and changes a limit of this process alone.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &mut limit), 0);
        limit.rlim_cur = bytes.unwrap_or(limit.rlim_max);
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &limit), 0);
    }
}

/// Runs `call` with `step`, twice, three times ... as many bytes to spare, up to `most`.
fn sweep(step: usize, most: usize, call: impl Fn() -> bespoke_status) {
    // Threads and whatever is made once; and some small memory that small allocations can be served from.
    assert_eq!(call(), BESPOKE_OK);
    let mut small: Vec<Vec<u8>> = (0..256).map(|_| vec![1; 1024]).collect();
    small.drain(..255);
    let base = in_use();
    let mut refused = 0;
    for spare in (step..=most).step_by(step) {
        bound(Some(base + spare as u64));
        let status = call();
        bound(None);
        eprintln!("{spare}: {status}");
        assert!(status == BESPOKE_OK || status == BESPOKE_ERROR_MEMORY, "with {spare} bytes to spare: {status}");
        assert!(spare > step || status == BESPOKE_ERROR_MEMORY, "the least spare memory is enough");
        assert!(spare + step <= most || status == BESPOKE_OK, "the most spare memory is not enough");
        refused += usize::from(status == BESPOKE_ERROR_MEMORY);
    }
    assert!(refused > 1, "{refused}");
}

fn tensor<T>(data: &mut [T], shape: &mut [i64], code: u8) -> DLTensor {
    DLTensor {
        data: data.as_mut_ptr().cast(),
        device: DLDevice { device_type: 1, device_id: 0 },
        ndim: shape.len() as i32,
        dtype: DLDataType { code, bits: 8 * size_of::<T>() as u8, lanes: 1 },
        shape: shape.as_mut_ptr(),
        strides: null_mut(),
        byte_offset: 0,
    }
}

const FLOAT: u8 = 2;
const BATCH: usize = 1 << 18;

fn noise() {
    let mut x = vec![0.0f32; 4 * BATCH];
    let data: *mut [f32] = &mut x[..];
    sweep(1 << 20, 8 << 20, || {
        let mut shape = [BATCH as i64, 4];
        unsafe { bespoke_noise(1, 0, &mut tensor(&mut *data, &mut shape, FLOAT)) }
    });
}

/// Times, states and velocities of a batch of `BATCH` samples of two numbers.
struct Batch {
    t: Vec<f32>,
    x: Vec<f32>,
    u: Vec<f32>,
}

impl Batch {
    fn new() -> Self {
        let t = (0..BATCH).map(|row| row as f32 / BATCH as f32).collect();
        let x = (0..2 * BATCH).map(|i| (i as f32).sin()).collect();
        Self { t, x, u: vec![0.0; 2 * BATCH] }
    }

    /// The tensors t, x and u, given to `call`.
    fn with<R>(&self, call: impl FnOnce([*mut DLTensor; 3]) -> R) -> R {
        let (mut times, mut states) = ([BATCH as i64], [BATCH as i64, 2]);
        let of = |data: &[f32], shape: &mut [i64]| {
            // SAFETY: nobody else has these numbers; what is read is not written.
            tensor(unsafe { std::slice::from_raw_parts_mut(data.as_ptr().cast_mut(), data.len()) }, shape, FLOAT)
        };
        let mut tensors = [of(&self.t, &mut times), of(&self.x, &mut states), of(&self.u, &mut states)];
        let [t, x, u] = &mut tensors;
        call([t, x, u])
    }
}

fn open(path: &str) -> *mut bespoke_model {
    let (path, mut model) = (CString::new(path).unwrap(), null_mut());
    assert_eq!(unsafe { bespoke_model_open(path.as_ptr(), null(), &mut model) }, BESPOKE_OK);
    model
}

fn velocity(folder: &Path) {
    let (model, batch) = (open(&ring_card(folder)), Batch::new());
    sweep(1 << 20, 40 << 20, || batch.with(|[t, x, u]| unsafe { bespoke_model_velocity(model, null(), t, x, u) }));
    unsafe { bespoke_model_free(model) };
}

/// ONNX Runtime keeps what it once had: each level has a model of its own.
#[cfg(feature = "onnx")]
fn onnx() {
    const COUNT: usize = 2048;
    let card = crate::tree::root().join("models/photos-fm-ot-onnx.json");
    let sample = Card::load(&card).unwrap().sample_shape().unwrap();
    let elements: usize = sample.iter().product();
    let (mut t, mut x, mut u) = (vec![0.5f32; COUNT], vec![0.25f32; COUNT * elements], vec![0.0f32; COUNT * elements]);
    let mut ask = |spare: Option<u64>| {
        let model = open(card.to_str().unwrap());
        let mut times = [COUNT as i64];
        let mut states: Vec<i64> = [COUNT].iter().chain(&sample).map(|n| *n as i64).collect();
        let mut outputs = states.clone();
        let mut tensors = [
            tensor(&mut t, &mut times, FLOAT),
            tensor(&mut x, &mut states, FLOAT),
            tensor(&mut u, &mut outputs, FLOAT),
        ];
        let [t, x, u] = &mut tensors;
        bound(spare.map(|spare| in_use() + spare));
        let status = unsafe { bespoke_model_velocity(model, null(), t, x, u) };
        bound(None);
        unsafe { bespoke_model_free(model) };
        status
    };
    assert_eq!(ask(None), BESPOKE_OK);
    let statuses: Vec<bespoke_status> = (0..10).map(|level| ask(Some(1 << (level + 20)))).collect();
    eprintln!("{statuses:?}");
    assert!(statuses.iter().all(|status| [BESPOKE_OK, BESPOKE_ERROR_MEMORY].contains(status)), "{statuses:?}");
    assert_eq!((statuses[0], statuses[9]), (BESPOKE_ERROR_MEMORY, BESPOKE_OK));
    // One that was refused is as good as new.
    assert_eq!(ask(None), BESPOKE_OK);
}

fn prediction(folder: &Path) {
    let (model, batch) = (open(&ring_card(folder)), Batch::new());
    let mut x1 = vec![0.0f32; 2 * BATCH];
    let data: *mut [f32] = &mut x1[..];
    sweep(1 << 20, 16 << 20, || {
        let mut shape = [BATCH as i64, 2];
        let mut x1 = tensor(unsafe { &mut *data }, &mut shape, FLOAT);
        batch.with(|[t, x, u]| unsafe { bespoke_model_prediction(model, t, x, u, &mut x1) })
    });
    unsafe { bespoke_model_free(model) };
}

/// output = x
unsafe extern "C-unwind" fn identity(_: *mut c_void, call: *const bespoke_call) -> i32 {
    unsafe {
        let (x, output) = ((*call).x, (*call).output);
        let count = (*(*x).shape * *(*x).shape.add(1)) as usize;
        std::ptr::copy_nonoverlapping((*x).data.cast::<f32>(), (*output).data.cast::<f32>(), count);
    }
    0
}

/// A network of the host with classes, guided.
fn guided(folder: &Path) {
    let card = json!({ "format": "bespoke-model", "version": 1, "runtime": "host", "shape": [2], "output": "velocity",
                       "scheduler": { "name": "fm-ot" }, "classes": 3, "null_class": 2 });
    let path = folder.join("card.json");
    std::fs::write(&path, card.to_string()).unwrap();
    let (path, mut model) = (CString::new(path.to_str().unwrap()).unwrap(), null_mut());
    unsafe { assert_eq!(bespoke_model_host(path.as_ptr(), Some(identity), null_mut(), &mut model), BESPOKE_OK) };
    let (classes, scales) = (vec![1i64; BATCH], vec![2.0f64; BATCH]);
    let condition = bespoke_condition {
        struct_size: size_of::<bespoke_condition>() as u32,
        batch: BATCH as u32,
        classes: classes.as_ptr(),
        guidance_scale: scales.as_ptr(),
        inputs: null(),
        scales: null(),
        input_count: 0,
        scale_count: 0,
        kept: null(),
    };
    let batch = Batch::new();
    sweep(1 << 20, 96 << 20, || batch.with(|[t, x, u]| unsafe { bespoke_model_velocity(model, &condition, t, x, u) }));
    unsafe { bespoke_model_free(model) };
}

/// u = -x
unsafe extern "C-unwind" fn decay(_: *mut c_void, call: *const bespoke_call) -> i32 {
    unsafe {
        let (x, output) = ((*call).x, (*call).output);
        for i in 0..(*(*x).shape * *(*x).shape.add(1)) as usize {
            *(*output).data.cast::<f32>().add(i) = -*(*x).data.cast::<f32>().add(i);
        }
    }
    0
}

fn training() {
    let config = json!({ "field": { "shape": [1 << 16] }, "family": "rk1", "steps": 2, "loss": "rmse-bound", "pool": 4,
                         "batch": 2, "validation": 2, "iterations": 1, "rtol": 0.1, "atol": 0.1 });
    let config = CString::new(config.to_string()).unwrap();
    let callbacks = bespoke_train_callbacks {
        struct_size: size_of::<bespoke_train_callbacks>() as u32,
        reserved: 0,
        user_data: null_mut(),
        progress: None,
        velocity: Some(decay),
        vjp: None,
    };
    sweep(1 << 20, 64 << 20, || unsafe {
        let mut theta = null_mut();
        let status = bespoke_train(config.as_ptr(), &callbacks, &mut theta);
        bespoke_theta_free(theta);
        status
    });
}

/// Weights far larger than the memory there is.
fn fingerprint(folder: &Path) {
    let card = json!({ "format": "bespoke-model", "version": 1, "runtime": "torchscript", "weights": "w.pt",
                       "shape": [2], "output": "velocity", "scheduler": { "name": "fm-ot" } });
    std::fs::write(folder.join("card.json"), card.to_string()).unwrap();
    std::fs::File::create(folder.join("w.pt")).unwrap().set_len(256 << 20).unwrap();
    let card = Card::load(&folder.join("card.json")).unwrap();
    bound(Some(in_use() + (16 << 20)));
    let fingerprint = card.fingerprint().unwrap();
    bound(None);
    assert_eq!(fingerprint.len(), 71);
}

#[test]
fn noise_that_does_not_fit_is_refused() {
    in_a_child("noise");
}

#[test]
fn a_velocity_that_does_not_fit_is_refused() {
    in_a_child("velocity");
}

#[test]
fn a_guided_velocity_of_the_hosts_network_that_does_not_fit_is_refused() {
    in_a_child("guided");
}

#[test]
fn a_prediction_that_does_not_fit_is_refused() {
    in_a_child("prediction");
}

#[test]
fn training_that_does_not_fit_is_refused() {
    in_a_child("training");
}

#[test]
fn a_fingerprint_takes_no_memory_of_the_weights_size() {
    in_a_child("fingerprint");
}

#[cfg(feature = "onnx")]
#[test]
fn what_onnx_runtime_cannot_have() {
    in_a_child("onnx");
}
