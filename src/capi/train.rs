//! Training.

use super::call::{Results, ask, bespoke_call};
use super::dlpack::DLDevice;
use super::guard::{create, text};
use super::status::bespoke_status;
use super::structs::{self, sized_struct};
use super::theta::bespoke_theta;
use super::watched::Watched;
use crate::document;
use crate::error::{Error, Result};
use crate::model::{CallerField, PullBack};
use crate::ranks::Ranks;
use crate::tensor::checksum;
use crate::train::{FieldConfig, Progress, TrainConfig, train_config, train_field};
use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;

/// How far a training run has come.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_train_progress {
    /// sizeof(bespoke_train_progress) of the library.
    pub struct_size: u32,
    /// 1 where `validation_rmse` is of this very iteration, else 0.
    pub validated: u32,
    /// Iterations done; 0 after the first validation.
    pub iteration: u64,
    /// Iterations in all.
    pub iterations: u64,
    /// The last batch's loss; NaN before the first.
    pub loss: f64,
    /// Last validation: per-sample RMSE against the ground truth, averaged.
    pub validation_rmse: f64,
    /// Last validation, in dB.
    pub validation_psnr: f64,
    /// The best validation so far.
    pub best_rmse: f64,
    /// Its PSNR, in dB.
    pub best_psnr: f64,
    /// Samples evaluated so far, ground truth and validation included.
    pub forward: u64,
    /// Samples differentiated so far.
    pub backward: u64,
}

/// Called after every iteration. 0 goes on; anything else stops with the best theta so far.
/// `progress` is valid during the call.
pub type bespoke_progress_fn =
    Option<unsafe extern "C-unwind" fn(user_data: *mut c_void, progress: *const bespoke_train_progress) -> i32>;

/// A velocity field of the host for training: writes u_t(x), `call->output`, for every sample of a batch. With
/// classes in the config's `field`, `call->inputs` holds the input `class`, int64 `[batch]`.
///
/// Answers 0 when it is written. Anything else stops the training with `BESPOKE_ERROR_CALLBACK`.
pub type bespoke_train_velocity_fn =
    Option<unsafe extern "C-unwind" fn(user_data: *mut c_void, call: *const bespoke_call) -> i32>;

/// The field's vector-Jacobian product: for `call->cotangent` w, writes `call->by_x` = w^T du/dx and
/// `call->by_t` = w . du/dt. Answers as `bespoke_train_velocity_fn`.
pub type bespoke_train_vjp_fn =
    Option<unsafe extern "C-unwind" fn(user_data: *mut c_void, call: *const bespoke_call) -> i32>;

/// What training calls back. Zeros are the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_train_callbacks {
    /// sizeof(bespoke_train_callbacks), set by the caller.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Given to every callback.
    pub user_data: *mut c_void,
    /// Told of every iteration; may be NULL.
    pub progress: bespoke_progress_fn,
    /// The host's own field, where the config has the key `field` in place of `model`.
    pub velocity: bespoke_train_velocity_fn,
    /// Its vector-Jacobian product; NULL where it has none: it is then trained by `velocity` alone, with
    /// the optimizer `forward-gauss-newton`.
    pub vjp: bespoke_train_vjp_fn,
}

sized_struct!(bespoke_train_callbacks { reserved, user_data, progress, velocity, vjp });

/// Learns a theta. `config_json` is the document that the program takes as `--config`; it names
/// the model card: `{"model": "digits.json", "family": "rk2", "steps": 5}`. Unknown keys are
/// errors. With the key `out` the theta is also written there. `callbacks` may be NULL.
///
/// It is JSON, so UTF-8, and with it the paths in it; a text that is not is refused, and shown where it is not. A file
/// whose name is of other bytes is reached by a link of another name, or by `bespoke_theta_save`, which takes any.
///
/// With `"field": {"shape": [3, 64, 64], "classes": 10, "data_range": [-1, 1], "precision": "float32"}`
/// in place of `model`, the field that is learned for is `callbacks->velocity`; all keys but `shape` may be left out.
///
/// Where the progress callback stops the run, `*out` is the best theta so far.
///
/// # Safety
/// `config_json` is NULL or NUL-terminated. `callbacks` is NULL or begins with its size, and its members are what
/// their comments say. `out` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_train(
    config_json: *const c_char,
    callbacks: *const bespoke_train_callbacks,
    out: *mut *mut bespoke_theta,
) -> bespoke_status {
    // SAFETY: as the header asks.
    unsafe { create(out, || train(text("config_json", config_json)?, callbacks)) }
}

