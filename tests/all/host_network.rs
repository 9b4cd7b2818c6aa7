//! Cards whose network the host runs, predictions of x(1), and seeded noise, through the C ABI.

use bespoke::capi::*;
use bespoke::noise::{Purpose, normal};
use bespoke::scheduler::Scheduler;
use serde_json::json;
use std::ffi::{CStr, CString, c_void};
use std::path::Path;
use std::ptr::{null, null_mut};

const ELEMENTS: usize = 3;

fn tensor<T>(data: &mut [T], shape: &mut [i64], code: u8, bits: u8) -> DLTensor {
    DLTensor {
        data: data.as_mut_ptr().cast(),
        device: DLDevice { device_type: 1, device_id: 0 },
        ndim: shape.len() as i32,
        dtype: DLDataType { code, bits, lanes: 1 },
        shape: shape.as_mut_ptr(),
        strides: null_mut(),
        byte_offset: 0,
    }
}

/// output = time + class + x; class 7 is refused. `user_data` counts the samples.
unsafe extern "C-unwind" fn network(user_data: *mut c_void, call: *const bespoke_call) -> i32 {
    let bespoke_call { time, x, inputs, output, input_count: 1, .. } = (unsafe { *call }) else { return 9 };
    let classes = unsafe { (*inputs).tensor };
    unsafe {
        let batch = *(*x).shape as usize;
        *user_data.cast::<usize>() += batch;
        for i in 0..batch * ELEMENTS {
            let class = *(*classes).data.cast::<i64>().add(i / ELEMENTS);
            if class == 7 {
                return 7;
            }
            let time = *(*time).data.cast::<f32>().add(i / ELEMENTS);
            *(*output).data.cast::<f32>().add(i) = time + class as f32 + *(*x).data.cast::<f32>().add(i);
        }
    }
    0
}

fn card(folder: &Path, changes: serde_json::Value) -> CString {
    let mut card = json!({
        "format": "bespoke-model", "version": 1, "runtime": "host", "shape": [ELEMENTS], "output": "epsilon",
        "scheduler": { "name": "cosine" }, "time": { "direction": "data-to-noise", "scale": 1000.0, "end": 0.9 },
        "classes": 10, "null_class": 9,
    });
    card.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let path = folder.join("card.json");
    std::fs::write(&path, card.to_string()).unwrap();
    CString::new(path.to_str().unwrap()).unwrap()
}

fn message() -> String {
    unsafe { CStr::from_ptr(bespoke_last_error_message()) }.to_str().unwrap().to_owned()
}

#[test]
fn a_network_of_the_host_is_translated_as_its_card_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = card(folder.path(), json!({}));
    let (mut samples, mut model) = (0usize, null_mut());
    let (mut x, mut u, mut t) = ([0.3f32, -0.8, 1.1, 0.2, 0.5, -1.0], [0.0f32; 6], [0.25f32, 0.6]);
    unsafe {
        let opened = bespoke_model_host(path.as_ptr(), Some(network), (&raw mut samples).cast(), &mut model);
        assert_eq!(opened, BESPOKE_OK, "{}", message());
        let evaluate = |classes: [i64; 2], scales: [f64; 2], u: &mut [f32], x: &mut [f32], t: &mut [f32]| {
            let condition = bespoke_condition {
                struct_size: size_of::<bespoke_condition>() as u32,
                batch: 2,
                classes: classes.as_ptr(),
                guidance_scale: scales.as_ptr(),
                inputs: null(),
                scales: null(),
                input_count: 0,
                scale_count: 0,
                kept: null(),
            };
            let (mut rows, mut shape, mut same) = ([2i64], [2i64, 3], [2i64, 3]);
            let (t, x) = (tensor(t, &mut rows, 2, 32), tensor(x, &mut shape, 2, 32));
            bespoke_model_velocity(model, &condition, &t, &x, &mut tensor(u, &mut same, 2, 32))
        };
        assert_eq!(evaluate([2, 5], [1.0, 3.0], &mut u, &mut x, &mut t), BESPOKE_OK, "{}", message());
        assert_eq!(samples, 3, "a guided sample is evaluated twice");
        for i in 0..6 {
            // epsilon = time + class + x, the time 1000 (1 - t), guided between class and null class.
            let (tau, state) = (f64::from(t[i / 3]), f64::from(x[i]));
            let (class, scale) = ([2.0, 5.0][i / 3], [1.0, 3.0][i / 3]);
            let at = 0.9 * tau;
            let epsilon = 1000.0 * (1.0 - at) + state + 9.0 + scale * (class - 9.0);
            let s = Scheduler::Cosine;
            let x1 = (state - s.sigma(at) * epsilon) / s.alpha(at);
            let expected = 0.9 * (s.alpha_dot(at) * x1 + s.sigma_dot(at) * epsilon);
            assert!((f64::from(u[i]) / expected - 1.0).abs() < 1e-5, "{} is not {expected}", u[i]);

            let mut predicted = [0.0f32; 6];
            let (mut rows, mut a, mut b, mut c) = ([2i64], [2i64, 3], [2i64, 3], [2i64, 3]);
            let (times, states) = (tensor(&mut t, &mut rows, 2, 32), tensor(&mut x, &mut a, 2, 32));
            let velocities = tensor(&mut u, &mut b, 2, 32);
            let status = bespoke_model_prediction(
                model,
                &times,
                &states,
                &velocities,
                &mut tensor(&mut predicted, &mut c, 2, 32),
            );
            assert_eq!(status, BESPOKE_OK, "{}", message());
            assert!((f64::from(predicted[i]) / x1 - 1.0).abs() < 1e-4, "{} is not {x1}", predicted[i]);
        }
        assert_eq!(evaluate([7, 5], [1.0, 1.0], &mut u, &mut x, &mut t), BESPOKE_ERROR_CALLBACK);
        assert!(message().contains("network callback answered 7"), "{}", message());
        bespoke_model_free(model);
    }
}

