//! Schedulers: end values, derivatives, snr and its inverse, their JSON form, and Thm 2.3.

use crate::common::{
    Formula, SCHEDULERS, assert_close, difference, document, mixture, mixture_field, noise, posterior, proptest_config,
};
use bespoke::dopri5::{self, Dense, Tolerance};
use bespoke::networks::MixtureField;
use bespoke::number::Number;
use bespoke::scheduler::{KARRAS_RHO, Scheduler};
use bespoke::tensor::Host;
use bespoke::velocity::{Condition, VelocityField};
use num_dual::{Dual64, DualNum, first_derivative};
use proptest::prelude::*;
use std::f64::consts::PI;

const TIGHT: Tolerance = Tolerance { rtol: 1e-12, atol: 1e-12 };

#[test]
fn they_begin_with_noise_and_end_with_data() {
    for scheduler in [Scheduler::FmOt, Scheduler::Cosine] {
        assert!(scheduler.alpha(0.0) == 0.0 && scheduler.sigma(0.0) == 1.0, "{}", scheduler.name());
        assert!(scheduler.alpha(1.0) == 1.0 && scheduler.sigma(1.0) < 1e-16, "{}", scheduler.name());
    }
    // T(1) = (20 - 0.1) / 2 + 0.1 = 10.05.
    let alpha_0 = (-10.05f64 / 2.0).exp();
    assert!((Scheduler::VP.alpha(0.0) - alpha_0).abs() < 1e-15 && alpha_0 < 0.0066);
    assert!((Scheduler::VP.sigma(0.0) - (1.0 - alpha_0 * alpha_0).sqrt()).abs() < 1e-15);
    assert!(Scheduler::VP.alpha(1.0) == 1.0 && Scheduler::VP.sigma(1.0) == 0.0);
    assert!(
        (Scheduler::EDM.sigma(0.0f64) - 80.0).abs() < 1e-12 && (Scheduler::EDM.sigma(1.0f64) - 0.002).abs() < 1e-14
    );
    assert!([0.0, 0.3, 1.0].iter().all(|t| Scheduler::EDM.alpha(*t) == 1.0));
    for scheduler in SCHEDULERS {
        assert!((scheduler.initial_scale() / scheduler.sigma(0.0) - 1.0).abs() < 3e-5, "{}", scheduler.name());
    }
}

#[test]
fn values_at_half_time_are_the_published_formulas() {
    assert_eq!((Scheduler::FmOt.alpha(0.25), Scheduler::FmOt.sigma(0.25)), (0.25, 0.75));
    assert!((Scheduler::Cosine.alpha(0.5) - 0.5f64.sqrt()).abs() < 1e-15);
    // Song et al. 2020, Eq. 33: the mean coefficient at diffusion time 1/2.
    assert!((Scheduler::VP.alpha(0.5) - (-0.25 * 0.25 * 19.9 - 0.5 * 0.5 * 0.1f64).exp()).abs() < 1e-15);
    // Karras et al. 2022, Eq. 5 with N = 3, i = 1.
    let (high, low) = (80f64.powf(1.0 / KARRAS_RHO), 0.002f64.powf(1.0 / KARRAS_RHO));
    assert!((Scheduler::EDM.sigma(0.5) - (high + 0.5 * (low - high)).powi(7)).abs() < 1e-13);
}

