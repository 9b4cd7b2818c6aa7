//! A TorchScript network that gives features.

use super::network::{Cotangents, FeatureNetwork};
use crate::card::{FeatureCard, Filter, Layer, Resize};
use crate::error::{Error, Result};
use crate::tensor::Device;
use crate::torch::{dense, explained, prepare};
use serde_json::Value;
use tch::{CModule, IValue, Kind, Tensor};

/// A feature network on its device. Any thread, for the reasons of [`super::TorchScript`].
struct FeatureModule {
    module: CModule,
    device: tch::Device,
    card: FeatureCard,
}

// SAFETY: `forward` of a loaded module may run concurrently, and nothing changes it after `load`.
unsafe impl Sync for FeatureModule {}

impl FeatureModule {
    /// Loads the weights of `card` onto `device`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] where they cannot be read; [`Error::Unsupported`] where the
    /// device cannot be had.
    fn load(card: &FeatureCard, device: Device) -> Result<Self> {
        let device = prepare(device)?;
        let path = card.weights_path().unwrap_or_default();
        std::fs::File::open(&path).map_err(|e| Error::io("read", &path, e))?;
        let mut module = CModule::load_on_device(&path, device).map_err(|e| {
            Error::format(path.display().to_string(), ".", format!("is not a TorchScript module: {}", Error::from(e)))
        })?;
        module.f_set_eval()?;
        // What has a gradient then has it by the images.
        for (_, parameter) in module.named_parameters()? {
            let _ = parameter.f_set_requires_grad(false)?;
        }
        Ok(Self { module, device, card: card.clone() })
    }

    fn wrong(&self, field: &str, problem: String) -> Error {
        Error::format(self.card.path().display().to_string(), field, problem)
    }

    /// `images` on the device, `[count, shape...]`.
    fn uploaded(&self, images: &[f32], shape: &[usize]) -> Result<Tensor> {
        let sizes: Vec<i64> = std::iter::once(-1).chain(shape.iter().map(|n| *n as i64)).collect();
        Ok(Tensor::f_from_slice(images)?.f_reshape(sizes)?.f_to_device(self.device)?)
    }

    /// `images` as the network takes them: channels, size, then mean and deviation.
    fn made_ready(&self, images: &Tensor, shape: &[usize]) -> Result<Tensor> {
        let mut x = images.shallow_clone();
        if let Some(channels) = self.card.channels {
            x = match shape {
                [own, _, _] if *own == channels => x,
                [1, _, _] => x.f_expand([-1, channels as i64, -1, -1], false)?,
                [_, _] => x.f_unsqueeze(1)?.f_expand([-1, channels as i64, -1, -1], false)?,
                _ => return Err(self.wrong("channels", format!("is {channels}, but samples are {shape:?}"))),
            };
        }
        if let Some(resize) = &self.card.resize {
            if x.dim() != 4 {
                return Err(self.wrong("resize", format!("needs images, but samples are {shape:?}")));
            }
            x = resized(&x, resize)?;
        }
        for (field, values, divide) in [("mean", &self.card.mean, false), ("std", &self.card.std, true)] {
            if values.is_empty() {
                continue;
            }
            if x.size().get(1) != Some(&(values.len() as i64)) || x.dim() != 4 {
                return Err(self.wrong(field, format!("has {} numbers, but images are {:?}", values.len(), x.size())));
            }
            let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
            let by_channel = Tensor::f_from_slice(&values)?.f_to_device(self.device)?.f_reshape([1, -1, 1, 1])?;
            x = if divide { x.f_div(&by_channel)? } else { x.f_sub(&by_channel)? };
        }
        Ok(x)
    }

