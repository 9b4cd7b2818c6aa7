//! The command line as its users and their scripts see it, on the exact digits mixture.

use crate::tree::{program, root, version};
use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn bespoke() -> Command {
    Command::new(program())
}

fn card() -> PathBuf {
    root().join("models/digits-mixture.json")
}

/// A short run: enough to be better than its start.
fn train(out: &Path) -> Command {
    let mut command = bespoke();
    command.arg("train").arg("--model").arg(card()).arg("--out").arg(out);
    command.args(["--steps", "4", "--iterations", "6", "--pool", "150", "--batch", "50", "--validation", "60"]);
    command
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn trains_shows_samples_and_evaluates() {
    let folder = TempDir::new().unwrap();
    let theta = folder.path().join("theta.json");
    train(&theta).assert().success().stdout(contains("best theta"));
    let document = read_json(&theta);
    assert_eq!(document["family"], "rk2");
    assert_eq!(document["steps"], 4);
    assert_eq!(document["t"].as_array().unwrap().len(), 9);
    assert_eq!(document["model"]["name"], "digits-mixture");
    assert_eq!(document["training"]["iterations"], 6);
    let trained = document["training"]["validation"]["rmse"].as_f64().unwrap();
    let start = document["training"]["start"]["rmse"].as_f64().unwrap();
    assert!(trained < start, "{trained} < {start}");

    bespoke().arg("show").arg(&theta).assert().success().stdout(contains("rk2").and(contains("digits-mixture")));

    let (evaluation, picture) = (folder.path().join("eval.json"), folder.path().join("eval.png"));
    bespoke()
        .arg("eval")
        .arg("--model")
        .arg(card())
        .arg("--solver")
        .arg(&theta)
        .args(["--solver", "midpoint@8", "--solver", "gt", "--count", "40", "--seed", "5", "--json"])
        .arg(&evaluation)
        .arg("--png")
        .arg(&picture)
        .assert()
        .success()
        .stdout(contains("midpoint@8").and(contains("rtol 1e-5")));
    let evaluation = read_json(&evaluation);
    let results = evaluation["results"].as_array().unwrap();
    let names: Vec<&str> = results.iter().map(|r| r["solver"].as_str().unwrap()).collect();
    assert_eq!(names, [theta.to_str().unwrap(), "midpoint@8", "gt"]);
    let rmse: Vec<f64> = results.iter().map(|r| r["rmse"].as_f64().unwrap()).collect();
    assert!(rmse[2] < 1e-3, "{rmse:?}");
    let psnr: Vec<f64> = results.iter().map(|r| r["psnr"].as_f64().unwrap()).collect();
    assert!(psnr[2] > psnr[0] && psnr[0] > psnr[1], "{psnr:?}");
    assert_eq!(results[0]["nfe"], 8.0);
    assert_eq!(evaluation["ground_truth"]["tolerance"]["rtol"], 1e-5);
    assert!(evaluation["ground_truth"]["evaluations"].as_f64().unwrap() > 20.0);
    assert!(image::open(&picture).unwrap().width() > 100);
}

#[test]
fn sampling_is_seeded_and_takes_noise_of_ones_own() {
    let folder = TempDir::new().unwrap();
    let sample = |name: &str, arguments: &[&str]| {
        let out = folder.path().join(name);
        bespoke()
            .arg("sample")
            .arg("--model")
            .arg(card())
            .args(["--solver", "midpoint@6", "--out"])
            .arg(&out)
            .args(arguments)
            .assert()
            .success();
        out
    };
    let read = |path: &Path| {
        let array = npyz::NpyFile::new(std::fs::File::open(path).unwrap()).unwrap();
        let shape = array.shape().to_vec();
        (shape, array.into_vec::<f32>().unwrap())
    };
    // Row i of a batch gets class i mod classes, whatever the batches: 300 is more than one of them.
    let all = sample("all.npy", &["--count", "300", "--seed", "2"]);
    let again = sample("again.npy", &["--count", "20", "--seed", "2"]);
    let other = sample("other.npy", &["--count", "20", "--seed", "3"]);
    let (shape, values) = read(&all);
    assert_eq!(shape, [300, 1, 8, 8]);
    assert!(values.iter().all(|v| v.is_finite()));
    assert_eq!(values[..20 * 64], read(&again).1[..]);
    assert_ne!(read(&again).1, read(&other).1);

    // The samples of one solver as the noise of another: read back in either shape and dtype.
    let png = folder.path().join("grid.png");
    let from =
        sample("from.npy", &["--noise", again.to_str().unwrap(), "--class", "3", "--png", png.to_str().unwrap()]);
    assert_eq!(read(&from).0, [20, 1, 8, 8]);
    assert!(image::open(&png).is_ok());
}

#[test]
fn guidance_doubles_the_passes_and_changes_the_samples() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("eval.json");
    let mut command = bespoke();
    command.arg("eval").arg("--model").arg(card()).args(["--solver", "euler@4", "--count", "10", "--json"]).arg(&out);
    command.assert().success();
    let plain = read_json(&out);
    command.args(["--guidance-scale", "2.5"]).assert().success();
    let guided = read_json(&out);
    assert_eq!(plain["results"][0]["passes"], 4.0);
    assert_eq!(guided["results"][0]["passes"], 8.0);
    assert_ne!(plain["results"][0]["rmse"], guided["results"][0]["rmse"]);
    assert_eq!(guided["guidance_scale"], 2.5);
    // euler@4 evaluates at 0, 1/4, 1/2 and 3/4: at two of them both passes run.
    let within = folder.path().join("within.json");
    let mut keys = read_json(&card());
    keys["guidance"] = json!({ "interval": [0, 0.3] });
    keys["weights"] = json!(card().with_file_name(keys["weights"].as_str().unwrap()));
    std::fs::write(&within, keys.to_string()).unwrap();
    let mut command = bespoke();
    command.arg("eval").arg("--model").arg(&within).args(["--solver", "euler@4", "--count", "10", "--json"]).arg(&out);
    command.args(["--guidance-scale", "2.5"]).assert().success();
    assert_eq!(read_json(&out)["results"][0]["passes"], 6.0);
}

