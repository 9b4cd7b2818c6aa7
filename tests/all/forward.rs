//! Training by forward passes alone: exact Jacobians of a solve's end, and what is learned with them.

use crate::common::{self, Formula, swirl};
use bespoke::dopri5::Tolerance;
use bespoke::networks::{Mixture, MixtureDocument, MixtureField};
use bespoke::noise::{self, Purpose};
use bespoke::ranks::Ranks;
use bespoke::sampler::{self, Plan};
use bespoke::samples::Conditioning;
use bespoke::scheduler::Scheduler;
use bespoke::tensor::{Host, PerRow, Register};
use bespoke::train::loss::Tangents;
use bespoke::train::{
    Accuracy, Coordinates, Differences, Job, Outcome, Parameters, Pool, PoolOptions, Progress, Settings, Structure,
    TrainConfig, Watch, suited_to, train, train_job,
};
use bespoke::velocity::{Condition, VelocityField};
use bespoke::{Error, Result};
use num_dual::{Dual64, DualNum};
use rand::RngExt;
use serde_json::json;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const UNCONDITIONAL: Conditioning = Conditioning::NONE;
/// Of a computation in f64.
const EXACT: f64 = f64::EPSILON;

fn document() -> MixtureDocument {
    let means = vec![
        vec![1.0, 0.5, -0.3],
        vec![-0.8, 0.2, 0.9],
        vec![0.1, -1.1, 0.4],
        vec![-0.4, 0.7, -1.0],
        vec![0.9, -0.6, -0.8],
    ];
    MixtureDocument { std: 0.3, means, weights: None, class: None }
}

fn field() -> MixtureField<f64> {
    MixtureField::new(Mixture::new(document()).unwrap(), Scheduler::FmOt, None)
}

/// The mixture's velocity on the path alpha = t, sigma = 1 - t, over any number.
fn velocity<D: DualNum<Primitive = f64> + Copy>(t: D, x: &[D]) -> Vec<D> {
    let MixtureDocument { std, means, .. } = document();
    let sigma = -t + 1.0;
    let v = t * t * std * std + sigma * sigma;
    let logarithm = |mu: &[f64]| {
        let squares = x.iter().zip(mu).map(|(x, mu)| (*x - t * *mu) * (*x - t * *mu));
        -squares.fold(D::from(0.0), |sum, square| sum + square) / v * 0.5
    };
    let logarithms: Vec<D> = means.iter().map(|mu| logarithm(mu)).collect();
    let top = logarithms.iter().map(|l| l.re()).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<D> = logarithms.iter().map(|l| (*l - top).exp()).collect();
    let total = weights.iter().fold(D::from(0.0), |sum, w| sum + *w);
    let c = (t * std * std - sigma) / v;
    let mean = |i: usize| means.iter().zip(&weights).fold(D::from(0.0), |sum, (mu, w)| sum + *w * mu[i]) / total;
    x.iter().enumerate().map(|(i, x)| c * *x + (-c * t + 1.0) * mean(i)).collect()
}

/// Parameters away from any usual solver, so that no derivative vanishes.
fn perturbed(structure: Structure) -> Parameters {
    let mut parameters = Parameters::identity(structure).in_coordinates(Coordinates::Table).unwrap();
    let mut rng = noise::generator(7, Purpose::Choice, 0);
    parameters.values.iter_mut().for_each(|value| *value += 0.1 * (rng.random::<f64>() - 0.5));
    parameters
}

/// d x_N / d parameter of every sample, parameter by parameter, and the evaluations foretold.
fn jacobian<F: VelocityField<Tensor = Host<f64>>>(
    parameters: &Parameters,
    field: &F,
    differences: Differences,
    x0: &Host<f64>,
) -> (Vec<Vec<f64>>, usize) {
    let by_scalar = parameters.table_jacobian().jacobian;
    let tangents = Tangents::new(&parameters.tableau(), |scalar| by_scalar.row(scalar).iter().any(|v| *v != 0.0));
    let mut columns = vec![vec![0.0; x0.data().len()]; parameters.values.len()];
    let mut take = |scalar: usize, derivative: Host<f64>, _: &Host<f64>| {
        for (j, column) in columns.iter_mut().enumerate() {
            let factor = by_scalar[(scalar, j)];
            column.iter_mut().zip(derivative.data()).for_each(|(sum, d)| *sum += factor * d);
        }
        Ok(())
    };
    let end = tangents.solve(field, &differences, x0, &Condition::default(), &mut take).unwrap();
    let plan = Arc::new(Plan::new(parameters.tableau()));
    let solved = sampler::sample(&plan, field, x0, &Condition::default()).unwrap();
    common::assert_close(end.data(), solved.data(), 1e-12, "the end");
    (columns, tangents.evaluations())
}

