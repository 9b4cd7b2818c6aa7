//! Trains the small networks that the examples, tests and benchmarks sample from, and writes them
//! as TorchScript with a model card each:
//!
//!     cargo run --release --example train_models -- --model all --out models
//!
//! Digits conditioned on their class on three Gaussian paths, patches of photographs without a
//! class, and a classifier that says whether a drawn digit is the one that was asked for.

mod classifier;
mod data;
mod export;
mod fit;
mod layers;
mod network;
mod paths;
mod preview;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use tch::{CModule, Device, Kind, Reduction, Tensor, no_grad};

use classifier::Classifier;
use data::Data;
use fit::Settings;
use network::{Network, SIDE};
use paths::GaussianPath;

#[derive(Parser)]
#[command(about = "Train the example networks and write them as TorchScript with model cards")]
struct Arguments {
    #[arg(long, value_enum, default_value = "all")]
    model: Model,
    /// Where the files go.
    #[arg(long, default_value = "models")]
    out: PathBuf,
    /// Where the digits and photographs are.
    #[arg(long, default_value = "data")]
    data: PathBuf,
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceName,
    /// [default: 3000 on cpu, 20000 on cuda; the classifier always takes 1500]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    iterations: Option<i64>,
    /// [default: 128 on cpu, 1024 on cuda]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    batch: Option<i64>,
    #[arg(long, default_value_t = 0)]
    seed: i64,
    /// Folder for image grids of samples; none are written without it.
    #[arg(long)]
    preview: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Model {
    DigitsFmOt,
    DigitsCosine,
    DigitsVp,
    PhotosFmOt,
    DigitsClassifier,
    All,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum DeviceName {
    Cpu,
    Cuda,
}

const DIGIT_CLASSES: i64 = 10;
const LABEL_DROPOUT: f64 = 0.15;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let device = match arguments.device {
        DeviceName::Cpu => Device::Cpu,
        DeviceName::Cuda => open_cuda()?,
    };
    std::fs::create_dir_all(&arguments.out).with_context(|| format!("cannot make {}", arguments.out.display()))?;
    if let Some(folder) = &arguments.preview {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }

    let wanted = |model| arguments.model == Model::All || arguments.model == model;
    // First, since the others are judged by it.
    if wanted(Model::DigitsClassifier) {
        train_classifier(&arguments, device)?;
    }
    let generative = [
        (Model::DigitsFmOt, "digits-fm-ot", GaussianPath::FmOt),
        (Model::DigitsCosine, "digits-cosine", GaussianPath::Cosine),
        (Model::DigitsVp, "digits-vp", GaussianPath::Vp),
        (Model::PhotosFmOt, "photos-fm-ot", GaussianPath::FmOt),
    ];
    for (model, name, path) in generative {
        if wanted(model) {
            let data = match model {
                Model::PhotosFmOt => Data::photos(&arguments.data, device)?,
                _ => Data::digits(&arguments.data, device)?,
            };
            train_generative(&arguments, device, name, path, &data)?;
        }
    }
    Ok(())
}

/// libtorch's CUDA half is not linked, so that the program also starts where there is none.
fn open_cuda() -> Result<Device> {
    // SAFETY: opens libtorch's own library; its initialisers register kernels and nothing else.
    let handle = unsafe { libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    ensure!(!handle.is_null(), "--device cuda: libtorch_cuda.so could not be opened: this libtorch has no CUDA, or its libraries are not found");
    ensure!(tch::Cuda::is_available(), "--device cuda: libtorch finds no CUDA device");
    Ok(Device::Cuda(0))
}

fn train_generative(arguments: &Arguments, device: Device, name: &str, path: GaussianPath, data: &Data) -> Result<()> {
    tch::manual_seed(arguments.seed);
    let on_gpu = device != Device::Cpu;
    let batch = arguments.batch.unwrap_or(if on_gpu { 1024 } else { 128 });
    let settings = Settings {
        iterations: arguments.iterations.unwrap_or(if on_gpu { 20_000 } else { 3_000 }),
        learning_rate: 2e-3,
        weight_decay: 0.0,
    };
    let classes = data.labels.as_ref().map(|_| DIGIT_CLASSES);
    let network = Network::new(data.channels(), classes, device);
    println!(
        "{name}: {} parameters, {:.2} million multiply-adds, {} iterations of {batch}",
        network.layout.parameters(),
        network.layout.multiply_adds() as f64 / 1e6,
        settings.iterations
    );

    let weights = fit::fit(&network.layout, &settings, device, |w| {
        let (x1, class) = data.batch(batch);
        let options = (Kind::Float, device);
        // One time from each of `batch` equal intervals: less noise than independent times.
        let t = (Tensor::arange(batch, options) + Tensor::rand([batch], options)) * (path.end() / batch as f64);
        let class = class.map(|class| {
            let keep = Tensor::rand([batch], options).ge(LABEL_DROPOUT);
            class.where_self(&keep, &class.full_like(DIGIT_CLASSES))
        });
        let x0 = x1.randn_like();
        let (alpha, sigma) = path.alpha_sigma(&t.view([-1, 1, 1, 1]));
        let x = &alpha * &x1 + &sigma * &x0;
        let target = path.target(&x0, &x1, &alpha, &sigma);
        network.forward(w, &x, &t, class.as_ref()).mse_loss(&target, Reduction::Mean)
    })?;

    write_generative(arguments, name, path, &weights, data.channels(), classes)?;
    no_grad(|| judge(arguments, name, path, &network, &weights, data))
}

fn write_generative(arguments: &Arguments, name: &str, path: GaussianPath, weights: &Tensor, channels: i64, classes: Option<i64>) -> Result<()> {
    // A network of its own on the host: what it makes becomes constants of the file.
    let network = Network::new(channels, classes, Device::Cpu);
    let weights = host_weights(&network.layout, weights);
    let inputs = |batch: i64| {
        let options = (Kind::Float, Device::Cpu);
        let mut inputs = vec![Tensor::randn([batch, channels, SIDE, SIDE], options), Tensor::rand([batch], options) * path.end()];
        inputs.extend(classes.map(|n| Tensor::randint(n + 1, [batch], (Kind::Int64, Device::Cpu))));
        inputs
    };
    let file = format!("{name}.pt");
    let target = arguments.out.join(&file);
    export::export(&target, "VelocityNetwork", inputs, |x| network.forward(&weights, &x[0], &x[1], x.get(2)))?;
    export::write_card(&arguments.out.join(format!("{name}.json")), &file, &[channels, SIDE, SIDE], path, classes)?;
    let rate = export::throughput(&target, inputs)?;
    println!("  {rate:.0} samples per second forward at batch 512, {} threads", tch::get_num_threads());
    Ok(())
}

/// Separate tensors that own their numbers, so that the file does not hold the flat vector again
/// for each.
fn host_weights(layout: &layers::Layout, flat: &Tensor) -> Vec<Tensor> {
    layout.split(&flat.detach().to_device(Device::Cpu)).iter().map(Tensor::copy).collect()
}

/// Draws 1,000 samples with and without guidance and asks the classifier about them.
fn judge(arguments: &Arguments, name: &str, path: GaussianPath, network: &Network, weights: &Tensor, data: &Data) -> Result<()> {
    const SAMPLES: i64 = 1000;
    const GUIDANCE: f64 = 2.0;
    let device = weights.device();
    let w = network.layout.split(weights);
    let noise = Tensor::randn([SAMPLES, data.channels(), SIDE, SIDE], (Kind::Float, device));

    if data.labels.is_none() {
        let samples = preview::sample(path, &noise, |x, t| network.forward(&w, x, t, None));
        let ((value, step), (data_value, data_step)) = (preview::contrast(&samples), preview::contrast(&data.images));
        println!("  deviation of values {value:.3} (data {data_value:.3}), of steps between pixels {step:.3} (data {data_step:.3})");
        return save_preview(arguments, name, &samples);
    }

    let class = Tensor::arange(SAMPLES, (Kind::Int64, device)).remainder(DIGIT_CLASSES);
    let nothing = class.full_like(DIGIT_CLASSES);
    let plain = preview::sample(path, &noise, |x, t| network.forward(&w, x, t, Some(&class)));
    let guided = preview::sample(path, &noise, |x, t| {
        let without = network.forward(&w, x, t, Some(&nothing));
        let with = network.forward(&w, x, t, Some(&class));
        &without + (with - &without) * GUIDANCE
    });
    let judge_file = arguments.out.join("digits-classifier.pt");
    if judge_file.exists() {
        let classifier = CModule::load_on_device(&judge_file, device)?;
        for (what, samples) in [("without guidance", &plain), ("guidance 2", &guided)] {
            let right = classifier.forward_ts(&[samples])?.argmax(-1, false).eq_tensor(&class);
            println!("  {what}: {:.1} % of {SAMPLES} samples are the digit asked for", 100.0 * right.to_kind(Kind::Float).mean(Kind::Float).double_value(&[]));
        }
    } else {
        println!("  no {}: train digits-classifier to have the samples judged", judge_file.display());
    }
    save_preview(arguments, &format!("{name}-plain"), &plain)?;
    save_preview(arguments, &format!("{name}-guided"), &guided)
}

fn save_preview(arguments: &Arguments, name: &str, samples: &Tensor) -> Result<()> {
    let Some(folder) = &arguments.preview else { return Ok(()) };
    preview::save_grid(&samples.narrow(0, 0, 200), 20, &folder.join(format!("{name}.png")))
}

fn train_classifier(arguments: &Arguments, device: Device) -> Result<()> {
    const HELD_OUT: i64 = 360;
    tch::manual_seed(arguments.seed);
    let data = Data::digits(&arguments.data, device)?;
    let labels = data.labels.as_ref().context("the digits have no labels")?;
    let (train, held_out) = classifier::split_indices(data.count(), HELD_OUT, device);
    let train = Data { images: data.images.index_select(0, &train), labels: Some(labels.index_select(0, &train)) };
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
        let labels = labels.unwrap_or_else(|| unreachable!("built with labels above"));
        classifier.logits(w, &classifier::augment(&images)).cross_entropy_for_logits(&labels)
    })?;

    let right = no_grad(|| {
        let logits = classifier.logits(&classifier.layout.split(&weights), &test_images);
        logits.argmax(-1, false).eq_tensor(&test_labels).to_kind(Kind::Float).mean(Kind::Float)
    });
    println!("  {:.2} % of {HELD_OUT} held-out digits are right", 100.0 * right.double_value(&[]));

    let weights = host_weights(&classifier.layout, &weights);
    let inputs = |batch: i64| vec![Tensor::rand([batch, 1, SIDE, SIDE], (Kind::Float, Device::Cpu)) * 2.0 - 1.0];
    let file = |name: &str| -> PathBuf { Path::new(&arguments.out).join(name) };
    export::export(&file("digits-classifier.pt"), "DigitsClassifier", inputs, |x| classifier.logits(&weights, &x[0]))?;
    export::export(&file("digits-features.pt"), "DigitsFeatures", inputs, |x| classifier.features(&weights, &x[0]))
}