/// # Safety
/// `callbacks` is NULL or a struct that starts with its size, of callbacks that may be called.
unsafe fn train(config_json: &str, callbacks: *const bespoke_train_callbacks) -> Result<bespoke_theta> {
    let config: TrainConfig = document::parse(config_json, "config_json")?;
    check_single(&config)?;
    // SAFETY: by this function's contract.
    let callbacks = (!callbacks.is_null()).then(|| unsafe { structs::read("callbacks", callbacks) }).transpose()?;
    let mut observer = |progress: &Progress| {
        let Some((function, callbacks)) = callbacks.and_then(|c| Some((c.progress?, c))) else {
            return ControlFlow::Continue(());
        };
        // SAFETY: by this function's contract.
        match unsafe { function(callbacks.user_data, &report(progress)) } {
            0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    };
    let outcome = match (&config.field, callbacks) {
        (Some(description), Some(callbacks)) => {
            train_field(&config, &host_field(description, callbacks)?, &mut observer)
        }
        _ => train_config(&config, &Ranks::alone(), &mut observer),
    };
    // One, as was checked.
    let trained = outcome?.rungs.pop().ok_or_else(|| Error::State("training gave no theta".into()))?;
    bespoke_theta::new(trained.theta)
}

/// One theta comes back: a ladder is for the program.
fn check_single(config: &TrainConfig) -> Result<()> {
    for (key, counts) in [("steps", &config.steps), ("nfe", &config.nfe)] {
        if counts.len() > 1 {
            return Err(Error::invalid(key, format!("{counts:?}"), "one count: one theta comes back"));
        }
    }
    Ok(())
}

/// The host's functions as a field. Their contract is that of [`train`].
fn host_field(description: &FieldConfig, callbacks: bespoke_train_callbacks) -> Result<CallerField<'static>> {
    description.validate()?;
    let velocity = callbacks.velocity.ok_or_else(|| Error::invalid("callbacks.velocity", "NULL", "a function"))?;
    let (user_data, watched) = (callbacks.user_data, Watched::default());
    Ok(CallerField {
        shape: description.shape.clone(),
        accuracy: description.precision.accuracy(),
        evaluate: Box::new(move |times, call, u| {
            // SAFETY: by the contract of `train`; the tensors describe live memory of their shape.
            let answer = |call| unsafe { velocity(user_data, call) };
            let run = || ask("velocity", times, call, DLDevice::HOST, Results::Output(u), answer);
            watched.run("velocity", || checksum(call.x.data()), run)
        }),
        pull_back: callbacks.vjp.map(|vjp| {
            let pull_back: Box<PullBack<'static>> = Box::new(move |times, call, cotangent, by_x, by_t| {
                let results = Results::Vjp { cotangent, by_x, by_t };
                // SAFETY: as above.
                let answer = |call| unsafe { vjp(user_data, call) };
                ask("vjp", times, call, DLDevice::HOST, results, answer)
            });
            pull_back
        }),
    })
}

fn report(progress: &Progress) -> bespoke_train_progress {
    bespoke_train_progress {
        struct_size: size_of::<bespoke_train_progress>() as u32,
        validated: progress.validated.into(),
        iteration: progress.iteration as u64,
        iterations: progress.iterations as u64,
        loss: progress.loss,
        validation_rmse: progress.validation.rmse,
        validation_psnr: progress.validation.psnr,
        best_rmse: progress.best.rmse,
        best_psnr: progress.best.psnr,
        forward: progress.evaluations.forward,
        backward: progress.evaluations.backward,
    }
}
