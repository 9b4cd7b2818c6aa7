//! The Bespoke families against the paper: equations, identity, orders, Lipschitz constants, bound.

use crate::common::{Formula, assert_close, interpret, knots, noise, proptest_config, rms, sample, swirl};
use bespoke::dopri5::{self, Tolerance};
use bespoke::sampler::{self, Plan};
use bespoke::solvers::classical::{euler, heun, midpoint, rk4, uniform_grid};
use bespoke::tableau::{Combination, Keep, Operand, Place, Stage, Tableau};
use bespoke::tensor::{Element, Host};
use bespoke::theta::bound::{bound_weights, lipschitz};
use bespoke::theta::knots::{Knots, rk1, rk1_knots, rk2, rk2_knots};
use bespoke::theta::{Family, NsTable, Theta};
use bespoke::train::{Coordinates, Parameters, Structure};
use bespoke::velocity::Condition;
use proptest::prelude::*;
use std::sync::Arc;

type Velocity = dyn Fn(f64, &[f64]) -> Vec<f64>;

/// `sum_j c_j x_j` over slices.
fn combine(terms: &[(f64, &[f64])]) -> Vec<f64> {
    (0..terms[0].1.len()).map(|i| terms.iter().map(|(c, x)| c * x[i]).sum()).collect()
}

/// BES Eq. 17, as printed.
fn equation_17(k: &Knots<f64>, i: usize, x: &[f64], u: &Velocity) -> Vec<f64> {
    let h = 1.0 / k.t_dot.len() as f64;
    let velocity = u(k.t[i], x);
    combine(&[((k.s[i] + h * k.s_dot[i]) / k.s[i + 1], x), (h * k.t_dot[i] * k.s[i] / k.s[i + 1], &velocity)])
}

/// BES Eq. 19 and 20, as printed.
fn equation_19_20(k: &Knots<f64>, i: usize, x: &[f64], u: &Velocity) -> Vec<f64> {
    let h = 2.0 / k.t_dot.len() as f64;
    let (a, m, b) = (2 * i, 2 * i + 1, 2 * i + 2);
    let u_a = u(k.t[a], x);
    let z = combine(&[(k.s[a] + h / 2.0 * k.s_dot[a], x), (h / 2.0 * k.s[a] * k.t_dot[a], &u_a)]);
    let scaled: Vec<f64> = z.iter().map(|z| z / k.s[m]).collect();
    let u_m = u(k.t[m], &scaled);
    let slope = combine(&[(k.s_dot[m] / k.s[m], &z), (k.t_dot[m] * k.s[m], &u_m)]);
    combine(&[(k.s[a] / k.s[b], x), (h / k.s[b], &slope)])
}

fn transcription(k: &Knots<f64>, per_step: usize, x: &[f64], u: &Velocity) -> Vec<f64> {
    let step = if per_step == 1 { equation_17 } else { equation_19_20 };
    (0..k.t_dot.len() / per_step).fold(x.to_vec(), |x, i| step(k, i, &x, u))
}

fn table(k: &Knots<f64>, per_step: usize) -> Tableau<f64> {
    if per_step == 1 { rk1(k) } else { rk2(k) }
}

