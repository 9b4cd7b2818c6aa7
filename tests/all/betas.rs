//! Discrete training as a scheduler: its steps against golden/betas.json, what lies between them, its ends.

use crate::common::{assert_close, document, mixture, mixture_field, noise, posterior};
use bespoke::dopri5::{self, Tolerance};
use bespoke::networks::MixtureField;
use bespoke::path::GaussianPath;
use bespoke::reference::Solver;
use bespoke::scheduler::{Output, Scheduler};
use bespoke::velocity::{Condition, VelocityField};
use num_dual::{Dual64, first_derivative};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    scheduler: Scheduler,
    steps: usize,
    at: Vec<usize>,
    alphas_cumprod: Vec<f64>,
}

fn golden() -> Vec<Golden> {
    serde_json::from_str(include_str!("../golden/betas.json")).expect("the golden file")
}

/// The t of step `i` of `steps`.
fn time(i: usize, steps: usize) -> f64 {
    1.0 - (i + 1) as f64 / steps as f64
}

fn parse(text: &str) -> Result<Scheduler, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

fn zero_terminal() -> Scheduler {
    parse(
        r#"{"name": "betas", "schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
            "rescale_zero_terminal_snr": true}"#,
    )
    .expect("a scheduler")
}

#[test]
fn every_step_has_the_published_alpha() {
    for Golden { scheduler, steps, at, alphas_cumprod } in golden() {
        for (i, square) in at.into_iter().zip(alphas_cumprod) {
            let t = time(i, steps);
            let (alpha, sigma) = (scheduler.alpha(t), scheduler.sigma(t));
            assert!((alpha * alpha - square).abs() < 1e-12, "{scheduler:?} step {i}: {} {square}", alpha * alpha);
            assert!((sigma * sigma - (1.0 - square)).abs() < 1e-12, "{scheduler:?} step {i}");
        }
        assert_eq!((scheduler.alpha(1.0), scheduler.sigma(1.0)), (1.0, 0.0));
    }
}

#[test]
fn between_the_steps_it_is_smooth_and_where_published_samplers_have_it() {
    for Golden { scheduler: s, steps, .. } in golden() {
        let n = 10 * steps;
        for k in 1..n {
            let t = (k as f64 + 0.37) / n as f64;
            let rates = (first_derivative(|t| s.alpha(t), t).1, first_derivative(|t| s.sigma(t), t).1);
            assert!(rates.0 > 0.0 && rates.1 < 0.0, "{s:?} at {t}: {rates:?}");
            assert!((rates.0 - s.alpha_dot(t)).abs() <= 1e-10 * rates.0, "{s:?} at {t}");
            assert!((rates.1 - s.sigma_dot(t)).abs() <= 1e-10 * rates.1.abs(), "{s:?} at {t}");
            // The snr and its inverse, with its derivative.
            let back = s.time_at(s.alpha(Dual64::new(t, 1.0)), s.sigma(Dual64::new(t, 1.0)));
            assert!((back.re - t).abs() < 1e-11 && (back.eps - 1.0).abs() < 1e-7, "{s:?} at {t}: {back}");
        }
        if steps < 1000 {
            continue;
        }
        for i in (20..steps - 20).step_by(7) {
            // The slope has no jump at a step; DPM-Solver's ln alpha is a straight line there.
            let t = time(i, steps);
            let (before, after) = (s.alpha_dot(t - 1e-9), s.alpha_dot(t + 1e-9));
            assert!((before / after - 1.0).abs() < 1e-4, "{s:?} step {i}: {before} {after}");
            let line = 0.5 * (s.alpha(t).ln() + s.alpha(time(i + 1, steps)).ln());
            let middle = s.alpha(t - 0.5 / steps as f64).ln();
            assert!((line - middle).abs() < 1e-3, "{s:?} step {i}: {line} {middle}");
        }
    }
}

