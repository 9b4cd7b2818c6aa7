//! Training.

use super::guard::{create, text};
use super::status::bespoke_status;
use super::structs::{self, sized_struct};
use super::theta::bespoke_theta;
use crate::document;
use crate::error::Result;
use crate::train::{Progress, TrainConfig, train_config};
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
}

sized_struct!(bespoke_train_callbacks { reserved, user_data, progress });

/// Learns a theta. `config_json` is the document that the program takes as `--config`; it names
/// the model card: `{"model": "digits.json", "family": "rk2", "steps": 5}`. Unknown keys are
/// errors. With the key `out` the theta is also written there. `callbacks` may be NULL.
///
/// Where the progress callback stops the run, `*out` is the best theta so far.
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
    bespoke_theta::new(train_config(&config, &mut observer)?.theta)
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
