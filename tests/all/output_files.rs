//! Where output goes: links, pipes, devices, standard output, folders, names of any bytes; and what signals and full
//! disks leave of it.

use crate::tree::{program, root};
use assert_cmd::Command;
use predicates::str::contains;
use serde_json::Value;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Nothing here takes as long, even on a busy machine.
const LONGEST: Duration = Duration::from_secs(300);

fn card() -> PathBuf {
    root().join("models/digits-mixture.json")
}

struct Workshop(TempDir);

impl Workshop {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self) -> Command {
        let mut command = Command::new(program());
        command.current_dir(self.0.path());
        command
    }

    /// Writes a theta to `out`.
    fn compile(&self, out: impl AsRef<OsStr>) -> assert_cmd::assert::Assert {
        let mut command = self.program();
        command.args(["compile", "midpoint@4", "--scheduler", "fm-ot", "--out"]).arg(out);
        command.timeout(LONGEST).assert()
    }

    fn begin(&self, arguments: &[&str]) -> Child {
        let mut command = std::process::Command::new(program());
        command.current_dir(self.0.path()).args(arguments).arg("--model").arg(card());
        heeding_signals(&mut command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = names.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// A device that a plain user may not make: `None`, and a word about it, where this is one.
    fn device(&self, name: &str, minor: u32) -> Option<PathBuf> {
        let path = self.path(name);
        let text = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: `text` ends with NUL; the node is this test's own.
        if unsafe { libc::mknod(text.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, minor)) } == 0 {
            return Some(path);
        }
        eprintln!("no device can be made here ({}): pipes alone are tried", std::io::Error::last_os_error());
        None
    }

    fn pipe(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let text = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { libc::mkfifo(text.as_ptr(), 0o600) }, 0);
        path
    }
}

/// Whoever started the tests may have had signals ignored, as a shell has of what runs behind it.
pub fn heeding_signals(command: &mut std::process::Command) -> &mut std::process::Command {
    let reset = || {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: a call that may be made between fork and exec.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(reset) }
}

fn is_theta(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes).unwrap()["format"] == "bespoke-theta"
}

fn wait_for(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < LONGEST);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_link_is_followed_and_its_target_replaced_where_it_lies() {
    let workshop = Workshop::new();
    fs::create_dir(workshop.path("folder")).unwrap();
    fs::write(workshop.path("folder/real.json"), "old").unwrap();
    symlink("folder/real.json", workshop.path("first")).unwrap();
    symlink("first", workshop.path("second")).unwrap();
    let before = fs::metadata(workshop.path("folder/real.json")).unwrap().ino();
    workshop.compile("second").success();
    assert!(is_theta(&fs::read(workshop.path("folder/real.json")).unwrap()));
    assert_ne!(fs::metadata(workshop.path("folder/real.json")).unwrap().ino(), before, "replaced as a whole");
    for name in ["first", "second"] {
        assert!(fs::symlink_metadata(workshop.path(name)).unwrap().is_symlink());
    }
    // A link to what is not there yet makes it; one that leads to itself, or a folder, is an error.
    symlink("folder/new.json", workshop.path("new")).unwrap();
    workshop.compile("new").success();
    assert!(is_theta(&fs::read(workshop.path("folder/new.json")).unwrap()));
    symlink("round", workshop.path("round")).unwrap();
    workshop.compile("round").code(1).stderr(contains("cannot write round"));
    symlink("folder", workshop.path("to-folder")).unwrap();
    workshop.compile("to-folder").code(1).stderr(contains("is a directory"));
    assert_eq!(fs::read_dir(workshop.path("folder")).unwrap().count(), 2, "no temporary files");
}

#[test]
fn a_link_to_a_folder_that_is_not_there_is_no_name_of_a_file() {
    use bespoke::output;
    let workshop = Workshop::new();
    for (i, target) in ["absent/", "absent/.", "absent/..", "./"].into_iter().enumerate() {
        let link = workshop.path(format!("link-{i}"));
        symlink(target, &link).unwrap();
        let before = workshop.files();
        // What is said before the work is what comes of it, and nothing is left behind.
        let said = [output::check(&link), output::write_bytes(&link, b"x")];
        for outcome in said {
            let message = outcome.unwrap_err().to_string();
            assert!(message.contains("cannot write") && message.contains("is a directory"), "{target}: {message}");
        }
        assert_eq!(workshop.files(), before);
    }
}

