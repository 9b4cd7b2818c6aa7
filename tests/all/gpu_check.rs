//! `scripts/gpu-check` where there is no GPU.

use crate::tree::root;
use assert_cmd::Command;
use predicates::str::contains;
use tempfile::TempDir;

#[test]
fn without_a_gpu_it_says_so_and_fails() {
    let empty = TempDir::new().unwrap();
    let script = root().join("scripts/gpu-check");
    let mut command = Command::new("/bin/bash");
    // No nvidia-smi, wherever the test runs.
    command.arg(&script).arg(empty.path()).env("PATH", empty.path());
    command.assert().code(1).stderr(contains("this machine has no NVIDIA GPU"));
    let mut command = Command::new("/bin/bash");
    command.arg(&script).env("PATH", empty.path());
    command.assert().code(1).stderr(contains("usage: scripts/gpu-check LIBTORCH_LIB_DIR"));
}
