//! Long training runs: killed and gone on with, logged, ended early, with their files refused by name.

use crate::tree::{program, root};
use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn card() -> PathBuf {
    root().join("models/digits-mixture.json")
}

/// Two solvers after each other, by forward passes and by gradients, each from a theta that is trained first, so that a run can
/// be killed in any stage.
const RUN: [&str; 17] = [
    "train",
    "--family",
    "ns",
    "--nfe",
    "4,10",
    "--init",
    "rk2",
    "--iterations",
    "12",
    "--pool",
    "200",
    "--batch",
    "60",
    "--validation",
    "60",
    "--validate-every",
    "2",
];

struct Workshop(TempDir);

impl Workshop {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// A run in this folder.
    fn train(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.current_dir(self.0.path()).args(RUN).args(arguments);
        if !arguments.contains(&"--model") {
            command.arg("--model").arg(card());
        }
        command
    }

    /// The same, left to itself.
    fn begin(&self, arguments: &[&str]) -> Child {
        let mut command = std::process::Command::new(program());
        command.current_dir(self.0.path()).args(RUN).args(arguments).arg("--model").arg(card());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = names.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn log(&self, name: &str) -> Vec<Value> {
        let text = String::from_utf8(self.read(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Kills a run `times` times, each at a random moment, and compares what it comes to at last.
fn killed(times: usize, options: &[&str]) {
    let workshop = Workshop::new();
    let begun = Instant::now();
    workshop.train(&[&["--out", "whole.json", "--log", "whole.jsonl"], options].concat()).assert().success();
    let whole = begun.elapsed();
    let arguments = [&["--out", "killed.json", "--log", "killed.jsonl", "--resume"], options].concat();
    let mut killed = 0;
    for attempt in 0u64.. {
        assert!(attempt < 20 * times as u64, "only {killed} of {times} runs could be killed");
        let mut child = workshop.begin(&arguments);
        if killed == times {
            assert!(child.wait().unwrap().success());
            break;
        }
        // Of the hash of the clock: a moment that differs from run to run.
        let random = Instant::now().duration_since(begun).subsec_nanos() % 1000;
        std::thread::sleep(whole.mul_f64(f64::from(random) / 1000.0 * 2.0 / times as f64));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(status.code().is_none_or(|code| code == 0), "{status}");
        // A run that was done before it was killed begins anew: kills are counted in unfinished runs.
        if status.code() == Some(0) {
            std::fs::remove_file(workshop.path("killed.json.checkpoint")).unwrap();
        } else {
            killed += 1;
        }
    }
    assert_eq!(workshop.read("whole.json"), workshop.read("killed.json"));
    let timeless = |name: &str| {
        let mut lines = workshop.log(name);
        for line in &mut lines {
            assert!(line.as_object_mut().unwrap().remove("seconds").unwrap().as_f64().unwrap() >= 0.0);
        }
        lines
    };
    assert_eq!(timeless("whole.jsonl"), timeless("killed.jsonl"));
}

#[test]
fn a_killed_run_comes_to_the_same_theta() {
    killed(5, &[]);
}

#[test]
fn a_killed_run_of_adam_and_several_losses_comes_to_the_same_theta() {
    let options = ["--family", "rk2", "--loss", "rmse-bound,rmse", "--optimizer", "adam", "--lr", "0.01"];
    // The last of an option given twice would be an error: this is another run altogether.
    let workshop = Workshop::new();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(program());
        command.current_dir(workshop.0.path()).arg("train").arg("--model").arg(card()).args(options).args(arguments);
        command.args(["--steps", "3", "--iterations", "9", "--pool-refresh", "4", "--budget", "120000"]);
        command.args(["--pool", "100", "--batch", "30", "--validation", "50", "--validate-every", "3"]);
        command
    };
    run(&["--out", "whole.json"]).assert().success();
    // A full disk in place of a kill: the log ends the run at its tenth line.
    let mut seen = 0;
    for size in [900u64, 1800, 2600] {
        let arguments = ["--out", "killed.json", "--log", "killed.jsonl", "--resume"];
        let limited = run(&arguments);
        let mut command = under_limit(&limited, size);
        command.current_dir(workshop.0.path());
        seen += usize::from(!command.output().unwrap().status.success());
    }
    assert!(seen > 0, "no run was cut short");
    run(&["--out", "killed.json", "--log", "killed.jsonl", "--resume"]).assert().success();
    assert_eq!(workshop.read("whole.json"), workshop.read("killed.json"));
}

/// `command` where no file of its own may grow past `bytes`, as on a disk that is full.
fn under_limit(command: &Command, bytes: u64) -> std::process::Command {
    let mut limited = std::process::Command::new("sh");
    // The signal would end the program before it can say why.
    limited.args(["-c", r#"trap '' XFSZ; exec prlimit --fsize="$0" "$@""#]).arg(bytes.to_string());
    limited.arg(command.get_program()).args(command.get_args());
    limited
}

#[test]
fn a_run_killed_twenty_times_comes_to_the_same_theta() {
    killed(20, &["--pool-file", "pool.safetensors"]);
}

#[test]
fn a_finished_run_gone_on_with_gives_its_theta_again() {
    let workshop = Workshop::new();
    workshop.train(&["--out", "theta.json"]).assert().success();
    let first = workshop.read("theta.json");
    std::fs::remove_file(workshop.path("theta.json")).unwrap();
    workshop.train(&["--out", "theta.json", "--resume"]).assert().success();
    assert_eq!(workshop.read("theta.json"), first);
    assert_eq!(workshop.files(), ["theta.json", "theta.json.checkpoint"]);
}

#[test]
fn the_log_has_a_line_an_iteration_and_its_validations() {
    let workshop = Workshop::new();
    workshop.train(&["--out", "theta.json", "--log", "run.jsonl"]).assert().success();
    let lines = workshop.log("run.jsonl");
    let theta: Value = serde_json::from_slice(&workshop.read("theta.json")).unwrap();
    let rungs = theta["rungs"].as_array().unwrap();
    let iterations: u64 = rungs.iter().map(|rung| rung["training"]["iterations"].as_u64().unwrap()).sum();
    // And one at the start of each leg.
    assert_eq!(lines.len() as u64, iterations + 4);
    assert!(lines[0]["loss"].is_null() && lines[1]["loss"].is_f64());
    let least = |nfe: u64| {
        let own = lines.iter().filter(|line| line["nfe"] == nfe);
        own.filter_map(|line| line["validation"]["rmse"].as_f64()).fold(f64::INFINITY, f64::min)
    };
    for rung in rungs {
        let nfe = rung["steps"].as_u64().unwrap();
        assert_eq!(rung["training"]["validation"]["rmse"].as_f64().unwrap(), least(nfe));
    }
    let forward = |line: &Value| line["evaluations"]["forward"].as_u64().unwrap();
    assert!(lines.windows(2).all(|pair| forward(&pair[0]) <= forward(&pair[1])));
}

#[test]
fn patience_ends_a_stage_that_no_longer_improves() {
    let workshop = Workshop::new();
    // A rate that ruins the solver: nothing after the start is better.
    let ruinous = ["--model", card().to_str().unwrap()].map(str::to_owned);
    let mut command = Command::new(program());
    command.current_dir(workshop.0.path()).arg("train").args(&ruinous);
    command.args(["--steps", "3", "--optimizer", "adam", "--lr", "0.9", "--iterations", "50", "--patience", "3"]);
    command.args(["--pool", "60", "--batch", "30", "--validation", "30", "--validate-every", "2", "--out", "t.json"]);
    command.assert().success();
    let theta: Value = serde_json::from_slice(&workshop.read("t.json")).unwrap();
    assert_eq!(theta["training"]["iterations"], 6);
    workshop.train(&["--out", "x.json", "--patience", "0"]).assert().code(2).stderr(contains("patience is 0"));
}

#[test]
fn a_pool_on_disk_gives_the_same_theta_without_solving() {
    let workshop = Workshop::new();
    let dense = |out: &str, more: &[&str]| {
        let mut command = Command::new(program());
        command.current_dir(workshop.0.path()).arg("train").arg("--model").arg(card()).args(more);
        command.args(["--steps", "3", "--loss", "rmse-bound", "--iterations", "4", "--pool", "60", "--batch", "30"]);
        command.args(["--validation", "40", "--out", out]);
        command
    };
    dense("solved.json", &[]).assert().success();
    dense("written.json", &["--pool-file", "pool.safetensors"]).assert().success();
    let pool = workshop.read("pool.safetensors");
    dense("read.json", &["--pool-file", "pool.safetensors"]).assert().success();
    assert_eq!(workshop.read("solved.json"), workshop.read("written.json"));
    assert_eq!(workshop.read("solved.json"), workshop.read("read.json"));
    assert_eq!(workshop.read("pool.safetensors"), pool);
    // What is read is what is used: other numbers, another theta.
    let mut changed = pool;
    let tail = changed.len() - 200;
    changed[tail..].fill(0);
    workshop.write("pool.safetensors", &changed);
    dense("other.json", &["--pool-file", "pool.safetensors"]).assert().success();
    assert_ne!(workshop.read("solved.json"), workshop.read("other.json"));
}

/// A run whose ground truth takes several batches of either pool.
const SOLVING: [&str; 14] = [
    "train",
    "--steps",
    "3",
    "--loss",
    "rmse-bound",
    "--iterations",
    "4",
    "--batch",
    "30",
    "--pool",
    "1500",
    "--validation",
    "600",
    "--quiet",
];

/// Starts a run, and kills it when its ground truth is half there, in `parts`.
fn killed_while_solving(workshop: &Workshop, options: &[&str], parts: &str) {
    let mut command = std::process::Command::new(program());
    command.current_dir(workshop.0.path()).args(SOLVING).args(options).arg("--model").arg(card());
    let mut child = command.spawn().unwrap();
    let half = workshop.path(parts).join("train-1.safetensors");
    let begun = Instant::now();
    while !half.exists() {
        assert!(begun.elapsed() < Duration::from_secs(300) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!workshop.path("k.json").exists());
    assert!(!workshop.path(parts).join("train-5.safetensors").exists(), "killed too late");
}

#[test]
fn a_ground_truth_that_was_cut_short_is_gone_on_with() {
    let workshop = Workshop::new();
    let run = |options: &[&str]| {
        let mut command = Command::new(program());
        command.current_dir(workshop.0.path()).args(SOLVING).args(options).arg("--model").arg(card());
        command.assert()
    };
    run(&["--out", "whole.json", "--pool-file", "whole.pool"]).success();
    let (whole, pool) = (workshop.read("whole.json"), workshop.read("whole.pool"));
    let in_file = ["--out", "k.json", "--pool-file", "k.pool"];
    for (options, parts) in
        [(&["--out", "k.json", "--resume"][..], "k.json.checkpoint.parts"), (&in_file, "k.pool.parts")]
    {
        killed_while_solving(&workshop, options, parts);
        run(options).success();
        assert!(workshop.read("k.json") == whole, "{parts}");
        assert!(!workshop.path(parts).exists());
        std::fs::remove_file(workshop.path("k.json")).unwrap();
        std::fs::remove_file(workshop.path("k.json.checkpoint")).unwrap();
    }
    assert!(workshop.read("k.pool") == pool);
    std::fs::remove_file(workshop.path("k.pool")).unwrap();

    // What was kept is what is used: other numbers, another theta.
    let options = ["--out", "k.json", "--resume"];
    let kept = "k.json.checkpoint.parts/validation-0.safetensors";
    killed_while_solving(&workshop, &options, "k.json.checkpoint.parts");
    let mut changed = workshop.read(kept);
    let tail = changed.len() - 2000;
    changed[tail..].fill(0);
    workshop.write(kept, &changed);
    run(&options).success();
    assert!(workshop.read("k.json") != whole);
    std::fs::remove_file(workshop.path("k.json")).unwrap();
    std::fs::remove_file(workshop.path("k.json.checkpoint")).unwrap();

    // Another run's is refused, a broken one named, and without --resume all begins anew.
    killed_while_solving(&workshop, &options, "k.json.checkpoint.parts");
    run(&["--out", "k.json", "--resume", "--seed", "3"]).code(1).stderr(contains("seed: is 0, but this run has 3"));
    workshop.write(kept, &changed[..100]);
    run(&options).code(1).stderr(contains("validation-0.safetensors: is no whole safetensors file"));
    run(&["--out", "k.json"]).success();
    assert!(workshop.read("k.json") == whole);
    assert!(!workshop.path("k.json.checkpoint.parts").exists());
}

#[test]
fn another_runs_files_are_refused_and_left_alone() {
    let workshop = Workshop::new();
    let files = ["--out", "theta.json", "--pool-file", "pool.safetensors", "--log", "run.jsonl"];
    workshop.train(&files).assert().success();
    let names = workshop.files();
    let earlier: Vec<Vec<u8>> = names.iter().map(|name| workshop.read(name)).collect();
    let untouched = |except: &str| {
        assert_eq!(workshop.files(), names);
        for (name, earlier) in names.iter().zip(&earlier).filter(|(name, _)| *name != except) {
            assert!(&workshop.read(name) == earlier, "{name}");
        }
    };
    let refused = |more: &[&str], words: &str| {
        let message = contains("error").and(contains(words));
        workshop.train(&[&files[..], more].concat()).assert().code(1).stderr(message);
    };
    let [checkpoint, pool] = ["theta.json.checkpoint", "pool.safetensors"];

    refused(&["--resume", "--seed", "3"], "checkpoint: seed: is absent, but this run has 3");
    untouched("");
    refused(&["--seed", "3"], "pool.safetensors: seed: is 0, but this run has 3: it is another run's pool");
    untouched("");
    refused(&["--rtol", "1e-4"], "pool.safetensors: tolerance:");
    untouched("");

    // The model changes under the run.
    let changed = workshop.0.path().join("models");
    std::fs::create_dir(&changed).unwrap();
    let text = std::fs::read_to_string(card()).unwrap();
    std::fs::write(changed.join("card.json"), text.replace("\"fm-ot\"", "\"cosine\"")).unwrap();
    std::fs::copy(card().with_file_name("digits-mixture-modes.json"), changed.join("digits-mixture-modes.json"))
        .unwrap();
    refused(&["--resume", "--model", "models/card.json"], "the model changed");
    refused(&["--model", "models/card.json"], "pool.safetensors: model: is ");
    std::fs::remove_dir_all(&changed).unwrap();
    untouched("");

    for (name, content, words) in [
        (checkpoint, &earlier[1][..earlier[1].len() / 2], "is no whole checkpoint"),
        (checkpoint, b"{\"format\": \"bespoke-theta\", \"version\": 1}".as_slice(), "format: is \"bespoke-theta\""),
        (checkpoint, b"".as_slice(), "is no whole checkpoint"),
        (checkpoint, b"{\"format\": \"bespoke-checkpoint\", \"version\": 9}".as_slice(), "version: is 9"),
        (pool, &earlier[0][..earlier[0].len() / 2], "is no whole safetensors file"),
        (pool, b"{}".as_slice(), "is no whole safetensors file"),
    ] {
        workshop.write(name, content);
        refused(&["--resume"], words);
        assert_eq!(workshop.read(name), content);
        untouched(name);
        let own = names.iter().position(|own| own == name).unwrap();
        workshop.write(name, &earlier[own]);
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let workshop = Workshop::new();
    workshop.train(&["--out", "theta.json"]).assert().success();
    let document: Value = serde_json::from_slice(&workshop.read("theta.json.checkpoint")).unwrap();
    for (pointer, value) in [
        ("/state/leg", Value::from(99)),
        ("/state/candidate/parameters/values", serde_json::json!([1.0, 2.0])),
        ("/state/candidate/optimizer/gauss-newton/model/normal", serde_json::json!([[1.0], 1, 1])),
        ("/state/done", serde_json::json!([])),
        ("/ground_truth/forward", Value::from(u64::MAX)),
    ] {
        let mut changed = document.clone();
        *changed.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        workshop.write("theta.json.checkpoint", changed.to_string());
        let refused = contains("state: is not of this run");
        workshop.train(&["--out", "theta.json", "--resume"]).assert().code(1).stderr(refused);
    }
}

#[test]
fn a_full_disk_and_an_unwritable_folder_are_said_and_leave_earlier_files() {
    let workshop = Workshop::new();
    workshop.train(&["--out", "theta.json"]).assert().success();
    let names = workshop.files();
    let earlier: Vec<Vec<u8>> = names.iter().map(|name| workshop.read(name)).collect();
    let untouched = || {
        assert_eq!(workshop.files(), names);
        names.iter().zip(&earlier).for_each(|(name, earlier)| assert!(&workshop.read(name) == earlier, "{name}"));
    };
    // A checkpoint that does not fit: not even the first.
    let mut full = under_limit(&workshop.train(&["--out", "theta.json"]), 500);
    let output = full.current_dir(workshop.0.path()).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("cannot write theta.json.checkpoint: File too large"), "{message}");
    untouched();
    let full = contains("cannot write /dev/full: No space left on device");
    workshop.train(&["--out", "theta.json", "--log", "/dev/full"]).assert().code(1).stderr(full);
    // What was solved before is there for a run that goes on.
    std::fs::remove_dir_all(workshop.path("theta.json.checkpoint.parts")).unwrap();
    untouched();
    for (option, file) in [
        ("--checkpoint", "absent/run.checkpoint"),
        ("--log", "absent/run.jsonl"),
        ("--pool-file", "absent/pool.safetensors"),
        ("--checkpoint", "theta.json/run.checkpoint"),
    ] {
        let said = contains(format!("cannot write {file}"));
        let begun = Instant::now();
        workshop.train(&["--out", "theta.json", option, file]).assert().code(1).stderr(said);
        assert!(begun.elapsed() < Duration::from_secs(60));
        untouched();
    }
    let said = contains("cannot write absent/theta.json");
    workshop.train(&["--out", "absent/theta.json", "--checkpoint", "c"]).assert().code(1).stderr(said);
    untouched();
    let both = contains("checkpoint is theta.json, expected another file than out");
    workshop.train(&["--out", "theta.json", "--checkpoint", "theta.json"]).assert().code(2).stderr(both);
    untouched();
}
