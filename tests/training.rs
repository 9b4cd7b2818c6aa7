//! The training loop: what it promises whatever the model.

use bespoke::Error;
use bespoke::fields::{Mixture, MixtureDocument, MixtureField};
use bespoke::scheduler::Scheduler;
use bespoke::tensor::{Host, PerRow};
use bespoke::train::{Conditioning, Outcome, Progress, Settings, TrainConfig, Trained, train};
use bespoke::velocity::{Condition, VelocityField};
use serde_json::json;
use std::ops::ControlFlow;

const UNCONDITIONAL: Conditioning = Conditioning { classes: 0, class: None, guidance_scale: 1.0 };

fn field() -> MixtureField<f64> {
    let means = vec![vec![1.0, 0.5], vec![-0.8, 0.2], vec![0.1, -1.1], vec![-0.4, 0.9]];
    let document = MixtureDocument { std: 0.3, means, weights: None, class: None };
    MixtureField::new(Mixture::new(document).unwrap(), Scheduler::FmOt, None)
}

/// Small settings with `changes` on top.
fn settings(changes: serde_json::Value) -> Settings {
    let mut document = json!({ "steps": 3, "iterations": 10, "pool": 160, "batch": 40, "validation": 100 });
    let object = document.as_object_mut().unwrap();
    object.extend(changes.as_object().unwrap().clone());
    if changes["resolve"] == true {
        object.remove("pool");
    }
    let config: TrainConfig = serde_json::from_value(document).unwrap();
    config.settings(2.0, None).unwrap()
}

fn run(settings: &Settings) -> Outcome {
    train(&field(), &UNCONDITIONAL, settings, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn every_recipe_beats_its_start() {
    for changes in [
        json!({}),
        json!({ "loss": "rmse" }),
        json!({ "family": "rk1", "steps": 6 }),
        json!({ "family": "ns", "steps": 6 }),
        json!({ "loss": "rmse-bound", "iterations": 60, "lr": 0.01 }),
        json!({ "loss": "rmse", "optimizer": "adam", "iterations": 60, "lr": 0.01 }),
        json!({ "loss": "rmse-bound", "resolve": true, "iterations": 30, "lr": 0.02 }),
        json!({ "pool_refresh": 4 }),
    ] {
        let outcome = run(&settings(changes.clone()));
        println!("{changes}: {:.5} from {:.5}", outcome.best.rmse, outcome.start.rmse);
        assert!(outcome.best.rmse < 0.8 * outcome.start.rmse, "{changes}: {:?} from {:?}", outcome.best, outcome.start);
        assert!(outcome.best.psnr > outcome.start.psnr);
    }
}

#[test]
fn the_same_seed_gives_the_same_theta() {
    for changes in [json!({ "seed": 4 }), json!({ "seed": 4, "loss": "rmse-bound" })] {
        assert_eq!(run(&settings(changes.clone())).theta, run(&settings(changes)).theta);
    }
    assert_ne!(run(&settings(json!({ "seed": 4 }))).theta, run(&settings(json!({ "seed": 5 }))).theta);
}

#[test]
fn the_best_by_validation_is_the_result_never_the_last() {
    // A learning rate that ruins the solver: the start is the best there ever was.
    let ruinous = settings(json!({ "loss": "rmse", "optimizer": "adam", "lr": 0.5, "validate_every": 1 }));
    let mut seen = Vec::new();
    let outcome = train(&field(), &UNCONDITIONAL, &ruinous, &mut |progress: &Progress| {
        seen.push(progress.validation.rmse);
        ControlFlow::Continue(())
    })
    .unwrap();
    let least = seen.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(seen.last().unwrap() > &least, "the last is not the best: {seen:?}");
    assert_eq!(outcome.best.rmse, least);
    assert_eq!(outcome.theta.training.0["validation"]["rmse"], json!(least));
}

#[test]
fn an_observer_can_stop_it_and_sees_what_is_spent() {
    let mut last = None;
    let outcome = train(&field(), &UNCONDITIONAL, &settings(json!({})), &mut |progress: &Progress| {
        if let Some(previous) = last.replace(*progress) {
            assert!(progress.evaluations.forward > previous.evaluations.forward);
        }
        if progress.iteration == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert!(outcome.stopped);
    assert_eq!(last.unwrap().iteration, 3);
    assert_eq!(outcome.evaluations, last.unwrap().evaluations);
    assert!(outcome.evaluations.backward > 0);
}

#[test]
fn evaluations_are_counted_exactly() {
    // A bound-loss iteration of rk2 evaluates two stages forward and both again with one backward.
    let count = |iterations: usize| {
        let changes = json!({ "loss": "rmse-bound", "iterations": iterations, "validate_every": 1000 });
        run(&settings(changes)).evaluations
    };
    let (few, more) = (count(3), count(5));
    assert_eq!(more.forward - few.forward, 2 * 40 * 3 * 4);
    assert_eq!(more.backward - few.backward, 2 * 40 * 3 * 2);
}

#[test]
fn settings_are_refused_by_name() {
    for (changes, named) in [
        (json!({ "steps": 0 }), "steps"),
        (json!({ "steps": 1001 }), "steps"),
        (json!({ "batch": 0 }), "batch"),
        (json!({ "pool": 10, "batch": 20 }), "pool"),
        (json!({ "lr": 0.0 }), "lr"),
        (json!({ "l_tau": -1.0 }), "l_tau"),
        (json!({ "rtol": 0.0 }), "rtol"),
        (json!({ "family": "ns", "loss": "rmse-bound" }), "loss"),
        (json!({ "loss": "rmse-bound", "optimizer": "gauss-newton" }), "optimizer"),
        (json!({ "resolve": true, "pool": 100 }), "resolve"),
    ] {
        let config: TrainConfig = serde_json::from_value(changes.clone()).unwrap();
        match config.settings(2.0, None) {
            Err(Error::Invalid { field, .. }) => assert_eq!(field, named, "{changes}"),
            other => panic!("{changes}: {other:?}"),
        }
    }
}

/// A field that turns to NaN from `t` on.
struct Broken(f64);

impl VelocityField for Broken {
    type Tensor = Host<f64>;
    fn elements(&self) -> usize {
        2
    }
    fn upload(&self, values: &[f32]) -> bespoke::Result<Host<f64>> {
        Host::from_f32(values, 2)
    }
    fn eval(&self, t: PerRow<'_>, x: &Host<f64>, _: &Condition) -> bespoke::Result<Host<f64>> {
        let of = |(i, v): (usize, &f64)| if t.at(i / 2) < self.0 { -v } else { f64::NAN };
        Host::new(x.data().iter().enumerate().map(of).collect(), 2)
    }
}

#[test]
fn a_broken_field_is_an_error_not_a_theta() {
    for from in [0.0, 0.5] {
        let outcome = train(&Broken(from), &UNCONDITIONAL, &settings(json!({})), &mut |_| ControlFlow::Continue(()));
        assert!(outcome.is_err_and(|e| !e.to_string().is_empty()));
    }
}
