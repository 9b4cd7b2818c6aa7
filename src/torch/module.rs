//! A TorchScript module as a network.

use super::autocast::Autocast;
use super::device;
use super::tensor::TorchTensor;
use crate::error::{Error, Result};
use crate::model::{Card, Device, Dtype, Network};
use crate::tensor::{PerRow, Tensor};
use crate::velocity::Vjp;
use tch::{CModule, Kind};

/// A TorchScript module on its device. Any thread: libtorch's forward pass of a frozen module
/// is safe to run concurrently, and nothing here changes the module after loading.
pub struct Module {
    module: CModule,
    device: tch::Device,
    dtype: Dtype,
    /// Shape of a batch, with -1 for the batch.
    shape: Vec<i64>,
    classes: bool,
}

// SAFETY: `CModule` is a pointer to a `torch::jit::Module`, whose `forward` may run concurrently;
// this type offers no other use of it after `load`.
unsafe impl Sync for Module {}

impl Module {
    /// Loads the weights of `card` onto `device`, to be run in `dtype`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Torch`] where they cannot be read; [`Error::Unsupported`] where
    /// the device cannot be had.
    pub fn load(card: &Card, device: Device, dtype: Dtype) -> Result<Self> {
        let device = device::prepare(device)?;
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
        let shape = std::iter::once(-1).chain(card.shape.iter().map(|n| *n as i64)).collect();
        Ok(Self { module, device, dtype, shape, classes: card.classes > 0 })
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

    fn run(&self, time: &tch::Tensor, x: &tch::Tensor, class: &[i64]) -> Result<tch::Tensor> {
        let x = x.f_reshape(&self.shape)?;
        let _autocast = (self.dtype == Dtype::Bf16).then(|| Autocast::bf16(self.device));
        let output = if self.classes {
            let class = tch::Tensor::f_from_slice(class)?.f_to_device(self.device)?;
            self.module.forward_ts(&[&x, time, &class])?
        } else {
            self.module.forward_ts(&[&x, time])?
        };
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

impl Network for Module {
    type Tensor = TorchTensor;

    fn upload(&self, values: &[f32]) -> Result<TorchTensor> {
        let elements: i64 = self.shape[1..].iter().product();
        TorchTensor::upload(values, elements as usize, self.device)
    }

    fn forward(&self, time: PerRow<'_>, x: &TorchTensor, class: &[i64]) -> Result<TorchTensor> {
        let _guard = tch::no_grad_guard();
        TorchTensor::new(self.run(&self.times(time, x.batch())?, x.inner(), class)?)
    }

    fn vjp(
        &self,
        time: PerRow<'_>,
        x: &TorchTensor,
        class: &[i64],
        cotangents: &[TorchTensor],
    ) -> Result<(TorchTensor, Vjp<TorchTensor>)> {
        let time = self.times(time, x.batch())?.f_set_requires_grad(true)?;
        let x = x.inner().f_detach()?.f_set_requires_grad(true)?;
        let output = TorchTensor::new(self.run(&time, &x, class)?)?;
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
