//! TorchScript networks as people export them: what they answer, what goes wrong, what autograd can say of them.

use crate::tree::root;
use bespoke::card::Card;
use bespoke::inputs::Inputs;
use bespoke::networks::{Call, Network, TorchScript};
use bespoke::tensor::{Compute, Device, PerRow, Tensor};
use bespoke::train::{Progress, TrainConfig, train_config};
use bespoke::velocity::Vjp;
use bespoke::{Error, Result};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tch::{CModule, Kind, Tensor as Torch};

/// Samples of the traced networks.
const ELEMENTS: i64 = 4;

/// The card of a network that is traced from `answer`, a function of x `[batch, 4]` and time `[batch]`.
fn card(folder: &Path, answer: impl Fn(&mut Torch, &Torch) -> Vec<Torch>) -> PathBuf {
    let options = (Kind::Float, tch::Device::Cpu);
    let inputs = [Torch::randn([3, ELEMENTS], options), Torch::rand([3], options)];
    let mut trace = |inputs: &[Torch]| answer(&mut inputs[0].shallow_clone(), &inputs[1].unsqueeze(1));
    CModule::create_by_tracing("Traced", "forward", &inputs, &mut trace).unwrap().save(folder.join("net.pt")).unwrap();
    let card = json!({ "format": "bespoke-model", "version": 1, "runtime": "torchscript", "weights": "net.pt",
                       "shape": [ELEMENTS], "output": "velocity", "scheduler": { "name": "fm-ot" } });
    std::fs::write(folder.join("card.json"), card.to_string()).unwrap();
    folder.join("card.json")
}

fn load(card: &Path) -> Result<TorchScript> {
    TorchScript::load(&Card::load(card)?, Device::Cpu, Compute::F32)
}

/// The output of a network for x = 1, 2, 3, 4 at time 1/2.
fn output(network: &TorchScript, elements: usize) -> Result<Vec<f32>> {
    let x = network.upload(&[1.0, 2.0, 3.0, 4.0], elements)?;
    let call = Call { time: PerRow::All(0.5), x: &x, shape: &[elements], inputs: &Inputs::default() };
    network.forward(&call)?.to_f32()
}

fn opened(answer: impl Fn(&mut Torch, &Torch) -> Vec<Torch>) -> Result<TorchScript> {
    let folder = tempfile::tempdir().unwrap();
    load(&card(folder.path(), answer))
}

#[test]
fn floating_point_outputs_of_every_kind_are_taken() {
    let kinds: [(&str, fn(&Torch) -> Torch); 5] = [
        ("float64", |u| u.to_kind(Kind::Double)),
        ("float16", |u| u.to_kind(Kind::Half)),
        ("bfloat16", |u| u.to_kind(Kind::BFloat16)),
        ("sparse", |u| u.to_sparse(None, None::<i64>, None)),
        ("quantised", |u| u.quantize_per_tensor(0.5, 0, Kind::QInt8)),
    ];
    for (name, kind) in kinds {
        let network = opened(|x, t| vec![kind(&(&*x * t))]).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(output(&network, 4).unwrap(), [0.5, 1.0, 1.5, 2.0], "{name}");
    }
}

#[test]
fn an_output_of_integers_is_refused_with_its_dtype() {
    let network = opened(|x, t| vec![(&*x * t).to_kind(Kind::Int64)]).unwrap();
    let error = output(&network, 4).unwrap_err().to_string();
    assert!(error.contains("int64 [1, 4]") && error.contains("floating-point"), "{error}");
}

#[test]
fn a_wrong_shape_says_what_went_wrong_and_what_was_given() {
    let matrix = Torch::ones([ELEMENTS, ELEMENTS], (Kind::Float, tch::Device::Cpu));
    let network = opened(|x, t| vec![x.matmul(&matrix) * t]).unwrap();
    let error = output(&network, 2).unwrap_err();
    let Error::Torch(message) = &error else { panic!("{error}") };
    assert!(message.contains("shapes cannot be multiplied"), "{message}");
    assert!(message.contains("x float32 [2, 2], time float32 [2]"), "{message}");
}

#[test]
fn a_network_that_draws_random_numbers_is_named_when_it_is_opened() {
    let error = opened(|x, t| vec![(&*x * t).dropout(0.5, true)]).err().unwrap().to_string();
    assert!(error.contains("net.pt") && error.contains("draws random numbers"), "{error}");
}

#[test]
fn a_network_that_writes_into_its_input_is_named_when_it_is_opened() {
    let error = opened(|x, t| {
        let u = &*x * t;
        let _ = x.zero_();
        vec![u]
    });
    let error = error.err().unwrap().to_string();
    assert!(error.contains("net.pt") && error.contains("writes into its input x"), "{error}");
}