/// The largest difference of two Jacobians, relative to the second's largest number.
fn distance(found: &[Vec<f64>], expected: &[Vec<f64>]) -> f64 {
    let size = expected.iter().flatten().fold(0.0f64, |m, v| m.max(v.abs()));
    let pairs = found.iter().flatten().zip(expected.iter().flatten());
    pairs.fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / size
}

#[test]
fn jacobians_are_those_of_dual_numbers() {
    let (samples, elements, nfe) = (3, 3, 6);
    let parameters = perturbed(Structure::Ns(nfe));
    let x0 = common::noise(samples, elements);
    let solve = |values: &[Dual64], x0: &[f64]| -> Vec<Dual64> {
        let x0: Vec<Dual64> = x0.iter().map(|x| Dual64::from(*x)).collect();
        let (mut x, mut us, mut row) = (x0.clone(), Vec::<Vec<Dual64>>::new(), nfe - 1);
        for k in 0..nfe {
            let t = if k == 0 { Dual64::from(0.0) } else { values[k - 1] };
            us.push(velocity(t, &x));
            let coefficients = &values[row..row + k + 2];
            row += k + 2;
            x = (0..elements)
                .map(|i| us.iter().zip(&coefficients[1..]).fold(coefficients[0] * x0[i], |sum, (u, b)| sum + *b * u[i]))
                .collect();
        }
        x
    };
    let exact: Vec<Vec<f64>> = (0..parameters.values.len())
        .map(|j| {
            let seeded = |(i, v): (usize, &f64)| Dual64::new(*v, if i == j { 1.0 } else { 0.0 });
            let values: Vec<Dual64> = parameters.values.iter().enumerate().map(seeded).collect();
            (0..samples).flat_map(|row| solve(&values, x0.row(row))).map(|x| x.eps).collect()
        })
        .collect();
    let (found, evaluations) = jacobian(&parameters, &field(), Differences::central(EXACT), &x0);
    let error = distance(&found, &exact);
    println!("relative error {error:.1e}");
    assert!(error < 1e-8, "{error}");
    // One solve; for row k, k + 2 directions through the later stages, and one for every time but the first.
    let rows: usize = (0..nfe).map(|k| (k + 2) * (nfe - 1 - k)).sum();
    let times: usize = (1..nfe).map(|k| nfe - k).sum();
    assert_eq!(evaluations, nfe + rows + times);
}

#[test]
fn jacobians_of_every_family_are_those_of_solves_nearby() {
    let x0 = common::noise(3, 3);
    for structure in [Structure::Rk1(5), Structure::Rk2(3), Structure::Ns(5)] {
        let parameters = perturbed(structure);
        let end = |j: usize, offset: f64| {
            let mut moved = parameters.clone();
            moved.values[j] += offset;
            common::sample(moved.tableau(), &field(), &x0)
        };
        let nearby = |j: usize| -> Vec<f64> {
            let central =
                |h: f64| -> Vec<f64> { end(j, h).iter().zip(end(j, -h)).map(|(a, b)| (a - b) / (2.0 * h)).collect() };
            central(5e-4).iter().zip(central(1e-3)).map(|(fine, coarse)| (4.0 * fine - coarse) / 3.0).collect()
        };
        let expected: Vec<Vec<f64>> = (0..parameters.values.len()).map(nearby).collect();
        let (found, evaluations) = jacobian(&parameters, &field(), Differences::central(EXACT), &x0);
        let error = distance(&found, &expected);
        println!("{structure:?}: relative error {error:.1e}, {evaluations} evaluations a sample");
        assert!(error < 1e-8, "{structure:?}: {error}");
        // One-sided ones, with steps for the noise of float32, are a thousand times coarser and good enough.
        let accuracy = Accuracy { state: 1e-7, time: 1e-7, batch: 0.0, repeat: 0.0 };
        let (coarse, _) = jacobian(&parameters, &field(), Differences::new(accuracy), &x0);
        let error = distance(&coarse, &expected);
        assert!((1e-7..2e-2).contains(&error), "{structure:?}: {error}");
    }
}

