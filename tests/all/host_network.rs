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
    let expected = normal(42, Purpose::Sample, 3..5, 4);
    assert!(found.iter().zip(&expected).all(|(a, b)| *a == f64::from(*b)), "{found:?} {expected:?}");
    assert_eq!(
        unsafe { bespoke_noise(42, u64::MAX, &mut tensor(&mut found, &mut shape, 2, 64)) },
        BESPOKE_ERROR_INVALID
    );
}
