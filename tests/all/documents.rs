//! Theta files and model cards: strict reading, exact round trips, atomic writing.

use crate::common::{knots, proptest_config};
use bespoke::card::{Card, Direction, Runtime};
use bespoke::document::{self, Notes};
use bespoke::error::Error;
use bespoke::scheduler::{Output, Scheduler};
use bespoke::theta::{Family, Knots, MAX_STEPS, NsTable, Theta};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

fn rk1() -> Value {
    json!({"format": "bespoke-theta", "version": 1, "family": "rk1", "steps": 2,
           "t": [0.0, 0.4, 1.0], "t_dot": [0.9, 1.1], "s": [1.0, 1.2, 0.9], "s_dot": [0.1, -0.2]})
}

fn rk2() -> Value {
    json!({"format": "bespoke-theta", "version": 1, "family": "rk2", "steps": 1,
           "t": [0.0, 0.4, 1.0], "t_dot": [0.9, 1.1], "s": [1.0, 1.2, 0.9], "s_dot": [0.1, -0.2],
           "model": {"name": "digits", "nested": {"list": [1, {"deep": true}]}}, "training": {"seed": 7}})
}

fn ns() -> Value {
    json!({"format": "bespoke-theta", "version": 1, "family": "ns", "t": [0.0, 0.6],
           "a": [1.0, 0.9], "b": [[0.5], [0.2, 0.4]]})
}

fn card() -> Value {
    json!({"format": "bespoke-model", "version": 1, "weights": "digits.pt", "runtime": "torchscript",
           "shape": [1, 8, 8], "output": "velocity", "scheduler": {"name": "vp", "beta_max": 10.0},
           "time": {"direction": "data-to-noise", "scale": 1000.0, "end": 0.999},
           "classes": 10, "null_class": 10, "data_range": [-1, 1]})
}

/// `base` with `value` at the JSON pointer `at`.
fn with(base: &Value, at: &str, value: Value) -> Value {
    let mut changed = base.clone();
    let (parent, key) = at.rsplit_once('/').unwrap();
    match changed.pointer_mut(parent).unwrap() {
        Value::Object(object) => object.insert(key.into(), value).map_or((), drop),
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        other => panic!("{other} has no {key}"),
    }
    changed
}

fn without(base: &Value, key: &str) -> Value {
    let mut changed = base.clone();
    changed.as_object_mut().unwrap().remove(key).expect("the key was there");
    changed
}

/// Everything in `folder`, by name and content.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap_or_default()))
        .collect();
    files.sort();
    files
}

/// Asserts that `bytes` as a file is refused as a document whose message has every one of `names`, file name
/// included, and that the folder is as before.
#[track_caller]
fn refused(load: &dyn Fn(&Path) -> Option<Error>, bytes: &[u8], names: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("given.json");
    std::fs::write(&path, bytes).unwrap();
    let before = contents(folder.path());
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
    let error = load(&path).unwrap_or_else(|| panic!("accepted: {shown}"));
    let message = error.to_string();
    assert!(matches!(error, Error::Format { .. }), "another kind of error for {shown}: {message}");
    assert!(message.len() < 2000, "a message of {} bytes", message.len());
    for name in names.iter().chain(&["given.json"]) {
        assert!(message.contains(name), "{message:?} does not name {name:?}; given {shown}");
    }
    assert_eq!(contents(folder.path()), before);
}

fn load_theta(path: &Path) -> Option<Error> {
    Theta::load(path).err()
}

fn load_card(path: &Path) -> Option<Error> {
    Card::load(path).err()
}

#[track_caller]
fn theta_refused(document: Value, names: &[&str]) {
    refused(&load_theta, document.to_string().as_bytes(), names);
}

#[track_caller]
fn card_refused(document: Value, names: &[&str]) {
    refused(&load_card, document.to_string().as_bytes(), names);
}

#[test]
fn good_thetas_are_read() {
    let theta = Theta::parse(&rk2().to_string(), "rk2").unwrap();
    assert_eq!((theta.family_name(), theta.steps(), theta.nfe()), ("rk2", 1, 2));
    assert_eq!((theta.model.0["name"].as_str(), theta.training.0["seed"].as_u64()), (Some("digits"), Some(7)));
    let theta = Theta::parse(&rk1().to_string(), "rk1").unwrap();
    assert_eq!((theta.family_name(), theta.steps(), theta.nfe()), ("rk1", 2, 2));
    let Family::Rk1(knots) = &theta.family else { panic!() };
    assert_eq!((knots.t[1], knots.t_dot[0], knots.s[2], knots.s_dot[1]), (0.4, 0.9, 0.9, -0.2));
    let theta = Theta::parse(&ns().to_string(), "ns").unwrap();
    assert_eq!((theta.family_name(), theta.steps(), theta.nfe()), ("ns", 2, 2));
    let wanted = NsTable { t: vec![0.0, 0.6], a: vec![1.0, 0.9], b: vec![vec![0.5], vec![0.2, 0.4]] };
    assert_eq!(theta.family, Family::Ns(wanted));
}

