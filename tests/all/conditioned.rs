//! A network conditioned on tensors, through TorchScript: trained, evaluated and sampled over files of conditions.

use bespoke::model::{self, Model};
use bespoke::ranks::Ranks;
use bespoke::tensor::{Compute, Device, PerRow, Tensor};
use bespoke::train::{Asked, Progress, TrainConfig, conditioning, train_config};
use bespoke::velocity::{Condition, VelocityField};
use safetensors::tensor::{Dtype as Stored, TensorView, serialize_to_file};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tch::{CModule, Kind};

/// Traces u(time, x, goal, gain) = gain (goal's mean over tokens - x) + sin(3 time), time as a column of integers
/// from 1000 to 0.
fn policy(folder: &Path) {
    let float = (Kind::Float, tch::Device::Cpu);
    let inputs = [
        tch::Tensor::from_slice(&[500i64, 20]).reshape([2, 1]),
        tch::Tensor::randn([2, 3], float),
        tch::Tensor::randn([2, 4, 3], float),
        tch::Tensor::randn([2], float),
    ];
    let mut body = |inputs: &[tch::Tensor]| {
        let time: tch::Tensor = (inputs[0].to_kind(Kind::Float) - 1000) * -1e-3;
        let goal = inputs[2].mean_dim(&[1i64][..], false, Kind::Float);
        vec![inputs[3].unsqueeze(1) * (goal - &inputs[1]) + (time * 3).sin()]
    };
    CModule::create_by_tracing("Policy", "forward", &inputs, &mut body)
        .unwrap()
        .save(folder.join("policy.pt"))
        .unwrap();
    let card = json!({
        "format": "bespoke-model", "version": 1, "weights": "policy.pt", "runtime": "torchscript", "shape": [3],
        "output": "velocity", "scheduler": { "name": "fm-ot" }, "order": ["time", "x"],
        "time": { "direction": "data-to-noise", "scale": 1000, "dtype": "int64", "shape": "column" },
        "inputs": [{ "name": "goal", "dtype": "float32", "shape": ["tokens", 3], "null": 0 },
                   { "name": "gain", "dtype": "float32", "shape": [] }]
    });
    std::fs::write(folder.join("policy.json"), card.to_string()).unwrap();
}

fn conditions(path: &Path, rows: usize, tokens: usize, shift: f32) -> PathBuf {
    let bytes = |values: Vec<f32>| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let goal = bytes((0..rows * tokens * 3).map(|i| (i as f32 * 0.37 + shift).sin()).collect());
    let gain = bytes((0..rows).map(|i| 1.0 + i as f32 / rows as f32).collect());
    let views = [
        ("goal", TensorView::new(Stored::F32, vec![rows, tokens, 3], &goal).unwrap()),
        ("gain", TensorView::new(Stored::F32, vec![rows], &gain).unwrap()),
    ];
    serialize_to_file(views, &None, path).unwrap();
    path.to_owned()
}

fn opened(folder: &Path) -> Model {
    model::open_in(&folder.join("policy.json"), Device::Cpu, Compute::F32).unwrap()
}

#[test]
fn a_torchscript_module_is_given_its_inputs_its_order_and_its_time() {
    let folder = tempfile::tempdir().unwrap();
    policy(folder.path());
    let file = conditions(&folder.path().join("c.safetensors"), 5, 4, 0.0);
    let mut model = opened(folder.path());
    let asked = Asked { guidance_scale: Some("2.5".parse().unwrap()), conditions: &[file], ..Asked::default() };
    let condition = conditioning(&mut model, asked).unwrap().of(3..7).unwrap();
    let field = model.torch_field().unwrap();
    let x: Vec<f32> = (0..12).map(|i| (i as f32 * 0.9).cos()).collect();
    let times = [0.2504, 0.5, 0.75, 0.9996];
    let u = field.eval(PerRow::Each(&times), &field.upload(&x, 3).unwrap(), &condition).unwrap().to_f32().unwrap();
    for row in 0..4 {
        let i = (3 + row) % 5;
        let gain = 1.0 + i as f64 / 5.0;
        let time = 1.0 - (1000.0 * (1.0 - times[row])).round() / 1000.0;
        for k in 0..3 {
            let goal = (0..4).map(|token| ((i * 12 + token * 3 + k) as f64 * 0.37).sin()).sum::<f64>() / 4.0;
            let pass = |goal: f64| gain * (goal - f64::from(x[3 * row + k])) + (3.0 * time).sin();
            let expected = pass(0.0) + 2.5 * (pass(goal) - pass(0.0));
            let found = f64::from(u[3 * row + k]);
            assert!((found - expected).abs() < 1e-5, "row {row}: {found} is not {expected}");
        }
    }
}