#[test]
fn an_open_file_named_by_its_number_is_written_where_it_is() {
    let workshop = Workshop::new();
    symlink("/proc/self/fd/1", workshop.path("out")).unwrap();
    let program = program();
    let script = r#"(echo before; "$0" compile midpoint@4 --scheduler fm-ot --out out; echo after) >all"#;
    let mut shell = std::process::Command::new("sh");
    assert!(shell.args(["-c", script]).arg(program).current_dir(workshop.0.path()).status().unwrap().success());
    let all = fs::read(workshop.path("all")).unwrap();
    let theta = all.strip_prefix(b"before\n").unwrap().strip_suffix(b"after\n").unwrap();
    assert!(is_theta(theta));
    assert!(fs::symlink_metadata(workshop.path("out")).unwrap().is_symlink());
}

#[test]
fn pipes_and_devices_are_written_to_and_stay_what_they_are() {
    let workshop = Workshop::new();
    let pipe = workshop.pipe("pipe");
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).unwrap()
    });
    workshop.compile("pipe").success();
    assert!(is_theta(&reader.join().unwrap()));
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    // The host's writer is the same.
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).unwrap()
    });
    let theta = CString::new(r#"{"name": "fm-ot"}"#).unwrap();
    let path = CString::new(pipe.as_os_str().as_bytes()).unwrap();
    // SAFETY: as the header asks.
    unsafe {
        use bespoke::capi::*;
        let mut handle = std::ptr::null_mut();
        assert_eq!(bespoke_theta_solver(c"midpoint".as_ptr(), 4, theta.as_ptr(), &mut handle), BESPOKE_OK);
        assert_eq!(bespoke_theta_save(handle, path.as_ptr()), BESPOKE_OK);
        bespoke_theta_free(handle);
    }
    assert!(is_theta(&reader.join().unwrap()));
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    if let Some(null) = workshop.device("null", 3) {
        workshop.compile("null").success();
        assert!(fs::symlink_metadata(&null).unwrap().file_type().is_char_device());
        symlink("null", workshop.path("link")).unwrap();
        // No checkpoint is made beside a device.
        let train = [
            "train",
            "--steps",
            "2",
            "--iterations",
            "1",
            "--pool",
            "20",
            "--batch",
            "20",
            "--validation",
            "20",
            "--out",
            "link",
        ];
        workshop.program().args(train).arg("--model").arg(card()).assert().success();
        assert_eq!(workshop.files(), ["link", "null", "pipe"]);
        assert!(fs::symlink_metadata(&null).unwrap().file_type().is_char_device());
    }
    if workshop.device("full", 7).is_some() {
        workshop.compile("full").code(1).stderr(contains("cannot write full: No space left on device"));
    }
    // Nothing to write to is found before the work, with no wait for a reader.
    std::os::unix::net::UnixListener::bind(workshop.path("socket")).unwrap();
    let sample = ["sample", "--solver", "euler@2", "--out", "x.npy", "--png", "socket"];
    workshop.program().args(sample).arg("--model").arg(card()).assert().code(1).stderr(contains("cannot write socket"));
    assert!(!workshop.path("x.npy").exists());
}

#[test]
fn a_dash_is_standard_output() {
    let workshop = Workshop::new();
    let output = workshop.compile("-").success();
    assert!(is_theta(&output.get_output().stdout));
    let sample = ["sample", "--solver", "euler@2", "--count", "3", "--out", "-"];
    let output = workshop.program().args(sample).arg("--model").arg(card()).assert().success();
    assert!(output.get_output().stdout.starts_with(b"\x93NUMPY"));
    let train = [
        "train",
        "--steps",
        "2",
        "--iterations",
        "1",
        "--pool",
        "20",
        "--batch",
        "20",
        "--validation",
        "20",
        "--out",
        "-",
    ];
    let output = workshop.program().args(train).arg("--model").arg(card()).assert().success();
    assert!(is_theta(&output.get_output().stdout));
    workshop
        .program()
        .args(train)
        .args(["--json", "--model"])
        .arg(card())
        .assert()
        .code(2)
        .stderr(contains("out is -"));
    let kept = workshop.program().args(train).args(["--pool-file", "-", "--model"]).arg(card()).assert();
    kept.code(2).stderr(contains("pool_file is -, expected"));
    assert_eq!(workshop.files(), [""; 0]);
    workshop.compile("./-").success();
    assert_eq!(workshop.files(), ["-"]);
}

