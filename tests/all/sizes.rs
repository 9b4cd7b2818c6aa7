//! Samples of several sizes in one run: those of a size share a batch, and each is what it is in a run of its own.

use crate::common::{assert_close, card};
use crate::signature::{f32s, stored};
use bespoke::Result;
use bespoke::dopri5::Tolerance;
use bespoke::evaluate::{Comparison, Ready, evaluate};
use bespoke::inputs::Column;
use bespoke::model::ModelField;
use bespoke::networks::{Call, Network};
use bespoke::noise::{Purpose, normal};
use bespoke::path::GaussianPath;
use bespoke::ranks::Ranks;
use bespoke::reference::Solver;
use bespoke::samples::{Conditioning, Conditions, Noises};
use bespoke::scheduler::Scheduler;
use bespoke::tensor::{Host, Register, Tensor};
use bespoke::train::{Job, Outcome, Pool, PoolOptions, Progress, TrainConfig, train_job};
use bespoke::velocity::{VelocityField, Vjp};
use safetensors::Dtype;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// u_i = .8 sin(x_i + t) + .5 text_(i / 2) - .4 x_(i + 1): smooth, of any number of frames of two numbers, each of
/// which depends on the next.
struct Waves {
    differentiable: bool,
}

impl Network for Waves {
    type Tensor = Host<f64>;

    fn upload(&self, values: &[f32], elements: usize) -> Result<Host<f64>> {
        Host::from_f32(values, elements)
    }

    fn forward(&self, call: &Call<'_, Host<f64>>) -> Result<Host<f64>> {
        let (n, text) = (call.x.elements(), call.inputs.get("text").unwrap());
        assert_eq!((call.shape, text.shape()), (&[n / 2, 2][..], &[n / 2][..]));
        let value = |row: usize, i: usize| {
            let (x, text) = (call.x.row(row), floats(text, row));
            0.8 * (x[i] + call.time.at(row)).sin() + 0.5 * text[i / 2] - 0.4 * x[(i + 1) % n]
        };
        Host::new((0..call.x.batch()).flat_map(|row| (0..n).map(move |i| value(row, i))).collect(), n)
    }

    fn differentiable(&self) -> bool {
        self.differentiable
    }

    fn vjp(&self, call: &Call<'_, Host<f64>>, cotangents: &[Host<f64>]) -> Result<(Host<f64>, Vjp<Host<f64>>)> {
        let (batch, n) = (call.x.batch(), call.x.elements());
        let mut vjp = Vjp { x: Vec::new(), t: Vec::new() };
        for w in cotangents {
            let slope = |row: usize, i: usize| 0.8 * (call.x.row(row)[i] + call.time.at(row)).cos();
            let by_x = |row: usize, i: usize| w.row(row)[i] * slope(row, i) - 0.4 * w.row(row)[(i + n - 1) % n];
            let by_t = |row: usize| (0..n).map(|i| w.row(row)[i] * slope(row, i)).sum();
            vjp.x.push(Host::new((0..batch).flat_map(|row| (0..n).map(move |i| by_x(row, i))).collect(), n)?);
            vjp.t.push(Host::new((0..batch).map(by_t).collect(), 1)?);
        }
        Ok((self.forward(call)?, vjp))
    }
}

fn floats(column: &Column, row: usize) -> Vec<f64> {
    column.row(row).chunks(4).map(|b| f64::from(f32::from_ne_bytes(b.try_into().unwrap()))).collect()
}

fn open(folder: &Path, differentiable: bool) -> ModelField<Host<f64>> {
    let inputs = json!([{ "name": "text", "dtype": "float32", "shape": ["frames"] }]);
    let keys = json!({ "runtime": "host", "weights": "", "shape": ["frames", 2], "output": "velocity",
                       "inputs": inputs });
    ModelField::new(card(folder, keys), Box::new(Waves { differentiable })).unwrap()
}

/// A file of `rows` conditions of so many frames, the first of which is the `from`th of all.
fn file(folder: &Path, name: &str, from: usize, rows: usize, frames: usize) -> PathBuf {
    let values: Vec<f32> = (from * frames..(from + rows) * frames).map(|i| (i as f32 * 0.7).sin()).collect();
    let tensors = vec![("text", Dtype::F32, vec![rows, frames], f32s(&values))];
    stored(&folder.join(name), &tensors, &[])
}

fn conditioning(field: &ModelField<Host<f64>>, files: &[PathBuf]) -> Conditioning {
    let conditions = Conditions::read(files, field.card()).unwrap();
    Conditioning { conditions: Some(Arc::new(conditions)), ..Conditioning::default() }
}

/// Two sizes, taken in turn: samples 0, 1, 2 are of three frames, 3 and 4 of five, 5, 6, 7 of three again.
fn mixed(folder: &Path, field: &ModelField<Host<f64>>) -> Conditioning {
    conditioning(field, &[file(folder, "a.safetensors", 0, 3, 3), file(folder, "b.safetensors", 3, 2, 5)])
}

const TIGHT: Tolerance = Tolerance { rtol: 1e-9, atol: 1e-9 };