proptest! {
    #![proptest_config(proptest_config(200))]

    #[test]
    fn derivatives_agree_with_differences_and_dual_numbers(t in 0.01..0.99f64) {
        for s in SCHEDULERS {
            let (alpha_dot, sigma_dot) = (s.alpha_dot(t), s.sigma_dot(t));
            let close = |a: f64, b: f64, tolerance: f64| (a - b).abs() <= tolerance * b.abs().max(1.0);
            prop_assert!(close(first_derivative(|t| s.alpha(t), t).1, alpha_dot, 1e-12), "{} alpha", s.name());
            prop_assert!(close(first_derivative(|t| s.sigma(t), t).1, sigma_dot, 1e-12), "{} sigma", s.name());
            prop_assert!(close(difference(|t| s.alpha(t), t, 1e-3), alpha_dot, 1e-7), "{} alpha", s.name());
            prop_assert!(close(difference(|t| s.sigma(t), t, 1e-3), sigma_dot, 1e-5), "{} sigma", s.name());
            prop_assert!(close(s.sigma_squared(t), s.sigma(t).powi(2), 1e-14), "{} sigma^2", s.name());
            prop_assert!(close(s.sigma_sigma_dot(t), s.sigma(t) * sigma_dot, 1e-12), "{} sigma sigma'", s.name());
        }
    }

    #[test]
    fn snr_increases_and_its_inverse_is_its_inverse(a in 0.0..1.0f64, b in 0.0..1.0f64) {
        for s in SCHEDULERS {
            prop_assert!((a < b) == (s.snr(a) < s.snr(b)) || (a - b).abs() < 1e-12, "{}", s.name());
            let t = s.snr_inverse(s.snr(a));
            prop_assert!((t - a).abs() < 1e-12, "{}: {t} for {a}", s.name());
            let t = s.nsr_inverse(1.0 / s.snr(a));
            prop_assert!((t - a).abs() < 1e-12, "{}: {t} for {a} by the noise-to-signal ratio", s.name());
            let norm = s.alpha(a).hypot(s.sigma(a));
            prop_assert!((s.norm(a) / norm - 1.0).abs() < 1e-14, "{}: norm", s.name());
            // Its derivative is the reciprocal of snr's.
            let inner = (a + 0.01) / 1.02;
            let round_trip = s.snr_inverse(s.snr(Dual64::new(inner, 1.0)));
            prop_assert!((round_trip.eps - 1.0).abs() < 1e-9, "{}: {}", s.name(), round_trip.eps);
        }
    }

    #[test]
    fn other_constants_work_as_well(t in 0.001..0.999f64, low in 0.01..1.0f64, factor in 1.5..100.0f64) {
        let high = low * factor;
        for s in [Scheduler::Vp { beta_min: low, beta_max: high }, Scheduler::Edm { sigma_min: low, sigma_max: high }] {
            prop_assert!(s.validate().is_ok());
            let (ours, dual) = (s.sigma_dot(t), first_derivative(|t| s.sigma(t), t).1);
            prop_assert!((ours - dual).abs() <= 1e-10 * dual.abs(), "{s:?}: {ours} {dual}");
            // Where snr overflows its own digits there is nothing to invert.
            if s.sigma(t) < 1.0 - 1e-6 || matches!(s, Scheduler::Edm { .. }) {
                prop_assert!((s.snr_inverse(s.snr(t)) - t).abs() < 1e-9, "{s:?} at {t}");
            }
        }
    }
}

#[test]
fn the_ends_of_the_inverse_snr_are_the_ends_of_time() {
    for s in SCHEDULERS {
        assert!(s.snr_inverse(s.snr(0.0f64)).abs() < 1e-12, "{}", s.name());
        assert!((s.snr_inverse(s.snr(1.0 - 1e-9)) - (1.0f64 - 1e-9)).abs() < 1e-12, "{}", s.name());
    }
    for s in [Scheduler::FmOt, Scheduler::Cosine] {
        assert_eq!(s.snr_inverse(0.0), 0.0);
    }
}

/// (t_r, s_r) that takes the path of `own` to that of `other`: t where the snr is the same, s as
/// large as the other's state is.
fn transformation<D: Number>(own: &Scheduler, other: &Scheduler, r: D) -> (D, D) {
    let t = own.time_at(other.alpha(r), other.sigma(r));
    (t, other.norm(r) / own.norm(t))
}

/// The ground truth of the mixture on `scheduler` from noise, with dense output.
fn path(scheduler: Scheduler, x0: &Host<f64>) -> Dense<Host<f64>> {
    dopri5::solve(&mixture_field(scheduler), x0, &Condition::default(), TIGHT, true).unwrap().dense.unwrap()
}