#[test]
fn config_and_flags_say_the_same() {
    let folder = TempDir::new().unwrap();
    let (by_flags, by_config) = (folder.path().join("flags.json"), folder.path().join("config-theta.json"));
    train(&by_flags).args(["--seed", "9", "--loss", "rmse-bound", "--lr", "0.01"]).assert().success();
    let config = folder.path().join("config.json");
    let document = json!({
        "model": card(), "out": by_config, "steps": 4, "iterations": 6, "pool": 150, "batch": 50,
        "validation": 60, "seed": 1, "loss": "rmse-bound", "lr": 0.01
    });
    std::fs::write(&config, document.to_string()).unwrap();
    // A flag wins over the document.
    bespoke().arg("train").arg("--config").arg(&config).args(["--seed", "9"]).assert().success();
    assert_eq!(read_json(&by_flags), read_json(&by_config));
}

#[test]
fn bad_usage_is_2_and_names_what_is_wrong() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("x.npy");
    let sample = |arguments: &[&str]| {
        let mut command = bespoke();
        command.arg("sample").arg("--model").arg(card()).arg("--out").arg(&out).args(arguments);
        command.assert().code(2).stdout("")
    };
    sample(&["--solver", "rk4@10"]).stderr(contains("nfe is 10").and(contains("8 or 12")));
    sample(&["--solver", "rk4@0"]).stderr(contains("nfe is 0"));
    sample(&["--solver", "midpoint@ten"]).stderr(contains("ten"));
    sample(&["--solver", "nonesuch@10"]).stderr(contains("nonesuch").and(contains("midpoint")));
    sample(&["--solver", "midpoint"]).stderr(contains("midpoint@12"));
    sample(&["--solver", "midpoint@99999999999999999999"]).stderr(contains("nfe"));
    sample(&["--solver", "gt", "--count", "0"]).stderr(contains("count is 0"));
    sample(&["--solver", "gt", "--rtol", "0"]).stderr(contains("rtol is 0"));
    sample(&["--solver", "gt", "--class", "11"]).stderr(contains("class is 11").and(contains("0 to 9")));
    sample(&["--solver", "gt", "--device", "tpu"]).stderr(contains("tpu"));
    sample(&["--solver", "gt", "--dtype", "f16"]).stderr(contains("f32, bf16"));
    sample(&["--solver", "gt", "--dtype", "bf16"]).stderr(contains("dtype is bf16, expected f32"));
    sample(&["--solver", "gt", "--guidance-scale", "nan"]).stderr(contains("guidance_scale"));
    train(&out).args(["--family", "rk3"]).assert().code(2).stderr(contains("rk3"));
    train(&out).args(["--lr", "-1"]).assert().code(2);
    train(&out)
        .args(["--loss", "rmse-bound", "--optimizer", "gauss-newton"])
        .assert()
        .code(2)
        .stderr(contains("optimizer"));
    bespoke().arg("train").arg("--out").arg(&out).assert().code(2).stderr(contains("model"));
    bespoke().arg("nonesuch").assert().code(2);
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[test]
fn a_number_below_zero_is_the_value_of_its_option() {
    let folder = TempDir::new().unwrap();
    for (command, option) in [
        (&["sample", "--solver", "euler@2", "--out", "x.npy"][..], "--seed"),
        (&["sample", "--solver", "euler@2", "--out", "x.npy"], "--class"),
        (&["sample", "--solver", "euler@2", "--out", "x.npy"], "--sigma0"),
        (&["eval", "--solver", "euler@2"], "--rtol"),
        (&["eval", "--solver", "euler@2"], "--count"),
        (&["train", "--steps", "2", "--out", "t.json"], "--iterations"),
        (&["train", "--steps", "2", "--out", "t.json"], "--lr"),
        (&["train", "--out", "t.json"], "--nfe"),
    ] {
        let mut run = bespoke();
        run.current_dir(folder.path()).args(command).arg("--model").arg(card()).args([option, "-3"]);
        let name = option.trim_start_matches('-');
        run.assert().code(2).stderr(contains(name).and(contains("-3")).and(contains("unexpected argument").not()));
        assert!(files(folder.path()).is_empty());
    }
    // An option is still one, and not a value.
    let count =
        bespoke().args(["eval", "--solver", "euler@2", "--seed", "--count", "3", "--model"]).arg(card()).assert();
    count.code(2).stderr(contains("a value is required for '--seed"));
}

