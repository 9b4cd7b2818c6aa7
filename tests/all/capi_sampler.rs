//! The C ABI called from Rust: tensors, steps, continuous batching.

use bespoke::capi::*;
use bespoke::sampler::{Plan, sample};
use bespoke::tensor::{Host, PerRow, Register};
use bespoke::theta::{Family, Knots, NsTable, Theta};
use bespoke::velocity::{Condition, VelocityField};
use half::{bf16, f16};
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::Arc;

/// u_t(x) = cos(3 t) - (1 + t) x, element by element.
fn u(t: f64, x: f64) -> f64 {
    (3.0 * t).cos() - (1.0 + t) * x
}

struct Field;

impl VelocityField for Field {
    type Tensor = Host<f64>;
    fn elements(&self) -> usize {
        3
    }
    fn upload(&self, values: &[f32], elements: usize) -> bespoke::Result<Host<f64>> {
        Host::from_f32(values, elements)
    }
    fn start(&self, noise: &[f32], elements: usize) -> bespoke::Result<Host<f64>> {
        self.upload(noise, elements)
    }
    fn eval(&self, t: PerRow<'_>, x: &Host<f64>, _: &Condition) -> bespoke::Result<Host<f64>> {
        let row = |row: usize| x.row(row).iter().map(move |x| u(t.at(row), *x));
        Host::new((0..x.batch()).flat_map(row).collect(), 3)
    }
}

/// The same through the C ABI; `user_data` counts the calls.
unsafe extern "C-unwind" fn velocity(
    user_data: *mut c_void,
    t: *const DLTensor,
    x: *const DLTensor,
    out: *mut DLTensor,
) -> i32 {
    unsafe {
        *user_data.cast::<usize>() += 1;
        let shape = std::slice::from_raw_parts((*x).shape, (*x).ndim as usize);
        let batch = shape[0] as usize;
        let each = shape[1..].iter().product::<i64>() as usize;
        let times = (*t).data.cast::<f32>();
        for i in 0..batch * each {
            let t = f64::from(*times.add(i / each));
            match ((*x).dtype.code, (*x).dtype.bits) {
                (2, 64) => *(*out).data.cast::<f64>().add(i) = u(t, *(*x).data.cast::<f64>().add(i)),
                (2, 32) => *(*out).data.cast::<f32>().add(i) = u(t, f64::from(*(*x).data.cast::<f32>().add(i))) as f32,
                (2, 16) => {
                    *(*out).data.cast::<f16>().add(i) = f16::from_f64(u(t, (*(*x).data.cast::<f16>().add(i)).to_f64()))
                }
                (4, 16) => {
                    *(*out).data.cast::<bf16>().add(i) =
                        bf16::from_f64(u(t, (*(*x).data.cast::<bf16>().add(i)).to_f64()))
                }
                other => panic!("dtype {other:?}"),
            }
        }
    }
    0
}

const F64: DLDataType = DLDataType { code: 2, bits: 64, lanes: 1 };
const F32: DLDataType = DLDataType { code: 2, bits: 32, lanes: 1 };
const F16: DLDataType = DLDataType { code: 2, bits: 16, lanes: 1 };
const BF16: DLDataType = DLDataType { code: 4, bits: 16, lanes: 1 };

fn tensor<T>(data: &mut [T], dtype: DLDataType, shape: &mut [i64]) -> DLTensor {
    DLTensor {
        data: data.as_mut_ptr().cast(),
        device: DLDevice { device_type: 1, device_id: 0 },
        ndim: shape.len() as i32,
        dtype,
        shape: shape.as_mut_ptr(),
        strides: null_mut(),
        byte_offset: 0,
    }
}

fn message() -> String {
    unsafe { CStr::from_ptr(bespoke_last_error_message()) }.to_str().unwrap().to_owned()
}

#[track_caller]
fn ok(status: bespoke_status) {
    assert_eq!(status, BESPOKE_OK, "{}", message());
}

