//! The loss of distances in the layers of a feature network.

use crate::tree::root;
use bespoke::distance::Features;
use bespoke::dopri5::Tolerance;
use bespoke::model::{self, Model};
use bespoke::noise::Purpose;
use bespoke::ranks::Ranks;
use bespoke::samples::Conditioning;
use bespoke::tensor::Device;
use bespoke::train::loss::{direct_loss, feature_derivative};
use bespoke::train::{
    Coordinates, Objective, Outcome, Parameters, Pool, PoolOptions, Progress, Structure, Terms, TrainConfig, Trained,
    train_config,
};
use bespoke::velocity::VelocityField;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn model() -> PathBuf {
    root().join("models/digits-fm-ot.json")
}

fn opened() -> (Model, Features) {
    let features = root().join("models/digits-features.json");
    let features = Features::open(&features, Device::Cpu, &[1, 8, 8], [-1.0, 1.0]).unwrap();
    (model::open(&model(), Device::Cpu).unwrap(), features)
}

fn terms(losses: Value) -> Terms {
    let config: TrainConfig = serde_json::from_value(json!({ "loss": losses })).unwrap();
    let objectives = Objective::of_list(&config.loss).unwrap();
    assert_eq!(objectives.len(), 1);
    *objectives[0].end().unwrap()
}

/// The gradient's projection on itself, by differences of the loss.
#[test]
fn gradients_of_features_and_of_sums_are_those_of_the_loss() {
    let (model, features) = opened();
    let field = model.torch_field().unwrap();
    let conditioning = Conditioning { classes: 10, ..Conditioning::default() };
    let tolerance = Tolerance { rtol: 1e-5, atol: 1e-5 };
    let options = PoolOptions { purpose: Purpose::Train, seed: 3, indices: 0..6, chunk: 6, tolerance, dense: false };
    let pool = Pool::solve(field, &conditioning, &options).unwrap();
    let parameters = Parameters::identity(Structure::Ns(4)).in_coordinates(Coordinates::Table).unwrap();
    for losses in [json!("features"), json!(["log-mse:1", "features:0.3"]), json!(["rmse:2", "features:0.5"])] {
        let terms = terms(losses.clone());
        let at = |parameters: &Parameters| {
            direct_loss(&terms, Some(&features), parameters, field, &pool, &[0, 1, 2, 3, 4, 5]).unwrap()
        };
        let found = at(&parameters).gradient;
        let length = found.iter().map(|v| v * v).sum::<f64>().sqrt();
        let moved = |h: f64| {
            let values = parameters.values.iter().zip(&found).map(|(v, g)| v + h * g / length).collect();
            at(&Parameters { values, ..parameters.clone() }).loss
        };
        let h = 2e-3;
        let slope = (moved(h) - moved(-h)) / (2.0 * h);
        println!("{losses}: {slope} {length}");
        assert!((slope - length).abs() < 0.01 * length, "{losses}: {slope} by differences, {length}");
    }
}

fn config(changes: &Value) -> TrainConfig {
    let mut document = json!({
        "model": model(), "features": root().join("models/digits-features.json"), "family": "ns", "nfe": 3,
        "init": "ab2@3", "iterations": 8, "batch": 100, "pool": 250, "validation": 200,
    });
    document.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    serde_json::from_value(document).unwrap()
}

fn trained(changes: Value) -> bespoke::Result<Outcome> {
    train_config(&config(&changes), &Ranks::alone(), &mut |_: &Progress| ControlFlow::Continue(()))
}

