//! Two classifiers of pieces of clothing, which have nothing in common but what they learn from: one gives the features
//! that a solver may be trained by, the other judges what came of it.

use anyhow::{Context, Result};
use serde_json::json;
use tch::{Device, Kind, Tensor, no_grad};

use crate::fashion::CLASSES;
use crate::fit::{self, Settings};
use crate::idx::Fashion;
use crate::layers::{Conv, GroupNorm, Layout, Linear};
use crate::unet::SIDE;
use crate::{Arguments, export};

/// How the last images of 7 x 7 become features.
enum Head {
    /// By a layer that sees all of them, of so many features.
    Whole(Linear),
    /// As their means: which features there are, and not where.
    Means,
}

struct Classifier {
    layout: Layout,
    /// Each with its norm, from 28 x 28 down to 7 x 7.
    convolutions: Vec<(Conv, GroupNorm)>,
    head: Head,
    logits: Linear,
}

impl Classifier {
    fn new(widths: [i64; 3], whole: Option<i64>) -> Self {
        let mut layout = Layout::default();
        let l = &mut layout;
        let mut convolutions = Vec::new();
        for (level, width) in widths.into_iter().enumerate() {
            let side = SIDE >> level;
            let before = if level == 0 { 1 } else { widths[level - 1] };
            let enter = if level == 0 { Conv::same(l, 1, width, side) } else { Conv::halve(l, before, width, side) };
            convolutions.push((enter, GroupNorm::new(l, width)));
            if level > 0 {
                convolutions.push((Conv::same(l, width, width, side), GroupNorm::new(l, width)));
            }
        }
        let (last, side) = (widths[2], SIDE / 4);
        let head = whole.map_or(Head::Means, |features| Head::Whole(Linear::new(l, last * side * side, features)));
        Self { convolutions, head, logits: Linear::new(l, whole.unwrap_or(last), CLASSES), layout }
    }

    /// The images that each convolution makes.
    fn images(&self, w: &[Tensor], x: &Tensor) -> Vec<Tensor> {
        let mut images: Vec<Tensor> = Vec::new();
        for (conv, norm) in &self.convolutions {
            let before = images.last().unwrap_or(x);
            images.push(norm.forward(w, &conv.forward(w, before)).silu());
        }
        images
    }

    fn features(&self, w: &[Tensor], x: &Tensor) -> Tensor {
        let images = self.images(w, x);
        let last = images.last().unwrap_or(x);
        match &self.head {
            Head::Whole(linear) => linear.forward(w, &last.flatten(1, -1)).silu(),
            Head::Means => last.mean_dim([2i64, 3].as_slice(), false, Kind::Float),
        }
    }

    /// The last images of each size as LPIPS compares them, joined: channels of unit length at every place, squares
    /// averaged over the places of a size.
    fn layers(&self, w: &[Tensor], x: &Tensor) -> Tensor {
        let images = self.images(w, x);
        let is_last = |i: usize| images.get(i + 1).is_none_or(|next| next.size() != images[i].size());
        let layer = |i: usize| {
            let image = &images[i];
            let length = (image.square().sum_dim_intlist(1i64, true, Kind::Float) + 1e-10).sqrt();
            let places: i64 = image.size()[2..].iter().product();
            (image / length / (places as f64).sqrt()).flatten(1, -1)
        };
        let layers: Vec<Tensor> = (0..images.len()).filter(|i| is_last(*i)).map(layer).collect();
        Tensor::cat(&layers, 1)
    }

    fn logits(&self, w: &[Tensor], x: &Tensor) -> Tensor {
        self.logits.forward(w, &self.features(w, x))
    }
}

/// `fashion-features` and its layers, `fashion-layers`; `fashion-judge`, and what it says of classes, `fashion-classifier`.
pub fn train(arguments: &Arguments, device: Device) -> Result<()> {
    let sees = Classifier::new([16, 32, 64], Some(64));
    let layers = ("fashion-layers", Classifier::layers as Answer);
    train_one(arguments, device, "fashion-features", sees, 0, layers)?;
    let classes = ("fashion-classifier", Classifier::logits as Answer);
    train_one(arguments, device, "fashion-judge", Classifier::new([24, 48, 96], None), 1, classes)
}

/// What is kept of a classifier besides its features.
type Answer = fn(&Classifier, &[Tensor], &Tensor) -> Tensor;

fn train_one(
    arguments: &Arguments,
    device: Device,
    name: &str,
    classifier: Classifier,
    seed: i64,
    (other, answer): (&str, Answer),
) -> Result<()> {
    tch::manual_seed(arguments.seed + seed);
    let data = Fashion::read(&arguments.fashion, "train", device)?;
    let test = Fashion::read(&arguments.fashion, "t10k", device)?;
    let batch = arguments.batch.unwrap_or(64);
    let settings =
        Settings { iterations: arguments.iterations.unwrap_or(2000), learning_rate: 2e-3, weight_decay: 0.05 };
    println!(
        "{name}: {} parameters, {:.1} million multiply-adds, {} iterations of {batch}",
        classifier.layout.parameters(),
        classifier.layout.multiply_adds() as f64 / 1e6,
        settings.iterations
    );
    let weights = fit::fit(&classifier.layout, &settings, device, |w| {
        let (images, labels) = data.batch(batch);
        // A little noise: samples of a generative model are not as clean.
        let strength = Tensor::rand([batch, 1, 1, 1], (Kind::Float, device)) * 0.15;
        let images = &images + strength * images.randn_like();
        classifier.logits(w, &images).cross_entropy_for_logits(&labels)
    })?;

    let right = no_grad(|| {
        let w = classifier.layout.split(&weights);
        let right: i64 = (0..test.count() / 1000)
            .map(|part| {
                let index = Tensor::arange_start(1000 * part, 1000 * (part + 1), (Kind::Int64, device));
                let (images, labels) = test.select(&index);
                classifier.logits(&w, &images).argmax(-1, false).eq_tensor(&labels).sum(Kind::Int64).int64_value(&[])
            })
            .sum();
        right
    });
    println!("  {:.2} % of the {} test images are right", 100.0 * right as f64 / test.count() as f64, test.count());

    let stored = export::host_weights(&classifier.layout, &weights.to_kind(Kind::Half));
    let computed = || stored.iter().map(|w| w.to_kind(Kind::Float)).collect::<Vec<_>>();
    let inputs = |batch: i64| vec![Tensor::rand([batch, 1, SIDE, SIDE], (Kind::Float, Device::Cpu)) * 2.0 - 1.0];
    let at = |name: &str| arguments.out.join(format!("{name}.pt"));
    export::export(&at(name), "FashionFeatures", inputs, |x| classifier.features(&computed(), &x[0]))?;
    export::export(&at(other), "FashionAnswer", inputs, |x| answer(&classifier, &computed(), &x[0]))?;
    write_card(arguments, name)?;
    if other == "fashion-layers" { write_card(arguments, other) } else { Ok(()) }
}

fn write_card(arguments: &Arguments, name: &str) -> Result<()> {
    let card = json!({ "format": "bespoke-features", "version": 1, "runtime": "torchscript", "weights": format!("{name}.pt"),
        "channels": 1, "range": [-1, 1] });
    let path = arguments.out.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(&card)? + "\n";
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
