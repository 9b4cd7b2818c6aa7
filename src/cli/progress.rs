//! Progress: bars on a terminal, lines now and then elsewhere, nothing where silence is asked for.

use super::say::note;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a bar is drawn anew although nothing has come, so that its estimate goes on.
const TICK: Duration = Duration::from_millis(500);
/// Between two lines at least.
const PAUSE: Duration = Duration::from_secs(5);
/// Parts of a share that a bar can show.
const PARTS: f64 = 1000.0;

/// A bar over `length` items.
pub fn bar(length: usize, what: &'static str, quiet: bool) -> ProgressBar {
    drawn(length as u64, what, quiet, "{prefix} {wide_bar} {pos}/{len} {per_sec} {eta} left {msg}")
}

fn drawn(length: u64, what: &'static str, quiet: bool, template: &str) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(length).with_style(style).with_prefix(what);
    bar.enable_steady_tick(TICK);
    bar
}

/// Work of which the share that is done is known.
pub struct Share {
    what: &'static str,
    bar: ProgressBar,
    lines: bool,
    begun: Instant,
    said: Instant,
}

impl Share {
    /// None of it is done.
    pub fn new(what: &'static str, quiet: bool) -> Self {
        let bar = drawn(PARTS as u64, what, quiet, "{prefix} {wide_bar} {percent} % {eta} left");
        let lines = !quiet && !std::io::stderr().is_terminal();
        Self { what, bar, lines, begun: Instant::now(), said: Instant::now() }
    }

    /// `share` of it is done, from 0 to 1.
    pub fn set(&mut self, share: f64) {
        self.bar.set_position((share * PARTS) as u64);
        if self.lines && self.said.elapsed() >= PAUSE && share > 0.0 {
            self.said = Instant::now();
            let took = self.begun.elapsed().as_secs_f64();
            note!("{}: {:.0} %, about {:.0} s left", self.what, 100.0 * share, took * (1.0 / share - 1.0));
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
