//! The diffusion solvers against independent code: every state of `golden/diffusion.json`.

use bespoke::error::Result;
use bespoke::networks::{Mixture, MixtureDocument};
use bespoke::path::Level;
use bespoke::sampler::{Plan, Sampler};
use bespoke::scheduler::Scheduler;
use bespoke::solvers::diffusion::{Bh, Knot, Schedule, ddim, deis, dpm_solver, dpm_solver_pp, edm, ipndm, unipc};
use bespoke::tableau::Tableau;
use bespoke::tensor::{Element, Host, Register};
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
struct Golden {
    mixture: MixtureDocument,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    /// (alpha, sigma) of each evaluation, then of the end.
    levels: Vec<(f64, f64)>,
    start: Vec<Vec<f64>>,
    /// After each evaluation.
    states: Vec<Vec<Vec<f64>>>,
    times: Option<Vec<f64>>,
    orders: Option<Vec<usize>>,
    /// fm-ot or vp: a shipped model, for samples of `class`.
    #[cfg(feature = "torch")]
    model: Option<String>,
    #[cfg(feature = "torch")]
    guidance_scale: Option<f64>,
    #[cfg(feature = "torch")]
    class: Option<Vec<i64>>,
}

impl Case {
    /// Each level once, where EDM's Heun evaluates twice at those between.
    fn levels(&self) -> Vec<(f64, f64)> {
        let mut levels = self.levels.clone();
        levels.dedup();
        levels
    }
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/diffusion.json")).expect("the golden file")
}

/// The velocity's conventions are the caller's as long as they agree: here alpha' = 1, sigma' = -1.
const RATES: (f64, f64) = (1.0, -1.0);

/// u at x = alpha x1 + sigma x0, by the mixture's FM-OT field at the same snr.
fn velocity(mixture: &Mixture, (alpha, sigma): (f64, f64), x: &[f64]) -> Vec<f64> {
    let (scale, t) = (alpha + sigma, alpha / (alpha + sigma));
    let y: Vec<f64> = x.iter().map(|x| x / scale).collect();
    let u = mixture.velocity(&Scheduler::FmOt, t, &y, None);
    // x1hat = y + (1 - t) u, x0hat = y - t u, and u = x1hat - x0hat whatever the scale.
    let predictions = y.iter().zip(&u).map(|(y, u)| (y + (1.0 - t) * u, y - t * u));
    predictions.map(|(x1, x0)| RATES.0 * x1 + RATES.1 * x0).collect()
}

/// Knots at t = i / n whose levels are `levels` but the last.
fn schedule(levels: &[(f64, f64)]) -> Schedule {
    let n = levels.len() - 1;
    let index = |i: usize| i as f64 / n as f64;
    let level = |i: usize| {
        let (alpha, sigma) = levels[i];
        Level { t: index(i), alpha, sigma }
    };
    Schedule { knots: (0..n).map(|i| Knot::new(index(i), level(i), RATES)).collect(), end: level(n) }
}

/// States after every evaluation, of the sampler with host memory of dtype E.
fn run<E: Element>(
    mixture: &Mixture,
    tableau: Tableau<f64>,
    case: &Case,
    levels: &[(f64, f64)],
) -> Result<Vec<Vec<f64>>> {
    let elements = case.start[0].len();
    let x0 = Host::<E>::new(case.start.concat().into_iter().map(E::from_f64).collect(), elements)?;
    let plan = Arc::new(Plan::new(tableau));
    let mut sampler = Sampler::new(&x0)?;
    sampler.start(&plan, &x0)?;
    let mut states = Vec::new();
    let n = levels.len() - 1;
    while let Some((times, x)) = sampler.query()? {
        let level = levels[(times[0] * n as f64).round() as usize];
        let rows = (0..x.batch()).flat_map(|row| {
            let x: Vec<f64> = x.row(row).iter().map(|v| v.to_f64()).collect();
            velocity(mixture, level, &x)
        });
        let u = Host::<E>::new(rows.map(E::from_f64).collect(), elements)?;
        sampler.update(u.view())?;
        let state = sampler.state()?;
        states.push((0..state.batch()).flat_map(|row| state.row(row).iter().map(|v| v.to_f64())).collect());
    }
    Ok(states)
}

/// The same evaluations, taken for levels at other times.
fn retimed(schedule: &Schedule, times: &[f64]) -> Schedule {
    let mut schedule = schedule.clone();
    for (level, t) in schedule.knots.iter_mut().map(|knot| &mut knot.level).chain([&mut schedule.end]).zip(times) {
        level.t = *t;
    }
    schedule
}

/// The case's solver on the evaluations of `plain`.
fn tableau(case: &Case, plain: &Schedule) -> Result<Tableau<f64>> {
    Ok(match case.name.as_str() {
        "ddim" => ddim(plain),
        "dpm-solver-2" | "dpm-solver-3" => dpm_solver(plain, case.orders.as_ref().expect("orders"))?,
        "dpm++2m" => dpm_solver_pp(plain, 2),
        "dpm++3m" => dpm_solver_pp(plain, 3),
        "unipc" => unipc(plain, 2, Bh::Bh2)?,
        "unipc-bh1" => unipc(plain, 2, Bh::Bh1)?,
        "unipc3" => unipc(plain, 3, Bh::Bh2)?,
        "unipc3-bh1" => unipc(plain, 3, Bh::Bh1)?,
        "logrho1" | "logrho2" => {
            // diffusers interpolates in log rho: the same method with that as the time.
            let levels = plain.knots.iter().map(|knot| &knot.level).chain([&plain.end]);
            let times: Vec<f64> = levels.map(|level| (level.sigma / level.alpha).ln()).collect();
            deis(&retimed(plain, &times), degree(&case.name), f64::exp)
        }
        "deis1" | "deis2" | "deis3" => {
            let schedule = retimed(plain, case.times.as_deref().expect("times"));
            deis(&schedule, degree(&case.name), |t| Scheduler::VP.sigma(t) / Scheduler::VP.alpha(t))
        }
        "ipndm" => ipndm(plain),
        "edm" => edm(plain),
        other => panic!("no solver for the golden case {other}"),
    })
}

