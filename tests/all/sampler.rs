//! The sampler: its protocol, its plans, its dtypes, and its threads.

use crate::common::{Formula, assert_close, interpret, noise, proptest_config, sample, swirl};
use bespoke::error::Error;
use bespoke::sampler::{self, Plan, Sampler};
use bespoke::solvers::classical::{euler, heun, midpoint, rk4, uniform_grid};
use bespoke::tableau::{Combination, Keep, Operand, Place, Stage, Tableau};
use bespoke::tensor::{Crew, Element, Host, HostView, Register};
use bespoke::theta::NsTable;
use bespoke::theta::knots::{Knots, rk2};
use bespoke::velocity::Condition;
use half::{bf16, f16};
use proptest::prelude::*;
use std::sync::Arc;

fn plan(tableau: Tableau<f64>) -> Arc<Plan> {
    Arc::new(Plan::new(tableau))
}

#[test]
fn query_and_update_go_through_the_table() {
    let tableau = heun(&uniform_grid(2));
    let x0 = noise(3, 2);
    let mut sampler = Sampler::new(&x0).unwrap();
    sampler.start(&plan(tableau.clone()), &x0).unwrap();
    assert_eq!((sampler.batch(), sampler.done()), (3, false));
    let points: Vec<_> = (0..3).map(|row| interpret(&tableau, 0..4, x0.row(row), swirl)).collect();
    for k in 0..4 {
        let (times, x) = sampler.query().unwrap().unwrap();
        assert_eq!(times, [tableau.stages[k].t; 3]);
        for (row, points) in points.iter().enumerate() {
            let expected = if k == 0 { x0.row(row) } else { &points[k - 1] };
            assert_close(x.row(row), expected, 1e-14, &format!("y_{k} of sample {row}"));
        }
        let u: Vec<f64> = (0..3).flat_map(|row| swirl(times[row], x.row(row))).collect();
        // Asking twice changes nothing.
        let again = sampler.query().unwrap().unwrap().1.data().to_vec();
        assert_eq!(again, sampler.state().unwrap().data());
        sampler.update(HostView::new(&u, 2).unwrap()).unwrap();
    }
    assert!(sampler.done() && sampler.query().unwrap().is_none());
    for (row, points) in points.iter().enumerate() {
        assert_close(sampler.state().unwrap().row(row), &points[3], 1e-14, "x(1)");
    }
}

#[test]
fn calls_out_of_order_are_refused_and_harm_nothing() {
    let x0 = noise(2, 2);
    let plan = plan(euler(&[0.0, 1.0]));
    let mut sampler = Sampler::new(&x0).unwrap();
    assert!(sampler.query().unwrap().is_none(), "nothing has been started");
    assert!(matches!(sampler.update(x0.view()), Err(Error::State(_))));
    sampler.start(&plan, &x0).unwrap();
    let message = sampler.update(x0.view()).unwrap_err().to_string();
    assert!(message.contains("without a query"), "{message}");
    assert!(sampler.query().unwrap().is_some());
    sampler.update(x0.view()).unwrap();
    let x1 = sampler.state().unwrap().data().to_vec();
    assert!(matches!(sampler.update(x0.view()), Err(Error::State(_))), "after the last evaluation");
    assert_eq!(sampler.state().unwrap().data(), x1);
    sampler.start(&plan, &x0).unwrap();
    assert!(!sampler.done());
}

#[test]
fn a_velocity_of_another_shape_is_refused_by_its_shape() {
    let x0 = noise(3, 4);
    let mut sampler = Sampler::new(&x0).unwrap();
    for (batch, elements) in [(2, 4), (4, 4), (3, 3), (6, 2), (2, 6)] {
        sampler.start(&plan(euler(&[0.0, 1.0])), &x0).unwrap();
        assert!(sampler.query().unwrap().is_some());
        let message = sampler.update(noise(batch, elements).view()).unwrap_err().to_string();
        assert!(message.contains(&format!("[{batch}, {elements}]")) && message.contains("[3, 4]"), "{message}");
    }
}