#[test]
fn a_good_card_is_read_and_its_defaults_filled_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("digits.json");
    std::fs::write(&path, card().to_string()).unwrap();
    let full = Card::load(&path).unwrap();
    assert_eq!(
        (full.sample_shape().unwrap().iter().product::<usize>(), full.runtime, full.output),
        (64, Runtime::Torchscript, Output::Velocity)
    );
    assert_eq!(full.scheduler, Scheduler::Vp { beta_min: 0.1, beta_max: 10.0 });
    assert_eq!((full.time.direction, full.time.scale, full.time.end), (Direction::DataToNoise, 1000.0, 0.999));
    assert_eq!((full.classes, full.null_class, full.name()), (10, Some(10), "digits".into()));
    assert_eq!(full.weights_path(), folder.path().join("digits.pt"));
    let small = ["time", "classes", "null_class", "data_range"].iter().fold(card(), |card, key| without(&card, key));
    std::fs::write(&path, small.to_string()).unwrap();
    let small = Card::load(&path).unwrap();
    assert_eq!((small.time.direction, small.time.scale, small.time.end), (Direction::NoiseToData, 1.0, 1.0));
    assert_eq!((small.classes, small.null_class, small.data_range), (0, None, [-1.0, 1.0]));
}

#[test]
fn the_fingerprint_is_of_the_meaning_not_of_the_place() {
    let fingerprint = |folder: &Path, card: &Value, weights: &[u8]| {
        std::fs::write(folder.join("card.json"), card.to_string()).unwrap();
        std::fs::write(folder.join(card["weights"].as_str().unwrap()), weights).unwrap();
        Card::load(&folder.join("card.json")).unwrap().fingerprint().unwrap()
    };
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let reference = fingerprint(a.path(), &card(), b"weights");
    assert!(reference.len() == 71 && reference.starts_with("sha256:"));
    assert_eq!(fingerprint(b.path(), &with(&card(), "/weights", json!("renamed.pt")), b"weights"), reference);
    assert_eq!(fingerprint(b.path(), &with(&card(), "/scheduler/beta_min", json!(0.1)), b"weights"), reference);
    assert_ne!(fingerprint(b.path(), &card(), b"other weights"), reference);
    assert_ne!(fingerprint(b.path(), &with(&card(), "/time/end", json!(0.99)), b"weights"), reference);
    assert_ne!(fingerprint(b.path(), &with(&card(), "/output", json!("v")), b"weights"), reference);
    std::fs::remove_file(b.path().join("digits.pt")).unwrap();
    let missing = Card::load(&b.path().join("card.json")).unwrap().fingerprint().unwrap_err();
    assert!(missing.to_string().contains("digits.pt"), "{missing}");
}

#[test]
fn a_card_and_its_clones_read_the_weights_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("card.json");
    std::fs::write(&path, card().to_string()).unwrap();
    std::fs::write(folder.path().join("digits.pt"), b"weights").unwrap();
    let opened = Card::load(&path).unwrap();
    let clone = opened.clone();
    let fingerprint = opened.fingerprint().unwrap();
    std::fs::remove_file(folder.path().join("digits.pt")).unwrap();
    assert_eq!(opened.fingerprint().unwrap(), fingerprint);
    assert_eq!(clone.fingerprint().unwrap(), fingerprint);
    assert_eq!(opened, Card::load(&path).unwrap(), "what is remembered is no part of a card");
    // A card that is changed afterwards is another one, whose weights are not there.
    let mut changed = opened;
    changed.classes = 11;
    assert!(changed.fingerprint().unwrap_err().to_string().contains("digits.pt"));
}

#[test]
fn what_is_no_document_is_refused() {
    for load in [load_theta, load_card] {
        refused(&load, b"", &["EOF"]);
        refused(&load, b" \n\t ", &["EOF"]);
        refused(&load, b"theta", &["expected"]);
        refused(&load, b"[1, 2]", &[]);
        refused(&load, b"null", &["null"]);
        refused(&load, b"\x89PNG\r\n\x1a\n\xff\xfe", &["UTF-8"]);
        refused(&load, b"{\"format\": \"\xff\xfe\"}", &["UTF-8"]);
        refused(&load, b"{}", &["format"]);
    }
    let text = rk2().to_string();
    for end in 0..text.len() {
        refused(&load_theta, &text.as_bytes()[..end], &["EOF"]);
    }
    let text = card().to_string();
    for end in 0..text.len() {
        refused(&load_card, &text.as_bytes()[..end], &["EOF"]);
    }
}

#[test]
fn what_follows_a_document_is_refused() {
    for rest in ["x", "{}", ",", "]", "\0", "null", " 1"] {
        refused(&load_theta, format!("{}{rest}", rk2()).as_bytes(), &["trailing characters"]);
        refused(&load_card, format!("{}{rest}", card()).as_bytes(), &["trailing characters"]);
    }
    assert!(Theta::parse(&format!(" \n{}\n\t ", rk2()), "spaced").is_ok());
}