/// A theta that is no textbook solver.
fn bent(steps: usize) -> Theta {
    let k = 2 * steps;
    let mut knots = Knots::identity(k);
    for i in 1..k {
        knots.t[i] = (i as f64 / k as f64).powf(1.2);
        knots.s[i] = 1.0 + 0.1 * (i as f64).sin();
    }
    knots.t_dot.iter_mut().enumerate().for_each(|(i, v)| *v = 1.0 + 0.05 * i as f64);
    knots.s_dot.iter_mut().enumerate().for_each(|(i, v)| *v = 0.2 * (i as f64).cos());
    Theta::new(Family::Rk2(knots)).unwrap()
}

fn as_table(theta: &Theta) -> Theta {
    Theta::new(Family::Ns(NsTable::compile(&theta.tableau()))).unwrap()
}

/// `theta` through its file, as C gets it.
fn load(theta: &Theta) -> *mut bespoke_theta {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theta.json");
    theta.save(&path).unwrap();
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let mut out = null_mut();
    ok(unsafe { bespoke_load_theta(path.as_ptr(), &mut out) });
    out
}

fn sampler(theta: *const bespoke_theta) -> *mut bespoke_sampler {
    let mut out = null_mut();
    ok(unsafe { bespoke_sampler_new(theta, null(), &mut out) });
    out
}

fn noise(count: usize) -> Vec<f64> {
    (0..count).map(|i| (i as f64 * 1.7).sin() * 1.5).collect()
}

/// x(1) by the Rust library.
fn expected(theta: &Theta, x0: &[f64]) -> Vec<f64> {
    let plan = Arc::new(Plan::new(theta.tableau()));
    let x0 = Host::new(x0.to_vec(), 3).unwrap();
    sample(&plan, &Field, &x0, &Condition::default()).unwrap().data().to_vec()
}

/// Times cross the boundary as float32.
#[track_caller]
fn close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance, "{a} {b}");
    }
}

#[test]
fn steps_make_the_solve_for_every_family_and_dtype() {
    for theta in [bent(3), as_table(&bent(3))] {
        let handle = load(&theta);
        let sampler = sampler(handle);
        let x0 = noise(12);
        let expected = expected(&theta, &x0);
        for (dtype, tolerance) in [(F64, 1e-6), (F32, 1e-5), (F16, 1e-2), (BF16, 8e-2)] {
            let mut calls = 0usize;
            let mut bytes = pack(&x0, dtype);
            let mut shape = [4i64, 1, 3];
            let mut x = tensor(&mut bytes, dtype, &mut shape);
            for step in 0..theta.steps() {
                let user_data = (&raw mut calls).cast();
                ok(unsafe { bespoke_step(handle, sampler, step as u32, &mut x, Some(velocity), user_data) });
            }
            assert_eq!(calls, theta.nfe());
            close(&unpack(&bytes, dtype), &expected, tolerance);
        }
        unsafe { bespoke_sampler_free(sampler) };
        unsafe { bespoke_theta_free(handle) };
    }
}

fn pack(values: &[f64], dtype: DLDataType) -> Vec<u64> {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|v| match (dtype.code, dtype.bits) {
            (2, 64) => v.to_ne_bytes().to_vec(),
            (2, 32) => (*v as f32).to_ne_bytes().to_vec(),
            (2, 16) => f16::from_f64(*v).to_ne_bytes().to_vec(),
            _ => bf16::from_f64(*v).to_ne_bytes().to_vec(),
        })
        .collect();
    // Words, for their alignment.
    bytes
        .chunks(8)
        .map(|chunk| u64::from_ne_bytes(std::array::from_fn(|i| chunk.get(i).copied().unwrap_or(0))))
        .collect()
}

