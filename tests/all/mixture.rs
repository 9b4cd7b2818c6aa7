//! The Gaussian-mixture field: exact velocity, its vector-Jacobian product, and its file.

use crate::common::{
    SCHEDULERS, assert_close, difference, document, mixture, mixture_field, noise, posterior, proptest_config,
};
use bespoke::model;
use bespoke::networks::{Mixture, MixtureDocument, MixtureField};
use bespoke::scheduler::Scheduler;
use bespoke::tensor::Device;
use bespoke::tensor::{Host, PerRow, Tensor};
use bespoke::velocity::{Condition, VelocityField};
use proptest::prelude::*;

/// u = alpha' E[x1 | x] + sigma' (x - alpha E[x1 | x]) / sigma, with the expectation taken by the trapezoid rule
/// over the plane of x1: no formula of the field's own, and exact to rounding for what decays this fast.
fn by_quadrature(document: &MixtureDocument, scheduler: &Scheduler, t: f64, x: [f64; 2]) -> Vec<f64> {
    let (alpha, sigma) = (scheduler.alpha(t), scheduler.sigma(t));
    let weights = document.weights.as_ref().unwrap();
    let gaussian = |d: f64, std: f64| (-0.5 * (d / std).powi(2)).exp();
    // Finer than the least sigma asked for, EDM's 0.006 at t = 0.95.
    let (width, points) = (5.0, 4000);
    let at = |i: usize| width * (2.0 * i as f64 / points as f64 - 1.0);
    // p(x1) is a sum over modes of products over axes: so are its moments under the likelihood of x.
    let (mut mass, mut first) = (0.0, [0.0; 2]);
    for (mu, w) in document.means.iter().zip(weights) {
        let moment = |axis: usize, power: i32| -> f64 {
            (0..=points)
                .map(|i| {
                    let x1 = at(i);
                    x1.powi(power) * gaussian(x1 - mu[axis], document.std) * gaussian(x[axis] - alpha * x1, sigma)
                })
                .sum()
        };
        mass += w * moment(0, 0) * moment(1, 0);
        first[0] += w * moment(0, 1) * moment(1, 0);
        first[1] += w * moment(0, 0) * moment(1, 1);
    }
    let (alpha_dot, sigma_dot) = (scheduler.alpha_dot(t), scheduler.sigma_dot(t));
    (0..2)
        .map(|i| (first[i] / mass, x[i]))
        .map(|(x1, x)| alpha_dot * x1 + sigma_dot * (x - alpha * x1) / sigma)
        .collect()
}

fn plane() -> MixtureDocument {
    MixtureDocument {
        std: 0.4,
        means: vec![vec![1.0, -0.5], vec![-0.8, 0.9], vec![0.1, 0.3]],
        weights: Some(vec![1.0, 2.0, 0.5]),
        class: None,
    }
}

