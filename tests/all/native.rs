//! Builds C and C++ programs against the shared library under test, and runs them.

use crate::tree::{root, version};
use bespoke::scheduler::Scheduler;
use std::f64::consts::TAU;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A folder to build programs in, where the library stands under its soname.
pub struct Workshop {
    folder: TempDir,
}

impl Workshop {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Cargo builds the library that belongs to a test beside the test itself.
        let library = std::env::current_exe().unwrap().with_file_name("libbespoke.so");
        let soname = match version().split_once('.').unwrap() {
            ("0", rest) => format!("libbespoke.so.0.{}", rest.split('.').next().unwrap()),
            (major, _) => format!("libbespoke.so.{major}"),
        };
        std::os::unix::fs::symlink(&library, folder.path().join(&soname)).unwrap();
        std::os::unix::fs::symlink(&library, folder.path().join("libbespoke.so")).unwrap();
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Builds `source`, relative to the package, with warnings as errors.
    pub fn build(&self, source: &str, flags: &[&str]) -> PathBuf {
        let source = root().join(source);
        let program = self.path(source.file_stem().unwrap().to_str().unwrap());
        let (compiler, standard) = match source.extension().unwrap().to_str() {
            Some("c") => ("cc", "-std=c99"),
            _ => ("c++", "-std=c++17"),
        };
        let mut command = Command::new(compiler);
        command.args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-g"]).args(flags);
        command.arg("-I").arg(root().join("include")).arg(&source).arg("-o").arg(&program);
        command.arg("-L").arg(self.folder.path()).arg(format!("-Wl,-rpath,{}", self.folder.path().display()));
        command.args(["-lbespoke", "-lm", "-pthread"]);
        succeed(command);
        program
    }
}

/// The ring of `sample_analytic.c`, as a model card.
pub fn ring_card(folder: &Path) -> String {
    let means: Vec<[f64; 2]> =
        (0..8).map(|m| TAU * f64::from(m) / 8.0).map(|angle| [2.0 * angle.cos(), 2.0 * angle.sin()]).collect();
    let mixture = serde_json::json!({"std": 0.15, "means": means});
    let card = serde_json::json!({
        "format": "bespoke-model", "version": 1, "weights": "ring-modes.json", "runtime": "mixture", "shape": [2],
        "output": "velocity", "scheduler": Scheduler::FmOt, "data_range": [-2.5, 2.5]
    });
    std::fs::write(folder.join("ring-modes.json"), mixture.to_string()).unwrap();
    std::fs::write(folder.join("ring.json"), card.to_string()).unwrap();
    folder.join("ring.json").to_str().unwrap().to_owned()
}

/// Runs `command` and gives what it printed; fails with all of it where the command does.
pub fn succeed(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    stdout.into_owned()
}