#[test]
fn a_prediction_at_the_end_is_the_state_itself() {
    for scheduler in [Scheduler::FmOt, Scheduler::Cosine, Scheduler::from_name("vp").unwrap()] {
        let (p, q) = scheduler.data_coefficients(1.0);
        assert!((p - 1.0).abs() < 1e-9 && q.abs() < 1e-9, "{scheduler:?}: {p}, {q}");
    }
}

#[test]
fn host_cards_and_others_are_not_confused() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = null_mut();
    unsafe {
        let path = card(folder.path(), json!({}));
        assert_eq!(bespoke_model_open(path.as_ptr(), null(), &mut model), BESPOKE_ERROR_UNSUPPORTED);
        assert!(message().contains("host"), "{}", message());
        assert_eq!(bespoke_model_host(path.as_ptr(), None, null_mut(), &mut model), BESPOKE_ERROR_INVALID);
        let path = card(folder.path(), json!({ "runtime": "mixture" }));
        assert_eq!(bespoke_model_host(path.as_ptr(), Some(network), null_mut(), &mut model), BESPOKE_ERROR_FORMAT);
        assert!(message().contains("weights"), "{}", message());
        let path = card(folder.path(), json!({ "runtime": "mixture", "weights": "modes.json" }));
        assert_eq!(bespoke_model_host(path.as_ptr(), Some(network), null_mut(), &mut model), BESPOKE_ERROR_FORMAT);
        assert!(message().contains("runtime"), "{}", message());
        assert!(model.is_null());
    }
}

#[test]
fn noise_is_that_of_the_command_line() {
    let mut found = [0.0f64; 8];
    let mut shape = [2i64, 2, 2];
    assert_eq!(unsafe { bespoke_noise(42, 3, &mut tensor(&mut found, &mut shape, 2, 64)) }, BESPOKE_OK);
    let expected = normal(42, Purpose::Sample, 3..5, 4).unwrap();
    assert!(found.iter().zip(&expected).all(|(a, b)| *a == f64::from(*b)), "{found:?} {expected:?}");
    assert_eq!(
        unsafe { bespoke_noise(42, u64::MAX, &mut tensor(&mut found, &mut shape, 2, 64)) },
        BESPOKE_ERROR_INVALID
    );
}

/// output = x + the mean of `text` + 10 where the mask is on.
unsafe extern "C-unwind" fn of_text(_: *mut c_void, call: *const bespoke_call) -> i32 {
    unsafe {
        let call = &*call;
        let named = |i: usize| {
            let input = &*call.inputs.add(i);
            (CStr::from_ptr(input.name).to_str().unwrap(), &*input.tensor)
        };
        let ((first, text), (second, mask)) = (named(0), named(1));
        if (call.input_count, first, second, text.dtype.code, mask.dtype.code, mask.dtype.bits)
            != (2, "text", "mask", 2, 6, 8)
        {
            return 5;
        }
        let tokens = *text.shape.add(1) as usize;
        for row in 0..*(*call.x).shape as usize {
            let mean = (0..tokens).map(|i| *text.data.cast::<f32>().add(row * tokens + i)).sum::<f32>() / tokens as f32;
            let on = if *mask.data.cast::<u8>().add(row) == 1 { 10.0 } else { 0.0 };
            for i in row * ELEMENTS..(row + 1) * ELEMENTS {
                *(*call.output).data.cast::<f32>().add(i) = *(*call.x).data.cast::<f32>().add(i) + mean + on;
            }
        }
    }
    0
}