proptest! {
    #![proptest_config(proptest_config(60))]

    #[test]
    fn the_velocity_is_a_conditional_expectation(t in 0.02..0.95f64, x in prop::array::uniform2(-2.0..2.0f64)) {
        let mixture = Mixture::new(plane()).unwrap();
        for scheduler in SCHEDULERS {
            // EDM's states are as large as its noise.
            let x = x.map(|x| x * scheduler.sigma(t).max(1.0));
            let scale = scheduler.sigma_dot(t).abs().max(1.0);
            let expected: Vec<f64> = by_quadrature(&plane(), &scheduler, t, x).iter().map(|u| u / scale).collect();
            let velocity: Vec<f64> = mixture.velocity(&scheduler, t, &x, None).iter().map(|u| u / scale).collect();
            assert_close(&velocity, &expected, 1e-9, &format!("{} at {t}", scheduler.name()));
        }
    }

    #[test]
    fn the_velocity_carries_the_density(t in 0.02..0.95f64, x in prop::array::uniform3(-2.0..2.0f64), class in 0..3i64) {
        // The continuity equation, d log p/dt + div u + u . grad log p = 0, with div u from the products.
        let document = document();
        let log_density = |scheduler: &Scheduler, t: f64, x: &[f64]| -> f64 {
            let (alpha, sigma) = (scheduler.alpha(t), scheduler.sigma(t));
            let v = (alpha * document.std).powi(2) + sigma * sigma;
            let modes = document.means.iter().zip(document.weights.as_ref().unwrap()).zip(document.class.as_ref().unwrap());
            let terms = modes.filter(|(_, own)| **own == class).map(|((mu, w), _)| {
                let square: f64 = x.iter().zip(mu).map(|(x, mu)| (x - alpha * mu).powi(2)).sum();
                w * (-square / (2.0 * v)).exp() / v.powf(1.5)
            });
            terms.sum::<f64>().ln()
        };
        for s in [Scheduler::FmOt, Scheduler::Cosine, Scheduler::VP] {
            let u = mixture().velocity(&s, t, &x, Some(class));
            let moved = difference(|t| log_density(&s, t, &x), t, 1e-3);
            let unit = |i: usize| { let mut e = [0.0; 3]; e[i] = 1.0; e };
            let units = [unit(0), unit(1), unit(2)];
            let products = mixture().vjp(&s, t, &x, Some(class), &[&units[0], &units[1], &units[2]]);
            let divergence: f64 = products.iter().enumerate().map(|(i, (row, _))| row[i]).sum();
            let along: f64 = (0..3).map(|i| u[i] * difference(|xi| { let mut x = x; x[i] = xi; log_density(&s, t, &x) }, x[i], 1e-3)).sum();
            let size = moved.abs() + divergence.abs() + along.abs() + 1.0;
            prop_assert!((moved + divergence + along).abs() < 1e-6 * size, "{}: {moved} {divergence} {along}", s.name());
        }
    }

    #[test]
    fn products_agree_with_differences(
        t in 0.02..0.95f64, x in prop::array::uniform3(-2.0..2.0f64), w in prop::array::uniform3(-1.0..1.0f64),
        v in prop::array::uniform3(-1.0..1.0f64), class in prop::option::of(0..3i64),
    ) {
        for s in SCHEDULERS {
            let x = x.map(|x| x * s.sigma(t).max(1.0));
            let products = mixture().vjp(&s, t, &x, class, &[&w, &v]);
            for (cotangent, (by_x, by_t)) in [w, v].iter().zip(&products) {
                let along = |u: Vec<f64>| u.iter().zip(cotangent).map(|(u, w)| u * w).sum::<f64>();
                let at = |i: usize, xi: f64| { let mut x = x; x[i] = xi; along(mixture().velocity(&s, t, &x, class)) };
                let expected: Vec<f64> = (0..3).map(|i| difference(|xi| at(i, xi), x[i], 1e-3)).collect();
                let size = expected.iter().fold(1.0f64, |a, b| a.max(b.abs()));
                assert_close(by_x, &expected, 1e-7 * size, &format!("{} w du/dx at {t}", s.name()));
                let expected = difference(|t| along(mixture().velocity(&s, t, &x, class)), t, 5e-4);
                let size = mixture().velocity(&s, t, &x, class).iter().fold(1.0f64, |a, b| a.max(b.abs()));
                prop_assert!((by_t - expected).abs() < 1e-6 * size.max(expected.abs()), "{} w du/dt: {by_t}, {expected}", s.name());
            }
        }
    }
}

#[test]
fn the_velocity_is_finite_at_both_ends_and_far_away() {
    for s in SCHEDULERS {
        for t in [0.0, 1e-12, 1.0 - 1e-12, 1.0] {
            for x in [[0.3, -0.2, 0.1], [1e4, -1e4, 3.0], [0.0; 3]] {
                let (x1, x0) = posterior(&document(), s.alpha(t), s.sigma(t), &x);
                let velocity = mixture().velocity(&s, t, &x, None);
                assert!(velocity.iter().all(|u| u.is_finite()), "{} at {t}: {velocity:?}", s.name());
                if s.sigma(t) > 0.0 {
                    let size = x[0].abs().max(1.0) * s.sigma_dot(t).abs().max(1.0);
                    let expected: Vec<f64> = (0..3).map(|i| s.alpha_dot(t) * x1[i] + s.sigma_dot(t) * x0[i]).collect();
                    assert_close(&velocity, &expected, 1e-9 * size, &format!("{} at {t}", s.name()));
                }
                for (by_x, by_t) in mixture().vjp(&s, t, &x, None, &[&[1.0, -1.0, 0.5]]) {
                    assert!(by_x.iter().all(|v| v.is_finite()) && by_t.is_finite(), "{} at {t}", s.name());
                }
            }
        }
    }
}

#[test]
fn the_field_is_the_mixture_row_by_row() {
    let field: MixtureField<f64> = MixtureField::new(mixture(), Scheduler::Cosine, Some(9));
    let (x, times) = (noise(4, 3), [0.1, 0.4, 0.4, 0.9]);
    let condition = crate::common::condition(&[0, 9, 2, 1], &[]);
    let u = field.eval(PerRow::Each(&times), &x, &condition).unwrap();
    let w = noise(4, 3).select(&[2, 0, 1, 3]).unwrap();
    let vjp = field.vjp(PerRow::Each(&times), &x, &condition, std::slice::from_ref(&w)).unwrap();
    for (row, class) in [Some(0), None, Some(2), Some(1)].into_iter().enumerate() {
        assert_eq!(u.row(row), mixture().velocity(&Scheduler::Cosine, times[row], x.row(row), class));
        let expected = mixture().vjp(&Scheduler::Cosine, times[row], x.row(row), class, &[w.row(row)]);
        assert_eq!((vjp.x[0].row(row), vjp.t[0].row(row)), (expected[0].0.as_slice(), [expected[0].1].as_slice()));
    }
    // A class has the modes of its own alone.
    let one = MixtureDocument { class: None, means: document().means[1..2].to_vec(), weights: None, ..document() };
    let two =
        MixtureDocument { class: Some(vec![0, 1]), means: document().means[..2].to_vec(), weights: None, ..document() };
    assert_eq!(
        Mixture::new(one).unwrap().velocity(&Scheduler::FmOt, 0.6, x.row(0), None),
        Mixture::new(two).unwrap().velocity(&Scheduler::FmOt, 0.6, x.row(0), Some(1))
    );
}

