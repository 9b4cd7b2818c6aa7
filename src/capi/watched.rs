//! Callbacks that write where they may only read.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a host's function has been watched: the first call says whether it writes into the states it is given,
/// which would spoil the solve without any other sign.
#[derive(Default)]
pub(super) struct Watched(AtomicBool);

impl Watched {
    /// Runs `call`, the function called `name`, on states of which `checksum` gives a number that all but surely differs
    /// where any of theirs does.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it has changed them; what `call` answers.
    pub(super) fn run(&self, name: &str, checksum: impl Fn() -> u64, call: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return call();
        }
        let before = checksum();
        call()?;
        if checksum() != before {
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
