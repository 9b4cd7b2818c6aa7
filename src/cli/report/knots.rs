//! The scale-time transformations that solvers amount to, on the model's own path (BES Eq. 16).

use bespoke::Result;
use bespoke::path::GaussianPath;
use bespoke::reference::Solver;
use bespoke::scheduler::Scheduler;
use bespoke::theta::Family;
use num_dual::Dual64;
use serde::Serialize;

/// t(r) and s(r) with their derivatives, where there are any: `[r, value]` each.
#[derive(Serialize)]
pub struct KnotCurve {
    /// Whose.
    pub solver: String,
    /// Whether it is a learned one, with a point for each knot.
    pub learned: bool,
    pub t: Vec<(f64, f64)>,
    pub t_dot: Vec<(f64, f64)>,
    pub s: Vec<(f64, f64)>,
    pub s_dot: Vec<(f64, f64)>,
}

/// Points of a curve that is given by a formula.
const FINE: usize = 200;
/// Where DDIM begins on a path that has no data at t = 0.
const START: f64 = 1e-3;

/// Of the thetas, called as `labels` has it, then of the base solver, DDIM and EDM.
pub fn of(solvers: &[Solver], labels: &[String], own: &GaussianPath) -> Result<Vec<KnotCurve>> {
    let learned = solvers.iter().zip(labels).filter_map(|(solver, label)| match solver {
        Solver::Theta(_, theta) => Some(of_theta(label.clone(), &theta.family)),
        _ => None,
    });
    let mut curves: Vec<KnotCurve> = learned.collect();
    curves.push(base());
    curves.push(ddim(own));
    curves.push(edm(own)?);
    Ok(curves)
}

fn of_theta(solver: String, family: &Family) -> KnotCurve {
    let along = |values: &[f64], intervals: usize| -> Vec<(f64, f64)> {
        values.iter().enumerate().map(|(i, v)| (i as f64 / intervals as f64, *v)).collect()
    };
    match family {
        Family::Rk1(knots) | Family::Rk2(knots) => {
            let intervals = knots.t_dot.len();
            KnotCurve {
                solver,
                learned: true,
                t: along(&knots.t, intervals),
                t_dot: along(&knots.t_dot, intervals),
                s: along(&knots.s, intervals),
                s_dot: along(&knots.s_dot, intervals),
            }
        }
        // A table has times, and no transformation behind them.
        Family::Ns(table) => KnotCurve {
            solver,
            learned: true,
            t: along(&table.t, table.t.len()),
            t_dot: Vec::new(),
            s: Vec::new(),
            s_dot: Vec::new(),
        },
    }
}

/// Euler, midpoint: the identity.
fn base() -> KnotCurve {
    let constant = |v: f64| vec![(0.0, v), (1.0, v)];
    KnotCurve {
        solver: "base solver".into(),
        learned: false,
        t: vec![(0.0, 0.0), (1.0, 1.0)],
        t_dot: constant(1.0),
        s: constant(1.0),
        s_dot: constant(0.0),
    }
}

/// Equal steps of the model's time, and Euler over x / alpha: s = alpha_0 / alpha.
fn ddim(own: &GaussianPath) -> KnotCurve {
    let start = if own.level(0.0).alpha > 0.0 { 0.0 } else { START };
    let first = own.level(start).alpha;
    let scale = |r: f64| first / own.level(r).alpha;
    let slope = |r: f64| -scale(r) * own.rates(r).0 / own.level(r).alpha;
    let along = |f: &dyn Fn(f64) -> f64| fine().map(|r| r.max(start)).map(|r| (r, f(r))).filter(finite).collect();
    KnotCurve {
        solver: "DDIM".into(),
        learned: false,
        t: along(&|r| r),
        t_dot: along(&|_| 1.0),
        s: along(&scale),
        s_dot: along(&slope),
    }
}

/// The path alpha = 1 with noise levels equidistant in their 7th root (Thm 2.3 gives its t and s).
fn edm(own: &GaussianPath) -> Result<KnotCurve> {
    let path = own.on(Scheduler::EDM, 1.0)?;
    let points: Vec<(f64, Dual64, Dual64)> = fine()
        .map(|r| {
            let (t, s) = path.transformation(Dual64::new(r, 1.0));
            (r, t, s)
        })
        .collect();
    let along = |f: &dyn Fn(&(f64, Dual64, Dual64)) -> f64| points.iter().map(|p| (p.0, f(p))).filter(finite).collect();
    Ok(KnotCurve {
        solver: "EDM".into(),
        learned: false,
        t: along(&|p| p.1.re),
        t_dot: along(&|p| p.1.eps),
        s: along(&|p| p.2.re),
        s_dot: along(&|p| p.2.eps),
    })
}

fn fine() -> impl Iterator<Item = f64> {
    (0..=FINE).map(|i| i as f64 / FINE as f64)
}

fn finite(point: &(f64, f64)) -> bool {
    point.1.is_finite()
}
