//! Colour emoji of 32 x 32 that a short text asks for: flow matching by a diffusion transformer. The data are fetched, not
//! kept here.

use anyhow::{Context, Result};
use serde_json::json;
use tch::{CModule, Device, Kind, Reduction, Tensor, no_grad};

use crate::dit::{CHANNELS, DiT, SIDE, TEXTS};
use crate::fit::{Long, Settings, checkpoint};
use crate::generative::{kept, times};
use crate::judges::Pictures;
use crate::paths::GaussianPath;
use crate::pictograms::{Pictograms, padded};
use crate::{Arguments, export, judges, preview, text};

const NAME: &str = "emoji";
const PATH: GaussianPath = GaussianPath::FmOt;
/// None, and what the pictures are drawn with.
const GUIDANCE: [f64; 2] = [1.0, 2.5];
/// The texts of the pictures to look at.
const LOOKS: [&str; 16] = [
    "rose",
    "shark",
    "cat",
    "pizza",
    "fried egg",
    "octopus",
    "shell",
    "pineapple",
    "strawberry",
    "broccoli",
    "penguin",
    "tulip",
    "panda face",
    "hamburger",
    "palm tree",
    "tropical fish",
];

/// Times with more of them in the middle, where most is decided: the logistic function of a normal number (Esser et al.
/// 2024, section 3.1).
fn middle_times(batch: i64, device: Device) -> Tensor {
    times(batch, 1.0, device).clamp(1e-5, 1.0 - 1e-5).special_ndtri().sigmoid()
}

pub fn train(arguments: &Arguments, device: Device) -> Result<()> {
    let data = Pictograms::read(&arguments.emoji, device)?;
    let batch = arguments.batch.unwrap_or(64);
    let settings =
        Settings { iterations: arguments.iterations.unwrap_or(8000), learning_rate: 2e-3, weight_decay: 0.01 };
    let network = DiT::new(device);
    println!(
        "{NAME}: {} parameters, {:.1} million multiply-adds, {} iterations of {batch}, {} emoji",
        network.layout.parameters(),
        network.layout.multiply_adds() as f64 / 1e6,
        settings.iterations,
        data.count()
    );
    let kind = if arguments.bf16 { Kind::BFloat16 } else { Kind::Float };
    let long = Long {
        settings,
        seed: arguments.seed,
        checkpoint: checkpoint(&arguments.emoji, NAME),
        choices: vec![batch, i64::from(arguments.bf16), network.layout.parameters(), data.count()],
    };
    let loss = |w: &[Tensor]| {
        let (x1, index) = data.batch(batch);
        let keep = kept(batch, device).view([-1, 1, 1]).to_kind(Kind::Float);
        let told = network.encoder().forward(w, &data.texts(&index)) * keep;
        let (t, x0) = (middle_times(batch, device), x1.randn_like());
        let (alpha, sigma) = PATH.alpha_sigma(&t.view([-1, 1, 1, 1]));
        let x = &alpha * &x1 + &sigma * &x0;
        network.forward(kind, w, &x, &t, &told).mse_loss(&PATH.target(&x0, &x1, &alpha, &sigma), Reduction::Mean)
    };
    let look = |_, average: &Tensor| {
        no_grad(|| {
            write(arguments, average)?;
            draw(arguments, &network, average)
        })
    };
    let weights = long.fit(&network.layout, device, loss, look)?;
    write_texts(arguments, &data)?;
    no_grad(|| {
        write(arguments, &weights)?;
        draw(arguments, &network, &weights)?;
        judge(arguments, &network, &weights, &data)
    })
}

/// The weights as the file has them, in half the bytes, and as it computes with them.
fn write(arguments: &Arguments, weights: &Tensor) -> Result<()> {
    let network = DiT::new(Device::Cpu);
    let stored = export::host_weights(&network.layout, &weights.to_kind(Kind::Half));
    let computed = || stored.iter().map(|w| w.to_kind(Kind::Float)).collect::<Vec<_>>();
    let inputs = |batch: i64| {
        let options = (Kind::Float, Device::Cpu);
        let text = Tensor::rand([batch, 1 + batch % 9, TEXTS.token], options) * 2.0 - 1.0;
        vec![Tensor::randn([batch, CHANNELS, SIDE, SIDE], options), Tensor::rand([batch], options), text]
    };
    let file = format!("{NAME}.pt");
    let target = arguments.out.join(&file);
    // Gradients are asked for, to compare them.
    tch::with_grad(|| {
        export::export(&target, "VelocityNetwork", inputs, |x| {
            network.forward(Kind::Float, &computed(), &x[0], &x[1], &x[2])
        })?;
        let encoder = arguments.out.join(format!("{NAME}-encoder.pt"));
        export::export(
            &encoder,
            "TextEncoder",
            |n| vec![text::random(n)],
            |x| network.encoder().forward(&computed(), &x[0]),
        )
    })?;
    let given = json!({ "inputs": [
        { "name": "text", "dtype": "float32", "shape": ["tokens", TEXTS.token], "null": 0 }
    ] });
    let card = arguments.out.join(format!("{NAME}.json"));
    export::write_card(&card, &file, json!([CHANNELS, SIDE, SIDE]), PATH.reading(), given, "emoji-judge.json")?;
    let rate = export::throughput(&target, inputs)?;
    println!("  {rate:.0} samples per second forward at batch 512, {} threads", tch::get_num_threads());
    Ok(())
}