#[test]
fn a_step_of_rk2_takes_fewer_evaluations_than_its_table() {
    let count = |structure: Structure| {
        let tangents = Tangents::new(&perturbed(structure).tableau(), |scalar| scalar > 0);
        assert_eq!(tangents.evaluations() as u64, structure.jacobian_evaluations(), "{structure:?}");
        tangents.evaluations()
    };
    assert_eq!((count(Structure::Ns(10)), count(Structure::Rk2(5)), count(Structure::Rk1(10))), (265, 165, 145));
}

#[test]
fn large_samples_are_taken_in_groups_and_come_to_the_same() {
    // x' = -(1 + t) x, element by element: a wide sample is a narrow one, many times over.
    struct Decay {
        elements: usize,
        most: AtomicUsize,
    }
    impl VelocityField for Decay {
        type Tensor = Host<f64>;
        fn elements(&self) -> usize {
            self.elements
        }
        fn upload(&self, values: &[f32], elements: usize) -> Result<Host<f64>> {
            Host::from_f32(values, elements)
        }
        fn eval(&self, t: PerRow<'_>, x: &Host<f64>, _: &Condition) -> Result<Host<f64>> {
            self.most.fetch_max(x.batch(), Ordering::Relaxed);
            let values = (0..x.batch()).flat_map(|row| x.row(row).iter().map(move |x| -(1.0 + t.at(row)) * x));
            Host::new(values.collect(), self.elements)
        }
    }
    let parameters = perturbed(Structure::Ns(4));
    let run = |elements: usize| {
        let field = Decay { elements, most: AtomicUsize::new(0) };
        let pattern = [0.7, -1.2, 0.3, 2.0];
        let x0 = Host::new((0..elements).map(|i| pattern[i % 4]).collect(), elements).unwrap();
        let (columns, _) = jacobian(&parameters, &field, Differences::central(EXACT), &x0);
        let starts: Vec<Vec<f64>> = columns.into_iter().map(|column| column[..4].to_vec()).collect();
        (starts, field.most.into_inner())
    };
    let ((narrow, together), (wide, few)) = (run(4), run(1 << 21));
    assert!(distance(&wide, &narrow) < 1e-7);
    // The tangents of a stage together are more than there is room for where samples are this large.
    assert!(together >= 5 && few == 1, "{together} {few}");
}

#[cfg(feature = "torch")]
#[test]
fn jacobians_on_a_network_are_those_of_autograd() {
    use bespoke::model;
    use bespoke::tensor::Device;
    use bespoke::train::loss::direct_residual;
    let card = crate::tree::root().join("models/digits-fm-ot.json");
    let model = model::open(&card, Device::Cpu).unwrap();
    let conditioning = Conditioning { classes: model.card().classes, ..Conditioning::default() };
    let field = model.torch_field().unwrap();
    let pool = small_pool(field, &conditioning, 6);
    let accuracy = Accuracy::measure(field, &pool).unwrap();
    println!("{accuracy:?}");
    assert!((1e-8..1e-5).contains(&accuracy.state) && (1e-8..1e-5).contains(&accuracy.time));
    assert!(!accuracy.depends_on_batch());
    let rows: Vec<usize> = (0..pool.size()).collect();
    for structure in [Structure::Rk2(5), Structure::Ns(10)] {
        let parameters = Parameters::identity(structure).in_coordinates(Coordinates::Table).unwrap();
        let residual = direct_residual(&parameters, field, &pool, &rows).unwrap();
        // Along a few directions, each by one backward pass.
        let directions = 4;
        let cotangents: Vec<Vec<f32>> = (0..directions)
            .map(|i| noise::normal(i, Purpose::Sketch, 0..rows.len(), field.elements()).unwrap())
            .collect();
        let uploaded = cotangents.iter().map(|values| field.upload(values, field.elements()).unwrap()).collect();
        let by_autograd = residual.pull_back(field, uploaded).unwrap();
        let scalars = by_autograd[0].ncols();
        let exact: Vec<Vec<f64>> = by_autograd.iter().map(|matrix| matrix.transpose().as_slice().to_vec()).collect();
        let tangents = Tangents::new(&parameters.tableau(), |scalar| scalar > 0);
        // In float32: one-sided differences, as they are taken, and central ones, at twice their evaluations.
        let one_sided = Differences::new(accuracy);
        for (differences, most) in [(one_sided, 5e-3), (Differences { central: true, ..one_sided }, 1e-3)] {
            let mut found = vec![vec![0.0; rows.len() * scalars]; cotangents.len()];
            for (scalar, derivative) in derivatives(&tangents, field, &differences, &pool, &rows) {
                for (found, cotangent) in found.iter_mut().zip(&cotangents) {
                    for row in 0..rows.len() {
                        let part = row * field.elements()..(row + 1) * field.elements();
                        let dot = derivative[part.clone()].iter().zip(&cotangent[part]).map(|(d, w)| f64::from(d * w));
                        found[row * scalars + scalar] = dot.sum();
                    }
                }
            }
            let error = distance(&found, &exact);
            println!("{structure:?}, central {}: relative error {error:.1e}", differences.central);
            assert!(error < most, "{structure:?}: {error}");
        }
    }
}