#[test]
fn another_format_version_or_family_is_refused() {
    theta_refused(with(&rk1(), "/format", json!("bespoke-model")), &["format", "bespoke-model", "bespoke-theta"]);
    theta_refused(with(&rk1(), "/version", json!(2)), &["version", "is 2", "expected 1"]);
    theta_refused(with(&rk1(), "/version", json!("1")), &["version", "string"]);
    theta_refused(with(&rk1(), "/version", json!(-1)), &["version", "-1"]);
    theta_refused(with(&rk1(), "/version", json!(1.0)), &["version", "floating point"]);
    theta_refused(with(&rk1(), "/family", json!("rk3")), &["family", "rk3", "rk1", "rk2", "ns"]);
    card_refused(with(&card(), "/format", json!("bespoke-theta")), &["format", "bespoke-theta", "bespoke-model"]);
    card_refused(with(&card(), "/version", json!(0)), &["version", "is 0", "expected 1"]);
    card_refused(rk2(), &["family"]);
    theta_refused(card(), &["classes", "unknown field"]);
}

#[test]
fn unknown_missing_and_foreign_keys_are_refused() {
    theta_refused(with(&rk1(), "/tdot", json!([1])), &["tdot", "unknown"]);
    card_refused(with(&card(), "/weight", json!(1)), &["weight", "unknown"]);
    card_refused(with(&card(), "/time/start", json!(0)), &["time", "start", "unknown"]);
    card_refused(with(&card(), "/scheduler/beta", json!(0)), &["scheduler", "beta", "unknown"]);
    for key in ["format", "version", "family", "steps", "t", "t_dot", "s", "s_dot"] {
        theta_refused(without(&rk1(), key), &[key, "missing"]);
        theta_refused(without(&rk2(), key), &[key, "missing"]);
    }
    for key in ["t", "a", "b"] {
        theta_refused(without(&ns(), key), &[key, "missing"]);
    }
    for key in ["format", "version", "weights", "runtime", "shape", "output", "scheduler"] {
        card_refused(without(&card(), key), &[key, "missing"]);
    }
    for (key, value) in [("a", json!([1.0])), ("b", json!([[1.0]]))] {
        theta_refused(with(&rk1(), &format!("/{key}"), value), &[&format!("{key}:"), "no such key"]);
    }
    for key in ["t_dot", "s", "s_dot"] {
        theta_refused(with(&ns(), &format!("/{key}"), json!([1.0, 1.0])), &[&format!("{key}:"), "no such key"]);
    }
    // `model` and `training` may hold anything.
    assert!(
        Theta::parse(&with(&rk1(), "/model", json!({"anything": [null, 1e300, "x"]})).to_string(), "notes").is_ok()
    );
}

#[test]
fn duplicate_keys_are_refused_wherever_they_are() {
    let theta = rk2().to_string();
    let insert = |text: &str, before: &str, extra: &str| {
        assert_eq!(text.matches(before).count(), 1, "{before}");
        text.replacen(before, &format!("{extra}{before}"), 1)
    };
    for (before, extra, name) in [
        ("\"steps\"", "\"steps\": 1, ", "steps"),
        ("\"t\"", "\"t\": [0, 0.4, 1], ", "`t`"),
        ("\"model\"", "\"model\": {}, ", "model"),
        ("\"name\"", "\"name\": \"digits\", ", "name"),
        ("\"deep\"", "\"deep\": false, ", "deep"),
        ("\"seed\"", "\"seed\": 7, ", "seed"),
    ] {
        refused(&load_theta, insert(&theta, before, extra).as_bytes(), &["duplicate", name]);
    }
    let card = card().to_string();
    for (before, extra, name) in [
        ("\"shape\"", "\"shape\": [1], ", "shape"),
        ("\"beta_max\"", "\"beta_max\": 20.0, ", "beta_max"),
        ("\"end\"", "\"end\": 1.0, ", "end"),
    ] {
        refused(&load_card, insert(&card, before, extra).as_bytes(), &["duplicate", name]);
    }
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    let theta = rk2().to_string();
    for bad in ["1e999", "-1e999", "NaN", "Infinity", "-Infinity", "nan"] {
        for (good, name) in
            [("0.4", "t[1]"), ("1.1", "t_dot[1]"), ("1.2", "s[1]"), ("-0.2", "s_dot[1]"), ("7", "training.seed")]
        {
            assert_eq!(theta.matches(good).count(), 1, "{good}");
            refused(&load_theta, theta.replacen(good, bad, 1).as_bytes(), &[name]);
        }
        let card = card().to_string();
        for (good, name) in
            [("0.999", "time.end"), ("1000.0", "time.scale"), ("10.0", "scheduler"), ("-1,", "data_range[0]")]
        {
            assert_eq!(card.matches(good).count(), 1, "{good}");
            let bad = if good == "-1," { format!("{bad},") } else { bad.to_owned() };
            refused(&load_card, card.replacen(good, &bad, 1).as_bytes(), &[name]);
        }
    }
    let table = ns().to_string();
    refused(&load_theta, table.replacen("0.9", "1e999", 1).as_bytes(), &["a[1]"]);
    refused(&load_theta, table.replacen("0.2", "1e999", 1).as_bytes(), &["b[1][0]"]);
}

