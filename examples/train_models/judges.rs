//! Two classifiers of clothes, or of emoji, which have nothing in common but what they learn from: one gives the features
//! that a solver may be trained by, the other judges what came of it.

use anyhow::{Context, Result};
use serde_json::json;
use tch::{Device, Kind, Tensor, no_grad};

use crate::fit::{self, Settings};
use crate::layers::{Conv, GroupNorm, Layout, Linear};
use crate::{Arguments, export};

/// What they learn from.
pub struct Pictures<'a> {
    /// Of their files: `NAME-judge` and so on.
    pub name: &'a str,
    /// Channels, and the side of the square.
    pub size: [i64; 2],
    pub classes: i64,
    pub iterations: i64,
    /// So many images in [-1, 1], and their classes.
    pub batch: &'a dyn Fn(i64) -> (Tensor, Tensor),
    /// Others, to be asked about.
    pub test: (Tensor, Tensor),
}

/// How the last images, of a quarter of the side, become features.
enum Head {
    /// By a layer that sees all of them, of so many features.
    Whole(Linear),
    /// As their means: which features there are, and not where.
    Means,
}

struct Classifier {
    layout: Layout,
    /// Each with its norm, from the whole side down to its quarter.
    convolutions: Vec<(Conv, GroupNorm)>,
    head: Head,
    logits: Linear,
}

impl Classifier {
    fn new(pictures: &Pictures, widths: [i64; 3], whole: Option<i64>) -> Self {
        let [channels, full] = pictures.size;
        let mut layout = Layout::default();
        let l = &mut layout;
        let mut convolutions = Vec::new();
        for (level, width) in widths.into_iter().enumerate() {
            let side = full >> level;
            let enter = match level {
                0 => Conv::same(l, channels, width, side),
                _ => Conv::halve(l, widths[level - 1], width, side),
            };
            convolutions.push((enter, GroupNorm::new(l, width)));
            if level > 0 {
                convolutions.push((Conv::same(l, width, width, side), GroupNorm::new(l, width)));
            }
        }
        let (last, side) = (widths[2], full / 4);
        let head = whole.map_or(Head::Means, |features| Head::Whole(Linear::new(l, last * side * side, features)));
        Self { convolutions, head, logits: Linear::new(l, whole.unwrap_or(last), pictures.classes), layout }
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

/// `NAME-features` and its layers, `NAME-layers`; `NAME-judge`, and what it says of classes, `NAME-classifier`.
pub fn train(arguments: &Arguments, device: Device, pictures: &Pictures) -> Result<()> {
    let sees = Classifier::new(pictures, [16, 32, 64], Some(64));
    train_one(arguments, device, pictures, ["features", "layers"], sees, Classifier::layers)?;
    write_card(arguments, pictures, "layers")?;
    let judges = Classifier::new(pictures, [24, 48, 96], None);
    train_one(arguments, device, pictures, ["judge", "classifier"], judges, Classifier::logits)
}

/// What is kept of a classifier besides its features.
type Answer = fn(&Classifier, &[Tensor], &Tensor) -> Tensor;

/// Files of these names: its features, and its `answer`.
fn train_one(
    arguments: &Arguments,
    device: Device,
    pictures: &Pictures,
    [features, other]: [&str; 2],
    classifier: Classifier,
    answer: Answer,
) -> Result<()> {
    // The two shall not begin alike.
    tch::manual_seed(arguments.seed + i64::from(other == "classifier"));
    let batch = arguments.batch.unwrap_or(64);
    let settings = Settings {
        iterations: arguments.iterations.unwrap_or(pictures.iterations),
        learning_rate: 2e-3,
        weight_decay: 0.05,
    };
    println!(
        "{}-{features}: {} parameters, {:.1} million multiply-adds, {} iterations of {batch}",
        pictures.name,
        classifier.layout.parameters(),
        classifier.layout.multiply_adds() as f64 / 1e6,
        settings.iterations
    );
    let weights = fit::fit(&classifier.layout, &settings, device, |w| {
        let (images, labels) = (pictures.batch)(batch);
        // A little noise: samples of a generative model are not as clean.
        let strength = Tensor::rand([batch, 1, 1, 1], (Kind::Float, device)) * 0.15;
        let images = &images + strength * images.randn_like();
        classifier.logits(w, &images).cross_entropy_for_logits(&labels)
    })?;

    let (images, labels) = &pictures.test;
    let right: i64 = no_grad(|| {
        let w = classifier.layout.split(&weights);
        let parts = images.split(1000, 0).into_iter().zip(labels.split(1000, 0));
        let right =
            |(images, labels): (Tensor, Tensor)| classifier.logits(&w, &images).argmax(-1, false).eq_tensor(&labels);
        parts.map(|part| right(part).sum(Kind::Int64).int64_value(&[])).sum()
    });
    let count = labels.numel();
    println!("  {:.2} % of the {count} test images are right", 100.0 * right as f64 / count as f64);

    let stored = export::host_weights(&classifier.layout, &weights.to_kind(Kind::Half));
    let computed = || stored.iter().map(|w| w.to_kind(Kind::Float)).collect::<Vec<_>>();
    let [channels, side] = pictures.size;
    let inputs = |batch: i64| vec![Tensor::rand([batch, channels, side, side], (Kind::Float, Device::Cpu)) * 2.0 - 1.0];
    let at = |file: &str| arguments.out.join(format!("{}-{file}.pt", pictures.name));
    export::export(&at(features), "Features", inputs, |x| classifier.features(&computed(), &x[0]))?;
    export::export(&at(other), "Answer", inputs, |x| answer(&classifier, &computed(), &x[0]))?;
    write_card(arguments, pictures, features)
}

fn write_card(arguments: &Arguments, pictures: &Pictures, file: &str) -> Result<()> {
    let file = format!("{}-{file}", pictures.name);
    let card = json!({ "format": "bespoke-features", "version": 1, "runtime": "torchscript", "weights": format!("{file}.pt"),
        "channels": pictures.size[0], "range": [-1, 1] });
    let path = arguments.out.join(format!("{file}.json"));
    let text = serde_json::to_string_pretty(&card)? + "\n";
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