fn unpack(words: &[u64], dtype: DLDataType) -> Vec<f64> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let number = |chunk: &[u8]| match (dtype.code, dtype.bits) {
        (2, 64) => f64::from_ne_bytes(chunk.try_into().unwrap()),
        (2, 32) => f32::from_ne_bytes(chunk.try_into().unwrap()).into(),
        (2, 16) => f16::from_ne_bytes(chunk.try_into().unwrap()).to_f64(),
        _ => bf16::from_ne_bytes(chunk.try_into().unwrap()).to_f64(),
    };
    bytes.chunks(dtype.bits as usize / 8).map(number).collect()
}

#[test]
fn strides_and_offsets_are_honoured_and_what_lies_between_stays() {
    let theta = bent(2);
    let handle = load(&theta);
    let sampler = sampler(handle);
    let x0 = noise(12);
    let expected = expected(&theta, &x0);
    // [batch, row, column] = [2, 2, 3] of the whole, with batches backwards and columns two apart.
    let strides = [-20i64, 8, 2];
    let at = |b: i64, r: i64, c: i64| (25 + b * strides[0] + r * strides[1] + c * strides[2]) as usize;
    let mut memory = vec![-7.0f64; 64];
    let places: Vec<usize> = (0..2)
        .flat_map(|b| (0..2).flat_map(move |r| (0..3).map(move |c| (b, r, c))))
        .map(|(b, r, c)| at(b, r, c))
        .collect();
    for (place, v) in places.iter().zip(&x0) {
        memory[*place] = *v;
    }
    let (mut shape, mut strides, mut calls) = ([2i64, 2, 3], strides, 0usize);
    let mut x = tensor(&mut memory, F64, &mut shape);
    x.byte_offset = 25 * 8;
    x.strides = strides.as_mut_ptr();
    let user_data = (&raw mut calls).cast();
    ok(unsafe { bespoke_sample(handle, sampler, &x, &mut x, Some(velocity), user_data) });
    close(&places.iter().map(|place| memory[*place]).collect::<Vec<_>>(), &expected, 1e-6);
    let untouched = (0..64).filter(|i| !places.contains(i)).all(|i| memory[i] == -7.0);
    assert!(untouched);

    // A source that repeats itself is fine; a target is not.
    let (mut one, mut out) = ([0.5f64], [0.0f64; 6]);
    let (mut shape, mut zero) = ([2i64, 3], [0i64, 0]);
    let mut x0 = tensor(&mut one, F64, &mut shape);
    x0.strides = zero.as_mut_ptr();
    let mut shape = [2i64, 3];
    let mut x1 = tensor(&mut out, F64, &mut shape);
    ok(unsafe { bespoke_sample(handle, sampler, &x0, &mut x1, Some(velocity), user_data) });
    assert!(out.iter().all(|v| *v == out[0] && *v != 0.0));
    let status = unsafe { bespoke_sample(handle, sampler, &x0, &mut x0, Some(velocity), user_data) };
    assert_eq!(status, BESPOKE_ERROR_INVALID);
    assert!(message().starts_with("x1.strides is such that numbers may overlap"), "{}", message());
    unsafe { bespoke_sampler_free(sampler) };
    unsafe { bespoke_theta_free(handle) };
}