#[test]
fn batches_of_other_shapes_follow_each_other() {
    let field = |elements| Formula::<f64, _>::new(elements, swirl);
    let mut sampler = Sampler::new(&noise(1, 3)).unwrap();
    for (batch, elements, tableau) in [
        (2, 3, euler(&uniform_grid(3))),
        (5, 3, rk4(&uniform_grid(2))),
        (1, 7, heun(&uniform_grid(2))),
        (0, 2, euler(&[0.0, 1.0])),
    ] {
        let x0 = if batch == 0 { Host::new(Vec::new(), elements).unwrap() } else { noise(batch, elements) };
        sampler.start(&plan(tableau.clone()), &x0).unwrap();
        while let Some((times, x)) = sampler.query().unwrap() {
            let u: Vec<f64> = (0..x.batch()).flat_map(|row| swirl(times[row], x.row(row))).collect();
            sampler.update(HostView::new(&u, elements).unwrap()).unwrap();
        }
        assert_eq!(sampler.state().unwrap().data(), sample(tableau, &field(elements), &x0));
    }
}

#[test]
fn a_velocity_that_is_not_finite_is_named() {
    fn check<E: Element>(tableau: &Tableau<f64>, bad: f64) {
        for broken in 0..tableau.nfe() {
            let calls = std::cell::Cell::new(0);
            let field = Formula::<E, _>::new(3, |t: f64, x: &[f64]| {
                let call = calls.replace(calls.get() + 1);
                let mut u = swirl(t, x);
                // One number of the last of the batch's four samples.
                if call == 4 * broken + 3 {
                    u[2] = bad;
                }
                u
            });
            let x0 = Host::<E>::from_f32(&[0.25; 12], 3).unwrap();
            let error =
                sampler::sample(&plan(tableau.clone()), &field, &x0, &Condition::default()).err().expect("refused");
            let stage = tableau.stages[broken].t;
            assert!(
                matches!(error, Error::NonFinite { evaluation, t } if evaluation == broken && t == stage),
                "{error}"
            );
            let message = error.to_string();
            assert!(message.contains(&format!("evaluation {broken} (t = {stage})")), "{message}");
        }
    }
    let ns = NsTable::compile(&heun(&uniform_grid(2))).tableau();
    for tableau in [euler(&uniform_grid(3)), rk4(&uniform_grid(1)), ns] {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            check::<f64>(&tableau, bad);
            check::<f32>(&tableau, bad);
            check::<f16>(&tableau, bad);
            check::<bf16>(&tableau, bad);
        }
    }
}

#[test]
fn a_failed_solve_stays_failed_until_the_next_start() {
    let x0 = noise(2, 2);
    let plan = plan(euler(&uniform_grid(2)));
    let mut sampler = Sampler::new(&x0).unwrap();
    sampler.start(&plan, &x0).unwrap();
    assert!(sampler.query().unwrap().is_some());
    assert!(sampler.update(HostView::new(&[0.0, 0.0, 0.0, f64::NAN], 2).unwrap()).is_err());
    assert!(matches!(sampler.query(), Err(Error::State(_))));
    assert!(matches!(sampler.update(x0.view()), Err(Error::State(_))));
    assert!(matches!(sampler.state(), Err(Error::State(_))));
    sampler.start(&plan, &x0).unwrap();
    assert!(sampler.query().unwrap().is_some() && sampler.update(x0.view()).is_ok());
}

#[test]
fn a_state_that_overflows_its_dtype_is_no_sample() {
    // Every velocity is finite in f16, their sum is not.
    let field = Formula::<f16, _>::new(1, |_: f64, _: &[f64]| vec![60_000.0]);
    let x0 = Host::<f16>::from_f32(&[60_000.0], 1).unwrap();
    let error = sampler::sample(&plan(euler(&[0.0, 1.0])), &field, &x0, &Condition::default()).unwrap_err();
    assert!(matches!(error, Error::NonFinite { .. }), "{error}");
}