fn config(folder: &Path, changes: Value) -> TrainConfig {
    let mut config = json!({
        "model": folder.join("policy.json"), "steps": 2, "iterations": 6, "pool": 80, "batch": 40, "validation": 50,
        "conditions": [folder.join("c.safetensors")], "rtol": 1e-4, "atol": 1e-4
    });
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

#[test]
fn training_over_conditions_learns_and_notes_them() {
    let folder = tempfile::tempdir().unwrap();
    policy(folder.path());
    conditions(&folder.path().join("c.safetensors"), 7, 4, 0.0);
    let (pool, out) = (folder.path().join("pool.safetensors"), folder.path().join("theta.json"));
    let run = |changes: Value| {
        let mut first = None;
        let outcome = train_config(&config(folder.path(), changes), &Ranks::alone(), &mut |progress: &Progress| {
            first = first.or(Some(progress.validation.rmse));
            ControlFlow::Continue(())
        });
        outcome.map(|outcome| (outcome.rungs[0].theta.clone(), first.unwrap(), outcome.rungs[0].best.rmse))
    };
    let (theta, start, end) = run(json!({ "guidance_scale": 1.5, "pool_file": pool, "out": out })).unwrap();
    assert!(end < 0.5 * start, "{start} to {end}");
    let digest = theta.model.0.get("conditions").and_then(Value::as_str).unwrap().to_owned();
    assert!(digest.starts_with("sha256:"), "{digest}");
    // The same again from the pool on disk, to the bit; other conditions are refused by name.
    let (again, _, _) = run(json!({ "guidance_scale": 1.5, "pool_file": pool, "out": out })).unwrap();
    assert_eq!(theta.family, again.family);
    conditions(&folder.path().join("c.safetensors"), 7, 4, 0.5);
    let message = run(json!({ "guidance_scale": 1.5, "pool_file": pool })).unwrap_err().to_string();
    assert!(message.contains("conditions"), "{message}");
    // Nor does a checkpoint of theirs go on with others.
    let checkpoint = folder.path().join("checkpoint");
    conditions(&folder.path().join("c.safetensors"), 7, 4, 0.0);
    run(json!({ "checkpoint": checkpoint })).unwrap();
    conditions(&folder.path().join("c.safetensors"), 7, 4, 0.5);
    let message = run(json!({ "checkpoint": checkpoint, "resume": true })).unwrap_err().to_string();
    assert!(message.contains("conditions"), "{message}");
    let (other, _, _) = run(json!({ "guidance_scale": 1.5 })).unwrap();
    assert_ne!(other.model.0.get("conditions").and_then(Value::as_str).unwrap(), digest);
    let none = TrainConfig { conditions: Vec::new(), ..config(folder.path(), json!({})) };
    let refused = train_config(&none, &Ranks::alone(), &mut |_: &Progress| ControlFlow::Continue(()));
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("conditions is absent") && message.contains("goal"), "{message}");
}

#[test]
fn a_condition_is_needed_where_the_network_takes_one() {
    let folder = tempfile::tempdir().unwrap();
    policy(folder.path());
    let model = opened(folder.path());
    let field = model.torch_field().unwrap();
    let x = field.upload(&[0.0; 3], 3).unwrap();
    let message = field.eval(PerRow::All(0.5), &x, &Condition::default()).unwrap_err().to_string();
    assert!(message.starts_with("inputs.goal is absent"), "{message}");
}
