//! What the program says: its results on standard output, where a failure is the program's, and all else on
//! standard error, where nobody is left to hear of one.

use bespoke::{Error, Result};
use std::fmt::Arguments;
use std::io::{self, Write};
use std::path::Path;

/// A line of results.
macro_rules! say {
    ($($line:tt)*) => { $crate::cli::say::line(format_args!($($line)*)) };
}

/// A line about the work.
macro_rules! note {
    ($($line:tt)*) => { $crate::cli::say::aside(format_args!($($line)*)) };
}

pub(crate) use {note, say};

/// What [`say!`] does.
///
/// # Errors
/// [`Error::Io`].
pub fn line(line: Arguments<'_>) -> Result<()> {
    checked(|out| writeln!(out, "{line}"))
}

/// A text that ends its own lines.
///
/// # Errors
/// [`Error::Io`].
pub fn text(text: &[u8]) -> Result<()> {
    checked(|out| out.write_all(text))
}

/// What [`note!`] does.
pub fn aside(line: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Runs `write`, and reports what a full disk did to it.
///
/// # Errors
/// [`Error::Io`].
pub fn checked(write: impl FnOnce(&mut io::Stdout) -> io::Result<()>) -> Result<()> {
    let mut out = io::stdout();
    let written = write(&mut out).and_then(|()| out.flush());
    written.map_err(|e| Error::io("write", Path::new("standard output"), e))
}