#[test]
fn tensors_that_are_not_handled_are_refused_by_name() {
    let handle = load(&bent(2));
    let sampler = sampler(handle);
    let mut memory = vec![0.25f64; 16];
    let mut calls = 0usize;
    let mut refused = |change: &dyn Fn(&mut DLTensor), expected: &str| {
        let (mut shape, before) = ([2i64, 3], memory.clone());
        let mut x = tensor(&mut memory, F64, &mut shape);
        change(&mut x);
        let user_data = (&raw mut calls).cast();
        let status = unsafe { bespoke_step(handle, sampler, 0, &mut x, Some(velocity), user_data) };
        assert_eq!(status, BESPOKE_ERROR_INVALID, "{}", message());
        assert!(message().starts_with(expected), "{}", message());
        assert_eq!(memory, before);
        assert_eq!(calls, 0);
    };
    refused(&|x| x.data = null_mut(), "x.data is NULL");
    refused(&|x| x.shape = null_mut(), "x.shape is NULL");
    refused(&|x| x.ndim = 0, "x.ndim is 0, expected 1 to 32");
    refused(&|x| x.ndim = -1, "x.ndim is -1");
    refused(&|x| x.ndim = 33, "x.ndim is 33");
    #[cfg(not(feature = "torch"))]
    refused(&|x| x.device.device_type = 2, "x.device is on kDLCUDA, expected host memory");
    refused(&|x| x.device.device_type = 10, "x.device is on kDLROCM, expected host memory");
    refused(&|x| x.device.device_type = 99, "x.device is of device type 99");
    refused(&|x| x.dtype = DLDataType { code: 0, bits: 32, lanes: 1 }, "x.dtype is int32, expected float32");
    refused(&|x| x.dtype.lanes = 4, "x.dtype is float64 x 4 lanes");
    refused(&|x| x.dtype = DLDataType { code: 10, bits: 8, lanes: 1 }, "x.dtype is float8");
    refused(&|x| x.byte_offset = 4, "x.data + byte_offset is");
    refused(&|x| x.byte_offset = u64::MAX - 7, "x.strides and byte_offset is beyond the address space");
    refused(&|x| unsafe { *x.shape = 0 }, "x.shape is [0, 3]");
    refused(&|x| unsafe { *x.shape = -2 }, "x.shape is [-2, 3]");
    refused(&|x| unsafe { *x.shape = i64::MAX }, "x.shape is [9223372036854775807, 3]");
    let strides = |strides: [i64; 2]| {
        let strides: &'static mut [i64; 2] = Box::leak(Box::new(strides));
        move |x: &mut DLTensor| x.strides = strides.as_ptr().cast_mut()
    };
    refused(&strides([i64::MAX, 1]), "x.strides and byte_offset is beyond the address space");
    refused(&strides([2, 1]), "x.strides is such that numbers may overlap");
    refused(&strides([3, 0]), "x.strides is such that numbers may overlap");
    unsafe { bespoke_sampler_free(sampler) };
    unsafe { bespoke_theta_free(handle) };
}

/// A GPU that is not there, whatever machine this is.
#[cfg(feature = "torch")]
#[test]
fn a_gpu_that_libtorch_does_not_have_is_refused_by_name() {
    let handle = load(&bent(2));
    let sampler = sampler(handle);
    let (mut memory, mut shape, mut calls) = ([0.5f64; 6], [2i64, 3], 0usize);
    let user_data = (&raw mut calls).cast();
    let mut x = tensor(&mut memory, F64, &mut shape);
    x.device = DLDevice { device_type: 2, device_id: 999 };
    let status = unsafe { bespoke_step(handle, sampler, 0, &mut x, Some(velocity), user_data) };
    assert_eq!(status, BESPOKE_ERROR_UNSUPPORTED, "{}", message());
    let expected = "not supported: x.device is on kDLCUDA:999, and without options.device_ops that takes libtorch's: ";
    assert!(message().starts_with(expected) && message().contains("CUDA"), "{}", message());
    x.device.device_id = -1;
    let status = unsafe { bespoke_step(handle, sampler, 0, &mut x, Some(velocity), user_data) };
    assert_eq!(status, BESPOKE_ERROR_INVALID, "{}", message());
    assert!(message().starts_with("x.device.device_id is -1, expected a GPU's index"), "{}", message());
    // The sampler still serves the host's memory.
    x.device = DLDevice { device_type: 1, device_id: 0 };
    let status = unsafe { bespoke_step(handle, sampler, 0, &mut x, Some(velocity), user_data) };
    assert_eq!(status, BESPOKE_OK, "{}", message());
    unsafe { bespoke_sampler_free(sampler) };
    unsafe { bespoke_theta_free(handle) };
}