#[test]
fn broken_constraints_are_named() {
    for base in [rk1(), rk2()] {
        theta_refused(with(&base, "/t", json!([0.0, 0.0, 1.0])), &["t[1]", "is 0", "more than t[0]"]);
        theta_refused(with(&base, "/t", json!([0.0, 1.0, 1.0])), &["t[2]", "more than t[1]"]);
        theta_refused(with(&base, "/t", json!([0.0, 1.5, 1.0])), &["t[2]", "more than t[1] = 1.5"]);
        theta_refused(with(&base, "/t/0", json!(0.1)), &["t[0]", "0.1", "expected 0"]);
        theta_refused(with(&base, "/t/2", json!(0.999999)), &["t[2]", "0.999999", "expected 1"]);
        theta_refused(with(&base, "/t_dot/1", json!(0.0)), &["t_dot[1]", "is 0", "positive"]);
        theta_refused(with(&base, "/t_dot/0", json!(-1.0)), &["t_dot[0]", "is -1", "positive"]);
        theta_refused(with(&base, "/s/1", json!(0.0)), &["s[1]", "positive"]);
        theta_refused(with(&base, "/s/2", json!(-0.5)), &["s[2]", "is -0.5", "positive"]);
        theta_refused(with(&base, "/s/0", json!(1.1)), &["s[0]", "is 1.1", "expected 1"]);
        // Each number is fine, their quotient is not.
        theta_refused(with(&with(&base, "/s/1", json!(1e300)), "/s/2", json!(1e-300)), &["s", "inf"]);
    }
    theta_refused(with(&ns(), "/t/1", json!(1.1)), &["t[1]", "1.1", "[0, 1]"]);
    theta_refused(with(&ns(), "/t/0", json!(-0.1)), &["t[0]", "-0.1", "[0, 1]"]);
}

#[test]
fn lengths_that_disagree_are_named() {
    for (base, per_step) in [(rk1(), 1), (rk2(), 2)] {
        for (key, good) in [("t", 3), ("t_dot", 2), ("s", 3), ("s_dot", 2)] {
            for length in [0, good - 1, good + 1] {
                let numbers: Vec<f64> = (0..length).map(|i| 1.0 + i as f64).collect();
                theta_refused(
                    with(&base, &format!("/{key}"), json!(numbers)),
                    &[&format!(" {key}: is of length {length}")],
                );
            }
        }
        theta_refused(with(&base, "/steps", json!(3)), &["t_dot", &format!("expected {}", 3 * per_step), "steps = 3"]);
        theta_refused(with(&base, "/steps", json!(0)), &["steps: is 0", "expected 1 to 1000"]);
    }
    theta_refused(with(&ns(), "/steps", json!(3)), &["t: is of length 2", "steps = 3"]);
    theta_refused(with(&ns(), "/a", json!([1.0])), &["a: is of length 1"]);
    theta_refused(with(&ns(), "/b", json!([[0.5]])), &["b: is of length 1"]);
    theta_refused(with(&ns(), "/b/1", json!([0.2])), &["b[1]: is of length 1"]);
    theta_refused(with(&ns(), "/b/0", json!([0.2, 0.3])), &["b[0]: is of length 2"]);
    theta_refused(with(&with(&with(&ns(), "/t", json!([])), "/a", json!([])), "/b", json!([])), &["steps: is 0"]);
    card_refused(with(&card(), "/data_range", json!([0])), &["data_range", "length 1"]);
    card_refused(with(&card(), "/data_range", json!([0, 1, 2])), &["data_range"]);
}

#[test]
fn absurd_sizes_are_refused() {
    for steps in [json!(MAX_STEPS + 1), json!(u64::MAX), json!(1u64 << 32)] {
        theta_refused(with(&rk2(), "/steps", steps.clone()), &["steps", &steps.to_string(), "1 to 1000"]);
    }
    theta_refused(with(&rk2(), "/steps", json!(1e30)), &["steps"]);
    theta_refused(with(&rk2(), "/steps", json!(-1)), &["steps", "-1"]);
    let many = MAX_STEPS + 1;
    let knots = Knots::identity(many);
    let large = json!({"format": "bespoke-theta", "version": 1, "family": "rk1", "steps": many,
        "t": knots.t, "t_dot": knots.t_dot, "s": knots.s, "s_dot": knots.s_dot});
    theta_refused(large, &["steps", "1001"]);
    assert!(Theta::new(Family::Rk1(knots)).is_err());
    assert!(Theta::new(Family::Rk2(Knots::identity(2 * MAX_STEPS))).is_ok());
    let table = NsTable { t: vec![0.0; many], a: vec![1.0; many], b: (0..many).map(|i| vec![0.0; i + 1]).collect() };
    assert!(Theta::new(Family::Ns(table)).is_err());
    // Long strings and keys come back shortened.
    let long = "x".repeat(3_000_000);
    theta_refused(with(&rk1(), "/format", json!(long)), &["format"]);
    theta_refused(with(&rk1(), "/family", json!(long)), &["family"]);
    theta_refused(with(&rk1(), &format!("/{long}"), json!(1)), &["unknown field"]);
    theta_refused(with(&rk1(), "/steps", json!(long)), &["steps"]);
    theta_refused(with(&rk1(), "/model", json!([long])), &["model", "expected an object"]);
    card_refused(with(&card(), "/runtime", json!(long)), &["runtime"]);
    card_refused(with(&card(), "/scheduler/name", json!(long)), &["scheduler"]);
    for shape in
        [json!([]), json!([0]), json!([3, 0]), json!([1u64 << 40]), json!([65536, 65536]), json!([u64::MAX, 2])]
    {
        card_refused(with(&card(), "/shape", shape), &["shape", "2^31"]);
    }
    card_refused(with(&card(), "/shape", json!(vec![2; 300_000])), &["shape"]);
    card_refused(with(&card(), "/shape", json!([-8])), &["shape[0]", "-8"]);
    // More than any document of ours: refused before it is parsed.
    let spaces = vec![b' '; (64 << 20) + 1];
    refused(&load_theta, &spaces, &["larger than"]);
}

