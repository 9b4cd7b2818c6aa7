//! Fréchet distance, precision and recall against scipy and code of others (tests/golden/make_frechet.py).

use crate::tree::root;
use bespoke::card::FeatureCard;
use bespoke::distance::{Features, Moments, NEIGHBOURS, SampleSet, frechet, precision_recall};
use bespoke::tensor::Device;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn golden() -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join("frechet.json")).unwrap()).unwrap()
}

fn folder() -> PathBuf {
    root().join("tests/golden")
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn moments(values: &[f32], features: usize, batch: usize) -> Moments {
    let mut moments = Moments::new(features);
    values.chunks(batch * features).for_each(|part| moments.add(part).unwrap());
    moments
}

#[test]
fn distances_are_those_of_others() {
    let golden = golden();
    let cases = golden["distances"].as_array().unwrap();
    assert!(cases.len() >= 3);
    for case in cases {
        let (a, b) = (numbers(&case["a"]), numbers(&case["b"]));
        let features = case["features"].as_u64().unwrap() as usize;
        let expected = case["frechet"].as_f64().unwrap();
        for batch in [7, 1000] {
            let (ours, theirs) = (moments(&a, features, batch), moments(&b, features, batch));
            for found in [frechet(&ours, &theirs).unwrap(), frechet(&theirs, &ours).unwrap()] {
                assert!((found - expected).abs() < 1e-4 * expected, "{}: {found}, expected {expected}", case["name"]);
            }
            assert!(frechet(&ours, &ours).unwrap() < 1e-4 * expected, "{}", case["name"]);
        }
        let shares = precision_recall(&a, &b, features, NEIGHBOURS).unwrap();
        assert_eq!(shares.precision, case["precision"].as_f64().unwrap(), "{}", case["name"]);
        assert_eq!(shares.recall, case["recall"].as_f64().unwrap(), "{}", case["name"]);
    }
}

/// What the literature's network would see; features large beside their spread, where sums of squares fail.
#[test]
fn moments_do_not_depend_on_batches_or_offsets() {
    let values: Vec<f32> = (0..900).map(|i| ((i * 37 % 101) as f32).sin() + 4096.0).collect();
    let whole = moments(&values, 3, 300).covariance().unwrap();
    let parts = moments(&values, 3, 11).covariance().unwrap();
    let shifted: Vec<f32> = values.iter().map(|v| v - 4096.0).collect();
    let small = moments(&shifted, 3, 300).covariance().unwrap();
    for (a, (b, c)) in whole.iter().zip(parts.iter().zip(small.iter())) {
        assert!((a - b).abs() < 1e-10 && (a - c).abs() < 1e-10, "{a} {b} {c}");
    }
}

#[test]
fn blocks_of_points_agree_with_pairs() {
    // More points than a block holds.
    let scattered = |i: usize, k: f64| ((i as f64 * k).sin() * 43758.5453).fract() as f32;
    let point = |i: usize| [scattered(i, 12.9898), scattered(i, 78.233)];
    let a: Vec<f32> = (0..700).flat_map(point).collect();
    let b: Vec<f32> = (700..1300).flat_map(|i| point(i).map(|v| v * 1.2 + 0.1)).collect();
    let distance =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum() };
    let radii = |points: &[f32]| -> Vec<f64> {
        let radius = |(i, p): (usize, &[f32])| {
            let others = points.chunks(2).enumerate().filter(|(j, _)| *j != i);
            let mut found: Vec<f64> = others.map(|(_, q)| distance(p, q)).collect();
            found.sort_by(f64::total_cmp);
            found[NEIGHBOURS - 1]
        };
        points.chunks(2).enumerate().map(radius).collect()
    };
    let share = |points: &[f32], of: &[f32]| {
        let radii = radii(of);
        let inside = |p: &&[f32]| of.chunks(2).zip(&radii).any(|(q, r)| distance(p, q) <= *r);
        points.chunks(2).filter(inside).count() as f64 / (points.len() / 2) as f64
    };
    let found = precision_recall(&a, &b, 2, NEIGHBOURS).unwrap();
    let expected = (share(&b, &a), share(&a, &b));
    assert_eq!((found.precision, found.recall), expected);
    assert!(expected.0 > 0.2 && expected.0 < 1.0 && expected.1 > 0.2 && expected.1 < 1.0, "{expected:?}");
}

fn write_card(folder: &Path, card: &Value) -> PathBuf {
    let path = folder.join("features.json");
    std::fs::write(&path, card.to_string()).unwrap();
    path
}