#[test]
fn a_failed_run_is_1_and_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let sample = |model: &Path, solver: &str, out: &Path| {
        let mut command = bespoke();
        command.arg("sample").arg("--model").arg(model).args(["--solver", solver, "--count", "2", "--out"]).arg(out);
        command.assert().code(1).stdout("")
    };
    let out = path("x.npy");
    sample(&path("absent.json"), "euler@2", &out).stderr(contains("absent.json"));
    sample(&card(), path("absent-theta.json").to_str().unwrap(), &out).stderr(contains("absent-theta.json"));
    std::fs::write(
        path("bad.json"),
        r#"{"format": "bespoke-theta", "version": 1, "family": "rk1", "steps": 1,
        "t": [0, 1], "t_dot": [-1], "s": [1, 1], "s_dot": [0]}"#,
    )
    .unwrap();
    sample(&card(), path("bad.json").to_str().unwrap(), &out).stderr(contains("t_dot[0]"));
    sample(&card(), "euler@2", &path("no/such/folder/x.npy")).stderr(contains("no/such/folder"));
    train(&path("no/such/folder/theta.json")).assert().code(1).stderr(contains("no/such/folder"));
    std::fs::write(path("config.json"), r#"{"stepz": 4}"#).unwrap();
    bespoke().arg("train").arg("--config").arg(path("config.json")).assert().code(1).stderr(contains("stepz"));
    assert_eq!(files(folder.path()), ["bad.json", "config.json"]);
}

