//! Progress bars: drawn on a terminal, silent elsewhere and where silence is asked for.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `length` items.
pub fn bar(length: usize, what: &'static str, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let template = "{prefix} {wide_bar} {pos}/{len} {per_sec} {eta} left {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length as u64).with_style(style).with_prefix(what)
}
