//! A network and its card as a velocity field: outputs, time, classes, guidance.

use crate::common::{SCHEDULERS, assert_close, card, difference, document, mixture, noise, posterior, proptest_config};
use bespoke::card::{Card, Direction};
use bespoke::error::Result;
use bespoke::inputs::{CLASS, Column, Inputs};
use bespoke::model::ModelField;
use bespoke::networks::MixtureDocument;
use bespoke::networks::{Call, Network};
use bespoke::scheduler::{Output, Scheduler};
use bespoke::tensor::{Host, PerRow, Register, Tensor};
use bespoke::velocity::{Condition, VelocityField, Vjp};
use proptest::prelude::*;
use serde_json::json;

const OUTPUTS: [Output; 5] = [Output::Velocity, Output::Epsilon, Output::X1, Output::V, Output::Flow];

/// The network that a perfect training on the mixture would give: the exact conditional expectation
/// of what it predicts, at the time its card says it is given.
struct Perfect {
    card: Card,
    document: MixtureDocument,
}

impl Perfect {
    fn field(card: &Card) -> ModelField<Host<f64>> {
        ModelField::new(card.clone(), Box::new(Perfect { card: card.clone(), document: document() })).unwrap()
    }

    /// The scheduler's time that the network's time stands for.
    fn scheduler_time(&self, time: f64) -> f64 {
        let directed = time / self.card.time.scale;
        let t = if self.card.time.direction == Direction::DataToNoise { 1.0 - directed } else { directed };
        if matches!(self.card.scheduler, Scheduler::Edm { .. }) { self.card.scheduler.snr_inverse(1.0 / t) } else { t }
    }

    fn output(&self, time: f64, x: &[f64], class: Option<i64>) -> Vec<f64> {
        let (scheduler, t) = (&self.card.scheduler, self.scheduler_time(time));
        let (alpha, sigma) = (scheduler.alpha(t), scheduler.sigma(t));
        let mut document = self.document.clone();
        if let Some(class) = class.filter(|c| Some(*c) != self.card.null_class) {
            let keep: Vec<bool> = document.class.clone().unwrap().iter().map(|own| *own == class).collect();
            let mut kept = keep.iter();
            document.means.retain(|_| *kept.next().unwrap());
            let mut kept = keep.iter();
            document.weights.as_mut().unwrap().retain(|_| *kept.next().unwrap());
        }
        let (x1, x0) = posterior(&document, alpha, sigma, x);
        let class = class.filter(|c| Some(*c) != self.card.null_class);
        let velocity = || mixture().velocity(scheduler, t, x, class);
        match self.card.output {
            Output::Velocity => velocity(),
            Output::Flow => velocity().into_iter().map(|u| -u).collect(),
            Output::Epsilon => x0,
            Output::X1 => x1,
            Output::V => x1.iter().zip(&x0).map(|(x1, x0)| alpha * x0 - sigma * x1).collect(),
        }
    }
}

fn class_of(inputs: &Inputs) -> &[i64] {
    inputs.get(CLASS).and_then(Column::integers).unwrap_or_default()
}

impl Network for Perfect {
    type Tensor = Host<f64>;

    fn upload(&self, values: &[f32], elements: usize) -> Result<Host<f64>> {
        Host::from_f32(values, elements)
    }

    fn differentiable(&self) -> bool {
        true
    }

    fn forward(&self, call: &Call<'_, Host<f64>>) -> Result<Host<f64>> {
        let Call { time, x, .. } = call;
        let class = class_of(call.inputs);
        let rows = (0..x.batch()).flat_map(|row| self.output(time.at(row), x.row(row), class.get(row).copied()));
        Host::new(rows.collect(), 3)
    }

    fn vjp(&self, call: &Call<'_, Host<f64>>, w: &[Host<f64>]) -> Result<(Host<f64>, Vjp<Host<f64>>)> {
        let Call { time, x, .. } = call;
        let class = class_of(call.inputs);
        let mut vjp = Vjp { x: Vec::new(), t: Vec::new() };
        for w in w {
            let along = |row: usize, time: f64, x: &[f64]| -> f64 {
                self.output(time, x, class.get(row).copied()).iter().zip(w.row(row)).map(|(o, w)| o * w).sum()
            };
            let (mut by_x, mut by_t) = (Vec::new(), Vec::new());
            for row in 0..x.batch() {
                let time = time.at(row);
                let x = x.row(row);
                let at = |i: usize, xi: f64| {
                    let mut x = x.to_vec();
                    x[i] = xi;
                    along(row, time, &x)
                };
                by_x.extend((0..3).map(|i| difference(|xi| at(i, xi), x[i], 1e-3)));
                by_t.push(difference(|time| along(row, time, x), time, 1e-4 * time.abs().max(1e-3)));
            }
            vjp.x.push(Host::new(by_x, 3)?);
            vjp.t.push(Host::new(by_t, 1)?);
        }
        Ok((self.forward(call)?, vjp))
    }
}

