//! The training loop: what it promises whatever the model.

use bespoke::Error;
use bespoke::dopri5::{self, Tolerance};
use bespoke::evaluate::{Comparison, Ready, evaluate_watched};
use bespoke::model::CallerField;
use bespoke::networks::{Mixture, MixtureDocument, MixtureField};
use bespoke::path::GaussianPath;
use bespoke::ranks::Ranks;
use bespoke::reference::Solver;
use bespoke::sampler::{self, Plan};
use bespoke::samples::{Conditioning, Noises};
use bespoke::scheduler::Scheduler;
use bespoke::solvers::NamedSolver;
use bespoke::tensor::{Host, PerRow};
use bespoke::theta::{Family, Knots};
use bespoke::train::{Optimizer, Outcome, Progress, Settings, Start, TrainConfig, Trained, Watch, train};
use bespoke::velocity::{Condition, VelocityField};
use serde_json::json;
use std::ops::ControlFlow;
use std::sync::Arc;

const UNCONDITIONAL: Conditioning = Conditioning::NONE;

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

fn run_all(settings: &Settings) -> Outcome {
    train(&field(), &UNCONDITIONAL, settings, &mut |_: &Progress| ControlFlow::Continue(())).unwrap()
}

/// The only solver of a run.
fn run(settings: &Settings) -> Trained {
    let mut outcome = run_all(settings);
    assert_eq!(outcome.rungs.len(), 1);
    outcome.rungs.remove(0)
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
        json!({ "loss": ["rmse-bound", "log-mse"], "iterations": [20, 6], "lr": 0.01 }),
        json!({ "learn": "t" }),
        json!({ "family": "ns", "steps": 5, "init": "published" }),
        json!({ "family": "ns", "steps": 5, "optimizer": "gauss-newton" }),
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
    assert_eq!(outcome.rungs[0].best.rmse, least);
    assert_eq!(outcome.rungs[0].theta.training.0["validation"]["rmse"], json!(least));
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

/// Notes what it is told.
#[derive(Default)]
struct Noting {
    shares: Vec<f64>,
    iterations: Vec<usize>,
}

impl Watch for Noting {
    fn ground_truth(&mut self, share: f64) {
        assert!(self.iterations.is_empty(), "the ground truth comes first");
        self.shares.push(share);
    }

    fn iteration(&mut self, progress: &Progress) -> ControlFlow<()> {
        self.iterations.push(progress.iteration);
        ControlFlow::Continue(())
    }
}

#[test]
fn whoever_watches_sees_the_ground_truth_grow() {
    // More than one batch of each pool.
    let mut noting = Noting::default();
    train(&field(), &UNCONDITIONAL, &settings(json!({ "pool": 300, "validation": 600 })), &mut noting).unwrap();
    let shares = noting.shares;
    assert!(shares.len() > 20, "{shares:?}");
    assert!(shares[0] > 0.0 && shares[0] < 0.2, "{shares:?}");
    assert!(shares.windows(2).all(|pair| pair[0] < pair[1] && pair[1] - pair[0] < 0.3), "{shares:?}");
    assert!((shares.last().unwrap() - 1.0).abs() < 1e-12, "{shares:?}");
    assert_eq!(noting.iterations, (0..=10).collect::<Vec<_>>());
}

#[test]
fn whoever_watches_an_evaluation_sees_it_grow() {
    let path = GaussianPath::new(Scheduler::FmOt, 1.0).unwrap();
    let solver =
        |name: &str| (name.to_owned(), Ready::new(&Solver::parse(name).unwrap(), &path, Tolerance::default()).unwrap());
    let comparison = Comparison {
        solvers: vec![solver("midpoint@8"), solver("gt")],
        noises: Noises::Seed { seed: 0, count: 300 },
        tolerance: Tolerance::default(),
        range: 2.0,
    };
    let mut shares = Vec::new();
    let watch = &mut |share| shares.push(share);
    let evaluation =
        evaluate_watched(&field(), &UNCONDITIONAL, &comparison, &Ranks::alone(), watch, |_, _| Ok(())).unwrap();
    assert_eq!(evaluation.count, 300);
    assert!(shares.len() > 20 && shares[0] > 0.0 && shares[0] < 0.2, "{shares:?}");
    assert!(shares.windows(2).all(|pair| pair[0] <= pair[1]), "{shares:?}");
    assert!((shares.last().unwrap() - 1.0).abs() < 1e-12, "{shares:?}");
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
        (json!({ "nfe": 7 }), "nfe"),
        (json!({ "nfe": 0 }), "nfe"),
        (json!({ "nfe": [8, 7] }), "nfe"),
        (json!({ "nfe": 10, "steps": 4 }), "steps"),
        (json!({ "steps": [4, 5, 4] }), "steps"),
        (json!({ "family": "ns", "learn": "t" }), "learn"),
        (json!({ "iterations": [3, 4] }), "iterations"),
        (json!({ "budget": 0 }), "budget"),
        (json!({ "init": "midpoint@10" }), "init"),
        (json!({ "family": "ns", "steps": 7, "init": "rk2" }), "init"),
        (json!({ "family": "ns", "steps": 8, "init": "midpoint@6" }), "init"),
        (json!({ "family": "ns", "steps": 8, "init": "ddim@8" }), "init"),
        (json!({ "family": "ns", "steps": 8, "init": "gt" }), "init"),
    ] {
        let config: TrainConfig = serde_json::from_value(changes.clone()).unwrap();
        match config.settings(2.0, None) {
            Err(Error::Invalid { field, .. }) => assert_eq!(field, named, "{changes}"),
            other => panic!("{changes}: {other:?}"),
        }
    }
}