#[test]
fn paths_of_two_schedulers_are_one_path_rescaled_and_retimed() {
    // BES Thm 2.3: the other scheduler's trajectory is s_r x(t_r).
    let (x0, rows) = (noise(4, 3), [0, 1, 2, 3]);
    for own in [Scheduler::FmOt, Scheduler::Cosine] {
        let own_path = path(own.clone(), &x0);
        for other in SCHEDULERS {
            let image = |r: f64| {
                let (t, s) = transformation(&own, &other, r);
                let x = own_path.at(t, &rows).unwrap();
                x.data().iter().map(|x| s * x).collect::<Vec<f64>>()
            };
            // Both ends of the other's time, VP's sharp one included.
            let start = Host::new(image(0.0), 3).unwrap();
            let other_path = path(other.clone(), &start);
            for r in [0.05, 0.2, 0.5, 0.8, 0.97, 1.0] {
                let theirs = other_path.at(r, &rows).unwrap();
                let what = format!("{} from {} at {r}", other.name(), own.name());
                // EDM's states are of size 80 for most of the way.
                let scale = other.sigma(r).max(1.0);
                assert_close(&image(r), theirs.data(), 2e-8 * scale, &what);
            }
        }
    }
}

#[test]
fn a_transformation_there_and_back_is_none() {
    for a in SCHEDULERS {
        for b in SCHEDULERS {
            for r in [0.2f64, 0.5, 0.9] {
                let (t, s) = transformation(&a, &b, r);
                let (back, s_back) = transformation(&b, &a, t);
                assert!((back - r).abs() < 1e-10 && (s * s_back - 1.0).abs() < 1e-10, "{} {} {r}", a.name(), b.name());
            }
        }
        for r in [0.0f64, 0.3, 1.0] {
            let (t, s) = transformation(&a, &a, r);
            assert!((t - r).abs() < 1e-12 && (s - 1.0).abs() < 1e-12, "{} onto itself at {r}: {t}, {s}", a.name());
        }
    }
}

#[test]
fn a_transformation_is_differentiable() {
    for own in [Scheduler::FmOt, Scheduler::Cosine] {
        for other in SCHEDULERS {
            for r in [0.05, 0.3, 0.6, 0.95] {
                let dual = transformation(&own, &other, Dual64::new(r, 1.0));
                let t_dot = difference(|r| transformation(&own, &other, r).0, r, 1e-4);
                let s_dot = difference(|r| transformation(&own, &other, r).1, r, 1e-4);
                assert!((dual.0.eps - t_dot).abs() < 1e-6 * t_dot.abs().max(1.0), "{} {r}", other.name());
                assert!((dual.1.eps - s_dot).abs() < 1e-6 * s_dot.abs().max(1.0), "{} {r}", other.name());
            }
        }
    }
}

/// t_r = r + 0.4 sin(pi r) / pi and s_r = exp(0.5 sin 2r): no scheduler's own.
fn change(r: Dual64) -> (Dual64, Dual64) {
    (r + (r * PI).sin() * (0.4 / PI), ((r * 2.0).sin() * 0.5).exp())
}

#[test]
fn every_scale_time_transformation_is_a_change_of_scheduler() {
    // BES Thm 2.3, the other way: watched through (t_r, s_r), the path of (alpha, sigma) is the
    // path of A_r = s_r alpha_{t_r}, S_r = s_r sigma_{t_r}; its field is A' E[x1|x] + S' E[x0|x].
    let document = document();
    for scheduler in [Scheduler::FmOt, Scheduler::Cosine, Scheduler::VP] {
        let of_new_scheduler = |r: f64, x: &[f64]| -> Vec<f64> {
            let (t, s) = change(Dual64::new(r, 1.0));
            let (a, sigma) = (s * scheduler.alpha(t), s * scheduler.sigma(t));
            let (x1, x0) = posterior(&document, a.re, sigma.re, x);
            x1.iter().zip(&x0).map(|(x1, x0)| a.eps * x1 + sigma.eps * x0).collect()
        };
        let transformed = |r: f64, x: &[f64]| -> Vec<f64> {
            // BES Eq. 16.
            let (t, s) = change(Dual64::new(r, 1.0));
            let inner: Vec<f64> = x.iter().map(|x| x / s.re).collect();
            let u = mixture().velocity(&scheduler, t.re, &inner, None);
            x.iter().zip(&u).map(|(x, u)| s.eps / s.re * x + t.eps * s.re * u).collect()
        };
        for r in [0.01, 0.2, 0.5, 0.8, 0.99] {
            let x = [0.4, -0.9, 1.3];
            assert_close(&transformed(r, &x), &of_new_scheduler(r, &x), 1e-10, &format!("{} at {r}", scheduler.name()));
        }
        if scheduler != Scheduler::VP {
            let x0 = noise(2, 3);
            let new =
                dopri5::solve(&Formula::<f64, _>::new(3, of_new_scheduler), &x0, &Condition::default(), TIGHT, true);
            let (new, old) = (new.unwrap().dense.unwrap(), path(scheduler.clone(), &x0));
            for r in [0.3, 0.7, 1.0] {
                let (t, s) = change(Dual64::new(r, 1.0));
                let image: Vec<f64> = old.at(t.re, &[0, 1]).unwrap().data().iter().map(|x| s.re * x).collect();
                assert_close(&image, new.at(r, &[0, 1]).unwrap().data(), 1e-8, &format!("{} at {r}", scheduler.name()));
            }
        }
    }
}