#[test]
fn deep_nesting_is_refused() {
    for depth in [200, 100_000] {
        let nested = "[".repeat(depth) + &"]".repeat(depth);
        let objects = "{\"k\":".repeat(depth) + "1" + &"}".repeat(depth);
        for inner in [&nested, &objects] {
            refused(&load_theta, inner.as_bytes(), &[]);
            let theta = rk2().to_string().replacen("\"digits\"", inner, 1);
            refused(&load_theta, theta.as_bytes(), &["model.name", "recursion limit"]);
            let theta = rk2().to_string().replacen("0.4", inner, 1);
            refused(&load_theta, theta.as_bytes(), &["t[1]"]);
            refused(&load_card, card().to_string().replacen("0.999", inner, 1).as_bytes(), &["time.end"]);
        }
    }
}

#[test]
fn values_of_another_type_are_named() {
    for wrong in [json!("1"), json!(true), json!(null), json!({"a": 1})] {
        for key in ["t", "t_dot", "s", "s_dot"] {
            if wrong.is_null() && key != "t" {
                // An optional key that is null is a key that is missing.
                theta_refused(with(&rk1(), &format!("/{key}"), wrong.clone()), &[key]);
                continue;
            }
            theta_refused(with(&rk1(), &format!("/{key}"), wrong.clone()), &[&format!(" {key}:"), "invalid type"]);
            theta_refused(with(&rk1(), &format!("/{key}/1"), wrong.clone()), &[&format!(" {key}[1]:"), "invalid type"]);
        }
        if !wrong.is_object() {
            theta_refused(with(&rk1(), "/model", wrong.clone()), &["model", "expected an object"]);
            card_refused(with(&card(), "/time", wrong.clone()), &["time", "invalid type"]);
        }
        card_refused(with(&card(), "/shape", wrong.clone()), &["shape", "invalid type"]);
        card_refused(with(&card(), "/data_range", wrong.clone()), &["data_range", "invalid type"]);
    }
    card_refused(with(&card(), "/output", json!("score")), &["output", "score", "velocity", "epsilon", "x1"]);
    card_refused(with(&card(), "/runtime", json!("jax")), &["runtime", "jax", "torchscript"]);
    card_refused(
        with(&card(), "/time/direction", json!("backwards")),
        &["time.direction", "backwards", "noise-to-data"],
    );
    card_refused(with(&card(), "/classes", json!(2.5)), &["classes", "2.5"]);
}

#[test]
fn a_card_out_of_range_is_named() {
    for end in [json!(0.0), json!(-0.5), json!(1.0001)] {
        card_refused(with(&card(), "/time/end", end.clone()), &["time.end", "(0, 1]"]);
    }
    for scale in [json!(0.0), json!(-1.0)] {
        card_refused(with(&card(), "/time/scale", scale), &["time.scale", "positive"]);
    }
    card_refused(with(&card(), "/classes", json!(-1)), &["classes", "-1"]);
    card_refused(with(&card(), "/classes", json!(i64::MAX)), &["classes"]);
    card_refused(without(&card(), "classes"), &["null_class", "classes is 0"]);
    // In C, -1 says that there is none.
    card_refused(with(&card(), "/null_class", json!(-1)), &["null_class", "-1", "at least 0"]);
    card_refused(with(&card(), "/null_class", json!(i64::MIN)), &["null_class", "at least 0"]);
    card_refused(with(&card(), "/data_range", json!([1, -1])), &["data_range", "[1, -1]"]);
    card_refused(with(&card(), "/data_range", json!([1, 1])), &["data_range"]);
    card_refused(with(&card(), "/scheduler", json!({"name": "vp", "beta_min": 30.0})), &["scheduler", "beta_min"]);
    card_refused(with(&card(), "/scheduler", json!({"name": "ddpm"})), &["scheduler", "ddpm"]);
    card_refused(
        with(&card(), "/scheduler", json!({"name": "fm-ot", "beta_min": 0.1})),
        &["scheduler", "beta_min", "fm-ot"],
    );
}

