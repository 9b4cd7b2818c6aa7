//! Training, writing and judging one velocity network.

use anyhow::Result;
use serde_json::json;
use tch::{CModule, Device, Kind, Reduction, Tensor, no_grad};

use crate::Arguments;
use crate::data::Data;
use crate::fit::{self, Settings};
use crate::network::{Given, Network, SIDE};
use crate::paths::GaussianPath;
use crate::text::{self, Texts};
use crate::{export, preview};

pub const DIGIT_CLASSES: i64 = 10;
/// How often the class, or the text, is hidden, which teaches the network what guidance needs.
pub const DROPOUT: f64 = 0.15;

/// Which samples of a batch keep what they are given, bool [batch].
pub fn kept(batch: i64, device: Device) -> Tensor {
    Tensor::rand([batch], (Kind::Float, device)).ge(DROPOUT)
}

/// One time in [0, end] from each of `batch` equal intervals: less noise than independent times.
pub fn times(batch: i64, end: f64, device: Device) -> Tensor {
    let options = (Kind::Float, device);
    (Tensor::arange(batch, options) + Tensor::rand([batch], options)) * (end / batch as f64)
}

pub fn train(
    arguments: &Arguments,
    device: Device,
    name: &str,
    path: GaussianPath,
    data: &Data,
    given: Given,
) -> Result<()> {
    tch::manual_seed(arguments.seed);
    let texts = match given {
        Given::Text => Some(Texts::read(&arguments.data, device)?),
        Given::Nothing | Given::Class(_) => None,
    };
    let on_gpu = device != Device::Cpu;
    let batch = arguments.batch.unwrap_or(if on_gpu { 1024 } else { 128 });
    let settings = Settings {
        iterations: arguments.iterations.unwrap_or(if on_gpu { 12_000 } else { 3_000 }),
        learning_rate: 2e-3,
        weight_decay: 0.05,
    };
    let network = Network::new(data.channels(), given, device);
    println!(
        "{name}: {} parameters, {:.2} million multiply-adds, {} iterations of {batch}",
        network.layout.parameters(),
        network.layout.multiply_adds() as f64 / 1e6,
        settings.iterations
    );

    let weights = fit::fit(&network.layout, &settings, device, |w| {
        let (x1, labels) = data.batch(batch);
        // Uniform dequantisation: values on a few exact grey levels would make the velocity stiff at t = 1.
        let x1 = &x1 + (x1.rand_like() - 0.5) * data.level;
        let t = times(batch, path.end(), device);
        let told = labels.map(|labels| {
            let keep = kept(batch, device);
            match (network.encoder(), &texts) {
                (Some(encoder), Some(texts)) => {
                    encoder.forward(w, &texts.draw(&labels)) * keep.view([-1, 1, 1]).to_kind(Kind::Float)
                }
                _ => labels.where_self(&keep, &labels.full_like(DIGIT_CLASSES)),
            }
        });
        let x0 = x1.randn_like();
        let (alpha, sigma) = path.alpha_sigma(&t.view([-1, 1, 1, 1]));
        let x = &alpha * &x1 + &sigma * &x0;
        let target = path.target(&x0, &x1, &alpha, &sigma);
        network.forward(w, &x, &t, told.as_ref()).mse_loss(&target, Reduction::Mean)
    })?;

    write(arguments, name, path, &weights, data.channels(), given)?;
    no_grad(|| judge(arguments, name, path, &network, &weights, data, texts.as_ref()))
}

