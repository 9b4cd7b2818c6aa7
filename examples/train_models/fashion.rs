//! Pieces of clothing of 28 x 28, conditioned on their class, as people train such models: flow matching, and DDPM on a
//! thousand discrete steps, of one network. The data are fetched, not kept here.

use anyhow::{Context, Result};
use serde_json::json;
use tch::{CModule, Device, Kind, Reduction, Tensor, no_grad};

use crate::export::Reading;
use crate::fit::{Long, Settings, checkpoint};
use crate::generative::{kept, times};
use crate::idx::Fashion;
use crate::judges::Pictures;
use crate::unet::{SIDE, TIMESTEPS, UNet, Widths};
use crate::{Arguments, export, judges, preview};

const CLASSES: i64 = 10;
const WIDTHS: Widths = Widths { wide: 16, middle: 48, deep: 128 };
const STEPS: i64 = 1000;

#[derive(Clone, Copy, PartialEq)]
pub enum Process {
    /// x_t = t x1 + (1 - t) x0, t from 0 to 1; learns the velocity x1 - x0.
    FmOt,
    /// Ho et al. 2020: x_i = sqrt(a_i) x1 + sqrt(1 - a_i) x0, i from 999 to 0; learns x0.
    Ddpm,
}

/// a_i of diffusers' `linear` schedule: the product of 1 - beta, beta running from 1e-4 to 0.02.
fn alphas_cumprod(device: Device) -> Tensor {
    let betas = Tensor::linspace(1e-4, 0.02, STEPS, (Kind::Double, device));
    let kept: Tensor = 1.0 - betas;
    kept.cumprod(0, Kind::Double)
}

impl Process {
    pub fn name(self) -> &'static str {
        match self {
            Self::FmOt => "fashion-fm-ot",
            Self::Ddpm => "fashion-ddpm",
        }
    }

    /// What the network is given for the state: (x_t, time as it takes it, target).
    fn noised(self, x1: &Tensor, a: &Tensor) -> (Tensor, Tensor, Tensor) {
        let (batch, device) = (x1.size()[0], x1.device());
        let x0 = x1.randn_like();
        let t = times(batch, 1.0, device);
        match self {
            Self::FmOt => {
                let u = t.view([-1, 1, 1, 1]);
                (&u * x1 + (1.0 - &u) * &x0, t, x1 - x0)
            }
            Self::Ddpm => {
                // Rounding may give the t below 1 that is next to it the step that there is not.
                let step = (t * STEPS as f64).to_kind(Kind::Int64).clamp_max(STEPS - 1);
                let a = a.index_select(0, &step).to_kind(Kind::Float).view([-1, 1, 1, 1]);
                let variance: Tensor = 1.0 - &a;
                (a.sqrt() * x1 + variance.sqrt() * &x0, step, x0)
            }
        }
    }

    /// The network's timestep, from its time.
    fn timestep(self, time: &Tensor) -> Tensor {
        match self {
            Self::FmOt => time * TIMESTEPS,
            Self::Ddpm => time.shallow_clone(),
        }
    }

    /// Samples with 50 evaluations of `output` (x, time [B]): the midpoint rule, or DDIM on every 20th step.
    fn sample(self, noise: &Tensor, output: impl Fn(&Tensor, &Tensor) -> Tensor) -> Tensor {
        const EVALUATIONS: i64 = 50;
        let options = (Kind::Float, noise.device());
        let count = noise.size()[0];
        let ask = |x: &Tensor, time: f64| output(x, &Tensor::full([count], time, options));
        let mut x = noise.shallow_clone();
        match self {
            Self::FmOt => {
                let (steps, h) = (EVALUATIONS / 2, 2.0 / EVALUATIONS as f64);
                for i in 0..steps {
                    let t = i as f64 * h;
                    let middle = &x + ask(&x, t) * (h / 2.0);
                    x = &x + ask(&middle, t + h / 2.0) * h;
                }
            }
            Self::Ddpm => {
                let a = Vec::<f64>::try_from(alphas_cumprod(Device::Cpu)).unwrap_or_default();
                let stride = (STEPS / EVALUATIONS) as usize;
                let mut next = a.len();
                while next >= stride {
                    let here = next - 1;
                    next -= stride;
                    let epsilon = ask(&x, here as f64);
                    let x1 = (&x - &epsilon * (1.0 - a[here]).sqrt()) / a[here].sqrt();
                    let then = if next == 0 { 1.0 } else { a[next - 1] };
                    x = x1 * then.sqrt() + epsilon * (1.0 - then).sqrt();
                }
            }
        }
        x
    }

    fn reading(self) -> Reading {
        match self {
            Self::FmOt => Reading {
                output: "velocity",
                scheduler: json!({ "name": "fm-ot" }),
                time: json!({ "direction": "noise-to-data", "scale": 1.0, "end": 1.0 }),
            },
            Self::Ddpm => Reading {
                output: "epsilon",
                scheduler: json!({ "name": "betas", "schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
                    "steps": STEPS }),
                time: json!({ "direction": "data-to-noise", "scale": STEPS, "offset": -1,
                    "end": 1.0 - 1.0 / STEPS as f64 }),
            },
        }
    }
}

