//! Progress bars: drawn on a terminal, silent elsewhere.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `length` items.
pub fn bar(length: usize, what: &'static str) -> ProgressBar {
    let template = "{prefix} {wide_bar} {pos}/{len} {eta} {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length as u64).with_style(style).with_prefix(what)
}