#[test]
fn named_inputs_go_through_c_and_the_model_tells_its_signature() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = json!([{ "name": "text", "dtype": "float32", "shape": ["tokens"], "null": 1 },
                        { "name": "mask", "dtype": "bool", "shape": [] }]);
    let path = folder.path().join("card.json");
    let card = json!({ "format": "bespoke-model", "version": 1, "runtime": "host", "shape": ["frames", ELEMENTS],
                       "output": "velocity", "scheduler": { "name": "fm-ot" }, "inputs": inputs,
                       "guidance": { "passes": [{ "without": ["text"] }, { "scale": "strength" }] } });
    std::fs::write(&path, card.to_string()).unwrap();
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let mut model = null_mut();
    unsafe {
        assert_eq!(
            bespoke_model_host(path.as_ptr(), Some(of_text), null_mut(), &mut model),
            BESPOKE_OK,
            "{}",
            message()
        );
        let mut info: bespoke_model_properties = std::mem::zeroed();
        info.struct_size = size_of::<bespoke_model_properties>() as u32;
        assert_eq!(bespoke_model_info(model, &mut info), BESPOKE_OK);
        let name = |text: *const std::ffi::c_char| CStr::from_ptr(text).to_str().unwrap();
        assert_eq!((info.ndim, *info.shape, *info.shape.add(1)), (2, -1, ELEMENTS as i64));
        assert_eq!((name(*info.shape_names), (*info.shape_names.add(1)).is_null()), ("frames", true));
        let (text, mask) = (&*info.inputs, &*info.inputs.add(1));
        assert_eq!((info.input_count, name(text.name), text.ndim, *text.shape), (2, "text", 1, -1));
        assert_eq!((name(*text.shape_names), name(mask.name), mask.ndim, mask.dtype.code), ("tokens", "mask", 0, 6));
        assert_eq!((info.scale_count, name(*info.scales)), (1, "strength"));

        let (mut words, mut masks) = ([0.5f32, 1.5, 4.0, 6.0], [1u8, 0]);
        let (mut x, mut u, mut t) = ([0.25f32; 6], [0.0f32; 6], [0.5f32, 0.5]);
        let evaluate = |words: &DLTensor, x: &mut [f32], t: &mut [f32], u: &mut [f32], masks: &mut [u8]| {
            let (mut rows, mut shape, mut same, mut of_mask) = ([2i64], [2i64, 1, 3], [2i64, 1, 3], [2i64]);
            let mask = tensor(masks, &mut of_mask, 6, 8);
            let inputs = [
                bespoke_input { name: c"mask".as_ptr(), tensor: &mask },
                bespoke_input { name: c"text".as_ptr(), tensor: words },
            ];
            let strength = [1.0f64, 3.0];
            let scales = [bespoke_scale { name: c"strength".as_ptr(), values: strength.as_ptr() }];
            let condition = bespoke_condition {
                struct_size: size_of::<bespoke_condition>() as u32,
                batch: 2,
                classes: null(),
                guidance_scale: null(),
                inputs: inputs.as_ptr(),
                scales: scales.as_ptr(),
                input_count: 2,
                scale_count: 1,
                kept: null(),
            };
            let (t, x) = (tensor(t, &mut rows, 2, 32), tensor(x, &mut shape, 2, 32));
            bespoke_model_velocity(model, &condition, &t, &x, &mut tensor(u, &mut same, 2, 32))
        };
        let mut of_text = [2i64, 2];
        let text = tensor(&mut words, &mut of_text, 2, 32);
        assert_eq!(evaluate(&text, &mut x, &mut t, &mut u, &mut masks), BESPOKE_OK, "{}", message());
        // Row 0 is not guided; row 1 is, by 3, away from a text of ones.
        assert_eq!(u, [11.25, 11.25, 11.25, 0.25 + 1.0 + 3.0 * 4.0, 13.25, 13.25]);
        let mut of_doubles = [2i64, 1];
        let doubles = tensor(&mut [1.0f64, 2.0], &mut of_doubles, 2, 64);
        assert_eq!(evaluate(&doubles, &mut x, &mut t, &mut u, &mut masks), BESPOKE_ERROR_INVALID);
        assert!(message().contains("inputs.text.dtype is float64"), "{}", message());
        assert_eq!(evaluate(&text, &mut x, &mut t, &mut u, &mut [2, 0]), BESPOKE_ERROR_INVALID);
        assert!(message().contains("inputs.mask"), "{}", message());
        let mut strided = text;
        let mut strides = [1i64, 2];
        strided.strides = strides.as_mut_ptr();
        assert_eq!(evaluate(&strided, &mut x, &mut t, &mut u, &mut masks), BESPOKE_ERROR_INVALID);
        assert!(message().contains("inputs.text.strides"), "{}", message());
        bespoke_model_free(model);
    }
}