#[cfg(feature = "torch")]
#[test]
fn networks_see_what_their_cards_say() {
    let scratch = tempfile::TempDir::new().unwrap();
    let golden = golden();
    for case in golden["networks"].as_array().unwrap() {
        let mut card = case["card"].clone();
        card["weights"] = json!(folder().join(card["weights"].as_str().unwrap()));
        let shape: Vec<usize> = serde_json::from_value(case["shape"].clone()).unwrap();
        let features = Features::open(&write_card(scratch.path(), &card), Device::Cpu, &shape, [-1.0, 1.0]).unwrap();
        let size = 2 * shape.iter().product::<usize>();
        let samples: Vec<f32> = (0..size).map(|i| ((0.37 * i as f64).sin() * 1.1) as f32).collect();
        let (found, width) = features.of(&samples).unwrap();
        let expected = numbers(&case["features"]);
        assert_eq!((found.len(), width), (expected.len(), expected.len() / 2), "{}", case["name"]);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{}: {found} {expected}", case["name"]);
        }
    }
}

/// Distances and their gradients against the authors' code of LPIPS (tests/golden/make_layers.py).
#[cfg(feature = "torch")]
#[test]
fn layers_are_compared_as_by_lpips() {
    let scratch = tempfile::TempDir::new().unwrap();
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(folder().join("layers.json")).unwrap()).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let mut card = case["card"].clone();
        card["weights"] = json!(folder().join(card["weights"].as_str().unwrap()));
        let shape: Vec<usize> = serde_json::from_value(case["shape"].clone()).unwrap();
        let features = Features::open(&write_card(scratch.path(), &card), Device::Cpu, &shape, [-1.0, 1.0]).unwrap();
        let elements = shape.iter().product::<usize>();
        let samples = |phase: f64| -> Vec<f32> {
            (0..2 * elements).map(|i| ((0.37 * i as f64 + phase).sin() * 1.1) as f32).collect()
        };
        let (truth, width) = features.layers(&samples(0.9)).unwrap();
        let mut distances = Vec::new();
        let gradient = features.layers_vjp(&samples(0.0), &mut |layers, _| {
            let difference: Vec<f32> = layers.iter().zip(&truth).map(|(a, b)| a - b).collect();
            distances = difference.chunks(width).map(|own| own.iter().map(|v| v * v).sum::<f32>()).collect();
            Ok(vec![difference.iter().map(|v| 2.0 * v).collect(), vec![0.0; difference.len()]])
        });
        let gradient = gradient.unwrap();
        let close = |found: &[f32], expected: &Value, what: &str| {
            let expected = numbers(expected);
            let largest = expected.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            assert!(largest > 0.0 && found.len() == expected.len(), "{}: {what}", case["name"]);
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-4 * largest, "{}: {what} {found} {expected}", case["name"]);
            }
        };
        close(&distances, &case["distances"], "distance");
        close(&gradient[0], &case["gradient"], "gradient");
        assert!(gradient[1].iter().all(|v| *v == 0.0), "each cotangent has its own product");
    }
}

/// A place without any activation has no direction: LPIPS itself has a NaN for its gradient.
#[cfg(feature = "torch")]
#[test]
fn a_layer_that_is_zero_has_a_gradient() {
    let scratch = tempfile::TempDir::new().unwrap();
    let card = json!({
        "format": "bespoke-features", "version": 1, "runtime": "torchscript",
        // Its features are asked for by an argument, and zero without.
        "weights": folder().join("features-several.pt"), "layers": [{ "output": 1 }],
    });
    let features = Features::open(&write_card(scratch.path(), &card), Device::Cpu, &[3, 6, 6], [-1.0, 1.0]).unwrap();
    let (layers, _) = features.layers(&[0.3; 108]).unwrap();
    assert!(layers.iter().all(|v| *v == 0.0));
    let found = features.layers_vjp(&[0.3; 108], &mut |layers, _| Ok(vec![vec![1.0; layers.len()]])).unwrap();
    assert!(found[0].iter().all(|v| v.is_finite()));
}