fn scheduler_json(scheduler: &Scheduler) -> serde_json::Value {
    serde_json::to_value(scheduler).unwrap()
}

proptest! {
    #![proptest_config(proptest_config(40))]

    #[test]
    fn all_outputs_are_one_velocity(t in 0.001..0.999f64, x in prop::array::uniform3(-2.0..2.0f64)) {
        for scheduler in SCHEDULERS {
            let (alpha, sigma) = (scheduler.alpha(t), scheduler.sigma(t));
            let x = x.map(|x| x * sigma.max(1.0));
            let (x1, x0) = posterior(&document(), alpha, sigma, &x);
            let expected = mixture().velocity(&scheduler, t, &x, None);
            let size = expected.iter().fold(1.0f64, |a, b| a.max(b.abs()));
            for output in OUTPUTS {
                let prediction: Vec<f64> = match output {
                    Output::Velocity => expected.clone(),
                    Output::Flow => expected.iter().map(|u| -u).collect(),
                    Output::Epsilon => x0.clone(),
                    Output::X1 => x1.clone(),
                    Output::V => x1.iter().zip(&x0).map(|(x1, x0)| alpha * x0 - sigma * x1).collect(),
                };
                let (p, q) = output.velocity_coefficients(&scheduler, t);
                let u: Vec<f64> = x.iter().zip(&prediction).map(|(x, o)| p * x + q * o).collect();
                assert_close(&u, &expected, 1e-10 * size, &format!("{output:?} on {} at {t}", scheduler.name()));
                prop_assert_eq!(output.regular_time(&scheduler, t), t);
            }
        }
    }
}

#[test]
fn every_output_gives_the_exact_velocity_through_its_card() {
    let folder = tempfile::tempdir().unwrap();
    let times = [0.01, 0.3, 0.7, 0.99];
    for scheduler in SCHEDULERS {
        for output in OUTPUTS {
            for (direction, scale, end) in [
                ("noise-to-data", 1.0, 1.0),
                ("data-to-noise", 1000.0, 1.0),
                ("noise-to-data", 7.0, 0.9),
                ("data-to-noise", 1.0, 0.9),
            ] {
                let card = card(
                    folder.path(),
                    json!({
                        "output": output, "scheduler": scheduler_json(&scheduler),
                        "time": {"direction": direction, "scale": scale, "end": end}
                    }),
                );
                let field = Perfect::field(&card);
                let x = noise(4, 3);
                let u = field.eval(PerRow::Each(&times), &x, &Condition::default()).unwrap();
                for (row, tau) in times.into_iter().enumerate() {
                    let exact = mixture().velocity(&scheduler, tau * end, x.row(row), None);
                    // Solver time [0, 1] is [0, end]: d/d tau = end d/dt.
                    let exact: Vec<f64> = exact.iter().map(|u| end * u).collect();
                    let size = scheduler.sigma_dot(tau * end).abs().max(1.0);
                    assert_close(
                        u.row(row),
                        &exact,
                        1e-9 * size,
                        &format!("{output:?}, {} at {tau}", scheduler.name()),
                    );
                }
            }
        }
    }
}

#[test]
fn every_output_is_finite_at_both_ends() {
    let folder = tempfile::tempdir().unwrap();
    let times = [0.0, 1e-15, 1e-6, 1.0 - 1e-6, 1.0 - f64::EPSILON, 1.0];
    for scheduler in SCHEDULERS {
        for output in OUTPUTS {
            for end in [1.0, 0.999] {
                let card = card(
                    folder.path(),
                    json!({
                        "output": output, "scheduler": scheduler_json(&scheduler), "time": {"end": end}
                    }),
                );
                let field = Perfect::field(&card);
                let x = noise(times.len(), 3);
                let name = format!("{output:?} on {} to {end}", scheduler.name());
                let u = field.eval(PerRow::Each(&times), &x, &Condition::default()).unwrap();
                assert!(u.is_finite().unwrap(), "{name}: {u:?}");
                let w = [noise(times.len(), 3)];
                let vjp = field.vjp(PerRow::Each(&times), &x, &Condition::default(), &w).unwrap();
                assert!(vjp.x[0].is_finite().unwrap() && vjp.t[0].is_finite().unwrap(), "{name}: {vjp:?}");
                // Right at the end it is the velocity nearby, not just any number. VP's own grows without bound.
                if end == 1.0 && !matches!(scheduler, Scheduler::Vp { .. }) {
                    for (row, t) in [(0, 0.0), (5, 1.0)] {
                        let exact = mixture().velocity(&scheduler, t, x.row(row), None);
                        let size = scheduler.sigma_dot(t).abs().max(1.0);
                        assert_close(u.row(row), &exact, 5e-3 * size, &format!("{name} at {t}"));
                    }
                }
            }
        }
    }
}