#[test]
fn samples_of_a_size_share_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let field = open(folder.path(), true);
    let of = mixed(folder.path(), &field);
    let batches = of.batches(1..12, 0, 4);
    let found: Vec<(Vec<usize>, usize)> = batches.iter().map(|b| (b.indices.clone(), b.elements)).collect();
    assert_eq!(found, [(vec![1, 2, 5, 6], 6), (vec![7, 10, 11], 6), (vec![3, 4, 8, 9], 10)]);
    // Of one size they are the runs of old.
    let one = Conditioning::NONE.batches(0..600, 3, usize::MAX);
    assert_eq!(
        one.iter().map(|b| b.indices.clone()).collect::<Vec<_>>(),
        [(0..250).collect::<Vec<_>>(), (250..500).collect(), (500..600).collect()]
    );
}

#[test]
fn each_sample_s_error_is_that_of_a_run_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let field = open(folder.path(), true);
    let of = mixed(folder.path(), &field);
    let path = GaussianPath::new(Scheduler::FmOt, 1.0).unwrap();
    let solvers = || {
        let ready = |name: &str| (name.to_owned(), Ready::new(&Solver::parse(name).unwrap(), &path, TIGHT).unwrap());
        vec![ready("midpoint@4"), ready("dpm++2m@5")]
    };
    let run = |conditioning: &Conditioning, noises: Noises| {
        let comparison = Comparison { solvers: solvers(), noises, tolerance: TIGHT, range: 2.0 };
        evaluate(&field, conditioning, &comparison, &Ranks::alone(), |_, _| Ok(())).unwrap()
    };
    let mut seen = Vec::new();
    let comparison =
        Comparison { solvers: solvers(), noises: Noises::Seed { seed: 4, count: 12 }, tolerance: TIGHT, range: 2.0 };
    let all = evaluate(&field, &of, &comparison, &Ranks::alone(), |done, samples| {
        seen.push((done, samples.len(), samples[0].len()));
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, [(8, 3, 8 * 6), (12, 3, 4 * 10)]);
    for (index, elements) in [(0, 6), (2, 6), (3, 10), (4, 10), (5, 6), (9, 10), (11, 6)] {
        let row = index % 5;
        let (frames, name) = (elements / 2, format!("{index}.safetensors"));
        // The files' numbers run on from row to row, at their own number of frames.
        let alone = conditioning(&field, &[file(folder.path(), &name, row, 1, frames)]);
        let noise = normal(4, Purpose::Sample, index..index + 1, elements).unwrap();
        let comparison =
            Comparison { solvers: solvers(), noises: Noises::Seed { seed: 4, count: 1 }, tolerance: TIGHT, range: 2.0 };
        let x0 = field.start(&noise, elements).unwrap();
        let condition = alone.of(0..1).unwrap();
        let truth = comparison.solvers.iter().map(|(_, ready)| ready.solve(&field, &x0, &condition).unwrap().0);
        let exact = bespoke::dopri5::solve(&field, &x0, &condition, TIGHT, false).unwrap().x1;
        for (solver, x1) in truth.enumerate() {
            let own = x1.rmse(&exact).unwrap()[0];
            assert!((all.errors[solver][index] - own).abs() < 1e-7, "{index}: {} {own}", all.errors[solver][index]);
        }
    }
    // A run of one size is the same whether it is told of in one file or in two.
    let whole = conditioning(&field, &[file(folder.path(), "w.safetensors", 0, 5, 3)]);
    let parts = [file(folder.path(), "p.safetensors", 0, 2, 3), file(folder.path(), "q.safetensors", 2, 3, 3)];
    let two = conditioning(&field, &parts);
    assert_eq!(two.sizes(), 1);
    let seed = || Noises::Seed { seed: 4, count: 12 };
    let mut sized = open(folder.path(), true);
    sized.set_sizes(whole.conditions.as_ref().unwrap().sizes(0));
    assert_eq!(run(&whole, seed()).errors, run(&two, seed()).errors);
}

#[test]
fn a_pool_holds_what_pools_of_single_samples_hold() {
    let folder = tempfile::tempdir().unwrap();
    let field = open(folder.path(), true);
    let of = mixed(folder.path(), &field);
    let options =
        |indices| PoolOptions { purpose: Purpose::Train, seed: 2, indices, chunk: 3, tolerance: TIGHT, dense: true };
    let pool = Pool::solve(&field, &of, &options(5..17)).unwrap();
    assert_eq!((pool.size(), pool.most_elements()), (12, 10));
    for row in 0..pool.size() {
        let alone = Pool::solve(&field, &of, &options(5 + row..6 + row)).unwrap();
        assert_eq!(pool.elements(row), alone.elements(0));
        assert_eq!(pool.x0(&[row]).unwrap().data(), alone.x0(&[0]).unwrap().data());
        assert_eq!(pool.condition(&[row]).unwrap(), alone.condition(&[0]).unwrap());
        assert_close(pool.x1(&[row]).unwrap().data(), alone.x1(&[0]).unwrap().data(), 1e-7, "x1");
        for t in [0.0, 0.31, 1.0] {
            assert_close(pool.at(t, &[row]).unwrap().data(), alone.at(t, &[0]).unwrap().data(), 1e-6, "x(t)");
        }
    }
    // Sample 5 + row has condition (5 + row) mod 5.
    let long = |row: usize| row % 5 >= 3;
    let order = pool.by_size((0..12).collect());
    assert_eq!(order, (0..12).filter(|r| !long(*r)).chain((0..12).filter(|r| long(*r))).collect::<Vec<_>>());
    let parts = pool.parts(&order, |elements| if elements == 6 { 5 } else { 100 });
    assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [5, 3, 4]);
    let picked = [order[9], order[11]];
    let both = pool.x1(&picked).unwrap();
    for (i, row) in picked.into_iter().enumerate() {
        assert_eq!(both.row(i), pool.x1(&[row]).unwrap().data());
    }
}