fn write(
    arguments: &Arguments,
    name: &str,
    path: GaussianPath,
    weights: &Tensor,
    channels: i64,
    given: Given,
) -> Result<()> {
    // A network of its own on the host: what it makes becomes constants of the file.
    let network = Network::new(channels, given, Device::Cpu);
    let weights = export::host_weights(&network.layout, weights);
    let inputs = |batch: i64| {
        let options = (Kind::Float, Device::Cpu);
        let mut inputs =
            vec![Tensor::randn([batch, channels, SIDE, SIDE], options), Tensor::rand([batch], options) * path.end()];
        match given {
            Given::Nothing => {}
            Given::Class(n) => inputs.push(Tensor::randint(n + 1, [batch], (Kind::Int64, Device::Cpu))),
            Given::Text => inputs.push(Tensor::rand([batch, 1 + batch % 9, text::DIGITS.token], options) * 2.0 - 1.0),
        }
        inputs
    };
    let file = format!("{name}.pt");
    let target = arguments.out.join(&file);
    export::export(&target, "VelocityNetwork", inputs, |x| network.forward(&weights, &x[0], &x[1], x.get(2)))?;
    if let Some(encoder) = network.encoder() {
        let target = arguments.out.join(format!("{name}-encoder.pt"));
        export::export(&target, "TextEncoder", |n| vec![text::random(n)], |x| encoder.forward(&weights, &x[0]))?;
    }
    let told = match given {
        Given::Nothing => json!({}),
        Given::Class(n) => json!({ "classes": n, "null_class": n }),
        Given::Text => json!({ "inputs": [
            { "name": "text", "dtype": "float32", "shape": ["tokens", text::DIGITS.token], "null": 0 }
        ] }),
    };
    // The classifier knows digits; patches of photographs are judged by their pixels.
    let features = if given == Given::Nothing { "photos-features.json" } else { "digits-features.json" };
    let shape = json!([channels, SIDE, SIDE]);
    export::write_card(&arguments.out.join(format!("{name}.json")), &file, shape, path.reading(), told, features)?;
    let rate = export::throughput(&target, inputs)?;
    println!("  {rate:.0} samples per second forward at batch 512, {} threads", tch::get_num_threads());
    Ok(())
}

/// Draws 1,000 samples with and without guidance and asks the classifier about them.
fn judge(
    arguments: &Arguments,
    name: &str,
    path: GaussianPath,
    network: &Network,
    weights: &Tensor,
    data: &Data,
    texts: Option<&Texts>,
) -> Result<()> {
    const SAMPLES: i64 = 1000;
    const GUIDANCE: f64 = 2.0;
    let device = weights.device();
    let w = network.layout.split(weights);
    let noise = Tensor::randn([SAMPLES, data.channels(), SIDE, SIDE], (Kind::Float, device));

    if data.labels.is_none() {
        let samples = preview::sample(path, &noise, |x, t| network.forward(&w, x, t, None));
        let ((value, step), (data_value, data_step)) = (preview::contrast(&samples), preview::contrast(&data.images));
        println!(
            "  deviation of values {value:.3} (data {data_value:.3}), of steps between pixels {step:.3} (data {data_step:.3})"
        );
        return save_preview(arguments, name, &samples);
    }

    let class = Tensor::arange(SAMPLES, (Kind::Int64, device)).remainder(DIGIT_CLASSES);
    let (told, nothing) = match (network.encoder(), texts) {
        (Some(encoder), Some(texts)) => {
            let told = encoder.forward(&w, &texts.draw(&class));
            (told.shallow_clone(), told.zeros_like())
        }
        _ => (class.shallow_clone(), class.full_like(DIGIT_CLASSES)),
    };
    let plain = preview::sample(path, &noise, |x, t| network.forward(&w, x, t, Some(&told)));
    let guided = preview::sample(path, &noise, |x, t| {
        let without = network.forward(&w, x, t, Some(&nothing));
        let with = network.forward(&w, x, t, Some(&told));
        &without + (with - &without) * GUIDANCE
    });
    let judge_file = arguments.out.join("digits-classifier.pt");
    if judge_file.exists() {
        let classifier = CModule::load_on_device(&judge_file, device)?;
        for (what, samples) in [("without guidance", &plain), ("guidance 2", &guided)] {
            let right = classifier.forward_ts(&[samples])?.argmax(-1, false).eq_tensor(&class);
            println!(
                "  {what}: {:.1} % of {SAMPLES} samples are the digit asked for",
                100.0 * right.to_kind(Kind::Float).mean(Kind::Float).double_value(&[])
            );
        }
    } else {
        println!("  no {}: train digits-classifier to have the samples judged", judge_file.display());
    }
    // Far below the distance between digits, the network has learned the digits by heart.
    println!(
        "  distance to the nearest digit {:.3}, between digits {:.3}",
        preview::nearest(&plain, &data.images),
        preview::nearest(&data.images, &data.images)
    );
    save_preview(arguments, &format!("{name}-plain"), &plain)?;
    save_preview(arguments, &format!("{name}-guided"), &guided)
}

fn save_preview(arguments: &Arguments, name: &str, samples: &Tensor) -> Result<()> {
    let Some(folder) = &arguments.preview else {
        return Ok(());
    };
    preview::save_grid(&samples.narrow(0, 0, 200), 20, &folder.join(format!("{name}.png")))
}
