//! A TorchScript module as a network.

use super::libtorch::{Convention, Trial, shaped};
use super::network::{Call, Network, Opened};
use crate::card::{Card, TimeDtype};
use crate::error::{Error, Result};
use crate::inputs::Inputs;
use crate::tensor::{Compute, Device, Register};
use crate::torch::{Autocast, TorchTensor, explained, prepare};
use crate::velocity::Vjp;
use std::sync::OnceLock;
use tch::{CModule, IValue};

/// What is said of a network under `no_grad`, or one that ends in `.detach()`.
const NO_GRADIENT: &str = "the network's output does not depend on its input by autograd";

/// A TorchScript module on its device. Any thread: libtorch's forward pass of a frozen module
/// is safe to run concurrently, and nothing here changes the module after loading.
pub struct TorchScript {
    module: CModule,
    compute: Compute,
    convention: Convention,
    /// The key of its output, where it answers several.
    output: Option<String>,
    trial: Trial,
    /// Whether it is differentiable; found out when it is first asked.
    by_autograd: OnceLock<bool>,
}

// SAFETY: `CModule` is a pointer to a `torch::jit::Module`, whose `forward` may run concurrently;
// this type offers no other use of it after `load`.
unsafe impl Sync for TorchScript {}

impl TorchScript {
    /// Loads the weights of `card` onto `device`, to be computed as `compute` says.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Torch`] where they cannot be read; [`Error::Unsupported`] where
    /// the device cannot be had.
    pub fn load(card: &Card, device: Device, compute: Compute) -> Result<Self> {
        let device = prepare(device)?;
        let path = card.weights_path();
        // libtorch's own message for a missing file does not say so.
        std::fs::File::open(&path).map_err(|e| Error::io("read", &path, e))?;
        let mut module = CModule::load_on_device(&path, device).map_err(|e| {
            Error::format(path.display().to_string(), ".", format!("is not a TorchScript module: {}", Error::from(e)))
        })?;
        module.f_set_eval()?;
        for (_, parameter) in module.named_parameters()? {
            let _ = parameter.f_set_requires_grad(false)?;
        }
        let network = Self {
            module,
            compute,
            convention: Convention::of(card, device),
            output: card.names.output.clone(),
            trial: Trial::of(card, device, compute)?,
            by_autograd: OnceLock::new(),
        };
        let again = network.trial.repeatable(|time, x| network.run(time, x, network.trial.inputs()));
        again.map_err(|problem| Error::format(path.display().to_string(), ".", problem))?;
        Ok(network)
    }

    /// Whether autograd gives the output's derivatives: there is a graph, and what it does not reach, the output
    /// does not depend on.
    fn reaches_its_inputs(&self) -> Result<bool> {
        let (x, time) = self.trial.tensors()?;
        let (x, time) = (x.f_set_requires_grad(true)?, time.f_set_requires_grad(true)?);
        let output = self.run(&time, &x, self.trial.inputs())?;
        if !output.requires_grad() {
            return Ok(false);
        }
        let gradients = tch::Tensor::f_run_backward(&[output.f_sum(None)?], &[&x, &time], false, false)?;
        let _guard = tch::no_grad_guard();
        let moved = [(x.f_mul_scalar(0.9)?, time.f_detach()?), (x.f_detach()?, time.f_mul_scalar(0.9)?)];
        // Between integer times the field is constant: none of its gradient is missing.
        let asked = if self.convention.time.dtype == TimeDtype::Int64 { 1 } else { 2 };
        for (gradient, (x, time)) in gradients.iter().zip(moved).take(asked) {
            if !gradient.defined() && self.trial.differ(&output, &self.run(&time, &x, self.trial.inputs())?)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The module's output for states `x`, `[batch, shape...]`.
    fn run(&self, time: &tch::Tensor, x: &tch::Tensor, inputs: &Inputs) -> Result<tch::Tensor> {
        let device = self.convention.device;
        let _autocast = (self.compute == Compute::Bf16).then(|| Autocast::bf16(device));
        let given = self.convention.arguments(time, x, inputs)?;
        let arguments: Vec<IValue> = given.iter().map(|(_, tensor)| IValue::Tensor(tensor.shallow_clone())).collect();
        let answer = self.module.forward_is(&arguments).map_err(|error| explained(error, &given))?;
        self.convention.output(chosen(answer, self.output.as_deref())?, x)
    }
}

/// The tensor of what a module answers: itself, or in a tuple, a list or a dictionary, of several the one whose key is
/// `wanted`.
fn chosen(answer: IValue, wanted: Option<&str>) -> Result<tch::Tensor> {
    let mut tensors = Vec::new();
    tensors_of("", answer, &mut tensors);
    let at = wanted.and_then(|wanted| tensors.iter().position(|(name, _)| name == wanted));
    if let Some(at) = at.or((tensors.len() == 1).then_some(0)) {
        return Ok(tensors.swap_remove(at).1);
    }
    let names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).filter(|name| !name.is_empty()).collect();
    let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    let expected = match wanted {
        Some(wanted) => format!("one, or one whose key is {wanted:?}, as names.output of the card says"),
        None => "one, itself or in a tuple, a list or a dictionary, or one whose key is the card's names.output".into(),
    };
    Err(Error::invalid("the network's output", format!("{} tensors{names}", tensors.len()), expected))
}

/// Adds the tensors in `answer` to `tensors`, each with the key it has.
fn tensors_of(name: &str, answer: IValue, tensors: &mut Vec<(String, tch::Tensor)>) {
    match answer {
        IValue::Tensor(tensor) => tensors.push((name.to_owned(), tensor)),
        IValue::TensorList(list) => tensors.extend(list.into_iter().map(|tensor| (name.to_owned(), tensor))),
        IValue::Tuple(values) | IValue::GenericList(values) => {
            values.into_iter().for_each(|value| tensors_of(name, value, tensors));
        }
        IValue::GenericDict(entries) => entries.into_iter().for_each(|(key, value)| match key {
            IValue::String(key) => tensors_of(&key, value, tensors),
            _ => tensors_of(name, value, tensors),
        }),
        _ => {}
    }
}

impl Network for TorchScript {
    type Tensor = TorchTensor;