#[test]
fn a_theta_of_another_model_is_a_warning() {
    let folder = TempDir::new().unwrap();
    let theta = folder.path().join("theta.json");
    train(&theta).assert().success();
    let mut document = read_json(&theta);
    document["model"]["fingerprint"] = json!("sha256:of-another");
    document["model"]["name"] = json!("the-other");
    std::fs::write(&theta, document.to_string()).unwrap();
    bespoke()
        .args(["eval", "--count", "3", "--model"])
        .arg(card())
        .arg("--solver")
        .arg(&theta)
        .assert()
        .success()
        .stderr(contains("the-other"));
}

#[test]
fn several_nfe_are_written_as_a_ladder() {
    let folder = TempDir::new().unwrap();
    let ladder = folder.path().join("ladder.json");
    let mut command = bespoke();
    command.arg("train").arg("--model").arg(card()).arg("--out").arg(&ladder).args([
        "--nfe",
        "6,4",
        "--iterations",
        "2",
        "--pool",
        "60",
        "--batch",
        "50",
        "--validation",
        "20",
        "--budget",
        "100000000",
    ]);
    command.assert().success().stdout(contains("nfe 4").and(contains("nfe 6")).and(contains("% of the budget")));
    let rungs = read_json(&ladder)["rungs"].as_array().unwrap().clone();
    assert_eq!(rungs.iter().map(|rung| rung["steps"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(rungs[0]["model"]["name"], "digits-mixture");
    command.args(["--steps", "5,6"]).assert().code(2).stderr(contains("steps"));
}

#[test]
fn a_start_of_another_model_is_a_warning() {
    let folder = TempDir::new().unwrap();
    let (first, second) = (folder.path().join("first.json"), folder.path().join("second.json"));
    train(&first).assert().success();
    let mut document = read_json(&first);
    document["model"]["fingerprint"] = json!("sha256:of-another");
    document["model"]["name"] = json!("the-other");
    std::fs::write(&first, document.to_string()).unwrap();
    train(&second).arg("--init").arg(&first).assert().success().stderr(contains("the-other"));
    assert_eq!(read_json(&second)["model"]["name"], "digits-mixture");
}

#[test]
fn every_command_explains_itself() {
    for command in ["train", "sample", "eval", "show"] {
        bespoke().args([command, "--help"]).assert().success().stdout(contains("Example:").and(contains("Usage:")));
    }
    bespoke().arg("--version").assert().success().stdout(contains(version()));
}

/// `bespoke solvers | head -1`: a reader that has seen enough is no reason to panic.
#[cfg(unix)]
#[test]
fn a_closed_pipe_ends_it_quietly() {
    use std::process::Stdio;
    let mut child = std::process::Command::new(program())
        .arg("solvers")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// Ctrl-C writes the best theta so far, and says so.
#[cfg(unix)]
#[test]
fn interrupting_keeps_the_best_theta() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let folder = TempDir::new().unwrap();
    let theta = folder.path().join("theta.json");
    let mut command = std::process::Command::new(program());
    command.arg("train").arg("--model").arg(card()).arg("--out").arg(&theta).args([
        "--iterations",
        "1000000",
        "--validate-every",
        "2",
        "--validation",
        "50",
        "--pool",
        "150",
        "--batch",
        "40",
    ]);
    let mut child = crate::output_files::heeding_signals(&mut command)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let running = lines.by_ref().any(|line| line.unwrap().starts_with("iteration 4/"));
    assert!(running, "training reports its iterations");
    // SAFETY: the process was started above and has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    lines.for_each(drop);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("interrupted"));
    let document = read_json(&theta);
    assert_eq!(document["training"]["stopped"], true);
}
