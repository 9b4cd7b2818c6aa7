//! `bespoke report` and the other ways in which the program shows what it does, on the exact digits mixture.

use crate::native::ring_card;
use crate::tree::{program, root};
use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn bespoke() -> Command {
    Command::new(program())
}

fn models() -> PathBuf {
    root().join("models")
}

fn card() -> PathBuf {
    models().join("digits-mixture.json")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&read(path)).unwrap()
}

fn train(out: &Path) -> Command {
    let mut command = bespoke();
    command.arg("train").arg("--model").arg(card()).arg("--out").arg(out);
    command.args(["--steps", "3", "--iterations", "6", "--pool", "120", "--batch", "40", "--validation", "40"]);
    command
}

/// Data that the samples are held against: pixels need no libtorch.
fn write_data(folder: &Path) -> (PathBuf, PathBuf) {
    let (features, data) = (folder.join("pixels.json"), folder.join("data.npy"));
    let pixels = json!({ "format": "bespoke-features", "version": 1, "runtime": "pixels" });
    std::fs::write(&features, pixels.to_string()).unwrap();
    bespoke()
        .args(["sample", "--solver", "rk4@40", "--count", "60", "--seed", "8", "--model"])
        .arg(card())
        .arg("--out")
        .arg(&data)
        .assert()
        .success();
    (features, data)
}