#[test]
fn velocities_are_kept_only_while_they_are_needed() {
    let kept = |tableau: Tableau<f64>| Plan::new(tableau).kept_registers();
    let grid = uniform_grid(3);
    assert_eq!(kept(euler(&grid)), 0);
    assert_eq!(kept(midpoint(&grid)), 0);
    assert_eq!(kept(heun(&grid)), 1);
    assert_eq!(kept(rk4(&grid)), 3);
    let mut knots = Knots::identity(6);
    assert_eq!(kept(rk2(&knots)), 0, "s' = 0: the first velocity of a step drops out");
    knots.s_dot.fill(0.5);
    assert_eq!(kept(rk2(&knots)), 1);
    assert_eq!(kept(NsTable::compile(&rk2(&knots)).tableau()), 5);
}

/// Registers of random tables.
const REGISTERS: usize = 4;

/// A combination of anything there is, of which some adds nothing.
fn combinations() -> impl Strategy<Value = Combination<f64>> {
    let coefficient = prop_oneof![1 => Just(0.0), 2 => -0.6..0.6f64];
    let others = proptest::collection::vec(coefficient, REGISTERS + 2);
    (prop_oneof![1 => Just(0.0), 4 => 0.5..1.2f64], others).prop_map(|(state, others)| {
        let kept = (0..REGISTERS).map(Operand::Kept);
        let operands = [Operand::State, Operand::Point].into_iter().chain(kept).chain([Operand::Velocity]);
        Combination { terms: operands.zip(std::iter::once(state).chain(others)).collect() }
    })
}

/// Any table: registers that are read before they are written, twice, or never.
fn tables() -> impl Strategy<Value = Tableau<f64>> {
    let keep = prop_oneof![
        Just(Keep::Nothing),
        (0..REGISTERS).prop_map(Keep::Velocity),
        (0..REGISTERS, combinations()).prop_map(|(slot, what)| Keep::Combination(slot, what)),
    ];
    let stage = (0.0..1.0f64, combinations(), any::<bool>(), keep).prop_map(|(t, next, ends_step, keep)| Stage {
        t,
        next,
        place: if ends_step { Place::State } else { Place::Point },
        keep,
        ends_step,
    });
    proptest::collection::vec(stage, 1..9).prop_map(|stages| Tableau { stages })
}

proptest! {
    #![proptest_config(proptest_config(300))]

    #[test]
    fn any_table_runs_as_it_is_defined(tableau in tables()) {
        let x0 = noise(2, 3);
        let solved = sample(tableau.clone(), &Formula::<f64, _>::new(3, swirl), &x0);
        let expected: Vec<f64> =
            (0..2).flat_map(|row| interpret(&tableau, 0..tableau.nfe(), x0.row(row), swirl).pop().unwrap()).collect();
        assert_close(&solved, &expected, 1e-12, "x(1)");
        let compiled = NsTable::compile(&tableau).tableau();
        assert_close(&sample(compiled, &Formula::<f64, _>::new(3, swirl), &x0), &expected, 1e-12, "compiled x(1)");
    }
}

fn solve_as<E: Element>(tableau: Tableau<f64>, x0: &[f32]) -> Vec<f64> {
    let field = Formula::<E, _>::new(4, swirl);
    let x0 = Host::<E>::from_f32(x0, 4).unwrap();
    let x1 = sampler::sample(&plan(tableau), &field, &x0, &Condition::default()).unwrap();
    x1.data().iter().map(|v| v.to_f64()).collect()
}

#[test]
fn every_dtype_solves_to_its_own_precision() {
    // Starts that all four hold exactly.
    let x0: Vec<f32> = (0..40).map(|i| (i as f32 - 20.0) / 16.0).collect();
    let tableau = midpoint(&uniform_grid(10));
    let exact = solve_as::<f64>(tableau.clone(), &x0);
    assert_close(&solve_as::<f32>(tableau.clone(), &x0), &exact, 2e-6, "f32");
    assert_close(&solve_as::<f16>(tableau.clone(), &x0), &exact, 4e-3, "f16");
    assert_close(&solve_as::<bf16>(tableau, &x0), &exact, 4e-2, "bf16");
}