#[test]
fn nfe_stands_for_steps_in_every_family() {
    for (family, steps, nfe) in [("rk1", 6, 6), ("rk2", 3, 6), ("ns", 6, 6)] {
        let by_steps = settings(json!({ "family": family, "steps": steps }));
        let by_both = settings(json!({ "family": family, "steps": steps, "nfe": nfe }));
        assert_eq!(by_steps, by_both);
        assert_eq!(by_steps.rungs[0].structure.nfe(), nfe);
    }
}

#[test]
fn a_table_starts_from_a_theta_that_is_trained_first() {
    let settings = settings(json!({ "family": "ns", "steps": 6, "init": "rk2", "iterations": 6 }));
    assert!(matches!(&settings.rungs[0].starts[..], [Start::Bespoke(..)]));
    let trained = run(&settings);
    assert_eq!(trained.theta.family_name(), "ns");
    assert_eq!(trained.theta.training.0["start"]["solver"], "rk2@6");
    assert_eq!(trained.theta.training.0["iterations"], 3 + 6);
    // The start is the base solver's error, not that of the theta trained first.
    let mut short = settings.clone();
    short.rungs[0].phases[0].iterations = 1;
    let alone = run(&short);
    assert_eq!(alone.start, trained.start);
    assert!(trained.best.rmse < alone.best.rmse);
}

#[test]
fn a_table_starts_from_the_best_published_solver_and_from_the_best_grid() {
    let started = |changes: serde_json::Value| {
        let mut document = json!({ "family": "ns", "steps": 4, "iterations": 1 });
        document.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let trained = run(&settings(document));
        (trained.theta.training.0["start"]["solver"].as_str().unwrap().to_owned(), trained.start.rmse)
    };
    for (init, others) in [
        ("published", ["euler@4", "midpoint@4", "ab2@4", "ab3@4"]),
        ("regridded", ["ab3@4:power=0.75", "ab2@4:power=1.3", "ab2@4:quadratic", "ab3@4:power=1.6"]),
    ] {
        let (chosen, least) = started(json!({ "init": init }));
        assert_eq!(started(json!({ "init": chosen })), (chosen.clone(), least));
        for other in others {
            let (_, error) = started(json!({ "init": other }));
            assert!(error >= least, "{chosen} at {least}, {other} at {error}");
        }
    }
    assert_eq!(settings(json!({ "family": "ns", "steps": 4 })).rungs[0].starts.len(), 2);
}