fn trained(field: &ModelField<Host<f64>>, of: &Conditioning, changes: &Value, job: &Job) -> Outcome {
    let mut document = json!({ "family": "rk2", "steps": 2, "iterations": 8, "batch": 24, "pool": 60,
                               "validation": 24, "validate_every": 4 });
    document.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let config: TrainConfig = serde_json::from_value(document).unwrap();
    let settings = config.settings(2.0, None).unwrap();
    train_job(field, of, &settings, None, job, &Ranks::alone(), &mut |_: &Progress| ControlFlow::Continue(())).unwrap()
}

#[test]
fn every_optimizer_learns_one_solver_for_both_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let with = open(folder.path(), true);
    let without = open(folder.path(), false);
    for (field, changes, least) in [
        (&with, json!({ "optimizer": "adam", "loss": "rmse-bound", "lr": 0.02, "iterations": 40 }), 0.9),
        (&with, json!({ "optimizer": "adam", "loss": "rmse", "lr": 0.02, "iterations": 40 }), 0.9),
        (&with, json!({ "optimizer": "gauss-newton" }), 0.75),
        (&without, json!({ "optimizer": "forward-gauss-newton" }), 0.75),
    ] {
        let of = mixed(folder.path(), field);
        let outcome = trained(field, &of, &changes, &Job::default());
        let rung = &outcome.rungs[0];
        assert!(rung.best.rmse < least * rung.start.rmse, "{changes}: {} from {}", rung.best.rmse, rung.start.rmse);
        // It is as good on sizes it has not seen, as each of its own.
        let theta = rung.theta.clone();
        let ready = Ready::Plan(Arc::new(bespoke::sampler::Plan::new(theta.tableau())));
        let other = conditioning(field, &[file(folder.path(), "c.safetensors", 0, 4, 7)]);
        let solvers = vec![("learned".to_owned(), ready)];
        let noises = Noises::Seed { seed: 8, count: 16 };
        let comparison = Comparison { solvers, noises, tolerance: TIGHT, range: 2.0 };
        let unseen = evaluate(field, &other, &comparison, &Ranks::alone(), |_, _| Ok(())).unwrap().results[0].rmse;
        assert!(unseen < 2.0 * rung.best.rmse, "{changes}: {unseen} on another size, {} on its own", rung.best.rmse);
    }
}

#[test]
fn what_is_kept_of_several_sizes_is_what_was_solved() {
    let folder = tempfile::tempdir().unwrap();
    let field = open(folder.path(), true);
    let of = mixed(folder.path(), &field);
    // Dense, and of more than one batch a size.
    let changes = json!({ "loss": "rmse-bound", "optimizer": "adam", "pool": 700, "validation": 300, "iterations": 3,
                          "batch": 20, "rtol": 1e-3, "atol": 1e-3 });
    let job = Job { pool_file: Some(folder.path().join("pool.safetensors")), ..Job::default() };
    let first = trained(&field, &of, &changes, &job);
    assert!(job.pool_file.as_ref().unwrap().is_file());
    let again = trained(&field, &of, &changes, &job);
    assert_eq!(again.rungs[0].theta.family, first.rungs[0].theta.family);
    assert_eq!(again.ground_truth, first.ground_truth);
    let alone = trained(&field, &of, &changes, &Job::default());
    assert_eq!(alone.rungs[0].best, first.rungs[0].best);
    // Other conditions are another run's.
    let other = conditioning(&field, &[file(folder.path(), "d.safetensors", 0, 3, 3)]);
    let config: TrainConfig = serde_json::from_value(json!({ "steps": 2, "iterations": 3, "batch": 20, "pool": 700,
        "validation": 300, "loss": "rmse-bound", "optimizer": "adam", "rtol": 1e-3, "atol": 1e-3 }))
    .unwrap();
    let settings = config.settings(2.0, None).unwrap();
    let error =
        train_job(
            &field,
            &other,
            &settings,
            None,
            &job,
            &Ranks::alone(),
            &mut |_: &Progress| ControlFlow::Continue(()),
        );
    let message = error.unwrap_err().to_string();
    assert!(message.contains("pool.safetensors") && message.contains("conditions"), "{message}");
}
