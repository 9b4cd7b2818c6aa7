//! The adaptive ground truth against solutions that are known.

use crate::common::{Formula, assert_close, noise, rms};
use bespoke::dopri5::{self, Solution, Tolerance};
use bespoke::error::Error;
use bespoke::tensor::{Host, Register, Tensor};
use bespoke::velocity::Condition;
use std::sync::atomic::Ordering;

/// A damped rotation: x' = A x with A = [[-0.5, 3], [-3, -0.5]].
fn spiral(_: f64, x: &[f64]) -> Vec<f64> {
    vec![-0.5 * x[0] + 3.0 * x[1], -3.0 * x[0] - 0.5 * x[1]]
}

fn spiral_at(t: f64, x0: &[f64]) -> Vec<f64> {
    let (sin, cos) = (3.0 * t).sin_cos();
    let decay = (-0.5 * t).exp();
    vec![decay * (cos * x0[0] + sin * x0[1]), decay * (cos * x0[1] - sin * x0[0])]
}

/// x' = 6 cos(6t) x^2, of solution x0 / (1 - x0 sin 6t): nonlinear and of its own time.
fn wave(t: f64, x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| 6.0 * (6.0 * t).cos() * x * x).collect()
}

fn wave_at(t: f64, x0: &[f64]) -> Vec<f64> {
    x0.iter().map(|x0| x0 / (1.0 - x0 * (6.0 * t).sin())).collect()
}

type Field = fn(f64, &[f64]) -> Vec<f64>;

fn solve(velocity: Field, x0: &[f64], tolerance: f64, dense: bool) -> Solution<Host<f64>> {
    let field = Formula::<f64, _>::new(x0.len(), velocity);
    let x0 = Host::new(x0.to_vec(), x0.len()).unwrap();
    let tolerance = Tolerance { rtol: tolerance, atol: tolerance };
    dopri5::solve(&field, &x0, &Condition::default(), tolerance, dense).unwrap()
}

const CASES: [(&str, Field, Field, [f64; 2]); 2] =
    [("spiral", spiral, spiral_at, [1.0, -0.4]), ("wave", wave, wave_at, [0.6, -0.8])];

#[test]
fn known_solutions_are_met_within_the_tolerance() {
    for (name, velocity, exact, x0) in CASES {
        for tolerance in [1e-3, 1e-5, 1e-8, 1e-11] {
            let x1 = solve(velocity, &x0, tolerance, false).x1;
            assert_close(x1.data(), &exact(1.0, &x0), 20.0 * tolerance, &format!("{name} at {tolerance:e}"));
        }
    }
}

#[test]
fn error_and_cost_follow_the_tolerance() {
    for (name, velocity, exact, x0) in CASES {
        let run = |tolerance: f64| {
            let solution = solve(velocity, &x0, tolerance, false);
            (rms(solution.x1.data(), &exact(1.0, &x0)).log10(), (solution.evaluations as f64).log10())
        };
        let (coarse, fine) = (run(1e-5), run(1e-11));
        // Six decades of tolerance: about six of error, and a fifth of that in evaluations.
        let (error, cost) = ((coarse.0 - fine.0) / 6.0, (fine.1 - coarse.1) / 6.0);
        assert!((0.75..1.25).contains(&error), "{name}: error goes as tolerance^{error}");
        assert!((0.14..0.22).contains(&cost), "{name}: evaluations go as tolerance^-{cost}");
    }
}