/// What is best for the one is not for the other: each goes on from where the other ended.
#[test]
fn each_loss_is_judged_by_what_it_is_of() {
    let scratch = tempfile::TempDir::new().unwrap();
    let of = |loss: Value, init: &str, out: &str| {
        let (init, out) =
            (if init == "ab2@3" { json!(init) } else { json!(scratch.path().join(init)) }, scratch.path().join(out));
        let options = json!({ "loss": loss, "optimizer": "gauss-newton", "init": init, "out": out });
        trained(options).unwrap().rungs.swap_remove(0)
    };
    let seen = |trained: &Trained| (trained.best.rmse, trained.best.features.unwrap());
    let numbers = of(json!("log-mse"), "ab2@3", "numbers.json");
    let features = of(json!("features"), "numbers.json", "features.json");
    let back = of(json!("log-mse"), "features.json", "back.json");
    let both = of(json!(["log-mse:1", "features:0.3"]), "ab2@3", "both.json");
    println!("{:?}, {:?}, {:?}, {:?}", seen(&numbers), seen(&features), seen(&back), seen(&both));
    assert!(seen(&features).1 < seen(&numbers).1);
    assert!(seen(&back).0 < seen(&features).0);
    assert!(both.best.features.unwrap() < 0.8 * both.start.features.unwrap(), "{:?} {:?}", both.best, both.start);
    let notes = &both.theta.training.0;
    assert_eq!(notes["loss"], json!(["log-mse:1", "features:0.3"]));
    assert_eq!(notes["features"], json!("digits-features"));
    assert_eq!(notes["validation"]["features"], json!(both.best.features));
    assert_eq!(features.theta.training.0["loss"], json!("features"));
}

#[test]
fn by_adam_too() {
    let outcome = trained(json!({ "loss": "features", "optimizer": "adam", "iterations": 40, "lr": 5e-3 })).unwrap();
    let Trained { best, start, .. } = &outcome.rungs[0];
    assert!(best.features.unwrap() < 0.9 * start.features.unwrap(), "{best:?} {start:?}");
}

#[test]
fn by_forward_passes_alone_too() {
    let outcome = trained(json!({ "loss": "features", "optimizer": "forward-gauss-newton" })).unwrap();
    let Trained { best, start, evaluations, .. } = &outcome.rungs[0];
    assert_eq!(evaluations.backward, 0);
    assert!(best.features.unwrap() < 0.75 * start.features.unwrap(), "{best:?} {start:?}");
}

/// Layers along a direction of the samples, against their gradient.
#[test]
fn derivatives_of_layers_are_those_of_autograd() {
    let (model, features) = opened();
    let field = model.torch_field().unwrap();
    let noise = |seed| bespoke::noise::normal(seed, Purpose::Sample, 0..5, 64).unwrap();
    let (end, direction) = (field.upload(&noise(1), 64).unwrap(), field.upload(&noise(2), 64).unwrap());
    let (along, width) = feature_derivative(&features, &end, &direction).unwrap();
    let weights = bespoke::noise::normal(3, Purpose::Sample, 0..5, width).unwrap();
    let gradient = features.layers_vjp(&noise(1), &mut |_, _| Ok(vec![weights.clone()])).unwrap().swap_remove(0);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let size = dot(&along, &along).sqrt() * dot(&weights, &weights).sqrt();
    let (forward, backward) = (dot(&along, &weights), dot(&gradient, &noise(2)));
    assert!((forward - backward).abs() < 1e-3 * size, "{forward} {backward} {size}");
    let still = field.upload(&[0.0; 5 * 64], 64).unwrap();
    assert!(feature_derivative(&features, &end, &still).unwrap().0.iter().all(|v| *v == 0.0));
}

