//! A TorchScript module as a network.

use super::network::{Call, Network, Opened};
use crate::card::{Card, Order, Time, TimeDtype, TimeShape};
use crate::error::{Error, Result};
use crate::inputs::Inputs;
use crate::tensor::{Compute, Device, PerRow, Tensor};
use crate::torch::{Autocast, TorchTensor, column, prepare};
use crate::velocity::Vjp;
use tch::{CModule, Kind};

/// A TorchScript module on its device. Any thread: libtorch's forward pass of a frozen module
/// is safe to run concurrently, and nothing here changes the module after loading.
pub struct TorchScript {
    module: CModule,
    device: tch::Device,
    compute: Compute,
    /// How it takes its time.
    time: Time,
    order: Order,
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
        Ok(Self { module, device, compute, time: card.time, order: card.order })
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
            Order::StateFirst => [x, &time],
            Order::TimeFirst => [&time, x],
        };
        let arguments: Vec<&tch::Tensor> = first.into_iter().chain(&columns).collect();
        let output = self.module.forward_ts(&arguments)?;
        if output.size() != x.size() {
            return Err(Error::invalid(
                "the model's output shape",
                format!("{:?}", output.size()),
                format!("{:?}", x.size()),
            ));
        }
        Ok(output.f_to_kind(Kind::Float)?)
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
        true
    }

    fn vjp(&self, call: &Call<'_, TorchTensor>, cotangents: &[TorchTensor]) -> Result<(TorchTensor, Vjp<TorchTensor>)> {
        let time = self.times(call.time, call.x.batch())?.f_set_requires_grad(true)?;
        let x = call.x.inner().f_detach()?.f_set_requires_grad(true)?;
        let output = TorchTensor::new(self.run(&time, &shaped(&x, call.shape)?, call.inputs)?)?;
        let mut vjp = Vjp { x: Vec::new(), t: Vec::new() };
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