proptest! {
    #![proptest_config(proptest_config(100))]

    #[test]
    fn the_rk1_table_is_equation_17(k in knots(1, 8)) {
        let x0 = noise(3, 4);
        let solved = sample(rk1(&k), &Formula::<f64, _>::new(4, swirl), &x0);
        let printed: Vec<f64> = (0..3).flat_map(|row| transcription(&k, 1, x0.row(row), &swirl)).collect();
        assert_close(&solved, &printed, 1e-12, "x(1)");
    }

    #[test]
    fn the_rk2_table_is_equations_19_and_20(k in knots(2, 6)) {
        let x0 = noise(3, 4);
        let solved = sample(rk2(&k), &Formula::<f64, _>::new(4, swirl), &x0);
        let printed: Vec<f64> = (0..3).flat_map(|row| transcription(&k, 2, x0.row(row), &swirl)).collect();
        assert_close(&solved, &printed, 1e-12, "x(1)");
    }

    #[test]
    fn a_table_of_the_family_has_knots_that_make_it(k1 in knots(1, 8), k2 in knots(2, 6)) {
        for (structure, tableau, found) in [
            (Structure::Rk1(k1.t_dot.len()), rk1(&k1), rk1_knots(&rk1(&k1))),
            (Structure::Rk2(k2.t_dot.len() / 2), rk2(&k2), rk2_knots(&rk2(&k2))),
        ] {
            let theta = Theta::new(match structure {
                Structure::Rk1(_) => Family::Rk1(found),
                _ => Family::Rk2(found),
            }).unwrap();
            assert_close(&theta.tableau().scalars(), &tableau.scalars(), 1e-11, "scalars");
            // As parameters, there and back again.
            let knots = Parameters::from_theta(&theta);
            let table = knots.clone().in_coordinates(Coordinates::Table).unwrap();
            prop_assert!(knots.is_whole() && table.is_whole() && table.values.len() < knots.values.len());
            assert_close(&table.tableau().scalars(), &tableau.scalars(), 1e-11, "table");
            let back = table.in_coordinates(Coordinates::Knots).unwrap();
            assert_close(&back.tableau().scalars(), &tableau.scalars(), 1e-11, "knots");
        }
    }

    #[test]
    fn compiling_to_a_non_stationary_table_changes_no_sample(k1 in knots(1, 6), k2 in knots(2, 4)) {
        let grid = uniform_grid(3);
        let predicted = predictor();
        for tableau in [rk1(&k1), rk2(&k2), euler(&grid), midpoint(&grid), heun(&grid), rk4(&grid), predicted] {
            let field = Formula::<f64, _>::new(3, swirl);
            let compiled = NsTable::compile(&tableau);
            prop_assert_eq!(compiled.t.len(), tableau.nfe());
            let x0 = noise(2, 3);
            assert_close(&sample(compiled.tableau(), &field, &x0), &sample(tableau, &field, &x0), 1e-12, "x(1)");
        }
    }

    #[test]
    fn a_step_never_stretches_distances_by_more_than_its_lipschitz_constant(
        k1 in knots(1, 5), k2 in knots(2, 5), l_tau in 0.2..4.0f64, x in prop::array::uniform3(-2.0..2.0f64),
        y in prop::array::uniform3(-2.0..2.0f64),
    ) {
        // Element by element L sin(x + t): its Lipschitz constant is L in any p-norm.
        let u = move |t: f64, x: &[f64]| x.iter().map(|x| l_tau * (x + t).sin()).collect::<Vec<f64>>();
        for (k, per_step) in [(&k1, 1), (&k2, 2)] {
            for (i, l) in lipschitz(k, per_step, l_tau).into_iter().enumerate() {
                let step = |x: &[f64]| step_of(&table(k, per_step), i, x, &u);
                let stretched = rms(&step(&x), &step(&y));
                prop_assert!(stretched <= l * rms(&x, &y) * (1.0 + 1e-12) + 1e-15, "step {i}: {stretched}");
            }
        }
    }
}

/// Step `i` of a table, from `x`.
fn step_of(tableau: &Tableau<f64>, i: usize, x: &[f64], u: &Velocity) -> Vec<f64> {
    interpret(tableau, Plan::new(tableau.clone()).step_stages(i).unwrap(), x, u).pop().unwrap()
}

/// A table that uses every kind of register: predictions that are kept and overwritten, points amid steps.
fn predictor() -> Tableau<f64> {
    use Operand::{Kept, Point, State, Velocity};
    let sum = |terms: &[(Operand, f64)]| Combination { terms: terms.to_vec() };
    let stage = |t, next: &[(Operand, f64)], place, keep| Stage { t, next: sum(next), place, keep, ends_step: true };
    let kept = |slot, terms: &[(Operand, f64)]| Keep::Combination(slot, sum(terms));
    Tableau {
        stages: vec![
            stage(0.0, &[(State, 1.0), (Velocity, 0.3)], Place::Point, kept(0, &[(State, 0.4), (Velocity, -0.2)])),
            stage(0.3, &[(State, 0.9), (Point, 0.1), (Kept(0), 0.4)], Place::State, Keep::Velocity(1)),
            stage(0.7, &[(Point, 1.0), (Kept(1), 0.2), (Velocity, 0.4)], Place::State, kept(0, &[(Kept(0), 0.5)])),
            stage(0.9, &[(Kept(0), 0.5), (Kept(1), 0.25)], Place::Point, Keep::Nothing),
            stage(1.0, &[(State, 0.8), (Point, 0.2), (Kept(1), 0.1)], Place::State, Keep::Nothing),
        ],
    }
}

/// Solves a batch of E, and gives the bits of the result.
fn bits<E: Element>(tableau: Tableau<f64>) -> Vec<u64> {
    let x0 = Host::<E>::new(noise(5, 6).data().iter().map(|v| E::from_f64(*v)).collect(), 6).unwrap();
    let field = Formula::<E, _>::new(6, swirl);
    let x1 = sampler::sample(&Arc::new(Plan::new(tableau)), &field, &x0, &Condition::default()).unwrap();
    x1.data().iter().map(|v| v.to_f64().to_bits()).collect()
}

