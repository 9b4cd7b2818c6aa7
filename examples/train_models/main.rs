//! Trains the small networks that the examples, tests and benchmarks sample from, and writes them
//! as TorchScript with a model card each:
//!
//!     cargo run --release --example train_models -- --model all --out models
//!
//!     cargo run --release --example train_models -- --model fashion-fm-ot --out models   # after `make fashion-data`
//!
//! Digits conditioned on their class on three Gaussian paths, digits conditioned on a text, patches of
//! photographs without a class, pieces of photographs of any width, and a classifier that says whether a drawn
//! digit is the one that was asked for. And clothes of 28 x 28, whose data are fetched: these are trained where they are
//! asked for by name alone.
#![allow(clippy::expect_used)] // the data here are its own

mod classifier;
mod data;
mod dit;
mod emoji;
mod export;
mod fashion;
mod fit;
mod generative;
mod idx;
mod judges;
mod layers;
mod network;
mod paths;
mod pictograms;
mod preview;
mod text;
mod unet;
mod wide;

use std::ffi::CStr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use tch::Device;

use data::Data;
use generative::DIGIT_CLASSES;
use network::Given;
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
    /// Where Fashion-MNIST's IDX files are, which `make fashion-data` fetches, and checkpoints go.
    #[arg(long, default_value = "demo/fashion")]
    fashion: PathBuf,
    /// Where the sheet and the table of emoji are, which `make emoji-data` fetches, and the checkpoint goes.
    #[arg(long, default_value = "demo/emoji")]
    emoji: PathBuf,
    /// Train the networks of clothes and emoji with their large layers in bfloat16, which is faster on processors that have
    /// it.
    #[arg(long)]
    bf16: bool,
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceName,
    /// [default: 3000 on cpu, 12000 on cuda; 12000 for the networks of clothes; the classifier of digits always
    /// takes 1500]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    iterations: Option<i64>,
    /// [default: 128 on cpu, 1024 on cuda; 64 for clothes]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    batch: Option<i64>,
    #[arg(long, default_value_t = 0)]
    seed: i64,
    /// Folder for image grids of samples; none are written without it.
    #[arg(long)]
    preview: Option<PathBuf>,
    /// Write what the networks learn from, dequantised, to this folder as .npy arrays for
    /// `bespoke eval --data`, and train nothing; with `--model fashion-...`, the images of its test set.
    #[arg(long)]
    reference: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Model {
    DigitsFmOt,
    DigitsCosine,
    DigitsVp,
    DigitsText,
    PhotosFmOt,
    PhotosWide,
    DigitsClassifier,
    FashionFmOt,
    FashionDdpm,
    FashionClassifier,
    Emoji,
    EmojiClassifier,
    /// All that `data` has what it takes for.
    All,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum DeviceName {
    Cpu,
    Cuda,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let device = match arguments.device {
        DeviceName::Cpu => Device::Cpu,
        DeviceName::Cuda => open_cuda()?,
    };
    if let Some(folder) = &arguments.reference {
        if matches!(arguments.model, Model::Emoji | Model::EmojiClassifier) {
            return emoji::write_reference(&arguments, folder);
        }
        if matches!(arguments.model, Model::FashionFmOt | Model::FashionDdpm | Model::FashionClassifier) {
            return fashion::write_reference(&arguments, folder);
        }
        return data::write_reference(&arguments.data, folder, arguments.seed);
    }
    std::fs::create_dir_all(&arguments.out).with_context(|| format!("cannot make {}", arguments.out.display()))?;
    if let Some(folder) = &arguments.preview {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }

    let wanted = |model| arguments.model == Model::All || arguments.model == model;
    // First, since the others are judged by it.
    if wanted(Model::DigitsClassifier) {
        classifier::train(&arguments, device)?;
    }
    let class = Given::Class(DIGIT_CLASSES);
    let generative = [
        (Model::DigitsFmOt, "digits-fm-ot", GaussianPath::FmOt, class),
        (Model::DigitsCosine, "digits-cosine", GaussianPath::Cosine, class),
        (Model::DigitsVp, "digits-vp", GaussianPath::Vp, class),
        (Model::DigitsText, "digits-text", GaussianPath::FmOt, Given::Text),
        (Model::PhotosFmOt, "photos-fm-ot", GaussianPath::FmOt, Given::Nothing),
    ];
    for (model, name, path, given) in generative {
        if wanted(model) {
            let data = match model {
                Model::PhotosFmOt => Data::photos(&arguments.data, device)?,
                _ => Data::digits(&arguments.data, device)?,
            };
            generative::train(&arguments, device, name, path, &data, given)?;
        }
    }
    if wanted(Model::PhotosWide) {
        wide::train(&arguments, device)?;
    }
    match arguments.model {
        Model::FashionFmOt => fashion::train(&arguments, device, fashion::Process::FmOt),
        Model::FashionDdpm => fashion::train(&arguments, device, fashion::Process::Ddpm),
        Model::FashionClassifier => fashion::train_judges(&arguments, device),
        Model::Emoji => emoji::train(&arguments, device),
        Model::EmojiClassifier => emoji::train_judges(&arguments, device),
        _ => Ok(()),
    }
}

/// libtorch's CUDA half is not linked, so that the program also starts where there is none.
fn open_cuda() -> Result<Device> {
    // SAFETY: opens libtorch's own library; its initialisers register kernels and nothing else.
    let handle = unsafe { libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() {
        // SAFETY: dlerror returns a C string, or null where there was no error.
        let reason = unsafe { libc::dlerror() };
        ensure!(!reason.is_null(), "--device cuda: libtorch_cuda.so could not be opened");
        // SAFETY: just seen not to be null; copied before the next call of dlopen or dlerror.
        let reason = unsafe { CStr::from_ptr(reason) }.to_string_lossy();
        bail!("--device cuda: {reason}");
    }
    ensure!(tch::Cuda::is_available(), "--device cuda: libtorch finds no CUDA device");
    Ok(Device::Cuda(0))
}