pub fn train(arguments: &Arguments, device: Device, process: Process) -> Result<()> {
    let data = Fashion::read(&arguments.fashion, "train", device)?;
    let batch = arguments.batch.unwrap_or(64);
    let settings =
        Settings { iterations: arguments.iterations.unwrap_or(12_000), learning_rate: 1e-3, weight_decay: 0.01 };
    let network = UNet::new(WIDTHS, CLASSES, device);
    println!(
        "{}: {} parameters, {:.1} million multiply-adds, {} iterations of {batch}",
        process.name(),
        network.layout.parameters(),
        network.layout.multiply_adds() as f64 / 1e6,
        settings.iterations
    );
    let kind = if arguments.bf16 { Kind::BFloat16 } else { Kind::Float };
    let long = Long {
        settings,
        seed: arguments.seed,
        checkpoint: checkpoint(&arguments.fashion, process.name()),
        choices: vec![batch, i64::from(arguments.bf16), network.layout.parameters()],
    };
    let a = alphas_cumprod(device);
    let loss = |w: &[Tensor]| {
        let (x1, labels) = data.batch(batch);
        // Sorted by time otherwise, but for chance; the labels come in no order.
        let class = labels.where_self(&kept(batch, device), &labels.full_like(CLASSES));
        let (x, time, target) = process.noised(&x1, &a);
        network.forward(kind, w, &x, &process.timestep(&time), &class).mse_loss(&target, Reduction::Mean)
    };
    let look = |_, average: &Tensor| {
        no_grad(|| {
            write(arguments, process, average)?;
            draw(arguments, process, &network, average, 50, 2.0).map(drop)
        })
    };
    let weights = long.fit(&network.layout, device, loss, look)?;
    no_grad(|| {
        write(arguments, process, &weights)?;
        judge(arguments, process, &network, &weights)
    })
}

/// The weights as the file has them, in half the bytes, and as it computes with them.
fn write(arguments: &Arguments, process: Process, weights: &Tensor) -> Result<()> {
    let network = UNet::new(WIDTHS, CLASSES, Device::Cpu);
    let stored = export::host_weights(&network.layout, &weights.to_kind(Kind::Half));
    let inputs = |batch: i64| {
        let options = (Kind::Float, Device::Cpu);
        let time = Tensor::rand([batch], options);
        let time = if process == Process::Ddpm { time * (STEPS - 1) as f64 } else { time };
        let class = Tensor::randint(CLASSES + 1, [batch], (Kind::Int64, Device::Cpu));
        vec![Tensor::randn([batch, 1, SIDE, SIDE], options), time, class]
    };
    let file = format!("{}.pt", process.name());
    let target = arguments.out.join(&file);
    // Gradients are asked for, to compare them.
    tch::with_grad(|| {
        export::export(&target, "VelocityNetwork", inputs, |x| {
            let w: Vec<Tensor> = stored.iter().map(|w| w.to_kind(Kind::Float)).collect();
            network.forward(Kind::Float, &w, &x[0], &process.timestep(&x[1]), &x[2])
        })
    })?;
    let given = json!({ "classes": CLASSES, "null_class": CLASSES });
    let card = arguments.out.join(format!("{}.json", process.name()));
    export::write_card(&card, &file, json!([1, SIDE, SIDE]), process.reading(), given, "fashion-judge.json")?;
    let rate = export::throughput(&target, inputs)?;
    println!("  {rate:.0} samples per second forward at batch 512, {} threads", tch::get_num_threads());
    Ok(())
}

