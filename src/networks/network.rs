//! What a model asks of a network, whatever runs it.

use crate::error::{Error, Result};
use crate::inputs::Inputs;
use crate::tensor::{Host, PerRow, Tensor};
#[cfg(feature = "torch")]
use crate::torch::TorchTensor;
use crate::velocity::Vjp;

/// What a network is asked for one batch.
pub struct Call<'a, T> {
    /// Time as the network counts it, one number a sample.
    pub time: PerRow<'a>,
    /// The states, `[batch, elements]`.
    pub x: &'a T,
    /// Shape of one sample; its product is `elements`.
    pub shape: &'a [usize],
    /// What else it is given, in the order of its card, one row a sample.
    pub inputs: &'a Inputs,
}

/// A network as it was trained: its own time, its own output.
pub trait Network: Send + Sync {
    /// Where its samples live.
    type Tensor: Tensor;

    /// Brings `values`, samples of `elements` numbers, to where the network computes.
    ///
    /// # Errors
    /// [`Error::Invalid`] where they are no whole number of samples; the tensor's own.
    fn upload(&self, values: &[f32], elements: usize) -> Result<Self::Tensor>;

    /// The output for `call`, `[batch, elements]`.
    ///
    /// # Errors
    /// The runtime's own.
    fn forward(&self, call: &Call<'_, Self::Tensor>) -> Result<Self::Tensor>;

    /// Whether it has a `vjp`.
    fn differentiable(&self) -> bool {
        false
    }

    /// The output, and for each cotangent w of it w^T d output / dx and w . d output / d time.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a network that can only be evaluated; the runtime's own.
    fn vjp(
        &self,
        _call: &Call<'_, Self::Tensor>,
        _cotangents: &[Self::Tensor],
    ) -> Result<(Self::Tensor, Vjp<Self::Tensor>)> {
        Err(Error::Unsupported("this network has no vector-Jacobian product".into()))
    }
}

/// A network that turns images into features.
pub trait FeatureNetwork: Send + Sync {
    /// Features `[count, features]` of `images`, `[count, shape...]` in the card's range, and how many
    /// each image has.
    ///
    /// # Errors
    /// The runtime's own.
    fn features(&self, images: &[f32], shape: &[usize]) -> Result<(Vec<f32>, usize)>;

    /// The card's layers of `images` for a loss, `[count, numbers]`, and how many numbers each image has: at each place
    /// of a layer its channels have unit length, and squares are weighted by the layer and averaged over its places
    /// (Zhang et al. 2018, Eq. 1).
    ///
    /// # Errors
    /// The runtime's own.
    fn layers(&self, images: &[f32], shape: &[usize]) -> Result<(Vec<f32>, usize)>;

    /// For each of the cotangents of [`FeatureNetwork::layers`] that `cotangents` makes of them, its product with
    /// their Jacobian, `[count, shape...]`.
    ///
    /// # Errors
    /// Those of `cotangents`; the runtime's own.
    fn layers_vjp(&self, images: &[f32], shape: &[usize], cotangents: Cotangents<'_>) -> Result<Vec<Vec<f32>>>;
}

/// Cotangents of `layers`, which have so many numbers an image.
pub type Cotangents<'a> = &'a mut dyn FnMut(&[f32], usize) -> Result<Vec<Vec<f32>>>;

/// An opened network, by the memory that its samples live in.
pub enum Opened {
    /// Host memory.
    Host(Box<dyn Network<Tensor = Host<f32>>>),
    /// Tensors of libtorch, on any of its devices.
    #[cfg(feature = "torch")]
    Torch(Box<dyn Network<Tensor = TorchTensor>>),
}