    /// What the network answers for images that are `made_ready`, each tensor with the key it has.
    fn run(&self, x: &Tensor) -> Result<Vec<(Option<String>, Tensor)>> {
        let inputs: Vec<IValue> = std::iter::once(IValue::Tensor(x.shallow_clone()))
            .chain(self.card.arguments.iter().map(argument))
            .collect();
        let answer =
            self.module.forward_is(&inputs).map_err(|error| explained(error, &[("images", x.shallow_clone())]))?;
        match answer {
            IValue::Tensor(tensor) => Ok(vec![(None, tensor)]),
            IValue::TensorList(tensors) => Ok(tensors.into_iter().map(|tensor| (None, tensor)).collect()),
            IValue::Tuple(values) | IValue::GenericList(values) => {
                values.into_iter().map(|value| Ok((None, self.tensor(value)?))).collect()
            }
            IValue::GenericDict(entries) => entries
                .into_iter()
                .map(|(key, value)| match key {
                    IValue::String(key) => Ok((Some(key), self.tensor(value)?)),
                    _ => Err(self.wrong("weights", "answers a dictionary whose keys are no strings".into())),
                })
                .collect(),
            _ => Err(self.wrong("weights", "answers neither a tensor nor several".into())),
        }
    }

    /// The one of `parts` that is `asked` for, by index or key, as a plain tensor of a row for each of `count` images.
    fn chosen(&self, parts: &[(Option<String>, Tensor)], field: &str, asked: &Value, count: i64) -> Result<Tensor> {
        let found = match asked {
            Value::String(name) => parts.iter().find(|(key, _)| key.as_ref() == Some(name)),
            index => index.as_u64().and_then(|index| parts.get(usize::try_from(index).ok()?)),
        };
        let Some((_, tensor)) = found else {
            let keys: Vec<&String> = parts.iter().filter_map(|(key, _)| key.as_ref()).collect();
            let there = match (keys.as_slice(), parts.len()) {
                ([], 1) => "one tensor, whose index is 0".to_owned(),
                ([], count) => format!("{count} tensors, of indices 0 to {}", count.saturating_sub(1)),
                (keys, _) => format!("the keys {keys:?}"),
            };
            return Err(self.wrong(field, format!("is {asked}, but the network answers {there}")));
        };
        let tensor = dense(tensor.shallow_clone(), self.device).map_err(|e| self.wrong(field, e.to_string()))?;
        if tensor.size().first() != Some(&count) || tensor.dim() < 2 {
            return Err(self.wrong("weights", format!("answers {:?} for {count} images", tensor.size())));
        }
        Ok(tensor)
    }

    /// The layers for a loss of images that are `made_ready`, each `[count, numbers]`, and what the card calls it.
    fn compared(&self, x: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let parts = self.run(x)?;
        let named = |(i, layer): (usize, &Layer)| (format!("layers[{i}].output"), layer.output.clone(), layer.weight);
        let layers: Vec<_> = match &self.card.layers {
            Some(layers) => layers.iter().enumerate().map(named).collect(),
            None => vec![("output".to_owned(), self.card.output.clone().unwrap_or(Value::from(0)), 1.0)],
        };
        let one = |(field, output, weight): (String, Value, f64)| {
            let tensor = self.chosen(&parts, &field, &output, x.size()[0])?;
            let size = tensor.size();
            if !matches!(*size.as_slice(), [_, n] | [_, n, _, _] if n > 1) {
                let expected = "expected [batch, n] or [batch, n, height, width] with n at least 2: a layer is compared by its direction";
                return Err(self.wrong(&field, format!("is a layer {size:?}, {expected}")));
            }
            // In double precision, in which no square overflows.
            let tensor = tensor.f_to_kind(Kind::Double)?;
            let square = tensor.f_square()?.f_sum_dim_intlist(1i64, true, None)?;
            let length = square.f_add_scalar(LEAST_LENGTH)?.f_sqrt()?;
            let places: i64 = size[2..].iter().product();
            let unit = tensor.f_div(&length)?.f_mul_scalar((weight / places as f64).sqrt())?;
            Ok((field, unit.f_to_kind(Kind::Float)?.f_flatten(1, -1)?))
        };
        layers.into_iter().map(one).collect()
    }

    fn tensor(&self, value: IValue) -> Result<Tensor> {
        match value {
            IValue::Tensor(tensor) => Ok(tensor),
            _ => Err(self.wrong("weights", "answers something that is no tensor among its outputs".into())),
        }
    }
}

