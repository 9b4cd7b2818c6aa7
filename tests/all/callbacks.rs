//! A callback that writes into the states it is given to read is named, by every way in.

use bespoke::capi::*;
use serde_json::json;
use std::ffi::{CStr, CString, c_void};
use std::ptr::{null, null_mut};

fn tensor(data: &mut [f32], shape: &mut [i64]) -> DLTensor {
    DLTensor {
        data: data.as_mut_ptr().cast(),
        device: DLDevice { device_type: 1, device_id: 0 },
        ndim: shape.len() as i32,
        dtype: DLDataType { code: 2, bits: 32, lanes: 1 },
        shape: shape.as_mut_ptr(),
        strides: null_mut(),
        byte_offset: 0,
    }
}

fn message() -> String {
    unsafe { CStr::from_ptr(bespoke_last_error_message()) }.to_str().unwrap().to_owned()
}

/// Copies `x` to `u` and, where `user_data` points to true, zeroes the first number of `x`, as code that computes in
/// place would.
unsafe fn evaluate(user_data: *mut c_void, x: *const DLTensor, u: *mut DLTensor) -> i32 {
    unsafe {
        let count = (*(*x).shape * *(*x).shape.add(1)) as usize;
        std::ptr::copy_nonoverlapping((*x).data.cast::<f32>(), (*u).data.cast::<f32>(), count);
        if *user_data.cast::<bool>() {
            *(*x).data.cast::<f32>() = 0.0;
        }
    }
    0
}

unsafe extern "C-unwind" fn velocity(
    user_data: *mut c_void,
    _: *const DLTensor,
    x: *const DLTensor,
    u: *mut DLTensor,
) -> i32 {
    unsafe { evaluate(user_data, x, u) }
}

unsafe extern "C-unwind" fn network(user_data: *mut c_void, call: *const bespoke_call) -> i32 {
    unsafe { evaluate(user_data, (*call).x, (*call).output) }
}

/// `call`, given whether the callback writes into `x`, answers so.
fn named(callback: &str, call: impl Fn(*mut c_void) -> bespoke_status) {
    let (mut writes, mut reads) = (true, false);
    assert_eq!(call((&raw mut reads).cast()), BESPOKE_OK, "{}", message());
    assert_eq!(call((&raw mut writes).cast()), BESPOKE_ERROR_INVALID);
    assert!(message().contains(&format!("x after the {callback} callback is changed")), "{}", message());
}

#[test]
fn a_samplers_velocity() {
    let (name, scheduler, mut theta) = (c"euler", c"fm-ot", null_mut());
    unsafe { assert_eq!(bespoke_theta_solver(name.as_ptr(), 2, scheduler.as_ptr(), &mut theta), BESPOKE_OK) };
    named("velocity", |user_data| unsafe {
        let mut sampler = null_mut();
        assert_eq!(bespoke_sampler_new(theta, null(), &mut sampler), BESPOKE_OK);
        let (mut data, mut shape) = ([1.0f32, 2.0], [1, 2]);
        let mut x = tensor(&mut data, &mut shape);
        let x: *mut DLTensor = &mut x;
        let status = bespoke_sample(theta, sampler, x, x, Some(velocity), user_data);
        bespoke_sampler_free(sampler);
        status
    });
    unsafe { bespoke_theta_free(theta) };
}

#[test]
fn a_models_network() {
    let folder = tempfile::tempdir().unwrap();
    let card = json!({ "format": "bespoke-model", "version": 1, "runtime": "host", "shape": [2], "output": "velocity",
                       "scheduler": { "name": "fm-ot" } });
    let path = folder.path().join("card.json");
    std::fs::write(&path, card.to_string()).unwrap();
    let path = CString::new(path.to_str().unwrap()).unwrap();
    named("network", |user_data| unsafe {
        let mut model = null_mut();
        assert_eq!(bespoke_model_host(path.as_ptr(), Some(network), user_data, &mut model), BESPOKE_OK);
        let (mut t, mut x, mut u) = ([0.5f32], [1.0f32, 2.0], [0.0f32; 2]);
        let (mut times, mut states, mut outputs) = ([1], [1, 2], [1, 2]);
        let (t, x) = (tensor(&mut t, &mut times), tensor(&mut x, &mut states));
        let status = bespoke_model_velocity(model, null(), &t, &x, &mut tensor(&mut u, &mut outputs));
        bespoke_model_free(model);
        status
    });
}

#[test]
fn a_velocity_in_training() {
    let config = json!({ "field": { "shape": [2] }, "family": "rk1", "steps": 2, "loss": "rmse-bound", "pool": 20,
                         "batch": 5, "validation": 5, "iterations": 1 });
    let config = CString::new(config.to_string()).unwrap();
    named("velocity", |user_data| unsafe {
        let callbacks = bespoke_train_callbacks {
            struct_size: size_of::<bespoke_train_callbacks>() as u32,
            reserved: 0,
            user_data,
            progress: None,
            velocity: Some(network),
            vjp: None,
        };
        let mut theta = null_mut();
        let status = bespoke_train(config.as_ptr(), &callbacks, &mut theta);
        bespoke_theta_free(theta);
        status
    });
}