#[test]
fn the_identity_theta_is_euler_and_midpoint_to_the_last_bit() {
    for steps in 1..=24 {
        let grid = uniform_grid(steps);
        let (one, two) = (Knots::identity(steps), Knots::identity(2 * steps));
        assert_eq!(bits::<f64>(rk1(&one)), bits::<f64>(euler(&grid)), "euler, {steps} steps, f64");
        assert_eq!(bits::<f32>(rk1(&one)), bits::<f32>(euler(&grid)), "euler, {steps} steps, f32");
        assert_eq!(bits::<f64>(rk2(&two)), bits::<f64>(midpoint(&grid)), "midpoint, {steps} steps, f64");
        assert_eq!(bits::<f32>(rk2(&two)), bits::<f32>(midpoint(&grid)), "midpoint, {steps} steps, f32");
    }
}

#[test]
fn the_identity_theta_is_the_textbook_loop() {
    for steps in [1, 3, 7, 10] {
        let h = 1.0 / steps as f64;
        let x0 = noise(1, 4);
        let (mut by_euler, mut by_midpoint) = (x0.data().to_vec(), x0.data().to_vec());
        for i in 0..steps {
            let t = i as f64 * h;
            by_euler = combine(&[(1.0, &by_euler), (h, &swirl(t, &by_euler))]);
            let half = combine(&[(1.0, &by_midpoint), (h / 2.0, &swirl(t, &by_midpoint))]);
            by_midpoint = combine(&[(1.0, &by_midpoint), (h, &swirl(t + h / 2.0, &half))]);
        }
        let field = Formula::<f64, _>::new(4, swirl);
        assert_close(&sample(rk1(&Knots::identity(steps)), &field, &x0), &by_euler, 1e-15, "euler");
        assert_close(&sample(rk2(&Knots::identity(2 * steps)), &field, &x0), &by_midpoint, 1e-15, "midpoint");
    }
}

/// Knots that sample t_r = r + a sin(pi r) / pi and s_r = exp(b sin(2 r) + c r^2) with their derivatives.
fn smooth(intervals: usize, [a, b, c]: [f64; 3]) -> Knots<f64> {
    use std::f64::consts::PI;
    let r = uniform_grid(intervals);
    let s = |r: f64| (b * (2.0 * r).sin() + c * r * r).exp();
    let mut t: Vec<f64> = r.iter().map(|r| r + a * (PI * r).sin() / PI).collect();
    t[intervals] = 1.0;
    let inner = &r[..intervals];
    Knots {
        t,
        t_dot: inner.iter().map(|r| 1.0 + a * (PI * r).cos()).collect(),
        s: r.iter().map(|r| s(*r)).collect(),
        s_dot: inner.iter().map(|r| s(*r) * (2.0 * b * (2.0 * r).cos() + 2.0 * c * r)).collect(),
    }
}

#[test]
fn smooth_transformations_keep_the_order_of_their_base() {
    let field = Formula::<f64, _>::new(3, swirl);
    let x0 = noise(16, 3);
    let exact = dopri5::solve(&field, &x0, &Condition::default(), Tolerance { rtol: 1e-12, atol: 1e-12 }, false);
    let exact = exact.unwrap().x1;
    for shape in [[0.0, 0.0, 0.0], [0.6, 0.3, -0.4], [-0.7, -0.5, 0.5], [0.3, 0.9, 0.2], [-0.2, 0.0, 0.8]] {
        for (per_step, order) in [(1, 1.0), (2, 2.0)] {
            let error = |steps: usize| {
                let knots = smooth(steps * per_step, shape);
                rms(&sample(table(&knots, per_step), &field, &x0), exact.data())
            };
            let measured = (error(80) / error(320)).log2() / 2.0;
            assert!((measured - order).abs() < 0.1, "order {measured} for RK{per_step} and {shape:?}");
        }
    }
}

#[test]
fn knots_that_are_no_derivatives_do_not_converge() {
    // The other side of Thm 2.2: a test of orders that would pass for any knots shows nothing.
    let field = Formula::<f64, _>::new(3, swirl);
    let x0 = noise(4, 3);
    let error = |steps: usize, tolerance: f64| {
        let mut knots = smooth(2 * steps, [0.4, 0.2, 0.1]);
        knots.t_dot.iter_mut().for_each(|v| *v *= 1.1);
        let exact =
            dopri5::solve(&field, &x0, &Condition::default(), Tolerance { rtol: tolerance, atol: tolerance }, false);
        rms(&sample(rk2(&knots), &field, &x0), exact.unwrap().x1.data())
    };
    assert!(error(320, 1e-10) > 0.5 * error(20, 1e-10));
}

