//! From the path of a card to a velocity field.

use super::field::ModelField;
use crate::card::{Card, Runtime, Sizes};
use crate::error::{Error, Result};
use crate::networks::{self, CallerNetwork, Forward, Opened, Served};
use crate::tensor::{Compute, Device, Host, Remote};
#[cfg(feature = "torch")]
use crate::torch::TorchTensor;
use crate::velocity::{Condition, VelocityField};
use std::path::Path;

/// An opened model. Immutable; any thread.
pub struct Model {
    field: Field,
}

/// The velocity field of a model, by the memory that its samples live in.
enum Field {
    Host(ModelField<Host<f32>>),
    #[cfg(feature = "torch")]
    Torch(ModelField<TorchTensor>),
    Remote(ModelField<Remote>),
}

/// Something to do with a velocity field, wherever its samples live.
pub trait FieldTask {
    /// What comes of it.
    type Output;

    /// Does it with `field`.
    fn run<F: VelocityField + Sync>(self, field: &F) -> Self::Output;
}

impl Model {
    fn new(card: Card, network: Opened) -> Result<Self> {
        let field = match network {
            Opened::Host(network) => Field::Host(ModelField::new(card, network)?),
            #[cfg(feature = "torch")]
            Opened::Torch(network) => Field::Torch(ModelField::new(card, network)?),
        };
        Ok(Self { field })
    }

    /// Names of the scales of guidance, in the order of the passes.
    pub fn scales(&self) -> Vec<String> {
        match &self.field {
            Field::Host(field) => field.scales(),
            #[cfg(feature = "torch")]
            Field::Torch(field) => field.scales(),
            Field::Remote(field) => field.scales(),
        }
    }

    /// Whether the scales of `condition`, of one sample, are this model's.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the scale.
    pub fn check_guidance(&self, condition: &Condition) -> Result<()> {
        match &self.field {
            Field::Host(field) => field.check_guidance(1, condition),
            #[cfg(feature = "torch")]
            Field::Torch(field) => field.check_guidance(1, condition),
            Field::Remote(field) => field.check_guidance(1, condition),
        }
    }

    /// Says what the card's named sizes are in all that follows.
    pub fn set_sizes(&mut self, sizes: &Sizes) {
        match &mut self.field {
            Field::Host(field) => field.set_sizes(sizes),
            #[cfg(feature = "torch")]
            Field::Torch(field) => field.set_sizes(sizes),
            Field::Remote(field) => field.set_sizes(sizes),
        }
    }

    /// Whether its velocities have vector-Jacobian products.
    pub fn differentiable(&self) -> bool {
        match &self.field {
            Field::Host(field) => field.differentiable(),
            #[cfg(feature = "torch")]
            Field::Torch(field) => field.differentiable(),
            Field::Remote(field) => field.differentiable(),
        }
    }

    /// The model's card.
    pub fn card(&self) -> &Card {
        match &self.field {
            Field::Host(field) => field.card(),
            #[cfg(feature = "torch")]
            Field::Torch(field) => field.card(),
            Field::Remote(field) => field.card(),
        }
    }

    /// The velocity field, where its samples live in host memory.
    pub fn host_field(&self) -> Option<&ModelField<Host<f32>>> {
        match &self.field {
            Field::Host(field) => Some(field),
            #[cfg(feature = "torch")]
            Field::Torch(_) => None,
            Field::Remote(_) => None,
        }
    }

    /// The velocity field, where its samples live on a device of the caller's.
    pub fn remote_field(&self) -> Option<&ModelField<Remote>> {
        match &self.field {
            Field::Remote(field) => Some(field),
            _ => None,
        }
    }

    /// The velocity field, where its samples are libtorch's.
    #[cfg(feature = "torch")]
    pub fn torch_field(&self) -> Option<&ModelField<TorchTensor>> {
        match &self.field {
            Field::Host(_) | Field::Remote(_) => None,
            Field::Torch(field) => Some(field),
        }
    }

    /// Does `task` with the model's velocity field.
    pub fn with<T: FieldTask>(&self, task: T) -> T::Output {
        match &self.field {
            Field::Host(field) => task.run(field),
            #[cfg(feature = "torch")]
            Field::Torch(field) => task.run(field),
            Field::Remote(field) => task.run(field),
        }
    }
}

/// Opens the model that the card at `path` describes.
/// ```
/// use bespoke::model::{self, FieldTask};
/// use bespoke::tensor::{Device, PerRow, Tensor};
/// use bespoke::velocity::{Condition, VelocityField};
/// use std::path::Path;
///
/// struct Speed;
///
/// impl FieldTask for Speed {
///     type Output = bespoke::Result<f32>;
///
///     // Samples live in host memory or in libtorch's: a task is generic over both.
///     fn run<F: VelocityField + Sync>(self, field: &F) -> bespoke::Result<f32> {
///         let x = field.upload(&vec![0.0; field.elements()], field.elements())?;
///         let u = field.eval(PerRow::All(0.5), &x, &Condition::of_classes(&[3])?)?;
///         Ok(u.to_f32()?.iter().map(|u| u * u).sum::<f32>().sqrt())
///     }
/// }
///
/// let model = model::open(Path::new("models/digits-mixture.json"), Device::Cpu)?;
/// assert!(model.with(Speed)? > 1.0);
/// # Ok::<(), bespoke::Error>(())
/// ```
///
/// # Errors
/// The card's or the weights' own; [`Error::Unsupported`] where this build or machine cannot run it.
pub fn open(path: &Path, device: Device) -> Result<Model> {
    open_in(path, device, Compute::F32)
}

/// [`open`], the network computed as `compute` says.
///
/// # Errors
/// As [`open`]; [`Error::Invalid`] where the network cannot be computed so.
pub fn open_in(path: &Path, device: Device, compute: Compute) -> Result<Model> {
    let card = Card::load(path)?;
    let network = networks::open(&card, device, compute)?;
    Model::new(card, network)
}

/// Opens the card at `path`, of runtime `host`, around a network of the caller's.
///
/// # Errors
/// The card's own; [`Error::Format`] where its runtime is another.
pub fn open_caller(path: &Path, forward: Box<Forward>) -> Result<Model> {
    Model::new(card_of_caller(path)?, Opened::Host(Box::new(CallerNetwork::new(forward))))
}

/// [`open_in`]; where it is `served`, the card is of runtime `host`, and a server has its network.
///
/// # Errors
/// As [`open_in`] and [`networks::open_served`].
pub fn open_served(path: &Path, served: Option<&Served>, device: Device, compute: Compute) -> Result<Model> {
    let Some(served) = served else { return open_in(path, device, compute) };
    let card = Card::load(path)?;
    let network = networks::open_served(&card, served, device, compute)?;
    Model::new(card, network)
}

/// [`open_caller`], where samples are on a device of the caller's.
///
/// # Errors
/// As [`open_caller`].
pub fn open_caller_on_device(path: &Path, forward: Box<Forward<Remote>>) -> Result<Model> {
    let network = Box::new(CallerNetwork::new(forward));
    Ok(Model { field: Field::Remote(ModelField::new(card_of_caller(path)?, network)?) })
}

fn card_of_caller(path: &Path) -> Result<Card> {
    let card = Card::load(path)?;
    if card.runtime != Runtime::Caller {
        let document = path.display().to_string();
        return Err(Error::format(document, "runtime", "is not \"host\", as for a network of the host program"));
    }
    Ok(card)
}