#[test]
fn a_schedule_of_vp_is_close_to_vp() {
    // beta_i = T'((i + 1/2) / N) / N of VP, whose T is .05 .. 20 here as there.
    let linear = parse(r#"{"name": "betas", "schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}"#).unwrap();
    for t in [0.0f64, 0.1, 0.35, 0.6, 0.9] {
        let (own, vp) = (linear.alpha(t), Scheduler::VP.alpha(t));
        assert!((own - vp).abs() < 3e-3, "{t}: {own} {vp}");
    }
}

#[test]
fn its_json_form_goes_both_ways() {
    for Golden { scheduler, .. } in golden() {
        let text = serde_json::to_string(&scheduler).unwrap();
        assert_eq!(parse(&text).unwrap(), scheduler, "{text}");
    }
    // What is left out has the usual constants.
    let usual = parse(r#"{"name": "betas", "schedule": "linear"}"#).unwrap();
    let said = r#"{"name": "betas", "schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "steps": 1000}"#;
    assert_eq!(usual, parse(said).unwrap());
    assert_ne!(usual, parse(r#"{"name": "betas", "schedule": "scaled_linear"}"#).unwrap());
}

#[test]
fn what_makes_no_schedule_is_refused_by_name() {
    for (rest, names) in [
        (r#""steps": 10"#, vec!["schedule", "absent", "squaredcos_cap_v2"]),
        (r#""schedule": "sigmoid""#, vec!["schedule", "sigmoid", "scaled_linear"]),
        (r#""schedule": "linear", "beta_min": 0.1"#, vec!["beta_min", "betas"]),
        (r#""schedule": "linear", "beta_start": 0"#, vec!["beta_start", "0"]),
        (r#""schedule": "linear", "beta_end": 1"#, vec!["beta_end", "1"]),
        (r#""schedule": "linear", "beta_start": 0.5"#, vec!["beta_start", "0.5"]),
        (r#""schedule": "linear", "steps": 1"#, vec!["steps", "1", "2 to 65536"]),
        (r#""schedule": "linear", "steps": 100000000000"#, vec!["steps", "2 to 65536"]),
        (r#""schedule": "linear", "steps": -1"#, vec!["-1"]),
        (r#""schedule": "squaredcos_cap_v2", "beta_end": 0.1"#, vec!["beta_end", "0.1", "squaredcos_cap_v2"]),
        (r#""betas": [0.1, 0.2], "steps": 2"#, vec!["steps", "betas"]),
        (r#""betas": [0.1, 0.2], "alphas_cumprod": [0.9, 0.8]"#, vec!["alphas_cumprod", "betas"]),
        (r#""betas": []"#, vec!["steps", "0"]),
        (r#""betas": [0.1, 0.0, 0.2]"#, vec!["betas[1]", "0"]),
        (r#""betas": [0.1, 1.0, 0.2]"#, vec!["betas[1]", "1"]),
        (r#""betas": [0.1, -3.5]"#, vec!["betas[1]", "-3.5"]),
        (r#""alphas_cumprod": [0.9, 0.95]"#, vec!["alphas_cumprod", "less data"]),
        (r#""alphas_cumprod": [1.0, 0.5]"#, vec!["alphas_cumprod[0]", "1"]),
        (r#""schedule": "linear", "beta": 3"#, vec!["beta`"]),
    ] {
        let message = parse(&format!(r#"{{"name": "betas", {rest}}}"#)).expect_err(rest);
        for name in names {
            assert!(message.contains(name), "{rest}: {message:?} does not name {name}");
        }
    }
    let message = parse(r#"{"name": "vp", "steps": 1000}"#).unwrap_err();
    assert!(message.contains("steps") && message.contains("vp"), "{message}");
    let message = Scheduler::from_name("betas").unwrap_err().to_string();
    assert!(message.contains("betas") && message.contains("card"), "{message}");
}

#[test]
fn all_outputs_are_one_velocity() {
    for Golden { scheduler, .. } in golden() {
        for t in [0.013, 0.3, 0.52, 0.9] {
            let (alpha, sigma) = (scheduler.alpha(t), scheduler.sigma(t));
            let x = [0.3, -1.1, 0.8];
            let (x1, x0) = posterior(&document(), alpha, sigma, &x);
            let expected = mixture().velocity(&scheduler, t, &x, None);
            let size = expected.iter().fold(1.0f64, |a, b| a.max(b.abs()));
            let v: Vec<f64> = x1.iter().zip(&x0).map(|(x1, x0)| alpha * x0 - sigma * x1).collect();
            for (output, prediction) in [(Output::Epsilon, &x0), (Output::X1, &x1), (Output::V, &v)] {
                let (p, q) = output.velocity_coefficients(&scheduler, t);
                let u: Vec<f64> = x.iter().zip(prediction).map(|(x, o)| p * x + q * o).collect();
                assert_close(&u, &expected, 1e-9 * size, &format!("{output:?} on {scheduler:?} at {t}"));
            }
        }
    }
}

#[test]
fn a_zero_terminal_snr_starts_at_noise_alone() {
    let scheduler = zero_terminal();
    assert_eq!((scheduler.alpha(0.0), scheduler.sigma(0.0)), (0.0, 1.0));
    assert_eq!(scheduler.snr(0.0), 0.0);
    assert!(scheduler.snr_inverse(0.0f64).abs() < 1e-15);
    assert!(scheduler.alpha_dot(0.0) > 0.0 && scheduler.sigma_dot(0.0f64).abs() < 1e-12);
    // v determines the velocity there, noise does not.
    assert_eq!(Output::V.regular_time(&scheduler, 0.0), 0.0);
    assert!(Output::Epsilon.regular_time(&scheduler, 0.0) > 0.0);
    let (p, q) = Output::V.velocity_coefficients(&scheduler, 0.0f64);
    assert!(p.is_finite() && q.is_finite() && q != 0.0);
    // No number of a table is infinite, whatever the solver and grid.
    let path = GaussianPath::new(scheduler.clone(), 0.999).unwrap();
    for solver in ["euler@6", "dpm++2m@6", "dpm++2m@6:logsnr", "unipc3@6:karras", "ddim@6", "deis3@6"] {
        let table = Solver::parse(solver).unwrap().tableau(&path).unwrap().unwrap();
        for stage in &table.stages {
            let finite = stage.t.is_finite() && stage.next.terms.iter().all(|(_, c)| c.is_finite());
            assert!(finite, "{solver}: {stage:?}");
        }
    }
    // Its samples are those of another path with the same ends, on the same noise.
    let field: MixtureField<f64> = mixture_field(scheduler.clone());
    let x0 = noise(4, 3);
    let tolerance = Tolerance { rtol: 1e-9, atol: 1e-9 };
    let own = dopri5::solve(&field, &x0, &Condition::default(), tolerance, false).unwrap().x1;
    let cosine: MixtureField<f64> = mixture_field(Scheduler::Cosine);
    let other = dopri5::solve(&cosine, &x0, &Condition::default(), tolerance, false).unwrap().x1;
    assert_close(own.data(), other.data(), 1e-4, "zero terminal snr against cosine");
    assert_eq!(field.start(&[1.0, 2.0, 3.0], 3).unwrap().data(), [1.0, 2.0, 3.0]);
}

#[test]
fn another_path_stops_at_the_first_step() {
    let scheduler = golden().remove(1).scheduler;
    assert!((scheduler.last_time() - 0.999).abs() < 1e-15);
    let fm = GaussianPath::new(Scheduler::FmOt, 1.0).unwrap().on(scheduler.clone(), 1.0).unwrap();
    for knots in [fm.knots(8), GaussianPath::new(scheduler, 0.999).unwrap().on(Scheduler::FmOt, 1.0).unwrap().knots(8)]
    {
        let all = [&knots.t[..], &knots.t_dot, &knots.s, &knots.s_dot].concat();
        assert!(all.iter().all(|v| v.is_finite()) && knots.t.windows(2).all(|pair| pair[0] < pair[1]), "{knots:?}");
    }
}