/// The derivatives of the ends of the samples `rows` by each scalar.
#[cfg(feature = "torch")]
fn derivatives<F: VelocityField>(
    tangents: &Tangents,
    field: &F,
    differences: &Differences,
    pool: &Pool<F::Tensor>,
    rows: &[usize],
) -> Vec<(usize, Vec<f32>)> {
    use bespoke::tensor::Tensor;
    let mut found = Vec::new();
    let mut take = |scalar: usize, derivative: F::Tensor, _: &F::Tensor| {
        found.push((scalar, derivative.to_f32()?));
        Ok(())
    };
    tangents.solve(field, differences, &pool.x0(rows).unwrap(), &pool.condition(rows).unwrap(), &mut take).unwrap();
    found
}

fn small_pool<F: VelocityField>(field: &F, conditioning: &Conditioning, size: usize) -> Pool<F::Tensor> {
    let options = PoolOptions {
        purpose: Purpose::Train,
        seed: 3,
        indices: 0..size,
        chunk: 64,
        tolerance: Tolerance { rtol: 1e-5, atol: 1e-5 },
        dense: false,
    };
    Pool::solve(field, conditioning, &options).unwrap()
}

/// Small settings with `changes` on top, by forward passes.
fn settings(changes: serde_json::Value) -> Settings {
    let mut document = json!({ "steps": 3, "iterations": 30, "pool": 620, "validation": 400, "batch": 20 });
    document.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let config: TrainConfig = serde_json::from_value(document).unwrap();
    suited_to(&config, false).unwrap().settings(2.0, None).unwrap()
}

fn run(settings: &Settings) -> Outcome {
    train(&field(), &UNCONDITIONAL, settings, &mut |_: &Progress| ControlFlow::Continue(())).unwrap()
}

#[test]
fn forward_passes_learn_as_well_as_gradients_do() {
    for changes in [
        json!({ "family": "rk1", "steps": 6 }),
        json!({ "family": "rk2", "steps": 3 }),
        json!({ "family": "ns", "steps": 6 }),
        json!({ "family": "ns", "steps": 6, "loss": "rmse", "init": "midpoint@6" }),
        json!({ "learn": "t" }),
    ] {
        let forward = run(&settings(changes.clone()));
        let mut by_gradients = changes.clone();
        by_gradients.as_object_mut().unwrap().insert("optimizer".into(), json!("gauss-newton"));
        let config = json!({ "steps": 3, "iterations": 16, "pool": 620, "validation": 400, "batch": 100 });
        let mut config = config.as_object().unwrap().clone();
        config.extend(by_gradients.as_object().unwrap().clone());
        let config: TrainConfig = serde_json::from_value(config.into()).unwrap();
        let backward = run(&config.settings(2.0, None).unwrap());
        assert_eq!(forward.evaluations.backward, 0);
        assert!(backward.evaluations.backward > 0);
        let (found, expected) = (&forward.rungs[0], &backward.rungs[0]);
        println!(
            "{changes}: {:.5} from {:.5}, by gradients {:.5}",
            found.best.rmse, found.start.rmse, expected.best.rmse
        );
        assert_eq!(found.theta.training.0["optimizer"], "forward-gauss-newton");
        assert!(found.best.rmse < 0.8 * found.start.rmse, "{changes}");
        assert!(found.best.rmse < 1.15 * expected.best.rmse, "{changes}: {} {}", found.best.rmse, expected.best.rmse);
    }
}