/// What it was asked for while it learned, words of these aside: `scripts/make-conditions.py` draws from it.
fn write_texts(arguments: &Arguments, data: &Pictograms) -> Result<()> {
    let path = arguments.out.join(format!("{NAME}-texts.json"));
    let text = serde_json::to_string_pretty(&data.called)? + "\n";
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Samples of texts, int64 [B, characters].
fn sample(network: &DiT, weights: &Tensor, texts: &Tensor, guidance: f64) -> Tensor {
    let (w, device) = (network.layout.split(weights), weights.device());
    let told = network.encoder().forward(&w, texts);
    let nothing = told.zeros_like();
    let noise = Tensor::randn([told.size()[0], CHANNELS, SIDE, SIDE], (Kind::Float, device));
    preview::sample(PATH, &noise, |x, t| {
        let with = network.forward(Kind::Float, &w, x, t, &told);
        if guidance == 1.0 {
            return with;
        }
        let without = network.forward(Kind::Float, &w, x, t, &nothing);
        &without + (with - &without) * guidance
    })
}

/// With a folder for previews, a picture of samples of some texts: two rows without guidance, two with.
fn draw(arguments: &Arguments, network: &DiT, weights: &Tensor) -> Result<()> {
    let Some(folder) = &arguments.preview else {
        return Ok(());
    };
    let texts = LOOKS.iter().map(|text| padded(text)).collect::<Result<Vec<_>>>()?.concat();
    let texts = Tensor::from_slice(&texts).view([LOOKS.len() as i64, -1]).to_device(weights.device()).repeat([2, 1]);
    let rows = GUIDANCE.map(|guidance| sample(network, weights, &texts, guidance));
    preview::save_grid(&Tensor::cat(&rows, 0), LOOKS.len() as i64, &folder.join(format!("{NAME}.png")))
}

/// Draws samples of names with and without guidance, and asks the classifier whether they are what was asked for.
fn judge(arguments: &Arguments, network: &DiT, weights: &Tensor, data: &Pictograms) -> Result<()> {
    const SAMPLES: i64 = 400;
    let file = arguments.out.join(format!("{NAME}-classifier.pt"));
    if !file.exists() {
        println!("  no {}: train emoji-classifier to have the samples judged", file.display());
        return Ok(());
    }
    let classifier = CModule::load_on_device(&file, weights.device())?;
    let right = |images: Tensor, labels: &Tensor| -> Result<f64> {
        let right = classifier.forward_ts(&[images])?.argmax(-1, false).eq_tensor(labels).to_kind(Kind::Float);
        Ok(100.0 * right.mean(Kind::Float).double_value(&[]))
    };
    let (images, index) = data.batch(SAMPLES);
    println!("  {:.1} % of {SAMPLES} images are seen as what they are, among {}", right(images, &index)?, data.count());
    for guidance in GUIDANCE {
        let samples = sample(network, weights, &data.names(&index), guidance);
        println!("  guidance {guidance}: {:.1} % of {SAMPLES} samples are what was asked for", right(samples, &index)?);
    }
    Ok(())
}

/// The classifiers of emoji.
pub fn train_judges(arguments: &Arguments, device: Device) -> Result<()> {
    let data = Pictograms::read(&arguments.emoji, device)?;
    let batch = |count: i64| data.batch(count);
    let (size, classes) = ([CHANNELS, SIDE], data.count());
    let pictures = Pictures { name: NAME, size, classes, iterations: 2000, batch: &batch, test: data.batch(5000) };
    judges::train(arguments, device, &pictures)
}

/// Images as they are learned, float32 in [-1, 1], for `bespoke eval --data`.
pub fn write_reference(arguments: &Arguments, folder: &std::path::Path) -> Result<()> {
    const COUNT: i64 = 5000;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    tch::manual_seed(arguments.seed);
    let (images, _) = Pictograms::read(&arguments.emoji, Device::Cpu)?.batch(COUNT);
    images.write_npy(folder.join("emoji.npy")).context("cannot write emoji.npy")
}