#[test]
fn a_folder_or_nothing_in_place_of_a_file_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    for load in [load_theta, load_card] {
        let error = load(folder.path()).unwrap();
        assert!(
            matches!(error, Error::Io { action: "read", .. }) && error.to_string().contains("directory"),
            "{error}"
        );
        let error = load(&folder.path().join("none.json")).unwrap();
        assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("none.json"), "{error}");
    }
    let theta = Theta::new(Family::Rk1(Knots::identity(2))).unwrap();
    let error = theta.save(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Io { action: "write", .. }), "{error}");
    let error = theta.save(&folder.path().join("no/such/theta.json")).unwrap_err();
    assert!(error.to_string().contains("no/such/theta.json"), "{error}");
    assert_eq!(contents(folder.path()), [], "a failed write leaves nothing behind");
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theta.json");
    Theta::new(Family::Rk1(Knots::identity(2))).unwrap().save(&path).unwrap();
    let before = contents(folder.path());

    /// Fails after a part of it has been written.
    struct Fails;
    impl serde::Serialize for Fails {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::{Error, SerializeSeq};
            let mut seq = serializer.serialize_seq(None)?;
            seq.serialize_element(&vec![1.0; 1000])?;
            Err(S::Error::custom("no more"))
        }
    }
    let error = document::write(&path, &Fails).unwrap_err();
    assert!(error.to_string().contains("theta.json") && error.to_string().contains("no more"), "{error}");
    assert_eq!(contents(folder.path()), before);

    // Where the target cannot be replaced, the rename fails after all has been written.
    let occupied = folder.path().join("occupied");
    std::fs::create_dir(&occupied).unwrap();
    std::fs::write(occupied.join("kept"), b"kept").unwrap();
    assert!(bespoke::output::write_bytes(&occupied, b"new").is_err());
    assert_eq!(std::fs::read(occupied.join("kept")).unwrap(), b"kept");
    assert_eq!(contents(folder.path()).len(), 2, "no temporary file is left");
}

#[test]
fn a_write_replaces_the_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theta.json");
    std::fs::write(&path, "x".repeat(100_000)).unwrap();
    let theta = Theta::new(Family::Rk2(Knots::identity(4))).unwrap();
    theta.save(&path).unwrap();
    assert_eq!(Theta::load(&path).unwrap(), theta);
    assert_eq!(contents(folder.path()).len(), 1);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("{\n") && text.ends_with("}\n"), "{text}");
    let keys = serde_json::from_str::<Value>(&text).unwrap();
    assert!(keys.get("model").is_none() && keys.get("a").is_none(), "empty keys are left out: {text}");
}

/// Any positive finite number, as its bits have it, that keeps quotients finite.
fn awkward() -> impl Strategy<Value = f64> {
    (0.0..1.0f64, -300i32..300).prop_map(|(m, e)| (1.0 + m) * 2f64.powi(e))
}

proptest! {
    #![proptest_config(proptest_config(60))]

    #[test]
    fn numbers_survive_a_round_trip_bit_for_bit(mut k in knots(2, 8), scale in proptest::collection::vec(awkward(), 8), seed: u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("theta.json");
        for (i, factor) in scale.iter().enumerate() {
            let (steps, last) = (k.t_dot.len(), k.s.len() - 1);
            k.t_dot[i % steps] *= factor;
            k.s_dot[i % steps] *= -factor;
            k.s[1 + i % last] *= factor.abs().sqrt();
        }
        let notes = json!({"seed": seed, "lr": 0.1 * scale[0], "list": scale, "none": null});
        let notes = Notes(notes.as_object().unwrap().clone());
        let n = k.t.len();
        let table = NsTable {
            t: k.t[..n - 1].to_vec(),
            a: k.s[1..].to_vec(),
            b: (0..n - 1).map(|i| k.s_dot[..=i].to_vec()).collect(),
        };
        for family in [Family::Rk1(k.clone()), Family::Rk2(k), Family::Ns(table)] {
            let Ok(theta) = Theta::new(family) else { continue };
            let theta = Theta { model: notes.clone(), training: notes.clone(), ..theta };
            theta.save(&path).unwrap();
            let again = Theta::load(&path).unwrap();
            prop_assert_eq!(bits(&again), bits(&theta));
            prop_assert_eq!(again, theta);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), byte: u8) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any.json");
        std::fs::write(&path, &bytes).unwrap();
        let _ = (Theta::load(&path), Card::load(&path));
        for document in [rk2(), ns(), card()] {
            let mut text = document.to_string().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            std::fs::write(&path, &text).unwrap();
            let _ = (Theta::load(&path), Card::load(&path));
        }
    }
}

fn bits(theta: &Theta) -> Vec<u64> {
    let lists: Vec<&Vec<f64>> = match &theta.family {
        Family::Rk1(k) | Family::Rk2(k) => vec![&k.t, &k.t_dot, &k.s, &k.s_dot],
        Family::Ns(table) => [&table.t, &table.a].into_iter().chain(&table.b).collect(),
    };
    lists.into_iter().flatten().map(|v| v.to_bits()).collect()
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_document() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theta.json");
    let theta = Theta::new(Family::Rk1(Knots::identity(2))).unwrap();
    let marked = format!("\u{feff}{}", theta.to_json().unwrap());
    std::fs::write(&path, &marked).unwrap();
    assert_eq!(Theta::load(&path).unwrap(), theta);
    assert_eq!(Theta::parse(&marked, "theta").unwrap(), theta);
    assert_eq!(bespoke::ladder::Ladder::load(&path).unwrap().rungs(), [theta]);
    let path: bespoke::path::GaussianPath = "\u{feff}{\"name\": \"vp\"}".parse().unwrap();
    assert_eq!(path.scheduler().name(), "vp");
}