#[cfg(not(feature = "torch"))]
#[test]
fn a_stream_without_libtorch_is_refused() {
    let handle = load(&bent(2));
    let (mut anything, mut sampler) = (0u8, null_mut());
    let options = bespoke_sampler_options {
        struct_size: size_of::<bespoke_sampler_options>() as u32,
        threads: 0,
        device_ops: std::ptr::null(),
        stream: (&raw mut anything).cast(),
    };
    let status = unsafe { bespoke_sampler_new(handle, &options, &mut sampler) };
    assert_eq!(status, BESPOKE_ERROR_UNSUPPORTED, "{}", message());
    assert_eq!(message(), "not supported: options.stream: this libbespoke was built without libtorch");
    unsafe { bespoke_theta_free(handle) };
}

#[test]
fn steps_that_build_on_others_come_in_order() {
    let theta = as_table(&bent(2));
    let handle = load(&theta);
    let sampler = sampler(handle);
    let (mut memory, mut shape, mut calls) = (noise(6), [2i64, 3], 0usize);
    let mut x = tensor(&mut memory, F64, &mut shape);
    let user_data = (&raw mut calls).cast();
    let step =
        |step: u32, x: &mut DLTensor| unsafe { bespoke_step(handle, sampler, step, x, Some(velocity), user_data) };
    assert_eq!(step(1, &mut x), BESPOKE_ERROR_STATE);
    assert!(message().starts_with("step 1 of this theta builds on the steps before it"), "{}", message());
    ok(step(0, &mut x));
    assert_eq!(step(2, &mut x), BESPOKE_ERROR_STATE);
    ok(step(1, &mut x));
    assert_eq!(step(4, &mut x), BESPOKE_ERROR_INVALID);
    assert_eq!(message(), "step is 4, expected 0 to 3");
    ok(step(0, &mut x));
    let (mut other, mut shape) = (noise(3), [1i64, 3]);
    assert_eq!(step(1, &mut tensor(&mut other, F64, &mut shape)), BESPOKE_ERROR_INVALID);
    assert_eq!(message(), "x.shape is [1, 3], expected [2, 3]");
    unsafe { bespoke_sampler_free(sampler) };
    unsafe { bespoke_theta_free(handle) };
}

/// Evaluates what `sampler` asks for; false when it asks for nothing.
unsafe fn evaluate(sampler: *mut bespoke_sampler, poison: Option<usize>) -> Option<bespoke_status> {
    unsafe {
        let (mut t, mut x) = (null(), null());
        ok(bespoke_sampler_query(sampler, &mut t, &mut x));
        if t.is_null() {
            assert!(x.is_null());
            return None;
        }
        let shape = std::slice::from_raw_parts((*x).shape, 2);
        let mut values = vec![0.0f64; (shape[0] * shape[1]) as usize];
        let mut shape = [shape[0], shape[1]];
        let mut out = tensor(&mut values, F64, &mut shape);
        let mut calls = 0usize;
        velocity((&raw mut calls).cast(), t, x, &mut out);
        if let Some(row) = poison {
            values[3 * row + 1] = f64::NAN;
        }
        Some(bespoke_sampler_update(sampler, &out))
    }
}

fn row(sampler: *mut bespoke_sampler, row: u32) -> bespoke_row {
    let mut progress = bespoke_row { struct_size: size_of::<bespoke_row>() as u32, evaluations: 0, nfe: 0, failed: 9 };
    ok(unsafe { bespoke_sampler_row(sampler, row, &mut progress) });
    progress
}