#[test]
fn what_does_not_fit_the_mixture_is_refused() {
    let field = mixture_field(Scheduler::FmOt);
    let (x, none) = (noise(2, 3), Condition::default());
    let refused = |result: bespoke::error::Result<Host<f64>>, name: &str| {
        let message = result.expect_err("refused").to_string();
        assert!(message.contains(name), "{message:?} does not name {name}");
    };
    refused(field.eval(PerRow::All(0.5), &noise(2, 4), &none), "elements");
    refused(field.eval(PerRow::Each(&[0.5]), &x, &none), "t is 1 numbers");
    let class = |class: &[i64]| crate::common::condition(class, &[]);
    refused(field.eval(PerRow::All(0.5), &x, &class(&[0])), "class");
    refused(field.eval(PerRow::All(0.5), &x, &class(&[0, 3])), "class is 3");
    let wrong = [noise(2, 4)];
    assert!(field.vjp(PerRow::All(0.5), &x, &none, &wrong).is_err());
}

#[test]
fn a_malformed_mixture_is_refused_by_the_name_of_what_is_wrong() {
    let good = document();
    let with = |change: &dyn Fn(&mut MixtureDocument)| {
        let mut document = good.clone();
        change(&mut document);
        Mixture::new(document).expect_err("refused").to_string()
    };
    for (message, name) in [
        (with(&|d| d.std = 0.0), "std"),
        (with(&|d| d.std = f64::NAN), "std"),
        (with(&|d| d.means.clear()), "means"),
        (with(&|d| d.means[0].clear()), "means"),
        (
            with(&|d| {
                d.means[2].pop();
            }),
            "means[2]",
        ),
        (with(&|d| d.means[1][0] = f64::INFINITY), "means[1]"),
        (with(&|d| d.weights = Some(vec![1.0])), "weights"),
        (with(&|d| d.weights.as_mut().unwrap()[3] = -1.0), "weights"),
        (with(&|d| d.class = Some(vec![0])), "class"),
    ] {
        assert!(message.starts_with(name), "{message:?} does not name {name}");
    }
}

/// A folder with a mixture and a card of `classes` classes.
fn folder(classes: i64, mixture: &MixtureDocument) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mixture.json"), serde_json::to_string(mixture).unwrap()).unwrap();
    let card = serde_json::json!({
        "format": "bespoke-model", "version": 1, "weights": "mixture.json", "runtime": "mixture", "shape": [3],
        "output": "velocity", "scheduler": {"name": "fm-ot"}, "classes": classes
    });
    std::fs::write(folder.path().join("card.json"), card.to_string()).unwrap();
    folder
}

#[test]
fn a_mixture_is_opened_by_its_card() {
    let folder = folder(3, &document());
    #[allow(irrefutable_let_patterns, reason = "without libtorch there is no other kind")]
    let model = model::open(&folder.path().join("card.json"), Device::Cpu).unwrap();
    let field = model.host_field().unwrap();
    let x = field.start(&[0.1, -0.2, 0.3], 3).unwrap();
    let u = field.eval(PerRow::All(0.4), &x, &crate::common::condition(&[1], &[])).unwrap();
    let wide: Vec<f64> = x.data().iter().map(|v| f64::from(*v)).collect();
    let expected = mixture().velocity(&Scheduler::FmOt, 0.4, &wide, Some(1));
    assert_close(&u.data().iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), &expected, 1e-6, "u");
}

#[test]
fn a_card_that_does_not_fit_its_mixture_is_refused() {
    let open = |folder: &tempfile::TempDir, device| {
        model::open(&folder.path().join("card.json"), device).err().expect("refused").to_string()
    };
    let unclassed = MixtureDocument { class: None, ..document() };
    for (classes, mixture) in [(4, document()), (1, unclassed)] {
        let message = open(&folder(classes, &mixture), Device::Cpu);
        assert!(message.contains("card.json: classes"), "{message}");
    }
    let flat = MixtureDocument { means: vec![vec![1.0, 2.0]], weights: None, class: None, std: 1.0 };
    let message = open(&folder(0, &flat), Device::Cpu);
    assert!(message.contains("card.json: shape"), "{message}");
    let message = open(&folder(3, &document()), Device::Cuda(0));
    assert!(message.contains("device"), "{message}");
    let wrong = folder(3, &document());
    std::fs::write(wrong.path().join("mixture.json"), r#"{"std": 1, "means": [[1, 2, 3]], "covariance": 1}"#).unwrap();
    let message = open(&wrong, Device::Cpu);
    assert!(message.contains("mixture.json") && message.contains("covariance"), "{message}");
    std::fs::remove_file(wrong.path().join("mixture.json")).unwrap();
    let message = open(&wrong, Device::Cpu);
    assert!(message.contains("mixture.json"), "{message}");
}