#[test]
fn a_run_that_is_gone_on_with_gives_the_same_theta() {
    let scratch = tempfile::TempDir::new().unwrap();
    let changes = |checkpoint: &str| {
        json!({
            "loss": ["log-mse:1", "features:0.3", "features"], "checkpoint": scratch.path().join(checkpoint),
            "resume": true, "iterations": 3, "validate_every": 1,
        })
    };
    let whole = trained(changes("whole")).unwrap();
    let config = config(&changes("stopped"));
    let mut left = 2;
    let stopped = train_config(&config, &Ranks::alone(), &mut |_: &Progress| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(stopped.unwrap().stopped);
    let resumed = train_config(&config, &Ranks::alone(), &mut |_: &Progress| ControlFlow::Continue(())).unwrap();
    assert_eq!(resumed.rungs[0].theta.to_json().unwrap(), whole.rungs[0].theta.to_json().unwrap());
}

/// A card of a network that answers this.
fn made_up(folder: &Path, name: &str, answer: impl Fn(&tch::Tensor) -> tch::Tensor) -> PathBuf {
    let images = [tch::Tensor::rand([2, 1, 8, 8], (tch::Kind::Float, tch::Device::Cpu))];
    let module = tch::CModule::create_by_tracing(name, "forward", &images, &mut |x| vec![answer(&x[0])]).unwrap();
    module.save(folder.join(name)).unwrap();
    let card = json!({ "format": "bespoke-features", "version": 1, "runtime": "torchscript", "weights": name });
    std::fs::write(folder.join(format!("{name}.json")), card.to_string()).unwrap();
    folder.join(format!("{name}.json"))
}

/// Before the ground truth, which is the long part.
#[test]
fn networks_that_no_loss_can_be_made_of_are_refused_at_once() {
    let scratch = tempfile::TempDir::new().unwrap();
    let of = |name: &str, answer: &dyn Fn(&tch::Tensor) -> tch::Tensor| made_up(scratch.path(), name, answer);
    let flat = |x: &tch::Tensor| x.flatten(1, -1);
    for (card, expected) in [
        (of("constant", &|x| flat(x) * 0.0 + 1.0), "differ between two samples"),
        (of("random", &|x| flat(&x.rand_like())), "the same for the same samples"),
        (of("detached", &|x| flat(&x.detach())), "no gradient"),
        (of("integers", &|x| flat(x).to_kind(tch::Kind::Int64)), "floating-point"),
        (of("words", &|x| x.reshape([-1, 8, 8])), "height, width"),
        (of("single", &|x| x.shallow_clone()), "n at least 2"),
        (of("pairs", &|x| x.reshape([-1, 128])), "images"),
    ] {
        let truth = scratch.path().join("pool.safetensors");
        let error =
            trained(json!({ "loss": "features", "features": card, "pool_file": truth })).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(card.to_str().unwrap()), "{error}, expected {expected}");
        assert!(!truth.exists());
    }
    let large = of("large", &|x| flat(x) * 1e22);
    trained(json!({ "loss": "features", "features": large, "iterations": 1 })).unwrap();
    // Without gradients it needs none.
    let detached = scratch.path().join("detached.json");
    let options =
        json!({ "loss": "features", "features": detached, "optimizer": "forward-gauss-newton", "iterations": 1 });
    trained(options).unwrap();
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let scratch = tempfile::TempDir::new().unwrap();
    let pixels = scratch.path().join("pixels.json");
    let card = json!({ "format": "bespoke-features", "version": 1, "runtime": "pixels" });
    std::fs::write(&pixels, card.to_string()).unwrap();
    for (changes, expected) in [
        (json!({ "loss": "features", "features": null }), "features"),
        (json!({ "loss": "features", "features": pixels }), "log-mse"),
        (json!({ "loss": ["log-mse:1", "features:1"], "optimizer": "forward-gauss-newton" }), "forward-gauss-newton"),
        (json!({ "loss": ["rmse-bound:1", "features:1"], "family": "rk2", "init": null }), "rmse-bound:1"),
        (json!({ "loss": ["log-mse:1", "log-mse:2"] }), "once"),
        (json!({ "loss": ["log-mse:1", "features"] }), "log-mse:1"),
        (json!({ "loss": ["log-mse", "features:0.3"] }), "features:0.3"),
        (json!({ "loss": ["log-mse:1", "features:0.3", "rmse:2", "log-mse"], "features": null }), "features"),
    ] {
        let error = trained(changes.clone()).unwrap_err().to_string();
        assert!(error.contains(expected), "{changes}: {error}");
    }
    for loss in ["features:0", "features:-1", "features:x", "features:", "lpips", "features:inf", ":1", "log-mse:1:2"] {
        let error = serde_json::from_value::<TrainConfig>(json!({ "loss": loss })).unwrap_err().to_string();
        assert!(error.contains(loss) && error.contains("log-mse"), "{loss}: {error}");
    }
}