/// A network of `tests/golden/make_networks.py`, loaded by a card of its own.
fn golden(name: &str, names: serde_json::Value) -> Result<TorchScript> {
    let folder = tempfile::tempdir().unwrap();
    let weights = root().join(format!("tests/golden/network-{name}.pt"));
    let card = json!({ "format": "bespoke-model", "version": 1, "runtime": "torchscript", "weights": weights,
                       "names": names, "shape": [ELEMENTS], "output": "velocity", "scheduler": { "name": "fm-ot" } });
    let path = folder.path().join("card.json");
    std::fs::write(&path, card.to_string()).unwrap();
    load(&path)
}

#[test]
fn the_one_tensor_of_a_tuple_an_object_or_a_dictionary_is_taken() {
    for name in ["tuple", "object", "dictionary"] {
        assert_eq!(output(&golden(name, json!({})).unwrap(), 4).unwrap(), [0.5, 1.0, 1.5, 2.0], "{name}");
    }
    let error = output(&golden("two", json!({})).unwrap(), 4).unwrap_err().to_string();
    assert!(error.contains("2 tensors (sample, logvar)") && error.contains("names.output"), "{error}");
    let network = golden("two", json!({ "output": "sample" })).unwrap();
    assert_eq!(output(&network, 4).unwrap(), [0.5, 1.0, 1.5, 2.0]);
    let error = output(&golden("two", json!({ "output": "mean" })).unwrap(), 4).unwrap_err().to_string();
    assert!(error.contains("whose key is \"mean\""), "{error}");
}

#[test]
fn weights_of_another_dtype_say_so() {
    let error = output(&golden("half", json!({})).unwrap(), 4).unwrap_err().to_string();
    assert!(error.contains("dtype") && error.contains("x float32 [1, 4]"), "{error}");
}

#[test]
fn a_time_that_indexes_a_table_is_not_differentiable() {
    assert!(!golden("indexed", json!({})).unwrap().differentiable());
}

fn vjp(network: &TorchScript) -> Result<Vjp<bespoke::torch::TorchTensor>> {
    let x = network.upload(&[1.0, 2.0, 3.0, 4.0], 4)?;
    let w = network.upload(&[1.0; 4], 4)?;
    let call = Call { time: PerRow::All(0.5), x: &x, shape: &[4], inputs: &Inputs::default() };
    Ok(network.vjp(&call, &[w])?.1)
}

/// Iterations that `bespoke train` does on the card, and the samples it takes back through the network.
fn trained(card: &Path) -> (usize, u64) {
    let config = json!({ "model": card, "family": "rk1", "steps": 2, "loss": "rmse-bound", "pool": 20, "batch": 5,
                         "validation": 5, "iterations": 2 });
    let config: TrainConfig = serde_json::from_value(config).unwrap();
    let mut last = (0, 0);
    let mut observer = |progress: &Progress| {
        last = (progress.iteration, progress.evaluations.backward);
        ControlFlow::Continue(())
    };
    train_config(&config, &bespoke::ranks::Ranks::alone(), &mut observer).unwrap();
    last
}

#[test]
fn a_network_without_gradients_is_trained_by_forward_passes() {
    let cut: [(&str, fn(&Torch, &Torch) -> Torch); 5] = [
        ("detached", |x, t| (x * t).detach()),
        ("under no_grad", |x, t| tch::no_grad(|| (x * t).detach())),
        ("constant", |x, _| x.zeros_like()),
        ("cut at time", |x, t| x * t.detach()),
        ("cut at x", |x, t| x.detach() * t),
    ];
    for (name, answer) in cut {
        let folder = tempfile::tempdir().unwrap();
        let card = card(folder.path(), |x, t| vec![answer(x, t)]);
        let network = load(&card).unwrap();
        assert!(!network.differentiable(), "{name}");
        assert_eq!(trained(&card), (2, 0), "{name}");
    }
    let error = vjp(&opened(|x, t| vec![(&*x * t).detach()]).unwrap()).unwrap_err().to_string();
    assert!(error.contains("does not depend on its input by autograd"), "{error}");
}

#[test]
fn what_a_network_does_not_depend_on_has_the_gradient_zero() {
    let on: [(&str, fn(&Torch, &Torch) -> Torch, [f64; 2]); 3] = [
        ("both", |x, t| x * t, [0.5, 10.0]),
        ("x alone", |x, _| x * 2.0, [2.0, 0.0]),
        ("t alone", |x, t| x.ones_like() * t, [0.0, 4.0]),
    ];
    for (name, answer, [by_x, by_t]) in on {
        let folder = tempfile::tempdir().unwrap();
        let card = card(folder.path(), |x, t| vec![answer(x, t)]);
        let network = load(&card).unwrap();
        assert!(network.differentiable(), "{name}");
        let found = vjp(&network).unwrap();
        assert_eq!(found.x[0].to_f32().unwrap(), [by_x as f32; 4], "{name}");
        assert_eq!(found.t[0].to_f32().unwrap(), [by_t as f32], "{name}");
        let (iterations, backward) = trained(&card);
        assert!(iterations == 2 && backward > 0, "{name}");
    }
}