#[test]
fn dense_output_is_as_good_as_the_solution_at_any_time() {
    for (name, velocity, exact, x0) in CASES {
        let worst = |tolerance: f64| {
            let solution = solve(velocity, &x0, tolerance, true);
            let dense = solution.dense.unwrap();
            let error = |t: f64| rms(dense.at(t, &[0]).unwrap().data(), &exact(t, &x0));
            assert_eq!(error(0.0), 0.0, "{name}");
            assert_close(dense.at(1.0, &[0]).unwrap().data(), solution.x1.data(), 1e-15, name);
            // An irrational stride meets every part of every step.
            let worst = (0..2000).map(|i| error((i as f64 * 0.618_033_988_749_895).fract())).fold(0.0, f64::max);
            assert!(worst < 100.0 * tolerance, "{name} at {tolerance:e}: {worst:e}");
            (worst.log10(), (solution.steps.0 as f64).log10())
        };
        let (coarse, fine) = (worst(1e-6), worst(1e-11));
        let order = (coarse.0 - fine.0) / (fine.1 - coarse.1);
        assert!(order > 3.8, "{name}: dense output of order {order}");
    }
}

#[test]
fn dense_output_gives_the_samples_asked_for() {
    let field = Formula::<f64, _>::new(2, spiral);
    let x0 = noise(5, 2);
    let tolerance = Tolerance { rtol: 1e-10, atol: 1e-10 };
    let dense = dopri5::solve(&field, &x0, &Condition::default(), tolerance, true).unwrap().dense.unwrap();
    let picked = dense.at(0.37, &[3, 0, 3]).unwrap();
    assert_eq!((picked.batch(), picked.elements()), (3, 2));
    for (i, row) in [3, 0, 3].into_iter().enumerate() {
        assert_close(picked.row(i), &spiral_at(0.37, x0.row(row)), 1e-8, "x(0.37)");
    }
    assert!(dense.at(0.5, &[5]).is_err(), "there is no sample 5");
    let none = dopri5::solve(&field, &x0, &Condition::default(), tolerance, false).unwrap();
    assert!(none.dense.is_none());
}

#[test]
fn evaluations_are_counted_as_they_are_made() {
    for (name, velocity, _, x0) in CASES {
        for tolerance in [1e-3, 1e-7] {
            let field = Formula::<f64, _>::new(2, velocity);
            let start = Host::new(x0.to_vec(), 2).unwrap();
            let tolerance = Tolerance { rtol: tolerance, atol: tolerance };
            let solution = dopri5::solve(&field, &start, &Condition::default(), tolerance, false).unwrap();
            assert_eq!(solution.evaluations, field.evaluations.load(Ordering::Relaxed), "{name}");
            // One for the first slope, one to find the first step, six for each step (the last is the next's first).
            assert_eq!(solution.evaluations, 2 + 6 * (solution.steps.0 + solution.steps.1), "{name}");
        }
    }
}

#[test]
fn refused_steps_cost_and_do_not_spoil() {
    // A bump the first steps overlook.
    fn bump(t: f64, x: &[f64]) -> Vec<f64> {
        vec![30.0 * (-((t - 0.6) / 0.08).powi(2)).exp() - 0.1 * x[0]]
    }
    let coarse = solve(bump, &[0.0], 1e-5, false);
    let fine = solve(bump, &[0.0], 1e-11, false);
    assert!(coarse.steps.1 > 0, "no step was refused: {:?}", coarse.steps);
    assert_close(coarse.x1.data(), fine.x1.data(), 2e-4, "x(1)");
}

#[test]
fn the_worst_sample_sets_the_step() {
    // Two samples that stand still beside one that turns fast: it is as exact as alone.
    let velocity = |_: f64, x: &[f64]| vec![x[2] * x[1], -x[2] * x[0], 0.0];
    let field = Formula::<f64, _>::new(3, velocity);
    let x0 = Host::new([[1.0, 0.0, 0.0], [0.3, 0.2, 0.0], [1.0, 0.0, 20.0]].concat(), 3).unwrap();
    let tolerance = Tolerance { rtol: 1e-7, atol: 1e-7 };
    let together = dopri5::solve(&field, &x0, &Condition::default(), tolerance, false).unwrap();
    assert_close(together.x1.row(2), &[20f64.cos(), -20f64.sin(), 20.0], 3e-6, "the fast sample");
    assert_close(together.x1.row(1), &[0.3, 0.2, 0.0], 1e-15, "a sample at rest");
    let alone = dopri5::solve(&field, &x0.select(&[2]).unwrap(), &Condition::default(), tolerance, false).unwrap();
    assert_eq!(alone.steps, together.steps);
}