#[test]
fn halves_are_summed_in_single_precision_and_rounded_once() {
    fn check<E: Element>(digits: i32, name: &str) {
        // A last row of 1 + 31 terms: rounding after each would cost several units in the last place.
        let n = 31;
        let stage = |k: usize| {
            let velocity = |j: usize| if j == k { Operand::Velocity } else { Operand::Kept(j) };
            let read = if k + 1 < n { 0..0 } else { 0..n };
            let terms = read.map(|j| (velocity(j), 0.07 + 0.01 * j as f64));
            Stage {
                t: k as f64 / n as f64,
                next: Combination { terms: std::iter::once((Operand::State, 1.0)).chain(terms).collect() },
                place: Place::Point,
                keep: Keep::Velocity(k),
                ends_step: true,
            }
        };
        let grid: Vec<Stage<f64>> = (0..n).map(stage).collect();
        let velocity = |t: f64, x: &[f64]| x.iter().map(|x| (9.0 * t + 5.0 * x).sin()).collect::<Vec<f64>>();
        let x0: Vec<f32> = (0..200).map(|i| (i as f32 - 100.0) / 64.0).collect();
        let x0 = Host::<E>::from_f32(&x0, 1).unwrap();
        let field = Formula::<E, _>::new(1, velocity);
        let x1 = sampler::sample(&plan(Tableau { stages: grid }), &field, &x0, &Condition::default()).unwrap();
        for (x0, x1) in x0.data().iter().zip(x1.data()) {
            let rounded = |k: usize| E::from_f64(velocity(k as f64 / n as f64, &[x0.to_f64()])[0]).to_f64();
            let exact = x0.to_f64() + (0..n).map(|j| (0.07 + 0.01 * j as f64) * rounded(j)).sum::<f64>();
            let unit = 2f64.powf(exact.abs().log2().floor() + 1.0 - f64::from(digits)).max(1e-6);
            assert!((x1.to_f64() - exact).abs() <= 0.51 * unit, "{name}: {} for {exact}", x1.to_f64());
        }
    }
    check::<f16>(11, "f16");
    check::<bf16>(8, "bf16");
}

#[test]
fn threads_change_no_bit() {
    fn check<E: Element>(batch: usize, elements: usize, name: &str) {
        let x0 =
            Host::<E>::new(noise(batch, elements).data().iter().map(|v| E::from_f64(*v)).collect(), elements).unwrap();
        let tableau = Arc::new(Plan::new(heun(&uniform_grid(2))));
        let solve = |threads: usize| {
            let mut sampler = Sampler::new(&x0).unwrap();
            sampler.set_crew(Some(Crew::new(threads).unwrap()));
            sampler.start(&tableau, &x0).unwrap();
            while let Some((_, x)) = sampler.query().unwrap() {
                let u = x.data().iter().map(|v| E::from_f64((3.0 * v.to_f64()).sin())).collect();
                sampler.update(Host::new(u, elements).unwrap().view()).unwrap();
            }
            sampler.state().unwrap().data().iter().map(|v| v.to_f64().to_bits()).collect::<Vec<_>>()
        };
        let serial = solve(1);
        for threads in [2, 3, 7] {
            assert!(serial == solve(threads), "{name}: {threads} threads");
        }
    }
    // Just over 2^18 numbers, and no multiple of a block or of the number of threads.
    check::<f64>(7086, 37, "f64");
    check::<f32>(7086, 37, "f32");
    check::<f16>(7086, 37, "f16");
    check::<bf16>(1, (1 << 18) + 5, "bf16");
}

#[test]
fn threads_find_what_is_not_finite() {
    let (batch, elements) = (1 << 12, 80);
    let x0 = noise(batch, elements);
    for at in [0, 100_000, batch * elements - 1] {
        let mut u = x0.data().to_vec();
        u[at] = f64::NAN;
        let mut sampler = Sampler::new(&x0).unwrap();
        sampler.set_crew(Some(Crew::new(3).unwrap()));
        sampler.start(&plan(euler(&[0.0, 1.0])), &x0).unwrap();
        assert!(sampler.query().unwrap().is_some());
        let result = sampler.update(HostView::new(&u, elements).unwrap());
        assert!(matches!(result, Err(Error::NonFinite { evaluation: 0, .. })), "at {at}");
    }
}
