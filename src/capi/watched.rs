//! Callbacks that write where they may only read.

use crate::error::{Error, Result};
use crate::tensor::{Element, checksum};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a host's function has been watched: the first call says whether it writes into the states it is given,
/// which would spoil the solve without any other sign.
#[derive(Default)]
pub(super) struct Watched(AtomicBool);

impl Watched {
    /// Runs `call`, the function called `name`, on the states `x`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it has changed them; what `call` answers.
    pub(super) fn run<E: Element>(&self, name: &str, x: &[E], call: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return call();
        }
        let before = checksum(x);
        call()?;
        if checksum(x) != before {
            return Err(Error::invalid(
                format!("x after the {name} callback"),
                "changed",
                "as it was: a callback writes its output alone",
            ));
        }
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}