#[test]
fn lipschitz_constants_are_attained_by_a_linear_field() {
    // u = L x and s' >= 0: each inequality of Appendix D is an equality.
    let l_tau = 1.7;
    let u = move |_: f64, x: &[f64]| x.iter().map(|x| l_tau * x).collect::<Vec<f64>>();
    for per_step in [1, 2] {
        let k = smooth(4 * per_step, [0.5, 0.2, 0.3]);
        assert!(k.s_dot.iter().all(|v| *v >= 0.0));
        for (i, l) in lipschitz(&k, per_step, l_tau).into_iter().enumerate() {
            let stretched = step_of(&table(&k, per_step), i, &[1.0], &u)[0];
            assert!((stretched / l - 1.0).abs() < 1e-12, "RK{per_step} step {i}: {stretched}, L_i {l}");
        }
    }
}

/// (sum_i M_i d_i, e_n) of one sample, with the exact path by dense output.
fn bound_and_error(k: &Knots<f64>, per_step: usize, l_tau: f64, x0: &[f64], u: &Velocity) -> (f64, f64) {
    let field = Formula::<f64, _>::new(x0.len(), u);
    let start = Host::new(x0.to_vec(), x0.len()).unwrap();
    let tolerance = Tolerance { rtol: 1e-11, atol: 1e-11 };
    let solution = dopri5::solve(&field, &start, &Condition::default(), tolerance, true).unwrap();
    let dense = solution.dense.unwrap();
    let path = |i: usize| dense.at(k.t[i * per_step], &[0]).unwrap().data().to_vec();
    let weights = bound_weights(&lipschitz(k, per_step, l_tau));
    let tableau = table(k, per_step);
    let bound = weights.iter().enumerate().map(|(i, m)| {
        let local = rms(&path(i + 1), &step_of(&tableau, i, &path(i), u));
        m * local
    });
    let error = rms(&sample(tableau.clone(), &field, &start), solution.x1.data());
    (bound.sum(), error)
}

proptest! {
    #![proptest_config(proptest_config(40))]

    #[test]
    fn the_bound_holds_where_l_tau_is_true(
        k1 in knots(1, 5), k2 in knots(2, 5), l_tau in 0.2..3.0f64, x in prop::array::uniform3(-2.0..2.0f64),
    ) {
        let u = move |t: f64, x: &[f64]| x.iter().map(|x| l_tau * (x + 3.0 * t).sin()).collect::<Vec<f64>>();
        for (k, per_step) in [(&k1, 1), (&k2, 2)] {
            let (bound, error) = bound_and_error(k, per_step, l_tau, &x, &u);
            prop_assert!(bound >= error - 1e-8, "RK{per_step}: bound {bound}, error {error}");
        }
    }
}

/// Knots of the base solver on a grid of its own: s = 1, each step as long as t says.
fn on_grid(grid: &[f64], per_step: usize) -> Knots<f64> {
    let steps = grid.len() - 1;
    let mut k = Knots::identity(steps * per_step);
    for i in 0..steps {
        let length = grid[i + 1] - grid[i];
        for j in 0..per_step {
            k.t[i * per_step + j] = grid[i] + length * j as f64 / per_step as f64;
            k.t_dot[i * per_step + j] = length * steps as f64;
        }
    }
    k
}

#[test]
fn the_bound_is_attained_by_a_linear_field() {
    // One dimension, u = L x, s = 1: all local errors have one sign, and each step stretches by
    // exactly its own L_i. Any other product than M_i = L_i ... L_{n-1} gives another number.
    let l_tau = 1.3;
    let u = move |_: f64, x: &[f64]| x.iter().map(|x| l_tau * x).collect::<Vec<f64>>();
    for per_step in [1, 2] {
        for grid in [vec![0.0, 1.0], vec![0.0, 0.2, 1.0], vec![0.0, 0.1, 0.5, 0.6, 0.9, 1.0]] {
            let (bound, error) = bound_and_error(&on_grid(&grid, per_step), per_step, l_tau, &[0.8], &u);
            assert!((bound / error - 1.0).abs() < 1e-6, "RK{per_step} on {grid:?}: bound {bound}, error {error}");
        }
    }
}
