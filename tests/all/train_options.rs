//! Options of training: flags, documents and their schema are of one definition, and say what is done.

use crate::tree::{program, root};
use assert_cmd::Command;
use bespoke::train::{Settings, TrainConfig};
use predicates::str::contains;
use serde_json::{Map, Value, json};

fn bespoke() -> Command {
    let mut command = Command::new(program());
    command.current_dir(root());
    command
}

fn schema() -> String {
    String::from_utf8(bespoke().args(["train", "--schema"]).assert().success().get_output().stdout.clone()).unwrap()
}

fn properties() -> Map<String, Value> {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    schema["properties"].as_object().unwrap().clone()
}

#[test]
fn the_committed_schema_is_the_printed_one() {
    let path = root().join("docs/train.schema.json");
    let printed = schema();
    if std::env::var_os("BESPOKE_WRITE_HEADER").is_some() {
        std::fs::write(&path, &printed).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == printed,
        "docs/train.schema.json is not what src/train/config.rs says; mend it with make header"
    );
}

#[test]
fn every_key_is_a_flag_and_every_flag_says_what_the_schema_says() {
    let help = bespoke().args(["train", "--help"]).assert().success().get_output().stdout.clone();
    let help = String::from_utf8(help).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    for (key, property) in properties() {
        // A host's own field has no command line.
        let flag = format!("--{} ", key.replace('_', "-"))
            .replace("--resolve ", "--resolve[")
            .replace("--resume ", "--resume[");
        assert_eq!(help.contains(&flag), key != "field", "{flag}");
        if key != "field" {
            let said = property["description"].as_str().unwrap().trim_end_matches('.');
            assert!(help.contains(&said.split_whitespace().collect::<Vec<_>>().join(" ")), "{key}: {said}");
        }
    }
}

fn settings(config: &Value) -> Settings {
    serde_json::from_value::<TrainConfig>(config.clone()).unwrap().settings(2.0, None).unwrap()
}

/// Every default that is one value is the one that is taken.
#[test]
fn defaults_are_what_is_said() {
    let mut checked = Vec::new();
    for (key, property) in properties() {
        let text = property["description"].as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        let Some(said) = text.split_once("[default: ").map(|(_, rest)| rest.split_once(']').unwrap().0) else {
            continue;
        };
        let said = said.split_once("; ").map_or(said, |(said, _)| said);
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|_| json!(text));
        if said.starts_with("no limit") || said.starts_with("a twelfth") {
            continue;
        }
        // "1200 for adam, 30 for gauss-newton", or one value.
        for said in said.split(", ") {
            let (said, whose) = said.split_once(" for ").unwrap_or((said, ""));
            let said = said.trim_start_matches("else ");
            let mut bare = json!({});
            match whose {
                // A batch that is given stays at any nfe.
                "forward-gauss-newton" if key == "batch" => continue,
                "adam" | "gauss-newton" | "forward-gauss-newton" => bare["optimizer"] = json!(whose),
                "rk2" => bare["family"] = json!(whose),
                "" if text.contains("else 10]") => bare["family"] = json!("ns"),
                other => assert_eq!(other, "", "{key}"),
            }
            let mut explicit = bare.clone();
            explicit[&key] = value(said);
            assert_eq!(settings(&explicit), settings(&bare), "{key} is said to be {said} {whose}");
            checked.push(key.clone());
        }
    }
    for key in
        ["batch", "iterations", "steps", "family", "loss", "optimizer", "lr", "pool", "validation", "rtol", "atol"]
    {
        assert!(checked.contains(&key.to_owned()), "the default of {key} is not said: {checked:?}");
    }
}

#[test]
fn flags_win_over_the_document_and_lists_may_be_split() {
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("train.json");
    let text = json!({ "model": "absent.json", "out": "x.json", "family": "ns", "steps": 4, "init": "rk2" });
    std::fs::write(&document, text.to_string()).unwrap();
    let run = |options: &[&str]| {
        let mut command = bespoke();
        command.args(["train", "--config"]).arg(&document).args(options);
        command.assert().failure()
    };
    run(&[]).stderr(contains("absent.json"));
    run(&["--model", "other.json"]).stderr(contains("other.json"));
    run(&["--resolve=maybe"]).code(2).stderr(contains("true, false"));
    run(&["--family", "rk3"]).code(2).stderr(contains("rk1, rk2, ns"));
    // `resume` without a checkpoint beside it is refused, unless the flag takes it back.
    let model = "models/digits-mixture.json";
    let text = json!({ "model": model, "out": folder.path().join("x.json"), "resolve": true, "pool": 500, "rtol": 0 });
    std::fs::write(&document, text.to_string()).unwrap();
    run(&[]).code(2).stderr(contains("resolve"));
    run(&["--resolve=false"]).code(2).stderr(contains("rtol"));
    run(&["--resolve=false", "--rtol", "1e-5", "--nfe", "8,10", "--nfe", "7"]).code(2).stderr(contains("nfe is 7"));
    // Counts given here stand for both in the document.
    let text = json!({ "model": model, "out": folder.path().join("x.json"), "steps": 4, "rtol": 0 });
    std::fs::write(&document, text.to_string()).unwrap();
    run(&["--nfe", "10"]).code(2).stderr(contains("rtol"));
}

#[test]
fn one_solver_is_trained_for_a_range_of_guidance_scales() {
    let folder = tempfile::tempdir().unwrap();
    let train = |name: &str, more: &[&str]| -> Value {
        let out = folder.path().join(name);
        let small = ["--nfe", "4", "--pool", "60", "--validation", "30", "--batch", "30", "--iterations", "3"];
        let mut command = bespoke();
        command.args(["train", "--quiet", "--model", "models/digits-mixture.json", "--out"]).arg(&out).args(small);
        command.args(more).assert().success();
        serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap()
    };
    let range = train("range.json", &["--guidance-scale", "1..3"]);
    assert_eq!(range["model"]["guidance_scale"], json!([1.0, 3.0]));
    let rmse = |theta: &Value| theta["training"]["validation"]["rmse"].as_f64().unwrap();
    let one = train("one.json", &["--guidance-scale", "3"]);
    assert_eq!(one["model"]["guidance_scale"], json!(3.0));
    // What is drawn is another set of samples: not those of either end.
    let none = train("none.json", &["--guidance-scale", "1"]);
    assert!(rmse(&range) != rmse(&one) && rmse(&range) != rmse(&none));
    // The same run again is the same, and another seed draws others.
    assert_eq!(range, train("again.json", &["--guidance-scale", "1..3"]));
    assert_ne!(
        range["training"]["validation"],
        train("seed.json", &["--guidance-scale", "1..3", "--seed", "5"])["training"]["validation"]
    );
    // A document says the same.
    let config = folder.path().join("train.json");
    std::fs::write(&config, r#"{"guidance_scale": [1, 3]}"#).unwrap();
    assert_eq!(range, train("document.json", &["--config", config.to_str().unwrap()]));
    let mut wrong = bespoke();
    wrong.args(["train", "--model", "models/digits-mixture.json", "--nfe", "4", "--out", "x.json"]);
    wrong.args(["--guidance-scale", "3..1"]).assert().code(2).stderr(contains("guidance_scale is 3..1"));
}
