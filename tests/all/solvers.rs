//! Every named solver on an exact field: order of convergence, finite tables, names, grids.

use crate::ended::{Field, rmse};
use bespoke::error::Error;
use bespoke::path::GaussianPath;
use bespoke::reference::Solver;
use bespoke::scheduler::Scheduler;
use bespoke::solvers::grid::Grid;
use bespoke::solvers::{Allowed, SolverName};
use bespoke::theta::Family;

fn paths() -> Vec<GaussianPath> {
    let own = [
        (Scheduler::FmOt, 1.0),
        (Scheduler::Cosine, 1.0),
        (Scheduler::VP, 0.999),
        (Scheduler::VP, 1.0),
        (Scheduler::EDM, 1.0),
    ]
    .map(|(scheduler, end)| GaussianPath::new(scheduler, end).expect("a path"));
    let others = own.iter().flat_map(|path| {
        [(Scheduler::FmOt, 1.0), (Scheduler::VP, 1.0), (Scheduler::EDM, 1.0), (Scheduler::FmOt, 5.0)]
            .map(|(other, sigma0)| path.on(other, sigma0).expect("another path"))
    });
    own.iter().cloned().chain(others).collect()
}

/// Error at `nfe` by that at twice as many, in powers of 2.
fn order(name: &str, grid: &Grid, field: &Field, nfe: usize) -> f64 {
    let solver = SolverName::find(name).expect(name);
    let x0 = field.noises(6);
    let exact = field.ground_truth(&x0);
    let error = |nfe: usize| {
        let table = solver.tableau(nfe, grid, &field.path()).expect(name);
        rmse(&field.sample(table, &x0).expect(name), &exact)
    };
    // 2n - 1 evaluations for n levels; and DPM-Solver-3 ends with order 2 only for 3 k + 2.
    let twice = match solver.nfe {
        Allowed::Odd => 2 * nfe + 1,
        _ if name == "dpm-solver-3" => 2 * nfe - 2,
        _ => 2 * nfe,
    };
    (error(nfe) / error(twice)).log2()
}

