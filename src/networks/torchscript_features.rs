//! A TorchScript network that gives features.

use super::network::FeatureNetwork;
use crate::card::{FeatureCard, Filter, Resize};
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
        Ok(Self { module, device, card: card.clone() })
    }

    fn wrong(&self, field: &str, problem: String) -> Error {
        Error::format(self.card.path().display().to_string(), field, problem)
    }

    /// `images` as the network takes them: channels, size, then mean and deviation.
    fn made_ready(&self, images: &[f32], shape: &[usize]) -> Result<Tensor> {
        let sizes: Vec<i64> = std::iter::once(-1).chain(shape.iter().map(|n| *n as i64)).collect();
        let mut x = Tensor::f_from_slice(images)?.f_reshape(sizes)?.f_to_device(self.device)?;
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

    /// The tensor that the card's `output` means.
    fn chosen(&self, answer: IValue) -> Result<Tensor> {
        let parts: Vec<(Option<String>, Tensor)> = match answer {
            IValue::Tensor(tensor) if self.card.output.is_none() => return Ok(tensor),
            IValue::Tensor(tensor) => vec![(None, tensor)],
            IValue::TensorList(tensors) => tensors.into_iter().map(|tensor| (None, tensor)).collect(),
            IValue::Tuple(values) | IValue::GenericList(values) => {
                values.into_iter().map(|value| Ok((None, self.tensor(value)?))).collect::<Result<_>>()?
            }
            IValue::GenericDict(entries) => entries
                .into_iter()
                .map(|(key, value)| match key {
                    IValue::String(key) => Ok((Some(key), self.tensor(value)?)),
                    _ => Err(self.wrong("weights", "answers a dictionary whose keys are no strings".into())),
                })
                .collect::<Result<_>>()?,
            _ => return Err(self.wrong("weights", "answers neither a tensor nor several".into())),
        };
        let count = parts.len();
        let keys: Vec<String> = parts.iter().filter_map(|(key, _)| key.clone()).collect();
        let default = Value::from(0);
        let asked = self.card.output.as_ref().unwrap_or(&default);
        let found = match asked {
            Value::String(name) => parts.into_iter().find(|(key, _)| key.as_ref() == Some(name)),
            index => parts.into_iter().nth(index.as_u64().unwrap_or_default() as usize),
        };
        found.map(|(_, tensor)| tensor).ok_or_else(|| {
            let there = if keys.is_empty() { format!("{count} tensors") } else { format!("the keys {keys:?}") };
            self.wrong("output", format!("is {asked}, but the network answers {there}"))
        })
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

impl FeatureNetwork for FeatureModule {
    fn features(&self, images: &[f32], shape: &[usize]) -> Result<(Vec<f32>, usize)> {
        let _guard = tch::no_grad_guard();
        let x = self.made_ready(images, shape)?;
        let count = x.size()[0];
        let inputs: Vec<IValue> = std::iter::once(IValue::Tensor(x.shallow_clone()))
            .chain(self.card.arguments.iter().map(argument))
            .collect();
        let answer =
            self.module.forward_is(&inputs).map_err(|error| explained(error, &[("images", x.shallow_clone())]))?;
        let mut features = dense(self.chosen(answer)?, self.device)?;
        if features.size().first() != Some(&count) || features.dim() < 2 {
            return Err(self.wrong("weights", format!("answers {:?} for {count} images", features.size())));
        }
        // A layer with places left is averaged over them, as pooled features are.
        if features.dim() == 4 {
            features = features.f_mean_dim(&[2i64, 3][..], false, None)?;
        }
        let flat = features.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_flatten(0, -1)?;
        let width = flat.size()[0] / count.max(1);
        Ok((Vec::<f32>::try_from(flat)?, width as usize))
    }
}

/// Opens the network of `card`.
///
/// # Errors
/// As [`FeatureModule::load`].
pub(super) fn open(card: &FeatureCard, device: Device) -> Result<Box<dyn FeatureNetwork>> {
    Ok(Box::new(FeatureModule::load(card, device)?))
}
