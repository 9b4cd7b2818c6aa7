//! TorchScript files and model cards, and the proof that what was written is what was trained.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Map, Value};
use tch::{CModule, Device, Kind, Tensor};

use crate::layers::Layout;

/// Traces `forward` on the host with inputs made by `inputs` for a batch size, writes the file,
/// reads it back and compares values and gradients at other batch sizes.
pub fn export(
    path: &Path,
    name: &str,
    inputs: impl Fn(i64) -> Vec<Tensor>,
    forward: impl Fn(&[Tensor]) -> Tensor,
) -> Result<()> {
    let mut module = CModule::create_by_tracing(name, "forward", &inputs(3), &mut |inputs| vec![forward(inputs)])
        .with_context(|| format!("tracing {name}"))?;
    module.f_set_eval()?;
    module.save(path).with_context(|| format!("cannot write {}", path.display()))?;

    let loaded = CModule::load_on_device(path, Device::Cpu)?;
    // Repeated, because TorchScript specialises itself on its first calls.
    for batch in [1, 7, 1, 7, 32, 7] {
        check(&loaded, &inputs(batch), &forward).with_context(|| format!("{}, batch {batch}", path.display()))?;
    }
    let bytes = std::fs::metadata(path)?.len();
    println!("  {}: {:.2} MB; values and gradients agree after reloading", path.display(), bytes as f64 / 1e6);
    Ok(())
}

fn check(module: &CModule, inputs: &[Tensor], forward: &impl Fn(&[Tensor]) -> Tensor) -> Result<()> {
    let run = |f: &dyn Fn(&[Tensor]) -> Result<Tensor>| -> Result<Vec<Tensor>> {
        let leaves: Vec<Tensor> = inputs.iter().map(|x| x.detach().copy()).collect();
        let leaves: Vec<Tensor> =
            leaves.into_iter().map(|x| if x.is_floating_point() { x.set_requires_grad(true) } else { x }).collect();
        let output = f(&leaves)?;
        ensure!(output.isfinite().all().int64_value(&[]) == 1, "an output is not finite");
        let differentiable: Vec<&Tensor> = leaves.iter().filter(|x| x.requires_grad()).collect();
        if differentiable.is_empty() {
            return Ok(vec![output.detach()]);
        }
        // A cotangent that treats every element differently.
        let cotangent = Tensor::arange(output.numel() as i64, (Kind::Float, Device::Cpu)).sin().view_as(&output);
        let loss = (&output * cotangent).sum(Kind::Float);
        let mut values = Tensor::run_backward(&[&loss], &differentiable, false, false);
        values.push(output.detach());
        Ok(values)
    };
    let expected = run(&|x| Ok(forward(x)))?;
    let actual = run(&|x| Ok(module.forward_ts(x)?))?;
    for (expected, actual) in expected.iter().zip(&actual) {
        ensure!(expected.size() == actual.size(), "shape {:?}, expected {:?}", actual.size(), expected.size());
        let scale = expected.abs().max().double_value(&[]);
        let difference = (expected - actual).abs().max().double_value(&[]);
        ensure!(scale > 0.0, "a gradient is zero everywhere");
        ensure!(difference <= 1e-4 * scale, "differs by {difference:e} where the largest value is {scale:e}");
    }
    Ok(())
}

/// Separate tensors that own their numbers, so that the file does not hold the flat vector again
/// for each.
pub fn host_weights(layout: &Layout, flat: &Tensor) -> Vec<Tensor> {
    layout.split(&flat.detach().to_device(Device::Cpu)).iter().map(Tensor::copy).collect()
}

/// The forward passes per second of a written file on the host, at batch 512.
pub fn throughput(path: &Path, inputs: impl Fn(i64) -> Vec<Tensor>) -> Result<f64> {
    const BATCH: i64 = 512;
    const PASSES: i64 = 12;
    let module = CModule::load_on_device(path, Device::Cpu)?;
    let inputs = inputs(BATCH);
    let _guard = tch::no_grad_guard();
    for _ in 0..3 {
        let _ = module.forward_ts(&inputs)?;
    }
    let started = Instant::now();
    for _ in 0..PASSES {
        let _ = module.forward_ts(&inputs)?;
    }
    Ok((BATCH * PASSES) as f64 / started.elapsed().as_secs_f64())
}

/// A card's keys that say what the network was trained to answer.
#[derive(Serialize)]
pub struct Reading {
    pub output: &'static str,
    pub scheduler: Value,
    pub time: Value,
}

/// The file beside the weights that tells how to call them.
#[derive(Serialize)]
struct Card<'a> {
    format: &'static str,
    version: u32,
    weights: &'a str,
    runtime: &'static str,
    shape: Value,
    #[serde(flatten)]
    reading: Reading,
    #[serde(flatten)]
    given: Map<String, Value>,
    data_range: [i64; 2],
    features: &'a str,
}

/// `given`: the card's keys that say what the network is given besides time and state.
pub fn write_card(
    path: &Path,
    weights: &str,
    shape: Value,
    reading: Reading,
    given: Value,
    features: &str,
) -> Result<()> {
    let Value::Object(given) = given else { anyhow::bail!("{given} is no part of a card") };
    let card = Card {
        format: "bespoke-model",
        version: 1,
        weights,
        runtime: "torchscript",
        shape,
        reading,
        given,
        data_range: [-1, 1],
        features,
    };
    let text = serde_json::to_string_pretty(&card)? + "\n";
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