#[test]
fn samples_join_and_leave_between_evaluations() {
    let thetas = [bent(2), as_table(&bent(3)), bent(1)];
    let handles = thetas.each_ref().map(load);
    let sampler = sampler(handles[0]);
    let starts: Vec<Vec<f64>> = (0..4).map(|i| noise(12)[i..i + 3].to_vec()).collect();
    let join = |i: usize, theta: *const bespoke_theta| {
        let (mut x0, mut shape) = (starts[i].clone(), [1i64, 3]);
        ok(unsafe { bespoke_sampler_join(sampler, theta, &tensor(&mut x0, F64, &mut shape)) });
    };
    // Which start and which theta each row is of.
    let mut rows = vec![(0usize, 0usize), (1, 1)];
    join(0, null());
    join(1, handles[1]);
    let mut waiting = vec![(2usize, 2usize), (3, 1)];
    let mut finished = 0;
    let mut mixed = false;
    while finished < 4 {
        ok(unsafe { evaluate(sampler, None) }.unwrap());
        if let Some((start, theta)) = waiting.pop() {
            join(start, handles[theta]);
            rows.push((start, theta));
        }
        let mut i = 0;
        while i < rows.len() {
            let progress = row(sampler, i as u32);
            assert_eq!(progress.nfe as usize, thetas[rows[i].1].nfe());
            mixed |= progress.evaluations != row(sampler, 0).evaluations;
            if progress.evaluations < progress.nfe {
                i += 1;
                continue;
            }
            let (mut out, mut shape) = ([0.0f64; 3], [1i64, 3]);
            ok(unsafe { bespoke_sampler_leave(sampler, i as u32, &mut tensor(&mut out, F64, &mut shape)) });
            let (start, theta) = rows.swap_remove(i);
            close(&out, &expected(&thetas[theta], &starts[start]), 1e-6);
            finished += 1;
        }
    }
    assert!(mixed, "the batch never held samples at different stages");
    let mut batch = 9;
    ok(unsafe { bespoke_sampler_batch(sampler, &mut batch) });
    assert_eq!(batch, 0);
    unsafe { bespoke_sampler_free(sampler) };
    handles.into_iter().for_each(|handle| unsafe { bespoke_theta_free(handle) });
}

#[test]
fn a_failed_sample_leaves_and_the_others_go_on() {
    let theta = bent(2);
    let handle = load(&theta);
    let sampler = sampler(handle);
    let (x0, mut shape) = (noise(9), [3i64, 3]);
    ok(unsafe { bespoke_sampler_start(sampler, &tensor(&mut x0.clone(), F64, &mut shape)) });
    ok(unsafe { evaluate(sampler, None) }.unwrap());
    assert_eq!(unsafe { evaluate(sampler, Some(1)) }, Some(BESPOKE_ERROR_NON_FINITE));
    assert!(message().starts_with("the velocity of evaluation 1 (t = "), "{}", message());
    let (mut t, mut x) = (null(), null());
    assert_eq!(unsafe { bespoke_sampler_query(sampler, &mut t, &mut x) }, BESPOKE_ERROR_STATE);
    assert!(message().starts_with("sample 1 failed at evaluation 1"), "{}", message());
    assert_eq!([0, 1, 2].map(|i| row(sampler, i).failed), [0, 1, 0]);
    ok(unsafe { bespoke_sampler_leave(sampler, 1, null_mut()) });
    while let Some(status) = unsafe { evaluate(sampler, None) } {
        ok(status);
    }
    let (mut out, mut shape) = ([0.0f64; 6], [2i64, 3]);
    ok(unsafe { bespoke_sampler_finish(sampler, &mut tensor(&mut out, F64, &mut shape)) });
    let expected = expected(&theta, &x0);
    close(&out[..3], &expected[..3], 1e-6);
    close(&out[3..], &expected[6..], 1e-6);
    unsafe { bespoke_sampler_free(sampler) };
    unsafe { bespoke_theta_free(handle) };
}

