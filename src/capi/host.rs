//! Models whose network the host runs.

use super::callback::answered;
use super::dlpack::DLTensor;
use super::guard::{create, path};
use super::model::bespoke_model;
use super::status::bespoke_status;
use super::train::{describe_mut, inputs, pointer};
use crate::error::Error;
use crate::model::{Card, Forward, open_host};
use std::ffi::{c_char, c_void};

/// A network of the host: writes its output for every sample of a batch.
///
/// `time` is float32 `[batch]`, as the network counts time (the card's `time`); `x` and `output` are float32
/// `[batch, ...]` of the card's shape; `classes` is int64 `[batch]`, or NULL where the card has no classes.
/// All are contiguous host memory of the library, valid during the call; only `output` is written.
/// The batch is twice that of the samples where one of them is guided.
///
/// Answers 0 when `output` is written. Anything else stops the call that evaluates, which then returns
/// `BESPOKE_ERROR_CALLBACK`.
pub type bespoke_network_fn = Option<
    unsafe extern "C-unwind" fn(
        user_data: *mut c_void,
        time: *const DLTensor,
        x: *const DLTensor,
        classes: *const DLTensor,
        output: *mut DLTensor,
    ) -> i32,
>;

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

/// Opens the card at `path`, of runtime `host`, around a network that the host runs: classes, guidance, the
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
            let path = self::path("path", path)?;
            let sizes: Vec<i64> = Card::load(path)?.shape.iter().map(|n| *n as i64).collect();
            let user_data = UserData(user_data);
            let forward: Box<Forward> = Box::new(move |times, x, classes, output| {
                let mut shape: Vec<i64> = std::iter::once(times.len() as i64).chain(sizes.iter().copied()).collect();
                let (time, x, classes) = inputs(times, x, classes, &mut shape);
                let mut output = describe_mut(output, &mut shape);
                // SAFETY: as the header asks; the tensors describe live memory of their shape.
                answered("network", || network(user_data.get(), &time, &x, pointer(&classes), &mut output))
            });
            bespoke_model::new(open_host(path, forward)?)
        })
    }
}
