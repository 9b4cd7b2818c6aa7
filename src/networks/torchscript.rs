//! A TorchScript module as a network.

use super::network::{Call, Network, Opened};
use crate::card::{Card, Input, Order, Sizes, Time, TimeDtype, TimeShape};
use crate::error::{Error, Result};
use crate::inputs::{Column, Inputs};
use crate::memory;
use crate::tensor::{Compute, Device, PerRow, Tensor};
use crate::torch::{Autocast, TorchTensor, column, dense, explained, prepare};
use crate::velocity::Vjp;
use std::sync::OnceLock;
use tch::{CModule, IValue, Kind};

/// What is said of a network under `no_grad`, or one that ends in `.detach()`.
const NO_GRADIENT: &str = "the network's output does not depend on its input by autograd";

/// A TorchScript module on its device. Any thread: libtorch's forward pass of a frozen module
/// is safe to run concurrently, and nothing here changes the module after loading.
pub struct TorchScript {
    module: CModule,
    device: tch::Device,
    compute: Compute,
    /// How it takes its time.
    time: Time,
    order: Order,
    /// The key of its output, where it answers several.
    output: Option<String>,
    sample: Sample,
    /// Whether it is differentiable; found out when it is first asked.
    by_autograd: OnceLock<bool>,
}

/// A made-up sample, on which a module is tried.
struct Sample {
    /// Of a batch of one.
    shape: Vec<i64>,
    time: f64,
    inputs: Inputs,
}

/// How many numbers of a network's output are compared, to find one that draws at random.
const DRAWS: usize = 128;

/// What a named size is in a made-up sample.
const NAMED_SIZE: usize = 8;

impl Sample {
    fn of(card: &Card) -> Result<Self> {
        let signature = card.signature();
        let shapes = std::iter::once(&card.shape).chain(signature.inputs().iter().map(|input| &input.shape));
        let sizes: Sizes = shapes.flat_map(|shape| shape.names()).map(|name| (name.to_owned(), NAMED_SIZE)).collect();
        let zeros = |input: &Input| {
            let shape = input.shape.resolve(&sizes)?;
            let bytes = shape.iter().try_fold(input.dtype.size(), |bytes, n| memory::numbers(bytes, *n))?;
            Column::new(&input.name, input.dtype, &shape, 1, &memory::filled(bytes, 0)?)
        };
        let inputs = Inputs::new(signature.inputs().iter().map(zeros).collect::<Result<_>>()?)?;
        let shape = std::iter::once(1).chain(card.shape.resolve(&sizes)?.into_iter().map(|n| n as i64)).collect();
        let time = 0.5 * card.time.scale + card.time.offset;
        Ok(Self { shape, time: if card.time.dtype == TimeDtype::Int64 { time.round() } else { time }, inputs })
    }