#[test]
fn driving_out_of_order_is_refused() {
    let handle = load(&bent(1));
    let sampler = sampler(handle);
    let (mut t, mut x) = (null(), null());
    assert_eq!(unsafe { bespoke_sampler_query(sampler, &mut t, &mut x) }, BESPOKE_ERROR_STATE);
    let (mut x0, mut shape) = (noise(6), [2i64, 3]);
    let mut tensor = tensor(&mut x0, F64, &mut shape);
    ok(unsafe { bespoke_sampler_start(sampler, &tensor) });
    assert_eq!(unsafe { bespoke_sampler_update(sampler, &tensor) }, BESPOKE_ERROR_STATE);
    assert_eq!(message(), "an update without a query before it");
    assert_eq!(unsafe { bespoke_sampler_finish(sampler, &mut tensor) }, BESPOKE_ERROR_STATE);
    assert_eq!(message(), "sample 0 is at evaluation 0 of 2: query and update first");
    ok(unsafe { bespoke_sampler_query(sampler, &mut t, &mut x) });
    assert_eq!(unsafe { bespoke_sampler_update(sampler, x) }, BESPOKE_ERROR_INVALID);
    assert!(message().starts_with("u.data is overlapping the sampler's own memory"), "{}", message());
    // A join may move them before it reads, a start overwrites them.
    let own = unsafe { *x };
    assert_eq!(unsafe { bespoke_sampler_join(sampler, null(), x) }, BESPOKE_ERROR_INVALID);
    assert!(message().starts_with("x0.data is overlapping the sampler's own memory"), "{}", message());
    assert_eq!(unsafe { bespoke_sampler_start(sampler, x) }, BESPOKE_ERROR_INVALID);
    assert!(message().starts_with("x0.data is overlapping the sampler's own memory"), "{}", message());
    assert_eq!(unsafe { bespoke_sampler_finish(sampler, &mut { own }) }, BESPOKE_ERROR_INVALID);
    assert!(message().starts_with("x.data is overlapping the sampler's own memory"), "{}", message());
    let (mut wide, mut shape) = (vec![0.0f32; 6], [2i64, 3]);
    let narrow = self::tensor(&mut wide, F32, &mut shape);
    assert_eq!(unsafe { bespoke_sampler_join(sampler, null(), &narrow) }, BESPOKE_ERROR_INVALID);
    assert_eq!(message(), "x0.dtype is float32, expected float64");
    // A velocity of another dtype is rounded into the state's.
    ok(unsafe { bespoke_sampler_update(sampler, &narrow) });
    unsafe { bespoke_sampler_free(sampler) };
    unsafe { bespoke_theta_free(handle) };
}

/// x(1) as `bespoke_stage` says to make it, in registers of this test's own.
fn by_stages(handle: *const bespoke_theta, x0: &[f64]) -> Vec<f64> {
    let info = info(handle);
    let mut registers = vec![vec![f64::NAN; x0.len()]; 2 + info.kept_registers as usize];
    registers[BESPOKE_REGISTER_STATE as usize] = x0.to_vec();
    let mut point = BESPOKE_REGISTER_STATE as usize;
    for k in 0..info.nfe {
        let mut stage = unsafe { std::mem::zeroed::<bespoke_stage>() };
        stage.struct_size = size_of::<bespoke_stage>() as u32;
        ok(unsafe { bespoke_theta_stage(handle, k, &mut stage) });
        assert!(k > 0 || stage.self_contained == 1);
        let velocity: Vec<f64> = registers[point].iter().map(|x| u(stage.t, *x)).collect();
        let combine = |c: &bespoke_combination| -> Vec<f64> {
            let term =
                |i: usize, j: usize| unsafe { *c.coefficients.add(j) * registers[*c.registers.add(j) as usize][i] };
            let sum = |i: usize| c.velocity * velocity[i] + (0..c.count as usize).map(|j| term(i, j)).sum::<f64>();
            (0..x0.len()).map(sum).collect()
        };
        let (next, kept) = (combine(&stage.next), combine(&stage.kept));
        point = stage.next.target as usize;
        registers[point] = next;
        if stage.kept.target != BESPOKE_REGISTER_NONE {
            registers[stage.kept.target as usize] = kept;
        }
    }
    registers.swap_remove(point)
}

fn info(handle: *const bespoke_theta) -> bespoke_theta_properties {
    let mut info: bespoke_theta_properties = unsafe { std::mem::zeroed() };
    info.struct_size = size_of::<bespoke_theta_properties>() as u32;
    ok(unsafe { bespoke_theta_info(handle, &mut info) });
    info
}

