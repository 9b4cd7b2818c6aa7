//! What the program reads has an end where the file has none: a device, and a pipe that goes on.

use crate::tree::{program, root};
use safetensors::tensor::{Dtype, TensorView, serialize};
use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// Runs the program in `folder`, in no more than 2 GiB and a minute.
fn bespoke(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", "prlimit", "--as=2147483648"]).arg(program()).args(arguments);
    command.env("RAYON_NUM_THREADS", "1").current_dir(folder).output().unwrap()
}

fn card() -> String {
    root().join("models/digits-mixture.json").to_str().unwrap().to_owned()
}

/// Conditions of three classes, as their file has them.
fn classes() -> Vec<u8> {
    let numbers: Vec<u8> = [7i64, 1, 4].iter().flat_map(|class| class.to_le_bytes()).collect();
    serialize([("class", TensorView::new(Dtype::I64, vec![3], &numbers).unwrap())], &None).unwrap()
}

#[test]
fn a_file_without_an_end_is_refused() {
    const ENDLESS: &str = "/dev/zero";
    let folder = TempDir::new().unwrap();
    symlink(ENDLESS, folder.path().join("theta.json.checkpoint")).unwrap();
    let card = card();
    for (arguments, expected) in [
        (&["show", ENDLESS][..], "is larger than"),
        (&["ladder", ENDLESS, ENDLESS, "--out", "ladder.json"], "is larger than"),
        (&["eval", "--model", ENDLESS, "--solver", "euler@2"], "is larger than"),
        (&["train", "--config", ENDLESS, "--out", "theta.json"], "is larger than"),
        (&["check", ENDLESS, "--data", ENDLESS], "is larger than"),
        (&["check", &card, "--data", ENDLESS], "is not that of an .npy file"),
        (&["sample", "--model", &card, "--solver", "euler@2", "--noise", ENDLESS, "--out", "s.npy"], ".npy file"),
        (&["eval", "--model", &card, "--solver", "euler@2", "--conditions", ENDLESS], "no whole safetensors file"),
        (&["train", "--model", &card, "--out", "theta.json", "--resume"], "checkpoint, expected a regular file"),
    ] {
        let Output { status, stderr, .. } = bespoke(folder.path(), arguments);
        let said = String::from_utf8_lossy(&stderr);
        assert!(matches!(status.code(), Some(1 | 2)), "{arguments:?}: {status}\n{said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[test]
fn conditions_come_out_of_a_pipe_as_far_as_they_say() {
    let folder = TempDir::new().unwrap();
    let sample = |conditions: &str, out: &str| {
        let card = card();
        let arguments = ["sample", "--model", &card, "--solver", "euler@2", "--count", "5", "--conditions"];
        bespoke(folder.path(), &[&arguments[..], &[conditions, "--out", out]].concat())
    };
    fs::write(folder.path().join("file"), classes()).unwrap();
    assert!(sample("file", "of-file.npy").status.success());

    let pipe = folder.path().join("pipe");
    let text = CString::new(pipe.as_os_str().as_bytes()).unwrap();
    // SAFETY: `text` ends with NUL.
    assert_eq!(unsafe { libc::mkfifo(text.as_ptr(), 0o600) }, 0);
    let through = |bytes: Vec<u8>, out: &str| {
        let pipe = pipe.clone();
        let writer = std::thread::spawn(move || {
            // Whoever reads it may stop before its end.
            let _ = fs::OpenOptions::new().write(true).open(pipe).unwrap().write_all(&bytes);
        });
        let output = sample("pipe", out);
        writer.join().unwrap();
        output
    };
    assert!(through(classes(), "of-pipe.npy").status.success());
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read("of-file.npy") == read("of-pipe.npy"), "the same samples");

    let refused = |bytes: Vec<u8>| {
        let Output { status, stderr, .. } = through(bytes, "none.npy");
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert!(!status.success() && said.contains("pipe: is no whole safetensors file"), "{said}");
    };
    let mut longer = classes();
    longer.resize(1 << 20, 0);
    refused(longer);
    refused(classes()[..classes().len() - 1].to_vec());
    refused(classes()[..5].to_vec());
    refused(Vec::new());
}
