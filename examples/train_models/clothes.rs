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

    /// The features, and before them the images of each size.
    fn layers(&self, w: &[Tensor], x: &Tensor) -> Vec<Tensor> {
        let mut h = x.shallow_clone();
        let mut levels: Vec<Tensor> = Vec::new();
        for (conv, norm) in &self.convolutions {
            h = norm.forward(w, &conv.forward(w, &h)).silu();
            if levels.last().is_some_and(|last| last.size() == h.size()) {
                levels.pop();
            }
            levels.push(h.shallow_clone());
        }
        let features = match &self.head {
            Head::Whole(linear) => linear.forward(w, &h.flatten(1, -1)).silu(),
            Head::Means => h.mean_dim([2i64, 3].as_slice(), false, Kind::Float),
        };
        levels.insert(0, features);
        levels
    }

    fn features(&self, w: &[Tensor], x: &Tensor) -> Tensor {
        self.layers(w, x).swap_remove(0)
    }

    fn logits(&self, w: &[Tensor], x: &Tensor) -> Tensor {
        self.logits.forward(w, &self.features(w, x))
    }
}

/// `fashion-features`, `fashion-judge`, and what the latter says of classes, `fashion-classifier`.
pub fn train(arguments: &Arguments, device: Device) -> Result<()> {
    train_one(arguments, device, "fashion-features", Classifier::new([16, 32, 64], Some(64)), 0, None)?;
    train_one(arguments, device, "fashion-judge", Classifier::new([24, 48, 96], None), 1, Some("fashion-classifier"))
}

fn train_one(
    arguments: &Arguments,
    device: Device,
    name: &str,
    classifier: Classifier,
    seed: i64,
    logits: Option<&str>,
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
    let file = format!("{name}.pt");
    let layers = |x: &[Tensor]| classifier.layers(&computed(), &x[0]);
    export::export_all(&arguments.out.join(&file), "FashionFeatures", inputs, layers)?;
    if let Some(name) = logits {
        let logits = |x: &[Tensor]| classifier.logits(&computed(), &x[0]);
        export::export(&arguments.out.join(format!("{name}.pt")), "FashionClassifier", inputs, logits)?;
    }
    let card = json!({ "format": "bespoke-features", "version": 1, "runtime": "torchscript", "weights": file,
        "channels": 1, "range": [-1, 1], "output": 0,
        "layers": [{ "output": 1 }, { "output": 2 }, { "output": 3 }] });
    let path = arguments.out.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(&card)? + "\n";
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