#[test]
fn gauss_newton_starts_from_the_best_of_the_usual_paths() {
    let names = |path: Scheduler, changes: serde_json::Value| -> Vec<String> {
        let own = GaussianPath::new(path, 0.999).unwrap();
        let named = own.on_named(changes["path"].as_str(), None).unwrap();
        let mut document = json!({ "steps": 2 });
        document.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let config: TrainConfig = serde_json::from_value(document).unwrap();
        match config.settings(2.0, Some(&named)).unwrap().rungs.remove(0).starts.remove(0) {
            Start::BestOf(solvers) | Start::Bespoke(_, solvers) => solvers.into_iter().map(|(name, _)| name).collect(),
            other => panic!("{other:?}"),
        }
    };
    let all: Vec<String> = vec!["midpoint@4".into(), "midpoint@4 on fm-ot".into(), "midpoint@4 on cosine".into()];
    assert_eq!(names(Scheduler::VP, json!({})), all);
    assert_eq!(names(Scheduler::VP, json!({ "family": "ns", "steps": 4, "init": "rk2" })), all);
    assert_eq!(names(Scheduler::Cosine, json!({})), all[..2]);
    // What names a path, the paper's training and what is learned in part begin at one place.
    for changes in [
        json!({ "path": "cosine" }),
        json!({ "optimizer": "adam" }),
        json!({ "loss": "rmse-bound" }),
        json!({ "learn": "t" }),
    ] {
        assert_eq!(names(Scheduler::VP, changes.clone()), all[..1], "{changes}");
    }
}

#[test]
fn of_several_starts_the_best_is_kept() {
    let of =
        |init: serde_json::Value| run(&settings(json!({ "family": "ns", "steps": 4, "iterations": 20, "init": init })));
    let both = of(json!(["euler@4", "midpoint@4"]));
    // Each gets a third of the iterations, the better one the rest.
    assert_eq!(both.theta.training.0["iterations"], 7 + 7 + 13);
    let chosen = both.theta.training.0["start"]["solver"].as_str().unwrap().to_owned();
    let alone = ["euler@4", "midpoint@4"].map(|name| (name, of(json!(name)).start));
    let (_, own) = alone.iter().find(|(name, _)| *name == chosen).unwrap();
    // The error that is told of a start is its own, whichever was validated first.
    assert_eq!(both.start, *own);
    assert_eq!(both.theta.training.0["start"]["rmse"], json!(own.rmse));
    assert!(alone.iter().all(|(_, start)| both.best.rmse < start.rmse));
}

#[test]
fn the_parts_that_are_not_learned_stay() {
    let of = |learn: &str| match run(&settings(json!({ "learn": learn }))).theta.family {
        Family::Rk2(knots) => knots,
        other => panic!("{other:?}"),
    };
    let (time, scale, identity) = (of("t"), of("s"), Knots::identity(6));
    assert_eq!((&time.s, &time.s_dot), (&identity.s, &identity.s_dot));
    assert_ne!(time.t, identity.t);
    assert_eq!((&scale.t, &scale.t_dot), (&identity.t, &identity.t_dot));
    assert_ne!(scale.s, identity.s);
}