#[test]
fn the_same_seed_gives_the_same_numbers() {
    let of = |seed: u64| run(&settings(json!({ "seed": seed, "iterations": 4 }))).rungs.remove(0).theta;
    assert_eq!(of(4), of(4));
    assert_ne!(of(4), of(5));
}

#[test]
fn a_run_that_goes_on_comes_to_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    // New samples on the way: the accuracy is that of the first ones.
    for pool_refresh in [0, 3] {
        goes_on(folder.path(), pool_refresh);
    }
}

fn goes_on(folder: &std::path::Path, pool_refresh: usize) {
    let settings = settings(json!({ "family": "ns", "steps": 4, "validate_every": 2, "pool_refresh": pool_refresh }));
    let run = |name: &str, resume: bool, stop: usize| {
        let job = Job { checkpoint: Some(folder.join(name)), resume, ..Job::default() };
        let mut observer = |progress: &Progress| match progress.iteration == stop {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        // What is kept of the ground truth is float32, as networks compute.
        let field = MixtureField::<f32>::new(Mixture::new(document()).unwrap(), Scheduler::FmOt, None);
        train_job(&field, &UNCONDITIONAL, &settings, None, &job, &Ranks::alone(), &mut observer).unwrap()
    };
    let whole = run("whole", false, usize::MAX);
    for stop in [7, 15] {
        assert!(run("part", false, stop).stopped);
        assert_eq!(run("part", true, usize::MAX), whole);
    }
}

#[test]
fn a_budget_is_kept_and_used() {
    let free = run(&settings(json!({ "validate_every": 20 })));
    let (truth, all) = (free.ground_truth.equivalents(), free.evaluations.equivalents());
    let budget = (truth + all) / 2;
    let kept = run(&settings(json!({ "validate_every": 20, "budget": budget })));
    let spent = kept.evaluations.equivalents();
    assert!(spent <= budget && spent > budget - budget / 4, "{spent} of {budget}");
}

/// A field of which `change` makes another: it is given how often the field was asked, its states, and the velocities.
struct Changed<F, C> {
    inner: F,
    asked: AtomicUsize,
    change: C,
}

impl<F, C> VelocityField for Changed<F, C>
where
    F: VelocityField<Tensor = Host<f32>>,
    C: Fn(usize, &Host<f32>, &mut Host<f32>) -> Result<()> + Sync,
{
    type Tensor = Host<f32>;
    fn elements(&self) -> usize {
        self.inner.elements()
    }
    fn upload(&self, values: &[f32], elements: usize) -> Result<Host<f32>> {
        self.inner.upload(values, elements)
    }
    fn eval(&self, t: PerRow<'_>, x: &Host<f32>, condition: &Condition) -> Result<Host<f32>> {
        let mut u = self.inner.eval(t, x, condition)?;
        (self.change)(self.asked.fetch_add(1, Ordering::SeqCst), x, &mut u)?;
        Ok(u)
    }
}

/// A formula in float32 that `change` makes another field of.
fn changed<C>(change: C) -> impl VelocityField<Tensor = Host<f32>>
where
    C: Fn(usize, &Host<f32>, &mut Host<f32>) -> Result<()> + Sync,
{
    Changed { inner: Formula::<f32, _>::new(6, swirl), asked: AtomicUsize::new(0), change }
}

/// One whose samples may see what is beside them.
fn formula(leak: f64) -> impl VelocityField<Tensor = Host<f32>> {
    changed(move |_, x, u| {
        let mean = x.data().iter().sum::<f32>() / x.data().len() as f32;
        u.data_mut().iter_mut().for_each(|u| *u += leak as f32 * mean);
        Ok(())
    })
}

#[test]
fn noise_is_measured_and_a_field_that_sees_its_batch_is_named() {
    let measure = |leak: f64| {
        let field = formula(leak);
        Accuracy::measure(&field, &small_pool(&field, &UNCONDITIONAL, 8)).unwrap()
    };
    let alone = measure(0.0);
    println!("{alone:?}");
    assert!((2e-8..1e-6).contains(&alone.state) && (2e-8..1e-6).contains(&alone.time));
    assert_eq!(alone.batch, 0.0);
    assert!(!alone.depends_on_batch());
    let beside = measure(1e-2);
    assert!(beside.depends_on_batch(), "{beside:?}");
    let named = train(&formula(1e-2), &UNCONDITIONAL, &settings(json!({ "iterations": 1 })), &mut |_: &Progress| {
        ControlFlow::Continue(())
    });
    let notes = named.unwrap().rungs.remove(0).theta.training;
    assert!(notes.0["accuracy"]["batch"].as_f64().unwrap() > 1e-4, "{:?}", notes.0["accuracy"]);
    assert!(notes.0["warnings"][0].as_str().unwrap().contains("depends on the batch"), "{:?}", notes.0["warnings"]);
    // Of velocities as coarse as those of 8 bits their own noise explains as much as itself.
    let coarse = |batch: f64| Accuracy { state: 3e-3, time: 3e-3, batch, repeat: 0.0 }.depends_on_batch();
    assert!(coarse(9e-3) && !coarse(3e-3));
}

#[test]
fn a_field_that_is_none_is_refused_by_what_it_does() {
    let refused = |field: &dyn Fn() -> Result<Accuracy>| field().unwrap_err().to_string();
    let random = changed(|call, _, u| {
        let mut rng = noise::generator(call as u64, Purpose::Choice, 0);
        u.data_mut().iter_mut().for_each(|u| *u *= if rng.random() { 2.0 } else { 0.0 });
        Ok(())
    });
    let pool = small_pool(&formula(0.0), &UNCONDITIONAL, 8);
    let said = refused(&|| Accuracy::measure(&random, &pool));
    assert!(said.contains("two calls with the same state") && said.contains("dropout"), "{said}");
    let reversed = changed(|_, _, u| {
        let elements = u.elements();
        let rows: Vec<f32> = u.data().chunks(elements).rev().flatten().copied().collect();
        u.data_mut().copy_from_slice(&rows);
        Ok(())
    });
    let said = refused(&|| Accuracy::measure(&reversed, &pool));
    assert!(said.contains("rows of a batch mixed up"), "{said}");
    // Alone or in a batch: at none of its calls may one number of many be no number.
    for at in 0..5 {
        let broken = changed(|call, _, u| {
            if call == at {
                u.data_mut()[0] = f32::NAN;
            }
            Ok(())
        });
        let error = Accuracy::measure(&broken, &pool).unwrap_err();
        assert!(matches!(error, Error::NonFinite { .. }), "{at}: {error}");
    }
}

/// Asks for an end from an iteration on that it is not shown any more.
struct Impatient(usize);

impl Watch for Impatient {
    fn iteration(&mut self, progress: &Progress) -> ControlFlow<()> {
        self.0 = progress.iteration;
        ControlFlow::Continue(())
    }

    fn is_asked_to_end(&mut self) -> bool {
        self.0 >= 2
    }
}

#[test]
fn a_field_that_fails_after_an_end_was_asked_for_leaves_the_best_theta() {
    let settings = settings(json!({ "validate_every": 1 }));
    let run = |calls: usize| {
        let field =
            changed(|call, _, _| if call < calls { Ok(()) } else { Err(Error::State("the server went away".into())) });
        train_job(&field, &UNCONDITIONAL, &settings, None, &Job::default(), &Ranks::alone(), &mut Impatient(0))
    };
    let mut calls = 20;
    // Before the second iteration nobody had asked: the error is the run's.
    while let Err(error) = run(calls) {
        assert!(error.to_string().contains("went away"), "{error}");
        calls += 20;
        assert!(calls < 100_000);
    }
    assert!(calls > 40);
    let outcome = run(calls).unwrap();
    assert!(outcome.stopped && outcome.rungs[0].best.rmse < outcome.rungs[0].start.rmse);
}

#[test]
fn a_last_time_at_the_end_of_the_path_stops_no_table_from_moving() {
    // The last evaluation of rk4 stands at t = 1. Where a step would take it beyond, the others go on without it.
    let field = Formula::<f32, _>::new(16, |t, x| x.iter().map(|x| x.tanh() * (2.0 * t).exp()).collect());
    let asked = json!({ "family": "ns", "nfe": [12], "init": ["rk4@12"], "pool": 150, "validation": 100, "batch": 30,
        "iterations": 15, "rtol": 1e-4, "atol": 1e-4 });
    let config: TrainConfig = serde_json::from_value(asked).unwrap();
    let settings = suited_to(&config, false).unwrap().settings(2.0, None).unwrap();
    let outcome = train(&field, &UNCONDITIONAL, &settings, &mut |_: &Progress| ControlFlow::Continue(())).unwrap();
    let rung = &outcome.rungs[0];
    assert!(rung.best.rmse < 0.03 * rung.start.rmse, "{:e} {:e}", rung.best.rmse, rung.start.rmse);
}

#[test]
fn differences_in_time_are_as_wide_at_the_ends_as_elsewhere() {
    for accuracy in [1e-7, 2e-3] {
        let differences = Differences::new(Accuracy { state: accuracy, time: accuracy, batch: 0.0, repeat: 0.0 });
        let width = |t: f64| {
            let between = differences.in_time(t);
            let ends = [t + between.ahead, t + between.behind];
            assert!(ends.iter().all(|t| (-1e-12..1.0 + 1e-12).contains(t)), "{t}: {ends:?}");
            (between.ahead - between.behind).abs()
        };
        for t in [0.0, 1e-3, 0.999, 1.0] {
            assert!((width(t) - width(0.5)).abs() < 1e-12, "{t}: {} {}", width(t), width(0.5));
        }
    }
}

#[test]
fn coarse_velocities_are_measured_and_still_learned_from() {
    // To so many steps of a unit, as int8 does.
    let rounded = |steps: f32| Changed {
        inner: MixtureField::<f32>::new(Mixture::new(document()).unwrap(), Scheduler::FmOt, None),
        asked: AtomicUsize::new(0),
        change: move |_, _: &Host<f32>, u: &mut Host<f32>| {
            u.data_mut().iter_mut().for_each(|u| *u = (*u * steps).round() / steps);
            Ok(())
        },
    };
    for (steps, central) in [(30.0, true), (3000.0, false)] {
        let field = rounded(steps);
        let accuracy = Accuracy::measure(&field, &small_pool(&field, &UNCONDITIONAL, 8)).unwrap();
        println!("{steps}: {accuracy:?}");
        assert_eq!(Differences::new(accuracy).central, central);
        let changes = json!({ "rtol": 1e-3, "atol": 1e-3, "iterations": 16 });
        let outcome =
            train(&field, &UNCONDITIONAL, &settings(changes), &mut |_: &Progress| ControlFlow::Continue(())).unwrap();
        let rung = &outcome.rungs[0];
        println!("{steps}: {} from {}", rung.best.rmse, rung.start.rmse);
        assert!(rung.best.rmse < 0.7 * rung.start.rmse, "{} {}", rung.best.rmse, rung.start.rmse);
    }
}

#[test]
fn optimizers_that_need_gradients_are_refused_by_name() {
    for optimizer in ["adam", "gauss-newton"] {
        let config: TrainConfig = serde_json::from_value(json!({ "optimizer": optimizer })).unwrap();
        match suited_to(&config, false) {
            Err(Error::Invalid { field, value, .. }) => {
                assert_eq!((field.as_str(), value), ("optimizer", json!(optimizer).to_string()))
            }
            other => panic!("{other:?}"),
        }
        let bound: TrainConfig = serde_json::from_value(json!({ "optimizer": "adam", "loss": "rmse-bound" })).unwrap();
        assert_eq!(suited_to(&bound, false).unwrap(), bound);
        assert_eq!(suited_to(&config, true).unwrap(), config);
    }
    let none = suited_to(&TrainConfig::default(), false).unwrap();
    assert_eq!(json!(none.optimizer), "forward-gauss-newton");
}
