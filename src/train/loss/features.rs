//! Ends of solves beside the ground truth's in the layers of a feature network.

use crate::distance::Features;
use crate::error::{Error, Result};
use crate::tensor::{Register, Tensor};
use crate::velocity::VelocityField;

/// Layers are compared by their directions, in single precision: nearer than this they are as good as equal, and a
/// logarithm must not make more of it.
const LEAST_DISTANCE: f64 = 1e-4;

/// Layers of ends less those of the ground truth, `[batch, width]`.
pub struct Difference {
    /// The numbers.
    pub values: Vec<f32>,
    /// How many of each sample.
    pub width: usize,
}

impl Difference {
    /// How long it is, sample by sample, and at least [`LEAST_DISTANCE`].
    pub fn lengths(&self) -> Vec<f64> {
        let square = |own: &[f32]| own.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
        let length = |own: &[f32]| square(own).sqrt().max(LEAST_DISTANCE);
        self.values.chunks(self.width).map(length).collect()
    }

    /// Each sample's times its factor.
    pub fn scaled(&self, factors: &[f64]) -> Vec<f32> {
        let scaled = |(own, factor): (&[f32], &f64)| own.iter().map(|v| v * *factor as f32).collect::<Vec<_>>();
        self.values.chunks(self.width).zip(factors).flat_map(scaled).collect()
    }

    fn of(layers: &[f32], truth: &[f32], width: usize) -> Self {
        Self { values: layers.iter().zip(truth).map(|(a, b)| a - b).collect(), width }
    }
}

/// The features that a loss asks for.
///
/// # Errors
/// [`Error::State`] where there are none.
pub fn needed_features(features: Option<&Features>) -> Result<&Features> {
    features.ok_or_else(|| Error::State("a loss of features has no feature network".into()))
}

/// The distances of the samples `end` from `x1`.
///
/// # Errors
/// The network's own.
pub fn feature_distances<T: Tensor>(features: &Features, end: &T, x1: &T) -> Result<Vec<f64>> {
    let (truth, width) = features.layers(&x1.to_f32()?)?;
    Ok(Difference::of(&features.layers(&end.to_f32()?)?.0, &truth, width).lengths())
}

/// The cotangents of `end` that `cotangents` of its layers come to.
///
/// # Errors
/// The network's and the tensor's own; those of `cotangents`.
pub fn feature_cotangents<F: VelocityField>(
    field: &F,
    features: &Features,
    end: &F::Tensor,
    x1: &F::Tensor,
    mut cotangents: impl FnMut(Difference) -> Result<Vec<Vec<f32>>>,
) -> Result<Vec<F::Tensor>> {
    let (truth, width) = features.layers(&x1.to_f32()?)?;
    let found =
        features.layers_vjp(&end.to_f32()?, &mut |layers, _| cotangents(Difference::of(layers, &truth, width)))?;
    found.iter().map(|values| field.upload(values, end.elements())).collect()
}
