//! The shipped models of clothes, through libtorch.

use crate::tree::root;
use bespoke::dopri5::Tolerance;
use bespoke::evaluate::Ready;
use bespoke::model::{self, Model};
use bespoke::reference::Solver;
use bespoke::samples::{GuidanceScale, Noises};
use bespoke::tensor::{Device, Tensor};
use bespoke::train::{Asked, conditioning};
use bespoke::velocity::VelocityField;
use std::path::PathBuf;

const MODELS: [&str; 2] = ["fashion-fm-ot", "fashion-ddpm"];
const ELEMENTS: usize = 28 * 28;
/// Four of each class.
const COUNT: usize = 40;

fn path(file: &str) -> PathBuf {
    root().join("models").join(file)
}

fn opened(name: &str) -> Model {
    model::open(&path(&format!("{name}.json")), Device::Cpu).unwrap()
}

/// Samples at this scale of guidance, and their classes.
fn drawn(model: &mut Model, solver: &str, scale: f64) -> (Vec<f32>, Vec<i64>) {
    let path = model.card().gaussian_path().unwrap();
    let ready = Ready::new(&Solver::parse(solver).unwrap(), &path, Tolerance::default()).unwrap();
    let asked = Asked { guidance_scale: Some(GuidanceScale::one(scale)), ..Asked::default() };
    let condition = conditioning(model, asked).unwrap().of(0..COUNT).unwrap();
    let field = model.torch_field().unwrap();
    let noise = Noises::Seed { seed: 0, count: COUNT }.read(0..COUNT, ELEMENTS).unwrap();
    let x0 = field.start(&noise, ELEMENTS).unwrap();
    let samples = ready.solve(field, &x0, &condition).unwrap().0.to_f32().unwrap();
    (samples, condition.inputs.get("class").unwrap().integers().unwrap().to_vec())
}

/// By the judge, which has seen neither model.
#[test]
fn samples_are_the_clothes_that_were_asked_for() {
    let classifier = tch::CModule::load(path("fashion-classifier.pt")).unwrap();
    for name in MODELS {
        let (samples, asked) = drawn(&mut opened(name), "unipc@12", 2.5);
        let images = tch::Tensor::from_slice(&samples).reshape([-1, 1, 28, 28]);
        let seen = Vec::<i64>::try_from(classifier.forward_ts(&[images]).unwrap().argmax(1, false)).unwrap();
        let right = seen.iter().zip(&asked).filter(|(seen, asked)| seen == asked).count();
        assert!(right * 100 >= COUNT * 85, "{name}: {right} of {COUNT}");
    }
}

/// DDIM as its authors write it, on the steps 999, 949, ... 49 of the thousand that the network was trained on and on to
/// step 0, against the card's reading of the same network.
#[test]
fn the_card_of_ddpm_reads_the_thousand_steps_that_it_was_trained_on() {
    const STRIDE: usize = 50;
    let mut product = 1.0f64;
    let alphas: Vec<f64> = (0..1000)
        .map(|i| {
            product *= 1.0 - (1e-4 + (0.02 - 1e-4) * f64::from(i) / 999.0);
            product
        })
        .collect();
    let module = tch::CModule::load(path("fashion-ddpm.pt")).unwrap();
    let noise = Noises::Seed { seed: 0, count: COUNT }.read(0..COUNT, ELEMENTS).unwrap();
    let mut x = tch::Tensor::from_slice(&noise).reshape([-1, 1, 28, 28]);
    let class = tch::Tensor::from_slice(&(0..COUNT as i64).map(|i| i % 10).collect::<Vec<_>>());
    for step in (STRIDE - 1..1000).step_by(STRIDE).rev() {
        // An integer, as diffusers gives it.
        let time = tch::Tensor::full([COUNT as i64], step as i64, (tch::Kind::Int64, tch::Device::Cpu));
        let epsilon = tch::no_grad(|| module.forward_ts(&[&x, &time, &class])).unwrap();
        let (here, next) = (alphas[step], alphas[step.saturating_sub(STRIDE)]);
        let x1 = (x - &epsilon * (1.0 - here).sqrt()) / here.sqrt();
        x = x1 * next.sqrt() + epsilon * (1.0 - next).sqrt();
    }
    let expected = Vec::<f32>::try_from(x.flatten(0, -1)).unwrap();
    // The same steps: solver time runs from step 999 to step 0.
    let times = (0..20).map(|k| (f64::from(k) * STRIDE as f64 / 999.0).to_string()).chain(["1".to_owned()]);
    let solver = format!("ddim@20:{}", times.collect::<Vec<_>>().join(","));
    let (samples, _) = drawn(&mut opened("fashion-ddpm"), &solver, 1.0);
    let squares: f64 = samples.iter().zip(&expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let rmse = (squares / samples.len() as f64).sqrt();
    let spread = expected.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / expected.len() as f64;
    assert!(spread > 0.3, "nothing was drawn: {spread}");
    assert!(rmse < 1e-3, "{rmse}");
}

#[test]
fn features_that_train_and_features_that_judge_are_two_networks() {
    let weights = |name: &str| {
        let text = std::fs::read_to_string(path(&format!("{name}.json"))).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["weights"].clone()
    };
    for sees in ["fashion-features", "fashion-layers"] {
        assert_ne!(weights(sees), weights("fashion-judge"));
    }
    for name in MODELS {
        let text = std::fs::read_to_string(path(&format!("{name}.json"))).unwrap();
        let card: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(card["features"], "fashion-judge.json", "{name}");
        let bytes = std::fs::metadata(path(&format!("{name}.pt"))).unwrap().len();
        assert!(bytes < 6_000_000, "{name}: {bytes} bytes");
    }
}