    fn upload(&self, values: &[f32], elements: usize) -> Result<TorchTensor> {
        TorchTensor::upload(values, elements, self.convention.device)
    }

    fn forward(&self, call: &Call<'_, TorchTensor>) -> Result<TorchTensor> {
        let _guard = tch::no_grad_guard();
        let x = shaped(call.x.inner(), call.shape)?;
        TorchTensor::new(self.run(&self.convention.times(call.time, call.x.batch())?, &x, call.inputs)?)
    }

    fn differentiable(&self) -> bool {
        *self.by_autograd.get_or_init(|| {
            // Where even this fails, training says why.
            let reached = self.reaches_its_inputs().unwrap_or(true);
            if !reached {
                tracing::warn!("{NO_GRADIENT}: it is trained by forward passes alone");
            }
            reached
        })
    }

    fn vjp(&self, call: &Call<'_, TorchTensor>, cotangents: &[TorchTensor]) -> Result<(TorchTensor, Vjp<TorchTensor>)> {
        let time = self.convention.times(call.time, call.x.batch())?.f_set_requires_grad(true)?;
        let x = call.x.inner().f_detach()?.f_set_requires_grad(true)?;
        let output = TorchTensor::new(self.run(&time, &shaped(&x, call.shape)?, call.inputs)?)?;
        let mut vjp = Vjp { x: Vec::new(), t: Vec::new() };
        // Backward through an output without a graph would end the process.
        if !output.inner().requires_grad() {
            return Err(Error::Unsupported(NO_GRADIENT.into()));
        }
        for (i, cotangent) in cotangents.iter().enumerate() {
            // libtorch's seed is all ones, so the cotangent enters as a product.
            let scalar = output.inner().f_mul(cotangent.inner())?.f_sum(None)?;
            let keep_graph = i + 1 < cotangents.len();
            let gradients = tch::Tensor::f_run_backward(&[scalar], &[&x, &time], keep_graph, false)?;
            let [x_part, t_part] = <[tch::Tensor; 2]>::try_from(gradients)
                .map_err(|_| Error::Torch("autograd gave another number of gradients than asked for".into()))?;
            vjp.x.push(TorchTensor::new(defined(x_part, &x)?)?);
            vjp.t.push(TorchTensor::new(defined(t_part, &time)?)?);
        }
        Ok((TorchTensor::new(output.inner().f_detach()?)?, vjp))
    }
}

/// A gradient, or zeros where the output does not depend on the input.
fn defined(gradient: tch::Tensor, input: &tch::Tensor) -> Result<tch::Tensor> {
    if gradient.defined() { Ok(gradient) } else { Ok(input.f_zeros_like()?) }
}

/// Opens the module that `card` names.
///
/// # Errors
/// As [`TorchScript::load`].
pub(super) fn open(card: &Card, device: Device, compute: Compute) -> Result<Opened> {
    Ok(Opened::Torch(Box::new(TorchScript::load(card, device, compute)?)))
}
