//! The shipped digits models, through libtorch.

use crate::tree::root;
use bespoke::evaluate::Ready;
use bespoke::model::{self, Model, ModelField};
use bespoke::ranks::Ranks;
use bespoke::reference::Solver;
use bespoke::samples::{GuidanceScale, Noises};
use bespoke::tensor::{Compute, Device, PerRow, Tensor};
use bespoke::torch::TorchTensor;
use bespoke::train::{Asked, Progress, TrainConfig, conditioning, train_config};
use bespoke::velocity::VelocityField;
use bespoke::{Error, dopri5::Tolerance};
use std::ops::ControlFlow;
use std::path::PathBuf;

const MODELS: [&str; 3] = ["digits-fm-ot", "digits-cosine", "digits-vp"];

fn path(file: &str) -> PathBuf {
    root().join("models").join(file)
}

fn opened(name: &str, compute: Compute) -> Model {
    model::open_in(&path(&format!("{name}.json")), Device::Cpu, compute).unwrap()
}

/// Share of 1,000 guided ground-truth samples in which the shipped classifier sees the class that
/// was asked for.
#[test]
fn samples_are_the_digits_that_were_asked_for() {
    const COUNT: usize = 400;
    let classifier = tch::CModule::load(path("digits-classifier.pt")).unwrap();
    for name in MODELS {
        let mut model = model::open(&path(&format!("{name}.json")), Device::Cpu).unwrap();
        let tolerance = Tolerance { rtol: 1e-3, atol: 1e-3 };
        let truth = Ready::new(&Solver::GroundTruth, &model.card().gaussian_path().unwrap(), tolerance).unwrap();
        let asked = Asked { guidance_scale: Some(GuidanceScale::one(2.0)), ..Asked::default() };
        let condition = conditioning(&mut model, asked).unwrap().of(0..COUNT).unwrap();
        let field = model.torch_field().unwrap();
        let noise = Noises::Seed { seed: 0, count: COUNT }.read(0..COUNT, 64).unwrap();
        let samples = truth.solve(field, &field.start(&noise, 64).unwrap(), &condition).unwrap().0.to_f32().unwrap();
        let images = tch::Tensor::from_slice(&samples).reshape([-1, 1, 8, 8]);
        let seen = Vec::<i64>::try_from(classifier.forward_ts(&[images]).unwrap().argmax(1, false)).unwrap();
        let right = seen
            .iter()
            .zip(condition.inputs.get("class").unwrap().integers().unwrap())
            .filter(|(seen, asked)| seen == asked)
            .count();
        println!("{name}: {right} of {COUNT} are the digit asked for");
        assert!(right * 100 >= COUNT * 95, "{name}: {right} of {COUNT}");
    }
}

/// The vector-Jacobian product through network, conversion and guidance against differences.
#[test]
fn gradients_flow_through_the_whole_model() {
    for name in MODELS {
        let model = opened(name, Compute::F32);
        let field = model.torch_field().unwrap();
        let noise = Noises::Seed { seed: 1, count: 12 }.read(0..12, 64).unwrap();
        let (x, w) = (field.upload(&noise[..6 * 64], 64).unwrap(), field.upload(&noise[6 * 64..], 64).unwrap());
        let condition = crate::common::condition(&(0..6).collect::<Vec<_>>(), &[1.0, 2.5, 1.0, 0.5, 2.0, 1.0]);
        let t = 0.6;
        let vjp = field.vjp(PerRow::All(t), &x, &condition, std::slice::from_ref(&w)).unwrap();
        let project = |t: f64, x: &bespoke::torch::TorchTensor| {
            let u = field.eval(PerRow::All(t), x, &condition).unwrap();
            bespoke::torch::TorchTensor::fetch(&[&u.dot(&w).unwrap()]).unwrap().swap_remove(0)
        };
        let h = 1e-2;
        let fetch = |column| bespoke::torch::TorchTensor::fetch(&[column]).unwrap().swap_remove(0);
        let (above, below) = (project(t + h, &x), project(t - h, &x));
        let by_time = fetch(&vjp.t[0]);
        let along = &w;
        let shifted = |h: f64| Tensor::linear_combination(&[(PerRow::All(1.0), &x), (PerRow::All(h), along)]).unwrap();
        let (ahead, behind) = (project(t, &shifted(h)), project(t, &shifted(-h)));
        let by_x = fetch(&vjp.x[0].dot(along).unwrap());
        for row in 0..6 {
            let checks = [
                (by_time[row], (above[row] - below[row]) / (2.0 * h)),
                (by_x[row], (ahead[row] - behind[row]) / (2.0 * h)),
            ];
            for (exact, difference) in checks {
                assert!(
                    (exact - difference).abs() < 0.02 * exact.abs() + 0.1,
                    "{name}, row {row}: {exact} and {difference}"
                );
            }
        }
    }
}

