//! Ctrl-C, SIGTERM and SIGHUP, which mean the same: training ends with what it has, all else ends at once and
//! leaves no temporary files.

use super::say::note;
use bespoke::{Error, Result, output};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether someone looks at [`ASKED`], and so ends the program well.
static AWAITED: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicBool = AtomicBool::new(false);

/// Listens from here on.
///
/// # Errors
/// [`Error::State`] where the system does not let it.
pub fn listen() -> Result<()> {
    let failed = |e| Error::State(format!("cannot listen for signals: {e}"));
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP].into_iter().filter(|s| !is_ignored(*s))).map_err(failed)?;
    let listen = move || {
        for signal in signals.forever() {
            // The first is a request, the second is meant.
            if !AWAITED.load(Ordering::SeqCst) || ASKED.swap(true, Ordering::SeqCst) {
                output::discard();
                let _ = emulate_default_handler(signal);
            } else {
                note!("stopping after this iteration; another signal ends the program at once");
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(listen).map(drop).map_err(failed)
}

/// Whether whoever started the program wants it to outlive the signal, as `nohup` does.
fn is_ignored(signal: i32) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: it changes nothing, and has filled `now` where it answers 0.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) == 0
            && now.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Whether a signal has asked for an end; from the first call on, one does not end the program by itself.
pub fn asked() -> bool {
    AWAITED.store(true, Ordering::SeqCst);
    ASKED.load(Ordering::SeqCst)
}