#[test]
fn a_report_is_one_page_and_its_numbers() {
    let folder = TempDir::new().unwrap();
    let theta = folder.path().join("theta-6.json");
    train(&theta).assert().success();
    let (features, data) = write_data(folder.path());
    let out = folder.path().join("report.html");
    bespoke()
        .args(["report", "--count", "40", "--seed", "3", "--nfe", "6", "--sample", "2", "--model"])
        .arg(card())
        .arg("--solver")
        .arg(&theta)
        .args(["--solver", "midpoint@4,6,8", "--solver", "dpm++2m@6:uniform", "--features"])
        .arg(&features)
        .arg("--data")
        .arg(&data)
        .arg("--out")
        .arg(&out)
        .assert()
        .success()
        .stdout("");

    let page = read(&out);
    assert!(page.starts_with("<!DOCTYPE html>") && page.len() < 3_000_000, "{} bytes", page.len());
    // Nothing runs, and nothing is loaded from anywhere.
    for loaded in ["<script", "<link", "@import", "src=\"http", "href=", "url(", "<iframe"] {
        assert!(!page.contains(loaded), "{loaded}");
    }
    let with_addresses = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    assert!(!with_addresses.contains("://"), "an address");
    for there in ["theta (rk2)@6", "midpoint@4", "dpm++2m:uniform@6", "ground truth", "prefers-color-scheme", "<svg"] {
        assert!(page.contains(there), "{there}");
    }

    let report = read_json(&folder.path().join("report.json"));
    let rows = report["results"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    assert_eq!(rows[0]["curve"], "theta (rk2)");
    let nfe: Vec<f64> = rows.iter().map(|row| row["nfe"].as_f64().unwrap()).collect();
    assert_eq!(nfe, [6.0, 4.0, 6.0, 8.0, 6.0]);
    assert_eq!(report["shown"], json!([0, 2, 4]));
    let errors: Vec<f64> = serde_json::from_value(rows[1]["errors"].clone()).unwrap();
    assert_eq!(errors.len(), 40);
    let mean = errors.iter().sum::<f64>() / 40.0;
    assert!((mean - rows[1]["rmse"].as_f64().unwrap()).abs() < 1e-12);
    // More evaluations are nearer, and the ground truth is nearest: to itself and to the data.
    let frechet = |row: &Value| row["to_ground_truth"]["frechet"].as_f64().unwrap();
    assert!(frechet(&rows[1]) > frechet(&rows[3]) && frechet(&rows[3]) > 0.0);
    assert!(report["ground_truth"]["rmse"].as_f64().unwrap() < 1e-3);
    assert!(report["distances"]["ground_truth_to_data"]["frechet"].as_f64().unwrap() > 0.0);
    assert_eq!(report["distances"]["data_count"], 60);
    let knots: Vec<&str> = report["knots"].as_array().unwrap().iter().map(|k| k["solver"].as_str().unwrap()).collect();
    assert_eq!(knots, ["theta (rk2)@6", "base solver", "DDIM", "EDM"]);
    assert_eq!(report["knots"][0]["t"].as_array().unwrap().len(), 7);
    assert_eq!(report["paths"][0]["rmse"].as_array().unwrap().len(), 4);
    assert_eq!(report["training"][0]["training"]["log"].as_array().unwrap().len(), 7);

    let table = read(&folder.path().join("report.csv"));
    assert_eq!(table.lines().count(), 7);
    let columns = table.lines().next().unwrap().split(',').count();
    assert!(table.lines().all(|line| line.split(',').count() == columns));
    let plots = folder.path().join("report-plots");
    for name in [
        "rmse",
        "psnr",
        "frechet-data",
        "frechet-gt",
        "precision",
        "seconds",
        "errors",
        "path",
        "t",
        "s-dot",
        "training",
    ] {
        assert!(read(&plots.join(format!("{name}.svg"))).starts_with("<svg"), "{name}");
        assert!(image::open(plots.join(format!("{name}.png"))).unwrap().width() > 1000, "{name}");
        assert!(read(&plots.join(format!("{name}.csv"))).lines().count() > 1, "{name}");
    }
    for name in ["samples-gt", "samples-1", "difference-1", "difference-3", "path-gt", "path-2"] {
        assert!(image::open(plots.join(format!("{name}.png"))).is_ok(), "{name}");
    }
}

#[test]
fn a_report_of_bad_usage_writes_nothing() {
    let folder = TempDir::new().unwrap();
    let report = |arguments: &[&str], out: &str| {
        let mut command = bespoke();
        command.args(["report", "--count", "4", "--model"]).arg(card()).args(arguments);
        command.arg("--out").arg(folder.path().join(out)).assert().stdout("")
    };
    report(&["--solver", "midpoint@4,5"], "x.html").code(2).stderr(contains("nfe is 5"));
    report(&["--solver", "midpoint@4"], "x.pdf").code(2).stderr(contains(".html"));
    report(&["--solver", "midpoint@4", "--sample", "4"], "x.html").code(2).stderr(contains("sample is 4"));
    report(&["--solver", "midpoint@4", "--features", "absent.json"], "x.html").code(1).stderr(contains("absent.json"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn eval_says_how_far_samples_are_from_data() {
    let folder = TempDir::new().unwrap();
    let (features, data) = write_data(folder.path());
    let eval = |arguments: &[&str]| {
        let mut command = bespoke();
        command.args(["eval", "--count", "30", "--model"]).arg(card()).args(arguments);
        command
    };
    let (features, data) = (features.to_str().unwrap(), data.to_str().unwrap());
    let judged = ["--solver", "euler@2,8", "--frechet", "--features", features, "--data", data, "--quiet"];
    eval(&judged).assert().success().stderr("").stdout(contains("frechet to data").and(contains("60 samples of data")));
    // As JSON on standard output, where no file is named.
    let output = eval(&judged).arg("--json").output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |i: usize, to: &str, what: &str| found["results"][i][to][what].as_f64().unwrap();
    assert!(of(0, "to_ground_truth", "frechet") > of(1, "to_ground_truth", "frechet"), "{found}");
    assert!(of(0, "to_data", "recall") < of(1, "to_data", "recall"), "{found}");
    assert!(of(1, "to_data", "frechet") > 1.0, "{found}");
    eval(&["--solver", "euler@2", "--data", data]).assert().code(2).stderr(contains("--frechet"));

    // Data of another shape is refused by name.
    let other = folder.path().join("other.json");
    let text = read(&card()).replace("[1, 8, 8]", "[64]");
    let modes = models().join("digits-mixture-modes.json");
    std::fs::write(&other, text.replace("digits-mixture-modes.json", modes.to_str().unwrap())).unwrap();
    bespoke()
        .args(["eval", "--solver", "euler@2", "--count", "9", "--frechet", "--features", features, "--data", data])
        .arg("--model")
        .arg(&other)
        .assert()
        .code(1)
        .stderr(contains("data.npy").and(contains("shape")));
}

/// Width, height, and pixels that are neither white nor nearly grey.
fn coloured(path: &Path) -> (u32, u32, usize) {
    let picture = image::open(path).unwrap().to_rgb8();
    let (width, height) = picture.dimensions();
    let bright =
        |colour: [u8; 3]| colour.iter().max() > colour.iter().min().map(|least| least.saturating_add(40)).as_ref();
    (width, height, picture.pixels().filter(|pixel| bright(pixel.0)).count())
}

#[test]
fn points_in_the_plane_are_scatter_plots() {
    let folder = TempDir::new().unwrap();
    let card = ring_card(folder.path());
    let (one, many) = (folder.path().join("one.png"), folder.path().join("many.png"));
    let sample = |count: &str, png: &Path| {
        let mut command = bespoke();
        command.args(["sample", "--solver", "midpoint@8", "--count", count, "--model", &card, "--png"]).arg(png);
        command.arg("--out").arg(folder.path().join("x.npy")).assert().success();
        coloured(png)
    };
    let (few, all) = (sample("2", &one), sample("400", &many));
    // Square, large, and with more to see where there are more points.
    assert!(few.0 == few.1 && few.0 >= 300, "{few:?}");
    assert!(few.2 > 10 && all.2 > 20 * few.2, "{few:?} {all:?}");
    // A panel for the ground truth and for each solver.
    let compared = folder.path().join("compared.png");
    let mut command = bespoke();
    command.args([
        "eval",
        "--solver",
        "euler@2",
        "--solver",
        "midpoint@8",
        "--count",
        "50",
        "--quiet",
        "--model",
        &card,
    ]);
    command.arg("--png").arg(&compared).assert().success();
    let panels = coloured(&compared);
    assert_eq!((panels.0, panels.1), (3 * few.0, few.1));
}

#[test]
fn training_speaks_to_machines_or_not_at_all() {
    let folder = TempDir::new().unwrap();
    let theta = folder.path().join("theta.json");
    train(&theta).arg("--quiet").assert().success().stdout("").stderr("");
    let output = train(&theta).arg("--json").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["progress"]["iteration"], 0);
    assert_eq!(lines[lines.len() - 2]["progress"]["iteration"], 6);
    let best = &lines[lines.len() - 1]["done"]["rungs"][0]["best"]["rmse"];
    assert_eq!(*best, read_json(&theta)["training"]["validation"]["rmse"]);
}

#[test]
fn completions_and_man_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        bespoke().args(["completions", shell]).assert().success().stdout(contains("report").and(contains("frechet")));
    }
    bespoke().args(["completions", "nonesuch"]).assert().code(2);
    let folder = TempDir::new().unwrap();
    bespoke().arg("man").arg(folder.path()).assert().success();
    for (page, said) in [("bespoke", "SUBCOMMANDS"), ("bespoke-train", "gauss"), ("bespoke-report", "report")] {
        assert!(read(&folder.path().join(format!("{page}.1"))).contains(said), "{page}");
    }
    bespoke().arg("man").arg(folder.path().join("absent")).assert().code(1).stderr(contains("absent"));
}

#[cfg(feature = "torch")]
#[test]
fn the_digits_are_judged_by_their_classifier() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("eval.json");
    bespoke()
        .args(["eval", "--solver", "euler@2", "--solver", "midpoint@16", "--count", "40", "--frechet", "--model"])
        .arg(models().join("digits-fm-ot.json"))
        .arg("--json")
        .arg(&out)
        .assert()
        .success()
        .stdout(contains("digits-features"));
    let found = read_json(&out);
    let frechet = |i: usize| found["results"][i]["to_ground_truth"]["frechet"].as_f64().unwrap();
    assert!(frechet(0) > 10.0 * frechet(1), "{found}");
}
