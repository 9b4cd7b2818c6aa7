//! Models whose network the host runs.

use super::call::{Results, ask, bespoke_call};
use super::device::{bespoke_device_ops, lent_memory};
use super::dlpack::DLDevice;
use super::guard::{create, path};
use super::model::bespoke_model;
use super::status::bespoke_status;
use super::watched::Watched;
use crate::error::Error;
use crate::model::{open_caller, open_caller_on_device};
use crate::networks::Forward;
use crate::tensor::{Remote, checksum};
use std::ffi::{c_char, c_void};

/// A network of the host: writes `call->output` for every sample of a batch. `call` is valid during the call.
/// A batch is more than that of the samples where some of them are guided: all passes are stacked.
///
/// Answers 0 when the output is written. Anything else stops the call that evaluates, which then returns
/// `BESPOKE_ERROR_CALLBACK`.
pub type bespoke_network_fn =
    Option<unsafe extern "C-unwind" fn(user_data: *mut c_void, call: *const bespoke_call) -> i32>;

/// The host's own pointer. It says that any thread may use it.
struct UserData(*mut c_void);

// SAFETY: as the header asks of `bespoke_model_host`.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

impl UserData {
    // A method, so that a closure takes the whole and not its pointer alone.
    fn get(&self) -> *mut c_void {
        self.0
    }
}

/// Opens the card at `path`, of runtime `host`, around a network that the host runs: inputs, guidance, the
/// card's time and output are then translated to a velocity as for any model. `network` may be called from
/// every thread that evaluates the model, from several at a time, until the model is freed.
///
/// # Safety
/// `path` is NULL or NUL-terminated. `network` is NULL or a function that may be called with `user_data` as its
/// type says. `out` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_model_host(
    path: *const c_char,
    network: bespoke_network_fn,
    user_data: *mut c_void,
    out: *mut *mut bespoke_model,
) -> bespoke_status {
    // SAFETY: as the header asks.
    unsafe {
        create(out, || {
            let network = network.ok_or_else(|| Error::invalid("network", "NULL", "a function"))?;
            let (user_data, watched) = (UserData(user_data), Watched::default());
            let forward: Box<Forward> = Box::new(move |times, call, output| {
                // SAFETY: as the header asks; the tensors describe live memory of their shape.
                let run = || {
                    ask("network", times, call, DLDevice::HOST, Results::Output(output), |call| {
                        network(user_data.get(), call)
                    })
                };
                watched.run("network", || checksum(call.x.data()), run)
            });
            bespoke_model::new(open_caller(self::path("path", path)?, forward)?)
        })
    }
}

/// As `bespoke_model_host`, of samples on a device of the host's: `bespoke_model_velocity` and
/// `bespoke_model_prediction` then take and give float32 tensors of that device but for their times, and the network is
/// given its states there, and writes its output there. Its times and inputs are host memory. What the translation needs
/// between is queued with `ops`, and nothing waits: the network queues its own behind it, or waits by itself. Up to 16
/// arrays that are free are kept for what needs one of their size, and given back where memory ends: an evaluation of the
/// size of the one before allocates nothing.
///
/// The model is then for one thread at a time. The table is copied; its `context` must outlive the model.
///
/// # Safety
/// As `bespoke_model_host`; `ops` is NULL or begins with its size, and its functions may be called as their types say until
/// the model is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_model_host_on_device(
    path: *const c_char,
    ops: *const bespoke_device_ops,
    network: bespoke_network_fn,
    user_data: *mut c_void,
    out: *mut *mut bespoke_model,
) -> bespoke_status {
    // SAFETY: as the header asks.
    unsafe {
        create(out, || {
            let network = network.ok_or_else(|| Error::invalid("network", "NULL", "a function"))?;
            let (device, memory) = lent_memory("ops", ops)?;
            let user_data = UserData(user_data);
            let forward: Box<Forward<Remote>> = Box::new(move |times, call, output| {
                // SAFETY: as the header asks; the tensors describe live memory of their shape.
                ask("network", times, call, device, Results::Output(output), |call| network(user_data.get(), call))
            });
            bespoke_model::on_device(open_caller_on_device(self::path("path", path)?, forward)?, device, memory)
        })
    }
}