    /// State and time, `[1, shape...]` and `[1]`.
    fn tensors(&self, device: tch::Device) -> Result<(tch::Tensor, tch::Tensor)> {
        let count: i64 = self.shape.iter().product();
        let x =
            tch::Tensor::f_arange(count, (Kind::Float, device))?.f_mul_scalar(0.7)?.f_sin()?.f_reshape(&self.shape)?;
        Ok((x, tch::Tensor::f_full([1], self.time, (Kind::Float, device))?))
    }
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
            device,
            compute,
            time: card.time,
            order: card.order,
            output: card.names.output.clone(),
            sample: Sample::of(card)?,
            by_autograd: OnceLock::new(),
        };
        network.check_repeatable().map_err(|problem| Error::format(path.display().to_string(), ".", problem))?;
        Ok(network)
    }

    /// Calls the module several times with the same tensors: they must stay as they are, and the outputs be equal.
    fn check_repeatable(&self) -> std::result::Result<(), String> {
        let _guard = tch::no_grad_guard();
        // A module that cannot take this very sample says so where it is given real ones.
        let Ok((x, time)) = self.sample.tensors(self.device) else { return Ok(()) };
        let (Ok(own_x), Ok(own_time)) = (x.f_mul_scalar(1.0), time.f_mul_scalar(1.0)) else { return Ok(()) };
        let Ok(first) = self.run(&own_time, &own_x, &self.sample.inputs) else { return Ok(()) };
        for (name, own, given) in [("x", &own_x, &x), ("time", &own_time, &time)] {
            if !own.f_equal(given).unwrap_or(true) {
                return Err(format!(
                    "is a network that writes into its input {name}, expected one that leaves it as it is"
                ));
            }
        }
        // Of a small sample dropout may spare the same numbers twice: some hundred are compared in all.
        for _ in 0..(DRAWS / x.numel().max(1)).max(1) {
            let Ok(again) = self.run(&time, &x, &self.sample.inputs) else { return Ok(()) };
            if self.differ(&first, &again).unwrap_or(false) {
                let problem = "is a network that draws random numbers: two equal calls gave different outputs; \
                               expected one that was exported for evaluation, without dropout or noise of its own";
                return Err(problem.to_owned());
            }
        }
        Ok(())
    }

    /// Whether two outputs differ by more than rounding.
    fn differ(&self, a: &tch::Tensor, b: &tch::Tensor) -> Result<bool> {
        let tolerance = if self.compute == Compute::Bf16 { 3e-2 } else { 1e-4 };
        let largest = |tensor: &tch::Tensor| -> Result<f64> { Ok(tensor.f_abs()?.f_max()?.f_double_value(&[])?) };
        // Where either is not finite this is false: the solver will find it.
        Ok(largest(&a.f_sub(b)?)? > tolerance * largest(a)?)
    }

    /// Whether autograd gives the output's derivatives: there is a graph, and what it does not reach, the output
    /// does not depend on.
    fn reaches_its_inputs(&self) -> Result<bool> {
        let (x, time) = self.sample.tensors(self.device)?;
        let (x, time) = (x.f_set_requires_grad(true)?, time.f_set_requires_grad(true)?);
        let output = self.run(&time, &x, &self.sample.inputs)?;
        if !output.requires_grad() {
            return Ok(false);
        }
        let gradients = tch::Tensor::f_run_backward(&[output.f_sum(None)?], &[&x, &time], false, false)?;
        let _guard = tch::no_grad_guard();
        let moved = [(x.f_mul_scalar(0.9)?, time.f_detach()?), (x.f_detach()?, time.f_mul_scalar(0.9)?)];
        // Between integer times the field is constant: none of its gradient is missing.
        let asked = if self.time.dtype == TimeDtype::Int64 { 1 } else { 2 };
        for (gradient, (x, time)) in gradients.iter().zip(moved).take(asked) {
            if !gradient.defined() && self.differ(&output, &self.run(&time, &x, &self.sample.inputs)?)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One number per sample, `[batch]`.
    fn times(&self, time: PerRow<'_>, batch: usize) -> Result<tch::Tensor> {
        Ok(match time {
            PerRow::All(t) => tch::Tensor::f_full([batch as i64], t, (Kind::Float, self.device))?,
            PerRow::Each(_) => {
                let values: Vec<f32> = (0..batch).map(|row| time.at(row) as f32).collect();
                tch::Tensor::f_from_slice(&values)?.f_to_device(self.device)?
            }
        })
    }

    /// Times `[batch]` in the type and shape that the module takes.
    fn clock(&self, time: &tch::Tensor) -> Result<tch::Tensor> {
        let time = match self.time.dtype {
            TimeDtype::Float32 => time.shallow_clone(),
            TimeDtype::Int64 => time.f_detach()?.f_to_kind(Kind::Int64)?,
        };
        Ok(match self.time.shape {
            TimeShape::Batch => time,
            TimeShape::Column => time.f_reshape([-1, 1])?,
            TimeShape::Scalar => {
                let (least, greatest) = (time.f_min()?.f_double_value(&[])?, time.f_max()?.f_double_value(&[])?);
                if least != greatest {
                    let expected = "one time for the whole batch: the card says time.shape scalar";
                    return Err(Error::invalid("t", format!("{least} to {greatest} as the network counts"), expected));
                }
                time.f_select(0, 0)?
            }
        })
    }

    /// The module's output for states `x`, `[batch, shape...]`.
    fn run(&self, time: &tch::Tensor, x: &tch::Tensor, inputs: &Inputs) -> Result<tch::Tensor> {
        let _autocast = (self.compute == Compute::Bf16).then(|| Autocast::bf16(self.device));
        let columns = inputs.columns().iter().map(|input| column(input, self.device)).collect::<Result<Vec<_>>>()?;
        let time = self.clock(time)?;
        let first = match self.order {
            Order::StateFirst => [("x", x), ("time", &time)],
            Order::TimeFirst => [("time", &time), ("x", x)],
        };
        let names = inputs.columns().iter().map(Column::name);
        let given: Vec<(&str, &tch::Tensor)> = first.into_iter().chain(names.zip(&columns)).collect();
        let arguments: Vec<IValue> = given.iter().map(|(_, tensor)| IValue::Tensor(tensor.shallow_clone())).collect();
        let answer = self.module.forward_is(&arguments).map_err(|error| explained(error, &given))?;
        let output = dense(chosen(answer, self.output.as_deref())?, self.device)?;
        if output.size() != x.size() {
            return Err(Error::invalid(
                "the model's output shape",
                format!("{:?}", output.size()),
                format!("{:?}", x.size()),
            ));
        }
        Ok(output)
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

/// The states of a call in their own shape.
fn shaped(x: &tch::Tensor, shape: &[usize]) -> Result<tch::Tensor> {
    let sizes: Vec<i64> = std::iter::once(-1).chain(shape.iter().map(|n| *n as i64)).collect();
    Ok(x.f_reshape(&sizes)?)
}

impl Network for TorchScript {
    type Tensor = TorchTensor;

    fn upload(&self, values: &[f32], elements: usize) -> Result<TorchTensor> {
        TorchTensor::upload(values, elements, self.device)
    }

    fn forward(&self, call: &Call<'_, TorchTensor>) -> Result<TorchTensor> {
        let _guard = tch::no_grad_guard();
        let x = shaped(call.x.inner(), call.shape)?;
        TorchTensor::new(self.run(&self.times(call.time, call.x.batch())?, &x, call.inputs)?)
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
        let time = self.times(call.time, call.x.batch())?.f_set_requires_grad(true)?;
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