#[test]
fn names_of_any_bytes_are_written_and_read() {
    let workshop = Workshop::new();
    let name = |suffix: &str| {
        let mut bytes = b"caf\xe9 a,b@8:c\n".to_vec();
        bytes.extend(suffix.bytes());
        OsStr::from_bytes(&bytes).to_owned()
    };
    let mut train = workshop.program();
    train.args([
        "train",
        "--steps",
        "2",
        "--iterations",
        "2",
        "--pool",
        "20",
        "--batch",
        "20",
        "--validation",
        "20",
        "--json",
    ]);
    for (option, suffix) in
        [("--out", "t"), ("--checkpoint", "c"), ("--log", "l"), ("--pool-file", "p"), ("--config", "config")]
    {
        train.arg(option).arg(name(suffix));
    }
    fs::write(workshop.path(name("config")), "{}").unwrap();
    // The card and its mixture, in a folder of such a name.
    let folder = workshop.path(name("models"));
    fs::create_dir(&folder).unwrap();
    for file in ["digits-mixture.json", "digits-mixture-modes.json"] {
        fs::copy(card().with_file_name(file), folder.join(file)).unwrap();
    }
    train.arg("--model").arg(folder.join("digits-mixture.json")).assert().success();
    let sample = ["sample", "--solver", "euler@2", "--count", "3", "--out"];
    workshop
        .program()
        .args(sample)
        .arg(name("x"))
        .arg("--png")
        .arg(name("g"))
        .arg("--model")
        .arg(card())
        .assert()
        .success();
    let eval = ["eval", "--solver", "euler@2", "--noise"];
    let mut eval_command = workshop.program();
    eval_command.args(eval).arg(name("x")).arg("--json").arg(name("e")).arg("--model").arg(card()).assert().success();
    let report = ["report", "--solver", "euler@2", "--count", "10", "--quiet", "--out"];
    workshop.program().args(report).arg(name(".html")).arg("--model").arg(card()).assert().success();
    for suffix in ["t", "c", "l", "p", "x", "g", "e", ".html", ".json", ".csv", "-plots"] {
        assert!(workshop.path(name(suffix)).exists(), "{suffix}: {:?}", workshop.files());
    }
    assert!(is_theta(&fs::read(workshop.path(name("t"))).unwrap()));
    workshop.program().args(["compile", "midpoint@4", "--scheduler", "fm-ot", "--out=-x.json"]).assert().success();
    assert!(is_theta(&fs::read(workshop.path("-x.json")).unwrap()));
}

#[test]
fn owner_and_mode_of_an_earlier_file_stay_and_a_protected_one_is_left_alone() {
    let workshop = Workshop::new();
    let path = workshop.path("theta.json");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    // Only root may give files away.
    let owned = std::os::unix::fs::chown(&path, Some(4321), Some(4321)).is_ok();
    workshop.compile("theta.json").success();
    let after = fs::metadata(&path).unwrap();
    assert_eq!(after.permissions().mode() & 0o7777, 0o640);
    assert!(!owned || (after.uid(), after.gid()) == (4321, 4321));
    assert!(is_theta(&fs::read(&path).unwrap()));
    if !owned {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        workshop.compile("theta.json").code(1).stderr(contains("cannot write theta.json: Permission denied"));
    }
}

#[test]
fn a_folder_is_an_error_before_the_work() {
    let workshop = Workshop::new();
    fs::create_dir(workshop.path("folder.html")).unwrap();
    // Work that would take hours.
    let train = ["train", "--steps", "5", "--pool", "10000000", "--iterations", "1000000"];
    let sample = ["sample", "--solver", "euler@100", "--count", "100000000"];
    let eval = ["eval", "--solver", "euler@100", "--count", "100000000", "--quiet"];
    let report = ["report", "--solver", "euler@100", "--count", "100000000", "--quiet"];
    for (command, outputs) in [
        (&train[..], &["--out", "folder.html"][..]),
        (&train, &["--out", "t", "--log", "folder.html"]),
        (&train, &["--out", "t/"]),
        (&sample, &["--out", "folder.html"]),
        (&sample, &["--out", "x", "--png", "folder.html"]),
        (&sample, &["--out", "x", "--png", "absent/x.png"]),
        (&eval, &["--json", "folder.html"]),
        (&eval, &["--png", "folder.html"]),
        (&report, &["--out", "folder.html"]),
    ] {
        let mut run = workshop.program();
        run.args(command).args(outputs).arg("--model").arg(card()).timeout(LONGEST);
        run.assert().code(1).stderr(contains("cannot write"));
        assert_eq!(workshop.files(), ["folder.html"], "{outputs:?}");
    }
}