#[test]
fn solvers_converge_with_their_order() {
    let fm = Field::new(Scheduler::FmOt, 1.0);
    let vp = Field::new(Scheduler::VP, 0.999);
    let edm = Field::new(Scheduler::EDM, 1.0);
    // Least and greatest slope; UniPC's corrector can gain an order over its name.
    let expected: [(&str, &Field, Grid, usize, f64, f64); 25] = [
        ("euler", &fm, Grid::Uniform, 60, 0.9, 1.1),
        ("midpoint", &fm, Grid::Uniform, 60, 1.9, 2.1),
        ("heun", &fm, Grid::Uniform, 60, 1.9, 2.1),
        ("heun", &vp, Grid::Quadratic, 60, 1.8, 2.2),
        ("ralston", &fm, Grid::Uniform, 60, 1.9, 2.1),
        ("rk4", &fm, Grid::Uniform, 60, 3.8, 4.2),
        ("ab2", &fm, Grid::Uniform, 60, 1.9, 2.1),
        // A first step as short as 1 / steps^2 does not limit the others.
        ("ab3", &fm, Grid::Cosine, 60, 2.8, 3.3),
        ("ab4", &fm, Grid::Cosine, 120, 3.8, 4.5),
        ("ab4", &edm, Grid::Cosine, 60, 3.8, 4.3),
        ("ddim", &fm, Grid::Uniform, 60, 0.9, 1.1),
        ("ddim", &vp, Grid::Quadratic, 60, 0.9, 1.1),
        ("dpm-solver-2", &fm, Grid::Logsnr, 60, 1.9, 2.2),
        ("dpm-solver-2", &vp, Grid::Logsnr, 60, 1.9, 2.2),
        ("dpm-solver-3", &vp, Grid::Logsnr, 62, 2.8, 3.3),
        ("dpm++2m", &vp, Grid::Logsnr, 60, 1.9, 2.2),
        ("dpm++3m", &vp, Grid::Logsnr, 60, 1.9, 2.2),
        ("unipc", &vp, Grid::Logsnr, 60, 1.9, 3.3),
        ("unipc-bh1", &vp, Grid::Logsnr, 60, 1.9, 3.3),
        ("unipc3", &edm, Grid::Logsnr, 60, 2.8, 4.3),
        ("unipc3-bh1", &edm, Grid::Logsnr, 60, 2.8, 4.3),
        ("deis1", &vp, Grid::Quadratic, 60, 1.9, 2.2),
        ("deis2", &vp, Grid::Quadratic, 60, 2.8, 3.3),
        ("deis3", &vp, Grid::Logsnr, 120, 3.7, 4.3),
        ("ipndm", &vp, Grid::Logsnr, 60, 1.9, 2.2),
    ];
    let mut failures = Vec::new();
    for (name, field, grid, nfe, low, high) in &expected {
        let slope = order(name, grid, field, *nfe);
        println!("{name:12} {:7} {grid:9} {slope:.2}", field.scheduler.name());
        if !(low..=high).contains(&&slope) {
            failures.push(format!("{name} on {grid}: {slope}, expected {low} to {high}"));
        }
    }
    let edm_slope = order("edm", &Grid::Karras, &vp, 63);
    assert!((1.9..2.2).contains(&edm_slope), "edm: {edm_slope}");
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn diffusion_solvers_converge_on_every_scheduler_with_their_own_grid() {
    let mut failures = Vec::new();
    for field in [
        Field::new(Scheduler::FmOt, 1.0),
        Field::new(Scheduler::Cosine, 1.0),
        Field::new(Scheduler::VP, 0.999),
        Field::new(Scheduler::EDM, 1.0),
    ] {
        let x0 = field.noises(16);
        let exact = field.ground_truth(&x0);
        let error = |solver: &SolverName, nfe| {
            let table = solver.tableau(nfe, &solver.grid, &field.path()).expect(solver.name);
            rmse(&field.sample(table, &x0).expect(solver.name), &exact)
        };
        let ddim = error(SolverName::find("ddim").expect("ddim"), 240);
        assert!(ddim < 0.015, "{}: {ddim}", field.scheduler.name());
        let first = SolverName::ALL.iter().position(|solver| solver.name == "ddim").expect("ddim");
        for solver in &SolverName::ALL[first + 1..] {
            let error = error(solver, if solver.nfe == Allowed::Odd { 239 } else { 240 });
            println!("{:7} {:12} {error:.1e}, ddim {ddim:.1e}", field.scheduler.name(), solver.name);
            if error.is_nan() || error > ddim / 3.0 {
                failures.push(format!("{} on {}: {error}, DDIM {ddim}", solver.name, field.scheduler.name()));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn no_table_holds_an_infinity_and_all_start_at_zero() {
    let grids = [Grid::Uniform, Grid::Quadratic, Grid::Cosine, Grid::Power(1.3), Grid::Logsnr, Grid::Karras];
    for path in paths() {
        for solver in SolverName::ALL {
            for grid in &grids {
                for nfe in [1, 2, 3, 4, 5, 8, 9, 16, 20, 33] {
                    let Ok(table) = solver.tableau(nfe, grid, &path) else { continue };
                    let label = format!("{}@{nfe}:{grid} on {path:?}", solver.name);
                    assert_eq!(table.nfe(), nfe, "{label}");
                    assert!(table.scalars().iter().all(|c| c.is_finite()), "{label}");
                    assert!(table.stages.iter().all(|stage| (0.0..=1.0).contains(&stage.t)), "{label}");
                    assert_eq!(table.stages[0].t, 0.0, "{label}");
                    assert!(table.stages[nfe - 1].ends_step, "{label}");
                }
            }
        }
    }
}

#[test]
fn a_compiled_solver_samples_like_its_table() {
    let field = Field::new(Scheduler::Cosine, 1.0);
    let x0 = field.noises(4);
    for name in ["heun@8", "ab3@7", "dpm-solver-3@10", "unipc3@9", "edm@9", "deis@10:logsnr"] {
        let solver = Solver::parse(name).expect(name);
        let theta = solver.theta(&field.path()).expect(name);
        assert!(matches!(theta.family, Family::Ns(_)));
        let direct = solver.tableau(&field.path()).expect(name).expect("a table");
        let (a, b) = (field.sample(direct, &x0).expect(name), field.sample(theta.tableau(), &x0).expect(name));
        assert!(rmse(&a, &b) < 1e-11, "{name}: {}", rmse(&a, &b));
    }
}

#[test]
fn an_impossible_nfe_names_the_nearest_that_are_possible() {
    let message = |text: &str| Solver::parse(text).expect_err(text).to_string();
    assert_eq!(message("heun@7"), "nfe is 7, expected a multiple of 2 from 2 to 2000 for heun, such as 6 or 8");
    assert_eq!(message("rk4@0"), "nfe is 0, expected a multiple of 4 from 4 to 4000 for rk4, such as 4");
    assert_eq!(message("edm@10"), "nfe is 10, expected an odd number from 1 to 999 for edm, such as 9 or 11");
    assert_eq!(message("edm@0"), "nfe is 0, expected an odd number from 1 to 999 for edm, such as 1");
    assert_eq!(message("edm@1000"), "nfe is 1000, expected an odd number from 1 to 999 for edm, such as 999");
    assert_eq!(message("ddim@0"), "nfe is 0, expected 1 to 1000 for ddim, such as 1");
    assert_eq!(message("ddim@1001"), "nfe is 1001, expected 1 to 1000 for ddim, such as 1000");
    assert!(message("unknown@3").contains("one of euler, midpoint"));
    assert!(message("dpm++2m").contains("dpm++2m@12"));
    assert!(message("euler@x").contains("a whole number"));
    for grid in [
        "euler@2:sine",
        "euler@2:0,1",
        "euler@2:0,0.7,0.6,1",
        "euler@2:0,nan,1",
        "euler@2:0.1,0.5,1",
        "heun@4:0,0.1,0.2,0.5,1",
    ] {
        assert!(matches!(Solver::parse(grid), Err(Error::Invalid { field, .. }) if field == "grid"), "{grid}");
    }
}

#[test]
fn a_solver_is_named_as_it_was_asked_for() {
    for name in ["dpm++2m@10", "euler@4:logsnr", "euler@3:0,0.25,0.5,1", "gt"] {
        assert_eq!(Solver::parse(name).expect(name).name(), name);
    }
    let mut names: Vec<_> = SolverName::ALL.iter().map(|solver| solver.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), SolverName::ALL.len());
}

#[test]
fn grids_follow_their_formulas() {
    let fm = GaussianPath::new(Scheduler::FmOt, 1.0).expect("fm-ot");
    let vp = GaussianPath::new(Scheduler::VP, 0.999).expect("vp");
    let close = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
    let times = |grid: &Grid, path, steps| grid.times(path, steps).expect("times");
    assert!(close(&times(&Grid::Quadratic, &fm, 4), &[0.0, 0.4375, 0.75, 0.9375, 1.0]));
    assert!(close(&times(&Grid::Cosine, &fm, 3), &[0.0, 1.0 - 0.75f64.sqrt(), 0.5, 1.0]));
    assert!(close(&times(&Grid::Power(0.5), &fm, 4), &[0.0, 0.5, 0.5f64.sqrt(), 0.75f64.sqrt(), 1.0]));
    assert_eq!("power=1.45".parse::<Grid>().expect("grid"), Grid::Power(1.45));
    assert_eq!(Grid::Power(1.45).to_string(), "power=1.45");
    for refused in ["power=0", "power=-1", "power=NaN", "power=11"] {
        let message = refused.parse::<Grid>().expect_err(refused).to_string();
        assert!(message.contains("a power from 0.1 to 10"), "{message}");
    }
    // ln(t / (1 - t)) equidistant from t = 0.001 to 0.999, then 1.
    let inner = (1.0 + 999f64.cbrt()).recip();
    assert!(close(&times(&Grid::Logsnr, &fm, 4), &[0.001, inner, 1.0 - inner, 0.999, 1.0]));
    let lambda: Vec<f64> = times(&Grid::Logsnr, &vp, 5).iter().map(|t| vp.level(*t).lambda()).collect();
    let steps: Vec<f64> = lambda.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(steps.iter().all(|h| (h - steps[0]).abs() < 1e-9), "{steps:?}");
    let karras: Vec<f64> = times(&Grid::Karras, &fm, 4).iter().map(|t| fm.level(*t).nsr().powf(1.0 / 7.0)).collect();
    let root = |nsr: f64| nsr.powf(1.0 / 7.0);
    let expected =
        [root(80.0), (2.0 * root(80.0) + root(0.002)) / 3.0, (root(80.0) + 2.0 * root(0.002)) / 3.0, root(0.002), 0.0];
    assert!(close(&karras, &expected), "{karras:?}");
    // On EDM's own path these are equal steps in its time.
    let edm = GaussianPath::new(Scheduler::EDM, 1.0).expect("edm");
    assert!(close(&times(&Grid::Karras, &edm, 4), &[0.0, 0.25, 0.5, 0.75, 1.0]));
}