#[test]
fn a_budget_ends_the_run() {
    let free = run_all(&settings(json!({ "iterations": 12 })));
    let (truth, all) = (free.ground_truth.equivalents(), free.evaluations.equivalents());
    let budget = (truth + all) / 2;
    for changes in [json!({}), json!({ "loss": ["log-mse", "rmse"], "iterations": 6 })] {
        let mut changes = changes;
        changes["budget"] = json!(budget);
        let kept = run_all(&settings(changes));
        let spent = kept.evaluations.equivalents();
        assert!(!kept.stopped);
        assert!(spent > truth && spent <= budget, "{truth} {spent} {budget}");
        assert_eq!(kept.rungs[0].theta.training.0["budget"]["spent"], json!(spent));
        assert!(kept.rungs[0].best.rmse < kept.rungs[0].start.rmse);
    }
}

#[test]
fn half_of_a_budget_is_for_the_ground_truth() {
    for (changes, pool, validation) in [
        (json!({}), 1500, 1000),
        (json!({ "budget": 30_000 }), 113, 37),
        (json!({ "budget": 30_000, "pool": 50 }), 50, 37),
        (json!({ "budget": 30_000, "resolve": true }), 30, 37),
        (json!({ "budget": 1 }), 30, 10),
        (json!({ "budget": u64::MAX }), 1500, 1000),
    ] {
        let mut document = json!({ "optimizer": "forward-gauss-newton" });
        document.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let config: TrainConfig = serde_json::from_value(document).unwrap();
        let settings = config.settings(2.0, None).unwrap();
        assert_eq!((settings.pool, settings.validation), (pool, validation), "{changes}");
    }
}

#[test]
fn the_default_optimizer_is_the_better_one_at_each_count() {
    let phases = |changes: serde_json::Value| {
        let config: TrainConfig = serde_json::from_value(changes).unwrap();
        let settings = config.settings(2.0, None).unwrap();
        let phases = settings.phases().map(|phase| (phase.optimizer, phase.iterations, phase.batch));
        phases.collect::<Vec<_>>()
    };
    let (gradients, forward) = (Optimizer::GaussNewton, Optimizer::ForwardGaussNewton);
    let ladder = json!({ "family": "ns", "nfe": [3, 8, 9, 20] });
    let by_gradients = (gradients, 30, 400);
    assert_eq!(phases(ladder), [(forward, 40, 30), (forward, 40, 30), by_gradients, by_gradients]);
    let ladder = json!({ "family": "ns", "nfe": [10, 16, 32], "optimizer": "forward-gauss-newton" });
    assert_eq!(phases(ladder), [(forward, 40, 30), (forward, 40, 21), (forward, 40, 12)]);
    let given = json!({ "family": "ns", "nfe": 32, "batch": 50, "optimizer": "forward-gauss-newton" });
    assert_eq!(phases(given), [(forward, 40, 50)]);
    assert_eq!(phases(json!({ "family": "ns", "nfe": 4, "optimizer": "gauss-newton" })), [by_gradients]);
    assert_eq!(phases(json!({ "family": "rk2", "nfe": 4 })), [by_gradients]);
    let seen = json!({ "family": "ns", "nfe": 4, "loss": ["log-mse", "features"], "features": "layers.json" });
    assert_eq!(phases(seen), [(forward, 40, 30), by_gradients]);
    let sum = json!({ "family": "ns", "nfe": 4, "loss": ["log-mse:1", "features:1"], "features": "layers.json" });
    assert_eq!(phases(sum), [by_gradients]);
}

#[test]
fn a_ladder_shares_the_ground_truth() {
    let both = run_all(&settings(json!({ "steps": [4, 3], "iterations": 4 })));
    assert_eq!(both.rungs.iter().map(|rung| rung.theta.nfe()).collect::<Vec<_>>(), [6, 8]);
    let truth = both.ground_truth;
    let mut forward = truth.forward;
    for (rung, steps) in both.rungs.iter().zip([3, 4]) {
        let alone = run(&settings(json!({ "steps": steps, "iterations": 4 })));
        assert_eq!((&rung.theta.family, rung.evaluations), (&alone.theta.family, alone.evaluations));
        forward += rung.evaluations.forward - truth.forward;
    }
    assert_eq!(both.evaluations.forward, forward);
}