#[test]
fn a_number_that_is_not_finite_is_named() {
    for (word, before) in [("Infinity", ""), ("-Infinity", "\n  "), ("NaN", ""), ("inf", " ")] {
        let text = format!("{{\"seed\": 1,\n \"lr\":{before}{word}}}");
        let error = document::parse::<bespoke::train::TrainConfig>(&text, "config").unwrap_err().to_string();
        assert!(error.starts_with(&format!("config: lr: is {word}, expected a finite number (line ")), "{error}");
    }
    let error = document::parse::<bespoke::train::TrainConfig>("{\"lr\": nonsense}", "config").unwrap_err().to_string();
    assert!(error.contains("line 1 column"), "{error}");
}

#[test]
fn a_number_that_json_has_no_name_for_is_found_where_it_stands() {
    use std::collections::BTreeMap;
    #[derive(serde::Serialize, Default)]
    struct Row {
        rmse: f64,
        #[serde(with = "document::any_number")]
        said: f64,
        #[serde(serialize_with = "document::or_null")]
        not_yet: f64,
        least: Option<f32>,
        pair: (f64, [f64; 2]),
        by_name: BTreeMap<String, Kind>,
    }
    #[derive(serde::Serialize)]
    #[serde(rename_all = "kebab-case")]
    enum Kind {
        Plain(f64),
        Both(f64, f64),
        Named { end: f64 },
    }
    let good = || Row { said: f64::INFINITY, not_yet: f64::NAN, ..Row::default() };
    let text = document::line(&vec![good()], "out.json").unwrap();
    assert_eq!(text, r#"[{"rmse":0.0,"said":"inf","not_yet":null,"least":null,"pair":[0.0,[0.0,0.0]],"by_name":{}}]"#);
    let named = |kind: Kind| Row { by_name: BTreeMap::from([("a b".to_owned(), kind)]), ..good() };
    for (row, says) in [
        (Row { rmse: f64::NAN, ..good() }, "out.json: results[1].rmse: is NaN, which JSON has no number for"),
        (Row { least: Some(f32::INFINITY), ..good() }, "out.json: results[1].least: is inf"),
        (Row { not_yet: f64::NEG_INFINITY, ..good() }, "out.json: results[1].not_yet: is -inf"),
        (Row { pair: (0.0, [0.0, f64::NAN]), ..good() }, "out.json: results[1].pair[1][1]: is NaN"),
        (named(Kind::Plain(f64::NAN)), "out.json: results[1].by_name.a b.plain: is NaN"),
        (named(Kind::Both(1.0, f64::NAN)), "out.json: results[1].by_name.a b.both[1]: is NaN"),
        (named(Kind::Named { end: f64::NAN }), "out.json: results[1].by_name.a b.named.end: is NaN"),
    ] {
        let whole = BTreeMap::from([("results", vec![good(), row])]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.json");
        let said = [
            document::text(&whole, "out.json").unwrap_err(),
            document::line(&whole, "out.json").unwrap_err(),
            document::value(&whole, "out.json").unwrap_err(),
            document::write(&path, &whole).unwrap_err(),
        ];
        for error in said {
            assert!(matches!(error, Error::Format { .. }) && error.to_string().contains(says), "{error}: not {says}");
        }
        assert!(!path.exists());
    }
    assert_eq!(document::line(&f64::NAN, "x").unwrap_err().to_string(), "x: is NaN, which JSON has no number for");
}

/// An .npy file of this header and data.
fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

#[test]
fn an_npy_header_tells_the_truth_or_is_refused() {
    use bespoke::npy::Samples;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    let header = |descr: &str, order: &str, shape: &str| {
        format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n")
    };
    let data: Vec<u8> = (0..128).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let values: Vec<f32> = (0..128).map(|i| i as f32).collect();
    for shape in ["(2, 1, 8, 8)", "(2, 64)"] {
        std::fs::write(&path, npy(&header("<f4", "False", shape), &data)).unwrap();
        let samples = Samples::open(&path, &[1, 8, 8]).unwrap();
        assert_eq!(samples.count(), 2);
        assert_eq!(samples.into_vec().unwrap(), values);
        // So many at a time as are asked for, to the sample.
        let mut parts = Vec::new();
        let take = |part: &[f32]| {
            parts.push(part.len());
            Ok(())
        };
        Samples::open(&path, &[1, 8, 8]).unwrap().for_each([0.0, 1.0], 1, take).unwrap();
        assert_eq!(parts, [64, 64]);
    }
    let deep = format!("({}", "(".repeat(60_000));
    let sample = &data[..256];
    for (shape, words) in [
        // Their numbers are 64 in arithmetic modulo 2^64.
        ("(288230376151711745, 1, 8, 8)", "x.npy: shape: is [288230376151711745, 1, 8, 8], more than the file holds"),
        ("(18446744073709551615, 1, 8, 8)", "more than the file holds"),
        ("(2, 1, 8, 8)", "more than the file holds in 3"),
        ("(18446744073709551616, 1, 8, 8)", "x.npy: header"),
        ("(-1, 1, 8, 8)", "x.npy: header"),
        ("(64,)", "expected [count] followed by [1, 8, 8]"),
        ("(1, 8, 8)", "expected [count] followed by [1, 8, 8]"),
        ("()", "expected [count] followed by [1, 8, 8]"),
        (&deep, "header: is of 60055 bytes, more than 8192"),
        // The parser doubles its time with each: of sixty it would not come back.
        (&format!("({}", "{".repeat(60)), "has 62 brackets, more than 8"),
    ] {
        std::fs::write(&path, npy(&header("<f4", "False", shape), sample)).unwrap();
        let error = Samples::open(&path, &[1, 8, 8]).err().unwrap().to_string();
        assert!(error.contains(words), "{shape:.40}: {error}");
    }
    for (descr, order, words) in [("<i4", "False", "dtype: is"), ("<f4", "True", "fortran_order: is true")] {
        std::fs::write(&path, npy(&header(descr, order, "(1, 1, 8, 8)"), sample)).unwrap();
        let error = Samples::open(&path, &[1, 8, 8]).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
    // A header of 4 GB is not read, and one that is cut off is.
    for (bytes, words) in [
        (&b"\x93NUMPY\x02\x00\xff\xff\xff\xff{"[..], "header: is of 4294967295 bytes"),
        (b"\x93NUMPY\x01\x00\xff\x00{", "header: is not whole"),
        (b"\x93NUM", "header: is not whole"),
        (b"PNG.........", "header: is not that of an .npy file"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = Samples::open(&path, &[1, 8, 8]).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_safetensors_header_tells_the_truth_or_is_refused() {
    use bespoke::stored::Stored;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let file = |header: &str, data: &[u8]| [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
    let tensor = |shape: &str, from: u64, to: u64| {
        format!("{{\"x\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}}}")
    };
    std::fs::write(&path, file(&tensor("[2,2]", 0, 16), &[0; 16])).unwrap();
    let stored = Stored::open(&path).unwrap().unwrap();
    assert_eq!(stored.rows("x", safetensors::Dtype::F32, 2).unwrap(), 2);
    assert_eq!(stored.read("x", safetensors::Dtype::F32, 2, 1, 1).unwrap(), [0; 8]);
    assert!(stored.read("x", safetensors::Dtype::F32, 2, 1, usize::MAX).is_err());
    assert!(stored.rows("x", safetensors::Dtype::F32, 4).is_err());
    // As others write them: metadata without an entry, a header that is padded.
    let padded = format!("{{\"__metadata__\":{{}},{}   ", &tensor("[2,2]", 0, 16)[1..]);
    std::fs::write(&path, file(&padded, &[0; 16])).unwrap();
    assert_eq!(Stored::open(&path).unwrap().unwrap().rows("x", safetensors::Dtype::F32, 2).unwrap(), 2);
    let huge = tensor("[4611686018427387903]", 0, 18446744073709551612);
    let part = "{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}";
    let twice = format!("{{\"x\":{part},\"x\":{part}}}");
    let shared = format!("{{\"x\":{part},\"y\":{part}}}");
    for (bytes, words) in [
        (file(&tensor("[2,2]", 0, 16), &[0; 12]), "is not its bytes 0 to 16 of 12"),
        (file(&tensor("[2,2]", 0, 16), &[0; 20]), "its tensors end after 16 of 20"),
        (file(&tensor("[2,3]", 0, 16), &[0; 16]), "is not its bytes"),
        (file(&tensor("[2,2]", 16, 0), &[0; 16]), "is not its bytes"),
        // The end and the header's length come to the file's size in arithmetic modulo 2^64.
        (file(&huge, &[0; 4]), "is not its bytes"),
        (file("{}", b"").split_off(4), "is no whole safetensors file"),
        (u64::MAX.to_le_bytes().to_vec(), "its header is of 18446744073709551615 bytes"),
        // Twice, of which a map would keep the last.
        (file(&twice, &[0; 16]), "duplicate field `x`"),
        // What the format keeps for itself is no tensor's name.
        (file(&tensor("[2,2]", 0, 16).replace("\"x\"", "\"__metadata__\""), &[0; 16]), "is no whole safetensors file"),
        (file(&shared, &[0; 16]), "y: begins at 0, but the bytes before it end at 16"),
        (file(&tensor("[2]", 8, 16), &[0; 16]), "x: begins at 8, but the bytes before it end at 0"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = Stored::open(&path).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(Stored::open(&folder.path().join("absent")).unwrap().is_none());
    // Conditions are such files too, read as a whole.
    std::fs::write(&path, file(&huge, &[0; 4])).unwrap();
    let error = bespoke::stored::check(&std::fs::read(&path).unwrap(), "conditions").unwrap_err().to_string();
    assert!(error.starts_with("conditions: is no whole safetensors file: x: "), "{error}");
}
