//! Published solvers on a few registers: the numbers of the tables that read every velocity, at the cost of their order.

use bespoke::error::Result;
use bespoke::path::GaussianPath;
use bespoke::reference::Solver;
use bespoke::sampler::{Plan, Sampler};
use bespoke::scheduler::Scheduler;
use bespoke::solvers::SolverName;
use bespoke::tensor::{Host, Register};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// States after every evaluation of solvers on `path`, from x(0) = 0.7 under [`velocity`].
#[derive(Serialize, Deserialize)]
struct Golden {
    /// Of [`paths`].
    path: usize,
    solver: String,
    states: Vec<f64>,
}

fn paths() -> Vec<GaussianPath> {
    let path = |scheduler, end| GaussianPath::new(scheduler, end).expect("a path");
    vec![
        path(Scheduler::FmOt, 1.0),
        path(Scheduler::Cosine, 0.98),
        path(Scheduler::VP, 0.999),
        path(Scheduler::VP, 1.0),
        path(Scheduler::EDM, 1.0),
        path(Scheduler::FmOt, 1.0).on(Scheduler::VP, 1.0).expect("vp"),
        path(Scheduler::EDM, 1.0).on(Scheduler::FmOt, 5.0).expect("fm-ot"),
    ]
}

fn velocity(t: f64, x: f64) -> f64 {
    (3.0 * t).cos() - (1.0 + t) * x + (2.0 * x).sin()
}

fn states(plan: &Arc<Plan>) -> Result<Vec<f64>> {
    let x0 = Host::new(vec![0.7], 1)?;
    let mut sampler = Sampler::new(&x0)?;
    sampler.start(plan, &x0)?;
    let mut states = Vec::new();
    while let Some((times, x)) = sampler.query()? {
        let u = Host::new(vec![velocity(times[0], x.data()[0])], 1)?;
        sampler.update(u.view())?;
        states.push(sampler.state()?.data()[0]);
    }
    Ok(states)
}

fn found() -> Vec<Golden> {
    let mut all = Vec::new();
    for (index, path) in paths().iter().enumerate() {
        for solver in SolverName::ALL {
            for nfe in [1, 2, 3, 5, 8, 16, 19] {
                let reference = format!("{}@{nfe}", solver.name);
                let Ok(solver) = Solver::parse(&reference) else { continue };
                let table = solver.tableau(path).expect(&reference).expect("a table");
                let states = states(&Arc::new(Plan::new(table))).expect(&reference);
                all.push(Golden { path: index, solver: reference, states });
            }
        }
    }
    all
}

#[test]
fn every_state_is_that_of_the_table_over_all_velocities() {
    // Made by the release before registers, whose multistep rows went from x(0) over every velocity.
    let golden: Vec<Golden> = serde_json::from_str(include_str!("../golden/states.json")).expect("the golden file");
    let mut found = found().into_iter();
    let mut worst = 0.0f64;
    for expected in &golden {
        let case = found.next().expect("as many cases");
        let label = format!("{} on {:?}", case.solver, paths()[case.path]);
        assert_eq!((case.path, &case.solver), (expected.path, &expected.solver));
        assert_eq!(case.states.len(), expected.states.len(), "{label}");
        let size = expected.states.iter().fold(1.0f64, |size, x| size.max(x.abs()));
        for (k, (a, b)) in case.states.iter().zip(&expected.states).enumerate() {
            let difference = (a - b).abs() / size;
            worst = worst.max(difference);
            assert!(difference < 1e-10, "{label}, after evaluation {k}: {a} for {b}");
        }
    }
    assert!(found.next().is_none() && golden.len() > 900);
    println!("{} solves, largest difference {worst:.1e}", golden.len());
}

/// As many registers as a solver of this name may keep: its order, and one more.
fn most_registers(solver: &SolverName) -> usize {
    solver.order + 1
}

#[test]
fn a_published_solver_keeps_its_order_whatever_the_evaluations() {
    for (index, path) in paths().iter().enumerate() {
        for solver in SolverName::ALL {
            let (least, step, most) = solver.nfe.range();
            let mut kept = Vec::new();
            for nfe in [least + 20 * step, least + 200 * step, most] {
                let table = solver.tableau(nfe, &solver.grid, path).expect(solver.name);
                let plan = Plan::new(table);
                kept.push(plan.kept_registers());
                let per_evaluation = plan.streams() as f64 / plan.nfe() as f64;
                // Registers, state, point and velocity are read; state or point and a register are written.
                assert!(
                    per_evaluation <= (plan.kept_registers() + 5) as f64,
                    "{}@{nfe}: {per_evaluation}",
                    solver.name
                );
            }
            assert!(kept.iter().all(|k| *k == kept[0]), "{} on path {index}: {kept:?}", solver.name);
            assert!(kept[0] <= most_registers(solver), "{} on path {index}: {}", solver.name, kept[0]);
        }
    }
}

#[test]
fn a_solve_may_begin_where_nothing_is_kept_from_before() {
    let path = &paths()[2];
    let fresh = |reference: &str| -> Vec<usize> {
        let table = Solver::parse(reference).expect(reference).tableau(path).expect(reference).expect("a table");
        let plan = Plan::new(table);
        (0..plan.nfe()).filter(|k| plan.self_contained(*k)).collect()
    };
    // One step after another.
    assert_eq!(fresh("ddim@5"), [0, 1, 2, 3, 4]);
    assert_eq!(fresh("midpoint@6"), [0, 2, 4]);
    assert_eq!(fresh("dpm-solver-3@8"), [0, 3, 6]);
    assert_eq!(fresh("edm@5"), [0, 2, 4]);
    // Multistep: the first, and with few evaluations the last, whose step is of first order.
    assert_eq!(fresh("ab3@6"), [0]);
    assert_eq!(fresh("dpm++2m@6"), [0, 5]);
    assert_eq!(fresh("dpm++3m@20"), [0]);
    assert_eq!(fresh("deis@6"), [0]);
    // UniPC's last evaluation still mends its point.
    assert_eq!(fresh("unipc@6"), [0]);
}
