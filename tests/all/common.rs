//! What several test files need: fields with known properties, mixtures, thetas, cards.

use bespoke::card::Card;
use bespoke::error::Result;
use bespoke::networks::{Mixture, MixtureDocument, MixtureField};
use bespoke::sampler::{self, Plan};
use bespoke::scheduler::Scheduler;
use bespoke::tableau::Tableau;
use bespoke::tensor::{Element, Host, PerRow, Register};
use bespoke::theta::Knots;
use bespoke::velocity::{Condition, VelocityField};
use proptest::prelude::*;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub const SCHEDULERS: [Scheduler; 4] = [Scheduler::FmOt, Scheduler::Cosine, Scheduler::VP, Scheduler::EDM];

/// A field given by a formula, which counts its evaluations.
pub struct Formula<E, F> {
    pub evaluations: AtomicUsize,
    elements: usize,
    velocity: F,
    element: PhantomData<fn() -> E>,
}

impl<E: Element, F: Fn(f64, &[f64]) -> Vec<f64>> Formula<E, F> {
    pub fn new(elements: usize, velocity: F) -> Self {
        Self { evaluations: AtomicUsize::new(0), elements, velocity, element: PhantomData }
    }
}

impl<E: Element, F: Fn(f64, &[f64]) -> Vec<f64>> VelocityField for Formula<E, F> {
    type Tensor = Host<E>;

    fn elements(&self) -> usize {
        self.elements
    }

    fn upload(&self, values: &[f32], elements: usize) -> Result<Host<E>> {
        Host::from_f32(values, elements)
    }

    fn eval(&self, t: PerRow<'_>, x: &Host<E>, _: &Condition) -> Result<Host<E>> {
        self.evaluations.fetch_add(1, Ordering::Relaxed);
        let row = |row: usize| {
            let wide: Vec<f64> = x.row(row).iter().map(|v| v.to_f64()).collect();
            (self.velocity)(t.at(row), &wide)
        };
        Host::new((0..x.batch()).flat_map(row).map(E::from_f64).collect(), self.elements)
    }
}

/// A smooth nonlinear velocity that couples its elements.
pub fn swirl(t: f64, x: &[f64]) -> Vec<f64> {
    let neighbour = |i: usize| x[(i + 1) % x.len()];
    (0..x.len()).map(|i| (1.3 * neighbour(i) + t).sin() - 0.7 * x[i] * (1.0 + t * t) + 0.4 * (3.0 * t).cos()).collect()
}

/// x(1) of a batch of f64 samples under a table.
pub fn sample<F: VelocityField<Tensor = Host<f64>>>(tableau: Tableau<f64>, field: &F, x0: &Host<f64>) -> Vec<f64> {
    sampler::sample(&Arc::new(Plan::new(tableau)), field, x0, &Condition::default()).unwrap().data().to_vec()
}

/// One solve of one sample by a table, as `tableau.rs` describes it and with no code of the sampler:
/// the points after each of the `stages` from `x` on.
pub fn interpret(
    tableau: &Tableau<f64>,
    stages: std::ops::Range<usize>,
    x: &[f64],
    velocity: impl Fn(f64, &[f64]) -> Vec<f64>,
) -> Vec<Vec<f64>> {
    use bespoke::tableau::{Combination, Keep, Operand, Place};
    let zero = vec![0.0; x.len()];
    let mut kept: Vec<Vec<f64>> = vec![zero; 64];
    let (mut state, mut point) = (x.to_vec(), x.to_vec());
    let mut points = Vec::new();
    for stage in &tableau.stages[stages] {
        let u = velocity(stage.t, &point);
        let apply = |combination: &Combination<f64>| -> Vec<f64> {
            let read = |operand: &Operand| match operand {
                Operand::State => &state,
                Operand::Point => &point,
                Operand::Kept(slot) => &kept[*slot],
                Operand::Velocity => &u,
            };
            (0..x.len()).map(|i| combination.terms.iter().map(|(operand, c)| c * read(operand)[i]).sum()).collect()
        };
        let next = apply(&stage.next);
        let keep = match &stage.keep {
            Keep::Nothing => None,
            Keep::Velocity(slot) => Some((*slot, u.clone())),
            Keep::Combination(slot, what) => Some((*slot, apply(what))),
        };
        if let Some((slot, what)) = keep {
            kept[slot] = what;
        }
        if stage.place == Place::State {
            state = next.clone();
        }
        point = next;
        points.push(point.clone());
    }
    points
}

pub fn rms(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
}

/// Asserts |a - b| <= tolerance max(1, |b|), element by element.
#[track_caller]
pub fn assert_close(a: &[f64], b: &[f64], tolerance: f64, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}: lengths");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{what}[{i}]: {a} is not {b} within {tolerance:e}");
    }
}