/// So many samples of the classes in turn, and the classes; with a folder for previews, a picture of them.
fn draw(
    arguments: &Arguments,
    process: Process,
    network: &UNet,
    weights: &Tensor,
    count: i64,
    guidance: f64,
) -> Result<(Tensor, Tensor)> {
    let w = network.layout.split(weights);
    let device = weights.device();
    let noise = Tensor::randn([count, 1, SIDE, SIDE], (Kind::Float, device));
    let class = Tensor::arange(count, (Kind::Int64, device)).remainder(CLASSES);
    let nothing = class.full_like(CLASSES);
    let samples = process.sample(&noise, |x, time| {
        let timestep = process.timestep(time);
        let with = network.forward(Kind::Float, &w, x, &timestep, &class);
        if guidance == 1.0 {
            return with;
        }
        let without = network.forward(Kind::Float, &w, x, &timestep, &nothing);
        &without + (with - &without) * guidance
    });
    if let Some(folder) = &arguments.preview {
        let file = folder.join(format!("{}-{guidance}.png", process.name()));
        preview::save_grid(&samples.narrow(0, 0, count.min(100)), 10, &file)?;
    }
    Ok((samples, class))
}

/// Draws samples with and without guidance, asks the classifier about them, and looks for the images nearest to them.
fn judge(arguments: &Arguments, process: Process, network: &UNet, weights: &Tensor) -> Result<()> {
    const SAMPLES: i64 = 200;
    let (data, _) = Fashion::read(&arguments.fashion, "train", weights.device())?.first(10_000);
    println!("  distance to the nearest of 10,000 images, between them {:.3}", preview::nearest(&data, &data));
    let judge = arguments.out.join("fashion-classifier.pt");
    for guidance in [1.0, 2.5] {
        let (samples, class) = draw(arguments, process, network, weights, SAMPLES, guidance)?;
        println!("  guidance {guidance}: distance {:.3}", preview::nearest(&samples, &data));
        if !judge.exists() {
            println!("  no {}: train fashion-classifier to have the samples judged", judge.display());
            continue;
        }
        let logits = CModule::load_on_device(&judge, weights.device())?.forward_ts(&[samples])?;
        let right = logits.argmax(-1, false).eq_tensor(&class).to_kind(Kind::Float).mean(Kind::Float);
        println!("  {:.1} % of {SAMPLES} samples are what was asked for", 100.0 * right.double_value(&[]));
    }
    Ok(())
}

/// The classifiers of clothes.
pub fn train_judges(arguments: &Arguments, device: Device) -> Result<()> {
    let data = Fashion::read(&arguments.fashion, "train", device)?;
    let test = Fashion::read(&arguments.fashion, "t10k", device)?.first(i64::MAX);
    let batch = |count: i64| data.batch(count);
    let pictures =
        Pictures { name: "fashion", size: [1, SIDE], classes: CLASSES, iterations: 2000, batch: &batch, test };
    judges::train(arguments, device, &pictures)
}

/// The images kept for tests, float32 in [-1, 1], for `bespoke eval --data`.
pub fn write_reference(arguments: &Arguments, folder: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (images, _) = Fashion::read(&arguments.fashion, "t10k", Device::Cpu)?.first(i64::MAX);
    images.write_npy(folder.join("fashion.npy")).context("cannot write fashion.npy")
}