#[test]
fn the_stages_are_the_solver() {
    for theta in [bent(3), as_table(&bent(2))] {
        let handle = load(&theta);
        let x0 = noise(3);
        close(&by_stages(handle, &x0), &expected(&theta, &x0), 1e-12);
        let mut stage = unsafe { std::mem::zeroed::<bespoke_stage>() };
        stage.struct_size = size_of::<bespoke_stage>() as u32;
        assert_eq!(unsafe { bespoke_theta_stage(handle, theta.nfe() as u32, &mut stage) }, BESPOKE_ERROR_INVALID);
        unsafe { bespoke_theta_free(handle) };
    }
}

fn published(name: &str, nfe: u32) -> *mut bespoke_theta {
    let (name, scheduler, mut handle) = (CString::new(name).unwrap(), CString::new("vp").unwrap(), null_mut());
    ok(unsafe { bespoke_theta_solver(name.as_ptr(), nfe, scheduler.as_ptr(), &mut handle) });
    handle
}

#[test]
fn a_published_solver_is_no_table_until_it_is_compiled() {
    for (name, nfe, kept) in [("euler", 9, 0), ("heun", 8, 1), ("dpm++3m", 17, 2), ("unipc", 12, 2), ("deis", 12, 3)] {
        let handle = published(name, nfe);
        let own = info(handle);
        assert_eq!((own.nfe, own.kept_registers), (nfe, kept), "{name}");
        assert!(own.document.is_null());
        let text = |text: *const c_char| unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned();
        assert_eq!(text(own.family), "published");
        assert_eq!(text(own.training), format!("{{\"solver\":\"{name}@{nfe}\"}}"));
        let mut compiled = null_mut();
        ok(unsafe { bespoke_theta_compile(handle, &mut compiled) });
        let table = info(compiled);
        assert_eq!((text(table.family).as_str(), table.kept_registers), ("ns", nfe - 1), "{name}");
        assert_eq!((text(table.model), text(table.training)), (text(own.model), text(own.training)));
        // The same samples, to rounding; and the file is the compiled one's.
        let x0 = noise(3);
        let x1 = by_stages(handle, &x0);
        close(&by_stages(compiled, &x0), &x1, 1e-10);
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = CString::new(file.path().to_str().unwrap()).unwrap();
        ok(unsafe { bespoke_theta_save(handle, path.as_ptr()) });
        assert_eq!(Theta::load(file.path()).unwrap().to_json().unwrap(), text(table.document));
        unsafe {
            bespoke_theta_free(compiled);
            bespoke_theta_free(handle);
        }
    }
    // Its evaluations may be more than the rows of a table.
    let handle = published("rk4", 4000);
    let mut compiled = null_mut();
    assert_eq!(unsafe { bespoke_theta_compile(handle, &mut compiled) }, BESPOKE_ERROR_INVALID);
    assert_eq!(message(), "nfe is 4000, expected at most 1000, the rows of a theta of family ns");
    unsafe { bespoke_theta_free(handle) };
}

unsafe extern "C-unwind" fn panicking(_: *mut c_void, _: *const DLTensor, _: *const DLTensor, _: *mut DLTensor) -> i32 {
    panic!("on purpose")
}

#[test]
fn a_panic_is_a_status() {
    let handle = load(&bent(1));
    let sampler = sampler(handle);
    let (mut x0, mut shape) = (noise(3), [1i64, 3]);
    let mut x = tensor(&mut x0, F64, &mut shape);
    assert_eq!(unsafe { bespoke_step(handle, sampler, 0, &mut x, Some(panicking), null_mut()) }, BESPOKE_ERROR_PANIC);
    assert_eq!(message(), "a defect of the library: on purpose");
    assert_eq!(x0, noise(3));
    unsafe { bespoke_sampler_free(sampler) };
    unsafe { bespoke_theta_free(handle) };
}