#[test]
fn single_precision_meets_the_default_tolerance() {
    let field = Formula::<f32, _>::new(2, spiral);
    let x0 = Host::<f32>::from_f32(&[1.0, -0.4], 2).unwrap();
    let solution = dopri5::solve(&field, &x0, &Condition::default(), Tolerance::default(), false).unwrap();
    let x1: Vec<f64> = solution.x1.data().iter().map(|v| f64::from(*v)).collect();
    assert_close(&x1, &spiral_at(1.0, &[1.0, -0.4]), 1e-4, "x(1)");
}

#[test]
fn fields_at_rest_and_of_constant_speed_are_solved() {
    assert_eq!(solve(|_, _| vec![0.0, 0.0], &[0.5, -2.0], 1e-5, false).x1.data(), [0.5, -2.0]);
    assert_eq!(solve(|_, _| vec![0.0, 0.0], &[0.0, 0.0], 1e-5, false).x1.data(), [0.0, 0.0]);
    let moved = solve(|_, _| vec![1.0, -3.0], &[0.0, 0.0], 1e-5, true);
    assert_close(moved.x1.data(), &[1.0, -3.0], 1e-14, "x(1)");
    assert_close(moved.dense.unwrap().at(0.25, &[0]).unwrap().data(), &[0.25, -0.75], 1e-14, "x(0.25)");
}

fn failure(velocity: impl Fn(f64, &[f64]) -> Vec<f64>, x0: f64) -> Error {
    let field = Formula::<f64, _>::new(1, velocity);
    let x0 = Host::new(vec![x0], 1).unwrap();
    dopri5::solve(&field, &x0, &Condition::default(), Tolerance::default(), true).err().expect("the solve failed")
}

#[test]
fn a_field_that_is_not_finite_is_named_with_its_time() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = failure(|_, _| vec![bad], 1.0);
        assert!(matches!(error, Error::NonFinite { evaluation: 0, t } if t == 0.0), "{error}");
        let error = failure(|t, x| vec![if t > 0.0 { bad } else { x[0] }], 1.0);
        assert!(matches!(error, Error::NonFinite { evaluation: 1, t } if t > 0.0), "{error}");
        // The steps shrink towards the wall, and the report is of an evaluation that was made behind it.
        let times = std::cell::RefCell::new(Vec::new());
        let wall = |t: f64, x: &[f64]| {
            times.borrow_mut().push(t);
            vec![if t > 0.5 { bad } else { x[0] }]
        };
        let error = failure(wall, 1.0);
        let Error::NonFinite { evaluation, t } = error else { panic!("{error}") };
        assert!(t > 0.5 && t < 0.500_001 && times.borrow()[evaluation] == t, "evaluation {evaluation}, t = {t}");
    }
}

#[test]
fn a_solution_that_runs_off_to_infinity_is_an_error_that_says_where() {
    // x = 1 / (0.5 - t).
    let error = failure(|_, x| vec![x[0] * x[0]], 2.0);
    let message = error.to_string();
    assert!(
        matches!(error, Error::Numeric(_)) && message.contains("t = 0.49") || message.contains("t = 0.5"),
        "{message}"
    );
}

#[test]
fn a_tolerance_that_is_none_is_refused() {
    let field = Formula::<f64, _>::new(2, spiral);
    let x0 = noise(1, 2);
    for bad in [0.0, -1e-5, f64::NAN, f64::INFINITY] {
        for (name, tolerance) in
            [("rtol", Tolerance { rtol: bad, atol: 1e-5 }), ("atol", Tolerance { rtol: 1e-5, atol: bad })]
        {
            let error = dopri5::solve(&field, &x0, &Condition::default(), tolerance, false).err().expect("refused");
            assert!(matches!(&error, Error::Invalid { field, .. } if field == name), "{error}");
        }
    }
    assert_eq!(field.evaluations.load(Ordering::Relaxed), 0);
}