/// Asserts that `vjp` is the derivative of `eval`, with one time a sample and two cotangents.
fn check_products(field: &impl VelocityField<Tensor = Host<f64>>, condition: &Condition, times: &[f64], name: &str) {
    let batch = times.len();
    let x = noise(batch, 3);
    let reversed: Vec<usize> = (0..batch).rev().collect();
    let w = [noise(batch, 3).select(&reversed).unwrap(), x.duplicate().unwrap()];
    let vjp = field.vjp(PerRow::Each(times), &x, condition, &w).unwrap();
    for (k, w) in w.iter().enumerate() {
        for (row, time) in times.iter().enumerate() {
            let one = condition.select(&[row]).unwrap();
            let along = |t: f64, x: &[f64]| -> f64 {
                let u = field.eval(PerRow::All(t), &Host::new(x.to_vec(), 3).unwrap(), &one).unwrap();
                u.data().iter().zip(w.row(row)).map(|(u, w)| u * w).sum()
            };
            let at = |i: usize, xi: f64| {
                let mut x = x.row(row).to_vec();
                x[i] = xi;
                along(*time, &x)
            };
            let by_x: Vec<f64> = (0..3).map(|i| difference(|xi| at(i, xi), x.row(row)[i], 1e-3)).collect();
            let by_t = difference(|t| along(t, x.row(row)), *time, 1e-4);
            let size = by_x.iter().fold(1.0f64, |a, b| a.max(b.abs()));
            assert_close(vjp.x[k].row(row), &by_x, 1e-6 * size, &format!("{name}: w du/dx of sample {row}"));
            let own = vjp.t[k].row(row)[0];
            assert!((own - by_t).abs() < 1e-6 * by_t.abs().max(size), "{name}: w du/dt of sample {row}: {own}, {by_t}");
        }
    }
}

#[test]
fn products_follow_output_direction_scale_and_end() {
    let folder = tempfile::tempdir().unwrap();
    for scheduler in SCHEDULERS {
        for output in OUTPUTS {
            for (direction, scale, end) in
                [("noise-to-data", 1.0, 0.9), ("data-to-noise", 1000.0, 1.0), ("data-to-noise", 3.0, 0.9)]
            {
                let card = card(
                    folder.path(),
                    json!({
                        "output": output, "scheduler": scheduler_json(&scheduler),
                        "time": {"direction": direction, "scale": scale, "end": end}
                    }),
                );
                let name = format!("{output:?} on {}, {direction}, {scale}, {end}", scheduler.name());
                check_products(&Perfect::field(&card), &Condition::default(), &[0.2, 0.5, 0.8], &name);
            }
        }
    }
}

fn guided(class: &[i64], guidance_scale: &[f64]) -> Condition {
    crate::common::condition(class, guidance_scale)
}

#[test]
fn guidance_is_between_the_unconditional_and_the_conditional_pass_and_beyond() {
    let folder = tempfile::tempdir().unwrap();
    for output in OUTPUTS {
        let card = card(
            folder.path(),
            json!({"output": output, "scheduler": {"name": "cosine"}, "classes": 3, "null_class": 3}),
        );
        let field = Perfect::field(&card);
        let (x, times, scales) = (noise(4, 3), [0.2, 0.4, 0.6, 0.8], [0.0, 1.0, 2.5, -0.5]);
        let eval = |condition: &Condition| field.eval(PerRow::Each(&times), &x, condition).unwrap();
        let conditional = eval(&guided(&[0, 1, 2, 0], &[]));
        let unconditional = eval(&guided(&[3; 4], &[]));
        let both = eval(&guided(&[0, 1, 2, 0], &scales));
        for row in 0..4 {
            let expected: Vec<f64> = (0..3)
                .map(|i| {
                    let (on, off) = (conditional.row(row)[i], unconditional.row(row)[i]);
                    off + scales[row] * (on - off)
                })
                .collect();
            assert_close(both.row(row), &expected, 1e-12, &format!("{output:?}, sample {row}"));
            let exact = mixture().velocity(&Scheduler::Cosine, times[row], x.row(row), Some([0, 1, 2, 0][row]));
            assert_close(conditional.row(row), &exact, 1e-10, &format!("{output:?}, class of sample {row}"));
        }
        assert_eq!(eval(&guided(&[0, 1, 2, 0], &[1.0; 4])).data(), conditional.data(), "1 is off");
        let passes = |classes: &[i64], scales: &[f64]| {
            field.passes(PerRow::All(0.5), classes.len(), &guided(classes, scales)).unwrap()
        };
        assert_eq!((passes(&[0], &[1.0]), passes(&[0, 1], &[1.0, 2.0]), passes(&[0, 1], &[3.0, 2.0])), (1, 3, 4));
        check_products(&field, &guided(&[0, 1, 2, 0], &scales), &times, &format!("guided {output:?}"));
        check_products(&field, &guided(&[0, 1, 2, 3], &[]), &times, &format!("classes, {output:?}"));
    }
}

