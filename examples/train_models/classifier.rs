//! The classifier that judges samples, and gives the features for a Fréchet distance.

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor, no_grad};

use crate::data::Data;
use crate::fit::{self, Settings};

use crate::layers::{Conv, GroupNorm, Layout, Linear};
use crate::network::SIDE;
use crate::{Arguments, export};

const FEATURES: i64 = 64;
const CLASSES: i64 = 10;

struct Classifier {
    layout: Layout,
    first: Conv,
    first_norm: GroupNorm,
    second: Conv,
    second_norm: GroupNorm,
    halve: Conv,
    third_norm: GroupNorm,
    features: Linear,
    logits: Linear,
}

impl Classifier {
    fn new() -> Self {
        let mut layout = Layout::default();
        let l = &mut layout;
        Self {
            first: Conv::same(l, 1, 32, SIDE),
            first_norm: GroupNorm::new(l, 32),
            second: Conv::same(l, 32, 32, SIDE),
            second_norm: GroupNorm::new(l, 32),
            halve: Conv::halve(l, 32, 64, SIDE / 2),
            third_norm: GroupNorm::new(l, 64),
            features: Linear::new(l, 64 * (SIDE / 2) * (SIDE / 2), FEATURES),
            logits: Linear::new(l, FEATURES, CLASSES),
            layout,
        }
    }

    fn features(&self, w: &[Tensor], x: &Tensor) -> Tensor {
        let h = self.first_norm.forward(w, &self.first.forward(w, x)).silu();
        let h = self.second_norm.forward(w, &self.second.forward(w, &h)).silu();
        let h = self.third_norm.forward(w, &self.halve.forward(w, &h)).silu();
        self.features.forward(w, &h.flatten(1, -1)).silu()
    }

    fn logits(&self, w: &[Tensor], x: &Tensor) -> Tensor {
        self.logits.forward(w, &self.features(w, x))
    }
}

/// Turned by up to 0.2 rad, scaled by up to 10 %, moved by up to 0.6 of a pixel, with a little
/// noise: samples of a generative model are not as clean as the scans.
fn augment(x: &Tensor) -> Tensor {
    let batch = x.size()[0];
    let options = (Kind::Float, x.device());
    let uniform = |range: f64| (Tensor::rand([batch], options) * 2.0 - 1.0) * range;
    let (angle, scale) = (uniform(0.2), uniform(0.1) + 1.0);
    let move_range = 0.6 * 2.0 / SIDE as f64; // the grid's coordinates run over [-1, 1]
    let (cos, sin) = (angle.cos() * &scale, angle.sin() * &scale);
    let rows = [cos.shallow_clone(), -&sin, uniform(move_range), sin, cos, uniform(move_range)];
    let affine = Tensor::stack(&rows, 1).view([batch, 2, 3]);
    let grid = Tensor::affine_grid_generator(&affine, [batch, 1, SIDE, SIDE], false);
    // Outside is 0: shift so that this is the background.
    let moved = (x + 1.0).grid_sampler(&grid, 0, 0, false) - 1.0;
    let noise = uniform(0.15).abs().view([batch, 1, 1, 1]) * x.randn_like();
    moved + noise
}

/// Which images to learn from and which to hold out.
fn split_indices(count: i64, held_out: i64, device: Device) -> (Tensor, Tensor) {
    // Drawn on the host, so that every device holds out the same digits for the same seed.
    let order = Tensor::randperm(count, (Kind::Int64, Device::Cpu)).to_device(device);
    (order.narrow(0, held_out, count - held_out), order.narrow(0, 0, held_out))
}

/// Trains on all but a fifth of the digits, says how it does on that fifth, and writes the
/// classifier and its features.
pub fn train(arguments: &Arguments, device: Device) -> Result<()> {
    const HELD_OUT: i64 = 360;
    tch::manual_seed(arguments.seed);
    let data = Data::digits(&arguments.data, device)?;
    let labels = data.labels.as_ref().context("the digits have no labels")?;
    let (train, held_out) = split_indices(data.count(), HELD_OUT, device);
    let train = Data {
        images: data.images.index_select(0, &train),
        labels: Some(labels.index_select(0, &train)),
        level: data.level,
    };
    let (test_images, test_labels) = (data.images.index_select(0, &held_out), labels.index_select(0, &held_out));

    let classifier = Classifier::new();
    let settings = Settings { iterations: 1500, learning_rate: 2e-3, weight_decay: 0.05 };
    println!(
        "digits-classifier: {} parameters, {:.2} million multiply-adds, {} iterations",
        classifier.layout.parameters(),
        classifier.layout.multiply_adds() as f64 / 1e6,
        settings.iterations
    );
    let weights = fit::fit(&classifier.layout, &settings, device, |w| {
        let (images, labels) = train.batch(128);
        let labels = labels.expect("digits have labels");
        classifier.logits(w, &augment(&images)).cross_entropy_for_logits(&labels)
    })?;

    let right = no_grad(|| {
        let logits = classifier.logits(&classifier.layout.split(&weights), &test_images);
        logits.argmax(-1, false).eq_tensor(&test_labels).to_kind(Kind::Float).mean(Kind::Float)
    });
    println!("  {:.2} % of {HELD_OUT} held-out digits are right", 100.0 * right.double_value(&[]));

    let weights = export::host_weights(&classifier.layout, &weights);
    let inputs = |batch: i64| vec![Tensor::rand([batch, 1, SIDE, SIDE], (Kind::Float, Device::Cpu)) * 2.0 - 1.0];
    let file = |name: &str| arguments.out.join(name);
    export::export(&file("digits-classifier.pt"), "DigitsClassifier", inputs, |x| classifier.logits(&weights, &x[0]))?;
    export::export(&file("digits-features.pt"), "DigitsFeatures", inputs, |x| classifier.features(&weights, &x[0]))
}