#[test]
fn edm_starts_at_its_noise_level() {
    let field: MixtureField<f64> = mixture_field(Scheduler::EDM);
    assert_eq!(field.start(&[1.0, 2.0, 3.0], 3).unwrap().data(), [80.0, 160.0, 240.0]);
    assert_eq!(mixture_field(Scheduler::FmOt).start(&[1.0, 2.0, 3.0], 3).unwrap().data(), [1.0, 2.0, 3.0]);
}

fn parse(text: &str) -> Result<Scheduler, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

#[test]
fn their_json_form_goes_both_ways() {
    assert_eq!(parse(r#"{"name": "vp"}"#).unwrap(), Scheduler::VP);
    assert_eq!(parse(r#"{"name": "edm"}"#).unwrap(), Scheduler::EDM);
    let half = parse(r#"{"name": "vp", "beta_max": 10}"#).unwrap();
    assert_eq!(half, Scheduler::Vp { beta_min: 0.1, beta_max: 10.0 });
    let other =
        [Scheduler::Vp { beta_min: 0.07, beta_max: 1.0 / 3.0 }, Scheduler::Edm { sigma_min: 0.1, sigma_max: 7.7 }];
    for scheduler in SCHEDULERS.into_iter().chain(other) {
        let text = serde_json::to_string(&scheduler).unwrap();
        assert_eq!(parse(&text).unwrap(), scheduler, "{text}");
    }
    assert_eq!(serde_json::to_string(&Scheduler::FmOt).unwrap(), r#"{"name":"fm-ot"}"#);
}

#[test]
fn a_wrong_scheduler_is_refused_by_the_name_of_what_is_wrong() {
    for (text, names) in [
        (r#"{"name": "ddpm"}"#, vec!["ddpm", "fm-ot", "cosine", "vp", "edm"]),
        (r#"{}"#, vec!["name"]),
        (r#"{"name": 3}"#, vec!["string"]),
        (r#"{"name": "vp", "beta": 1}"#, vec!["beta`"]),
        (r#"{"name": "fm-ot", "beta_min": 0.1}"#, vec!["beta_min", "fm-ot"]),
        (r#"{"name": "vp", "sigma_max": 80}"#, vec!["sigma_max", "vp"]),
        (r#"{"name": "edm", "beta_max": 20}"#, vec!["beta_max", "edm"]),
        (r#"{"name": "vp", "beta_min": 30}"#, vec!["beta_min", "30"]),
        (r#"{"name": "vp", "beta_min": -1}"#, vec!["beta_min", "-1"]),
        (r#"{"name": "vp", "beta_min": 0.1, "beta_min": 0.1}"#, vec!["duplicate", "beta_min"]),
        (r#"{"name": "edm", "sigma_min": 0}"#, vec!["sigma_min"]),
        (r#"{"name": "edm", "sigma_min": 100}"#, vec!["sigma_min", "100"]),
        (r#"{"name": "edm", "sigma_max": 1e999}"#, vec!["out of range"]),
    ] {
        let message = parse(text).unwrap_err();
        for name in names {
            assert!(message.contains(name), "{text}: {message:?} does not name {name}");
        }
    }
    assert!(Scheduler::Vp { beta_min: f64::NAN, beta_max: 1.0 }.validate().is_err());
    assert!(Scheduler::Edm { sigma_min: 1.0, sigma_max: f64::INFINITY }.validate().is_err());
}