#[test]
fn one_time_for_all_is_that_time_for_each() {
    let folder = tempfile::tempdir().unwrap();
    let card = card(folder.path(), json!({"output": "epsilon", "classes": 3, "null_class": 3, "time": {"end": 0.9}}));
    let (field, x) = (Perfect::field(&card), noise(3, 3));
    for condition in [guided(&[0, 1, 2], &[]), guided(&[0, 1, 2], &[2.0, 1.0, 0.0])] {
        let all = field.eval(PerRow::All(0.3), &x, &condition).unwrap();
        assert_eq!(all, field.eval(PerRow::Each(&[0.3; 3]), &x, &condition).unwrap());
        let w = [noise(3, 3)];
        let (one, each) = (
            field.vjp(PerRow::All(0.3), &x, &condition, &w).unwrap(),
            field.vjp(PerRow::Each(&[0.3; 3]), &x, &condition, &w).unwrap(),
        );
        assert_eq!((&one.x[0], &one.t[0]), (&each.x[0], &each.t[0]));
    }
}

#[test]
fn edm_noise_is_scaled_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let edm = Perfect::field(&card(folder.path(), json!({"scheduler": {"name": "edm", "sigma_max": 10}})));
    assert_eq!(edm.start(&[1.0, -2.0, 0.5], 3).unwrap().data(), [10.0, -20.0, 5.0]);
    let vp = Perfect::field(&card(folder.path(), json!({"scheduler": {"name": "vp"}})));
    assert_eq!(vp.start(&[1.0, -2.0, 0.5], 3).unwrap().data(), [1.0, -2.0, 0.5]);
}

#[test]
fn conditions_that_do_not_fit_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let with_classes = Perfect::field(&card(folder.path(), json!({"classes": 3, "null_class": 3})));
    let without_null = Perfect::field(&card(folder.path(), json!({"classes": 3})));
    let unclassed = Perfect::field(&card(folder.path(), json!({})));
    let x = noise(2, 3);
    for (field, condition, name) in [
        (&with_classes, guided(&[], &[]), "class is 0 classes"),
        (&with_classes, guided(&[0, 1, 2], &[]), "class is 3 classes"),
        (&with_classes, guided(&[0, 4], &[]), "class is 4"),
        (&with_classes, guided(&[-1, 0], &[]), "class is -1"),
        (&with_classes, guided(&[0, 1], &[2.0]), "guidance_scale is 1 numbers"),
        (&with_classes, guided(&[0, 1], &[1.0, f64::NAN]), "guidance_scale is NaN"),
        (&without_null, guided(&[0, 1], &[1.0, 2.0]), "guidance_scale is 2"),
        (&without_null, guided(&[0, 3], &[]), "class is 3"),
        (&unclassed, guided(&[0, 0], &[]), "class is 0"),
        (&unclassed, guided(&[], &[2.0, 2.0]), "guidance_scale is 2"),
    ] {
        let message = field.eval(PerRow::All(0.5), &x, &condition).expect_err("refused").to_string();
        assert!(message.starts_with(name), "{message:?} does not say {name:?}");
        let message = field.vjp(PerRow::All(0.5), &x, &condition, &[]).expect_err("refused").to_string();
        assert!(message.starts_with(name), "{message:?} does not say {name:?}");
    }
    let message = unclassed.eval(PerRow::Each(&[0.5]), &x, &Condition::default()).unwrap_err().to_string();
    assert!(message.starts_with("t is 1 numbers"), "{message}");
}