fn send(child: &Child, signal: i32) {
    // SAFETY: the child is this test's own and has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

#[test]
fn a_signal_ends_training_with_the_best_theta_and_its_checkpoint() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let workshop = Workshop::new();
        let mut child = workshop.begin(&[
            "train",
            "--steps",
            "3",
            "--iterations",
            "1000000",
            "--pool",
            "60",
            "--batch",
            "30",
            "--validation",
            "20",
            "--out",
            "t.json",
            "--log",
            "l",
        ]);
        wait_for(|| fs::read_to_string(workshop.path("l")).is_ok_and(|log| log.lines().count() > 20));
        send(&child, signal);
        assert!(child.wait().unwrap().success());
        let theta: Value = serde_json::from_slice(&fs::read(workshop.path("t.json")).unwrap()).unwrap();
        assert_eq!(theta["training"]["stopped"], true);
        let iterations = theta["training"]["iterations"].as_u64().unwrap();
        let checkpoint: Value = serde_json::from_slice(&fs::read(workshop.path("t.json.checkpoint")).unwrap()).unwrap();
        assert_eq!(checkpoint["state"]["iteration"], iterations);
        assert!(iterations >= 19, "{iterations}");
    }
}

#[test]
fn a_signal_leaves_no_temporary_files() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let workshop = Workshop::new();
        let mut child = workshop.begin(&["sample", "--solver", "euler@100", "--count", "100000000", "--out", "x.npy"]);
        wait_for(|| !workshop.files().is_empty());
        send(&child, signal);
        assert_eq!(child.wait().unwrap().signal(), Some(signal));
        assert_eq!(workshop.files(), [""; 0]);
    }
    // Of a program that is to outlive its terminal, the terminal's end is no end.
    let workshop = Workshop::new();
    let mut child = std::process::Command::new("sh")
        .args(["-c", r#"trap '' HUP; exec "$@""#, "sh"])
        .arg(program())
        .args(["sample", "--solver", "euler@100", "--count", "100000000", "--out", "x.npy", "--model"])
        .arg(card())
        .current_dir(workshop.0.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(|| !workshop.files().is_empty());
    send(&child, libc::SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none());
    send(&child, libc::SIGTERM);
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
}

#[test]
fn a_full_disk_on_standard_output_is_an_error_and_a_closed_pipe_is_none() {
    let workshop = Workshop::new();
    workshop.compile("theta.json").success();
    let model = card();
    let model = model.to_str().unwrap();
    let commands: [&[&str]; 10] = [
        &["solvers"],
        &["solvers", "--json"],
        &["show", "theta.json"],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
        &["train", "--help"],
        &["compile", "midpoint@4", "--scheduler", "fm-ot", "--out", "-"],
        &["eval", "--solver", "euler@2", "--count", "10", "--quiet", "--model", model],
        &[
            "train",
            "--steps",
            "2",
            "--iterations",
            "1",
            "--pool",
            "20",
            "--batch",
            "20",
            "--validation",
            "20",
            "--json",
            "--out",
            "t",
            "--checkpoint",
            "c",
            "--model",
            model,
        ],
    ];
    let full = workshop.device("full", 7);
    for arguments in commands {
        let mut command = match &full {
            Some(_) => std::process::Command::new(program()),
            // A file that may not grow.
            None => {
                let mut limited = std::process::Command::new("sh");
                limited.args(["-c", r#"trap '' XFSZ; exec prlimit --fsize=0 "$0" "$@""#]).arg(program());
                limited
            }
        };
        let out = full.clone().unwrap_or_else(|| workshop.path("out"));
        let file = File::options().write(true).create(true).truncate(true).open(out).unwrap();
        let output = command.args(arguments).current_dir(workshop.0.path()).stdout(file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("cannot write") && !said.contains("panicked"), "{arguments:?}: {said}");
    }
    // What was trained is not lost with what could not be said of it.
    assert!(full.is_none() || is_theta(&fs::read(workshop.path("t")).unwrap()));
    let mut child = std::process::Command::new(program());
    let mut child = child.args(["solvers"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