/// Central difference with one Richardson extrapolation: error O(h^4).
pub fn difference(f: impl Fn(f64) -> f64, x: f64, h: f64) -> f64 {
    let central = |h: f64| (f(x + h) - f(x - h)) / (2.0 * h);
    (4.0 * central(h / 2.0) - central(h)) / 3.0
}

/// Six modes of three classes in three dimensions, unevenly weighted.
pub fn document() -> MixtureDocument {
    MixtureDocument {
        std: 0.35,
        means: vec![
            vec![1.0, -0.5, 0.2],
            vec![-0.8, 0.9, 0.4],
            vec![0.1, 0.3, -1.1],
            vec![-1.2, -0.7, 0.6],
            vec![0.6, 1.1, 0.9],
            vec![0.0, -1.0, -0.4],
        ],
        weights: Some(vec![1.0, 2.0, 0.5, 1.5, 0.7, 1.1]),
        class: Some(vec![0, 1, 2, 0, 1, 2]),
    }
}

pub fn mixture() -> Mixture {
    Mixture::new(document()).unwrap()
}

pub fn mixture_field(scheduler: Scheduler) -> MixtureField<f64> {
    MixtureField::new(mixture(), scheduler, None)
}

/// (E[x1 | x], E[x0 | x]) of the mixture where x = alpha x1 + sigma x0, mode by mode.
pub fn posterior(document: &MixtureDocument, alpha: f64, sigma: f64, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let v = (alpha * document.std).powi(2) + sigma * sigma;
    let weights = document.weights.clone().unwrap_or_else(|| vec![1.0; document.means.len()]);
    let offset = |mu: &[f64]| -> Vec<f64> { x.iter().zip(mu).map(|(x, mu)| x - alpha * mu).collect() };
    let square = |mu: &[f64]| offset(mu).iter().map(|d| d * d).sum::<f64>();
    let nearest = document.means.iter().map(|mu| square(mu)).fold(f64::INFINITY, f64::min);
    let r: Vec<f64> =
        document.means.iter().zip(&weights).map(|(mu, w)| w * (-(square(mu) - nearest) / (2.0 * v)).exp()).collect();
    let total: f64 = r.iter().sum();
    let (mut x1, mut x0) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    for (mu, r) in document.means.iter().zip(&r) {
        for (i, d) in offset(mu).into_iter().enumerate() {
            x1[i] += r / total * (mu[i] + alpha * document.std.powi(2) / v * d);
            x0[i] += r / total * sigma / v * d;
        }
    }
    (x1, x0)
}

/// A card read from a file of its own, with `changes` over a small velocity card.
pub fn card(folder: &Path, changes: serde_json::Value) -> Card {
    let mut card = serde_json::json!({
        "format": "bespoke-model", "version": 1, "weights": "none.pt", "runtime": "torchscript",
        "shape": [3], "output": "velocity", "scheduler": {"name": "fm-ot"}
    });
    for (key, value) in changes.as_object().unwrap() {
        card[key] = value.clone();
    }
    let path = folder.join("card.json");
    std::fs::write(&path, card.to_string()).unwrap();
    Card::load(&path).unwrap()
}

/// Thetas of `per_step` evaluations a step and 1 to `max_steps` steps, well away from 0 and infinity.
pub fn knots(per_step: usize, max_steps: usize) -> impl Strategy<Value = Knots<f64>> {
    (1..=max_steps).prop_flat_map(move |steps| {
        let k = steps * per_step;
        let increments = proptest::collection::vec(0.2..2.0f64, k);
        let t_dot = proptest::collection::vec(0.3..2.0f64, k);
        let s = proptest::collection::vec(0.5..2.0f64, k);
        let s_dot = proptest::collection::vec(-1.0..1.0f64, k);
        (increments, t_dot, s, s_dot).prop_map(|(increments, t_dot, s, s_dot)| {
            let total: f64 = increments.iter().sum();
            let mut t = vec![0.0];
            t.extend(increments.iter().scan(0.0, |sum, step| {
                *sum += step;
                Some(*sum / total)
            }));
            *t.last_mut().unwrap() = 1.0;
            Knots { t, t_dot, s: [vec![1.0], s].concat(), s_dot }
        })
    })
}

/// Samples of `elements` standard normal numbers each.
pub fn noise(batch: usize, elements: usize) -> Host<f64> {
    let values = bespoke::noise::normal(11, bespoke::noise::Purpose::Sample, 0..batch, elements).unwrap();
    Host::from_f32(&values, elements).unwrap()
}

/// Few cases, no files left behind.
pub fn proptest_config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The condition of samples of these classes and guidance scales; none where there are none.
pub fn condition(classes: &[i64], guidance_scale: &[f64]) -> Condition {
    Condition::of_classes(classes).unwrap().guided(guidance_scale.to_vec())
}