fn degree(name: &str) -> usize {
    name[name.len() - 1..].parse().expect("a digit")
}

/// Greatest difference of any state, relative to the greatest number in it.
fn deviation(states: &[Vec<f64>], expected: &[Vec<Vec<f64>>]) -> f64 {
    assert_eq!(states.len(), expected.len());
    let one = |(state, expected): (&Vec<f64>, &Vec<Vec<f64>>)| {
        let expected = expected.concat();
        let size = expected.iter().fold(0.0f64, |size, v| size.max(v.abs()));
        let difference = state.iter().zip(&expected).fold(0.0f64, |d, (a, b)| d.max((a - b).abs()));
        assert!(difference.is_finite());
        difference / size
    };
    states.iter().zip(expected).map(one).fold(0.0, f64::max)
}

#[test]
fn every_state_agrees_with_independent_code() {
    let Golden { mixture, cases } = golden();
    let mixture = Mixture::new(mixture).expect("the golden mixture");
    let mut failures = Vec::new();
    for case in &cases {
        let levels = case.levels();
        let table = tableau(case, &schedule(&levels)).expect(&case.name);
        assert!(table.scalars().iter().all(|c| c.is_finite()), "{}: a number of the table is not finite", case.name);
        let wide = deviation(&run::<f64>(&mixture, table.clone(), case, &levels).expect(&case.name), &case.states);
        let single = deviation(&run::<f32>(&mixture, table, case, &levels).expect(&case.name), &case.states);
        println!("{:14} {:2} evaluations: f64 {wide:.1e}, f32 {single:.1e}", case.name, case.states.len());
        if wide.max(single) > 1e-4 {
            failures.push(format!("{}: {wide:e} in f64, {single:e} in f32", case.name));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// The same on shipped networks, through libtorch and their cards.
#[cfg(feature = "torch")]
mod digits {
    use super::{Case, deviation, tableau};
    use bespoke::model::{self, Model};
    use bespoke::path::Level;
    use bespoke::sampler::{Plan, Sampler};
    use bespoke::solvers::diffusion::{Knot, Schedule};
    use bespoke::tensor::Device;
    use bespoke::tensor::{PerRow, Register, Tensor};
    use bespoke::velocity::{Condition, VelocityField};
    use std::path::Path;
    use std::sync::Arc;

    #[derive(serde::Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    /// The golden levels at the model's own times and rates.
    fn schedule(model: &Model, levels: &[(f64, f64)]) -> Schedule {
        let (scheduler, end) = (model.card().scheduler.clone(), model.card().time.end);
        let knot = |&(alpha, sigma): &(f64, f64)| {
            let t = scheduler.time_at(alpha, sigma);
            let rates = (scheduler.alpha_dot(t) * end, scheduler.sigma_dot(t) * end);
            Knot::new(t / end, Level { t: t / end, alpha, sigma }, rates)
        };
        let (last, before) = levels.split_last().expect("levels");
        let end = Level { t: 1.0, alpha: last.0, sigma: last.1 };
        Schedule { knots: before.iter().map(knot).collect(), end }
    }

    fn run<F: VelocityField>(field: &F, plan: &Arc<Plan>, case: &Case) -> Vec<Vec<f64>> {
        let start: Vec<f32> = case.start.concat().iter().map(|v| *v as f32).collect();
        let scales = vec![case.guidance_scale.expect("guidance_scale"); case.start.len()];
        let condition =
            Condition::of_classes(case.class.as_deref().expect("classes")).expect("a condition").guided(scales);
        let x0 = field.upload(&start, field.elements()).expect("x0");
        let mut sampler = Sampler::new(&x0).expect("a sampler");
        sampler.start(plan, &x0).expect("a start");
        let mut states = Vec::new();
        while let Some((times, x)) = sampler.query().expect("a query") {
            let u = field.eval(PerRow::All(times[0]), x, &condition).expect("a velocity");
            sampler.update(u.view()).expect("an update");
            let state = sampler.state().expect("a state").to_f32().expect("numbers");
            states.push(state.into_iter().map(f64::from).collect());
        }
        states
    }

    #[test]
    fn every_state_agrees_with_independent_code_on_shipped_models() {
        let golden: Golden = serde_json::from_str(include_str!("../golden/digits.json")).expect("the golden file");
        let mut failures = Vec::new();
        for case in &golden.cases {
            let name = case.model.as_deref().expect("a model");
            let card = crate::tree::root().join(format!("models/digits-{name}.json"));
            let model = model::open(Path::new(&card), Device::Cpu).expect("a shipped model");
            let schedule = schedule(&model, &case.levels());
            let table = tableau(case, &schedule).expect(&case.name);
            let plan = Arc::new(Plan::new(table));
            let states = run(model.torch_field().expect("a TorchScript model"), &plan, case);
            let difference = deviation(&states, &case.states);
            let label = format!("{} on {name}, guidance_scale {:?}", case.name, case.guidance_scale);
            println!("{label}: {difference:.1e}");
            if difference > 1e-4 {
                failures.push(format!("{label}: {difference:e}"));
            }
        }
        assert!(failures.is_empty(), "{failures:#?}");
    }
}