/// bf16 has eight bits: what comes out is near, and not the same. Only the calls of that field are in it.
#[test]
fn a_network_in_bf16_gives_f32_velocities_that_are_near() {
    for name in MODELS {
        let models = (opened(name, Compute::F32), opened(name, Compute::Bf16));
        let (exact, rounded) = (models.0.torch_field().unwrap(), models.1.torch_field().unwrap());
        let noise = Noises::Seed { seed: 2, count: 40 }.read(0..40, 64).unwrap();
        let condition = crate::common::condition(&(0..20).map(|i| i % 10).collect::<Vec<_>>(), &[2.0; 20]);
        let (x, w) = (exact.upload(&noise[..20 * 64], 64).unwrap(), exact.upload(&noise[20 * 64..], 64).unwrap());
        let eval = |field: &ModelField<TorchTensor>| field.eval(PerRow::All(0.6), &x, &condition).unwrap();
        let vjp = |field: &ModelField<TorchTensor>| {
            field.vjp(PerRow::All(0.6), &x, &condition, std::slice::from_ref(&w)).unwrap().x.remove(0)
        };
        let near = |found: Vec<f32>, expected: &[f32], what: &str| {
            let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
            let error = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied());
            assert!(error > 1e-5 && error < 3e-2, "{name}: {what} is {error} away");
        };
        let u = eval(exact).to_f32().unwrap();
        let by_x = vjp(exact).to_f32().unwrap();
        near(eval(rounded).to_f32().unwrap(), &u, "the velocity");
        near(vjp(rounded).to_f32().unwrap(), &by_x, "its gradient");
        assert_eq!(eval(exact).to_f32().unwrap(), u, "{name}");
    }
}

#[test]
fn a_short_training_in_bf16_beats_midpoint_and_says_so() {
    let config: TrainConfig = serde_json::from_value(serde_json::json!({
        "model": path("digits-fm-ot.json"), "steps": 3, "iterations": 3, "batch": 60, "pool": 100, "validation": 60,
        "dtype": "bf16", "rtol": 1e-3, "atol": 1e-3
    }))
    .unwrap();
    let outcome =
        train_config(&config, &Ranks::alone(), &mut |_: &Progress| ControlFlow::Continue(())).unwrap().rungs.remove(0);
    assert!(outcome.best.rmse < 0.8 * outcome.start.rmse, "{:?} from {:?}", outcome.best, outcome.start);
    assert_eq!(outcome.theta.model.0["dtype"], "bf16");
}

#[test]
fn a_short_training_beats_midpoint() {
    let config: TrainConfig = serde_json::from_value(serde_json::json!({
        "model": path("digits-fm-ot.json"), "steps": 5, "iterations": 12, "batch": 200, "pool": 300, "validation": 200
    }))
    .unwrap();
    let outcome =
        train_config(&config, &Ranks::alone(), &mut |_: &Progress| ControlFlow::Continue(())).unwrap().rungs.remove(0);
    println!("rmse {:.5} from {:.5}", outcome.best.rmse, outcome.start.rmse);
    assert!(outcome.best.rmse < 0.6 * outcome.start.rmse, "{:?} from {:?}", outcome.best, outcome.start);
    assert_eq!(outcome.theta.model.0["name"], "digits-fm-ot");
}

#[test]
fn what_a_device_or_file_lacks_is_said() {
    // On a machine with a GPU this index is still out of reach.
    let missing = model::open(&path("digits-fm-ot.json"), Device::Cuda(1000));
    assert!(
        matches!(missing, Err(Error::Unsupported(message)) if message.contains("cuda:1000") || message.contains("CUDA"))
    );
    let folder = tempfile::TempDir::new().unwrap();
    let card = folder.path().join("card.json");
    std::fs::copy(path("digits-fm-ot.json"), &card).unwrap();
    let open = || model::open(&card, Device::Cpu).err().unwrap().to_string();
    assert!(open().contains("digits-fm-ot.pt"), "{}", open());
    std::fs::write(folder.path().join("digits-fm-ot.pt"), b"not a zip archive").unwrap();
    assert!(open().contains("not a TorchScript module"), "{}", open());
}