#[cfg(feature = "torch")]
#[test]
fn a_network_that_does_not_fit_its_card_is_named() {
    let scratch = tempfile::TempDir::new().unwrap();
    let refused = |change: Value, shape: &[usize], expected: &str| {
        let mut card = json!({
            "format": "bespoke-features", "version": 1, "runtime": "torchscript",
            "weights": folder().join("features-named.pt"), "output": "pool3",
        });
        card.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let samples = vec![0.5; 2 * shape.iter().product::<usize>()];
        let error = Features::open(&write_card(scratch.path(), &card), Device::Cpu, shape, [-1.0, 1.0])
            .and_then(|features| features.of(&samples).map(drop))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    };
    refused(json!({ "output": "pool4" }), &[3, 2, 2], "pool4");
    refused(json!({ "output": 7 }), &[3, 2, 2], "keys");
    let compared = |change: Value, expected: &str| {
        let mut card = json!({
            "format": "bespoke-features", "version": 1, "runtime": "torchscript",
            "weights": folder().join("features-named.pt"), "output": "pool3",
        });
        card.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let features = Features::open(&write_card(scratch.path(), &card), Device::Cpu, &[3, 2, 2], [-1.0, 1.0]);
        let error = features.unwrap().layers(&[0.5; 24]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    };
    compared(json!({ "layers": [{ "output": "pool3" }, { "output": "pool5" }] }), "pool5");
    compared(json!({ "quantize": true }), "quantize");
    refused(json!({ "channels": 3 }), &[2, 2, 3], "channels");
    refused(json!({ "mean": [0.0, 0.0] }), &[3, 2, 2], "mean");
    refused(json!({ "weights": folder().join("absent.pt") }), &[3, 2, 2], "absent.pt");
    refused(json!({}), &[3, 2, 3], "libtorch");
}

#[cfg(not(feature = "torch"))]
#[test]
fn a_network_needs_libtorch_and_says_so() {
    let card = root().join("models/digits-features.json");
    let error = Features::open(&card, Device::Cpu, &[1, 8, 8], [-1.0, 1.0]).err().unwrap().to_string();
    assert!(error.contains("libtorch") && error.contains("pixels"), "{error}");
}

#[test]
fn cards_are_read_strictly() {
    let scratch = tempfile::TempDir::new().unwrap();
    let good = json!({ "format": "bespoke-features", "version": 1, "runtime": "pixels" });
    assert!(FeatureCard::load(&write_card(scratch.path(), &good)).is_ok());
    let network = json!({ "runtime": "torchscript", "weights": "x.pt" });
    for (change, expected) in [
        (json!({ "format": "bespoke-model" }), "format"),
        (json!({ "version": 2 }), "version"),
        (json!({ "runtime": "onnx" }), "runtime"),
        (json!({ "weights": "x.pt" }), "weights"),
        (json!({ "runtime": "torchscript" }), "weights"),
        (json!({ "mean": [0.5] }), "mean"),
        (json!({ "range": [1, 0] }), "range"),
        (json!({ "layer": 3 }), "layer"),
        (json!({ "resize": { "size": [0, 9], "filter": "bilinear" } }), "resize"),
        (json!({ "resize": { "size": [9, 9], "filter": "nearest" } }), "filter"),
        (json!({ "std": [0.0] }), "std"),
        (json!({ "arguments": ["x"] }), "arguments"),
        (json!({ "output": true }), "output"),
        (json!({ "layers": [{ "output": true }] }), "layers[0].output"),
        (json!({ "layers": [{ "output": 1 }, { "output": 1, "weight": 0 }] }), "layers[1].weight"),
        (json!({ "layers": [{ "output": 1, "weight": 1e300 }] }), "layers[0].weight"),
        (json!({ "layers": [] }), "layers"),
        (json!({ "layers": [{ "output": 1, "weights": 1 }] }), "weights"),
        (json!({ "channels": 0 }), "channels"),
    ] {
        let mut card = good.clone();
        if !["format", "version", "runtime", "weights"].contains(&expected) && expected != "mean" && expected != "range"
        {
            card.as_object_mut().unwrap().extend(network.as_object().unwrap().clone());
        }
        card.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let error = FeatureCard::load(&write_card(scratch.path(), &card)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
}

#[test]
fn sets_gather_what_they_are_given() {
    let scratch = tempfile::TempDir::new().unwrap();
    let card = json!({ "format": "bespoke-features", "version": 1, "runtime": "pixels", "range": [0, 10] });
    let features = Features::open(&write_card(scratch.path(), &card), Device::Cpu, &[2], [-1.0, 1.0]).unwrap();
    let values: Vec<f32> = (0..80).map(|i| (i as f32 * 0.7).sin()).collect();
    let moved: Vec<f32> = values.iter().map(|v| v + 0.2).collect();
    let gather = |values: &[f32], batch: usize| {
        let mut set = SampleSet::default();
        values.chunks(2 * batch).for_each(|part| set.add(&features, part).unwrap());
        set
    };
    let mut reference = gather(&values, 9);
    // Two features, each moved by a tenth of the range [0, 10].
    let found = reference.distance(&gather(&moved, 40)).unwrap();
    assert!((found.frechet - 2.0).abs() < 1e-4, "{found:?}");
    let itself = reference.distance(&gather(&values, 40)).unwrap();
    assert!(itself.frechet < 1e-9, "{itself:?}");
    assert_eq!(itself.precision_recall.map(|p| (p.precision, p.recall)), Some((1.0, 1.0)));
    assert_eq!(reference.distance(&gather(&values[..4], 1)).unwrap().precision_recall, None);
    assert!(reference.distance(&gather(&values[..2], 1)).unwrap_err().to_string().contains("at least 2"));
}