/// A field that turns to NaN from `t` on.
struct Broken(f64);

impl VelocityField for Broken {
    type Tensor = Host<f64>;
    fn elements(&self) -> usize {
        2
    }
    fn upload(&self, values: &[f32], elements: usize) -> bespoke::Result<Host<f64>> {
        Host::from_f32(values, elements)
    }
    fn eval(&self, t: PerRow<'_>, x: &Host<f64>, _: &Condition) -> bespoke::Result<Host<f64>> {
        let of = |(i, v): (usize, &f64)| if t.at(i / 2) < self.0 { -v } else { f64::NAN };
        Host::new(x.data().iter().enumerate().map(of).collect(), 2)
    }
}

#[test]
fn a_broken_field_is_an_error_not_a_theta() {
    for from in [0.0, 0.5] {
        let outcome =
            train(&Broken(from), &UNCONDITIONAL, &settings(json!({})), &mut |_: &Progress| ControlFlow::Continue(()));
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::NonFinite { t, .. } if t >= from && t < from + 0.1), "from {from}: {error}");
    }
}

/// u = -8 x, which gives NaN beyond 6: there, midpoint with two steps is lost and Euler with four is not.
fn narrow<'a>() -> CallerField<'a> {
    CallerField {
        shape: vec![2],
        accuracy: f64::from(f32::EPSILON),
        evaluate: Box::new(|_, call, u| {
            let of = |x: &f32| if x.abs() < 6.0 { -8.0 * x } else { f32::NAN };
            u.data_mut().iter_mut().zip(call.x.data()).for_each(|(u, x)| *u = of(x));
            Ok(())
        }),
        pull_back: None,
    }
}

#[test]
fn a_published_solver_that_diverges_on_a_callers_field_is_no_start() {
    let plan = |name: &str| {
        let solver = NamedSolver::new(name, 4, None).unwrap();
        Arc::new(Plan::new(solver.tableau(&GaussianPath::new(Scheduler::FmOt, 1.0).unwrap()).unwrap()))
    };
    let x0 = Host::new(vec![2.0f32, -3.0], 2).unwrap();
    let sample = |name: &str| sampler::sample(&plan(name), &narrow(), &x0, &Condition::default());
    assert!(matches!(sample("midpoint"), Err(Error::NonFinite { .. })));
    assert!(sample("euler").is_ok());
    let settings = settings(json!({ "family": "ns", "steps": 4, "init": "published" }));
    let field = narrow();
    let outcome = train(&field, &UNCONDITIONAL, &settings, &mut |_: &Progress| ControlFlow::Break(())).unwrap();
    let start = outcome.rungs[0].theta.training.0["start"]["solver"].as_str().unwrap().to_owned();
    assert!(outcome.stopped && start != "midpoint@4", "{start}");
}

#[test]
fn the_ground_truth_of_a_callers_field_steps_back_from_a_nan() {
    // Stiff from t = 1/2 on, where a step of the size before leads below 0.
    let field = CallerField {
        shape: vec![1],
        accuracy: f64::from(f32::EPSILON),
        evaluate: Box::new(|times, call, u| {
            for ((u, x), t) in u.data_mut().iter_mut().zip(call.x.data()).zip(times) {
                *u = if *x < 0.0 { f32::NAN } else { -x * if *t < 0.5 { 0.1 } else { 100.0 } };
            }
            Ok(())
        }),
        pull_back: None,
    };
    let x0 = Host::new(vec![1.0f32], 1).unwrap();
    let solved = dopri5::solve(&field, &x0, &Condition::default(), Tolerance::default(), false).unwrap();
    assert!(solved.steps.1 > 0, "no step was refused: {:?}", solved.steps);
    assert!((0.0..1e-4).contains(&solved.x1.data()[0]), "{:?}", solved.x1);
}