fn resized(x: &Tensor, resize: &Resize) -> Result<Tensor> {
    let size = resize.size.map(|n| n as i64);
    Ok(match (resize.filter, resize.antialias) {
        (Filter::Bilinear, false) => x.f_upsample_bilinear2d(size, false, None, None)?,
        (Filter::Bilinear, true) => x.f_internal_upsample_bilinear2d_aa(size, false, None, None)?,
        (Filter::Bicubic, false) => x.f_upsample_bicubic2d(size, false, None, None)?,
        (Filter::Bicubic, true) => x.f_internal_upsample_bicubic2d_aa(size, false, None, None)?,
    })
}

fn argument(value: &Value) -> IValue {
    match value {
        Value::Bool(value) => IValue::Bool(*value),
        value => value.as_i64().map_or_else(|| IValue::Double(value.as_f64().unwrap_or_default()), IValue::Int),
    }
}

/// Numbers on the host, `[count, width]`, and the width.
fn host(of: &Tensor) -> Result<(Vec<f32>, usize)> {
    let width = of.size()[1..].iter().product::<i64>() as usize;
    let flat = of.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_flatten(0, -1)?;
    Ok((Vec::<f32>::try_from(flat)?, width))
}

fn joined(layers: &[(String, Tensor)]) -> Result<Tensor> {
    Ok(Tensor::f_cat(&layers.iter().map(|(_, layer)| layer).collect::<Vec<_>>(), 1)?)
}

/// Added to a squared length, so that a place without any activation has none.
const LEAST_LENGTH: f64 = 1e-10;

impl FeatureNetwork for FeatureModule {
    fn features(&self, images: &[f32], shape: &[usize]) -> Result<(Vec<f32>, usize)> {
        let _guard = tch::no_grad_guard();
        let x = self.made_ready(&self.uploaded(images, shape)?, shape)?;
        let parts = self.run(&x)?;
        // Of a network that answers one tensor without a key there is nothing to choose.
        let asked = self.card.output.clone().unwrap_or(Value::from(0));
        let features = self.chosen(&parts, "output", &asked, x.size()[0])?;
        // A layer with places left is averaged over them, as pooled features are.
        host(&if features.dim() == 4 { features.f_mean_dim(&[2i64, 3][..], false, None)? } else { features })
    }

    fn layers(&self, images: &[f32], shape: &[usize]) -> Result<(Vec<f32>, usize)> {
        let _guard = tch::no_grad_guard();
        host(&joined(&self.compared(&self.made_ready(&self.uploaded(images, shape)?, shape)?)?)?)
    }

    fn layers_vjp(&self, images: &[f32], shape: &[usize], cotangents: Cotangents<'_>) -> Result<Vec<Vec<f32>>> {
        let images = self.uploaded(images, shape)?.f_set_requires_grad(true)?;
        let layers = self.compared(&self.made_ready(&images, shape)?)?;
        // Backward through an output without a graph would end the process.
        if let Some((field, _)) = layers.iter().find(|(_, layer)| !layer.requires_grad()) {
            return Err(self.wrong(field, "has no gradient by the images: autograd does not see through it".into()));
        }
        let layers = joined(&layers)?;
        let (values, width) = host(&layers.f_detach()?)?;
        let cotangents = cotangents(&values, width)?;
        let one = |(i, cotangent): (usize, &Vec<f32>)| {
            let cotangent = Tensor::f_from_slice(cotangent)?.f_to_device(self.device)?.f_reshape([-1, width as i64])?;
            let scalar = layers.f_mul(&cotangent)?.f_sum(None)?;
            let keep_graph = i + 1 < cotangents.len();
            let found = Tensor::f_run_backward(&[scalar], &[&images], keep_graph, false)?;
            let gradient = found.into_iter().next().filter(Tensor::defined);
            Ok(host(&gradient.map_or_else(|| images.f_zeros_like(), Ok)?)?.0)
        };
        cotangents.iter().enumerate().map(one).collect()
    }
}

/// Opens the network of `card`.
///
/// # Errors
/// As [`FeatureModule::load`].
pub(super) fn open(card: &FeatureCard, device: Device) -> Result<Box<dyn FeatureNetwork>> {
    Ok(Box::new(FeatureModule::load(card, device)?))
}
