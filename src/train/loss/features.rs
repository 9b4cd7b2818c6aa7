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
    /// How long it is, sample by sample, and at least `LEAST_DISTANCE`.
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

/// The samples `end` beside `x1`.
///
/// # Errors
/// The network's own.
pub fn feature_difference<T: Tensor>(features: &Features, end: &T, x1: &T) -> Result<Difference> {
    let (truth, width) = features.layers(&x1.to_f32()?)?;
    Ok(Difference::of(&features.layers(&end.to_f32()?)?.0, &truth, width))
}

/// The change of a sample's numbers, as a share of their size, by which layers are differentiated along a direction: of
/// curvature and of single precision about as much is left.
const STEP: f64 = 5e-3;

/// Derivatives of the layers of the samples `end` along their `directions`, by central differences, and how many of each.
///
/// # Errors
/// The network's own.
pub fn feature_derivative<T: Tensor>(features: &Features, end: &T, directions: &T) -> Result<(Vec<f32>, usize)> {
    let (samples, along, elements) = (end.to_f32()?, directions.to_f32()?, end.elements());
    let size = |own: &[f32]| own.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let steps: Vec<f64> = samples
        .chunks(elements)
        .zip(along.chunks(elements))
        .map(|(own, direction)| STEP * size(own).max(f64::MIN_POSITIVE) / size(direction).max(f64::MIN_POSITIVE))
        .collect();
    let moved = |sign: f64| -> Vec<f32> {
        let each = samples.iter().zip(&along).enumerate();
        // A direction without length moves nothing, however long the step.
        each.map(|(i, (x, v))| if *v == 0.0 { *x } else { x + (sign * steps[i / elements] * f64::from(*v)) as f32 })
            .collect()
    };
    let (ahead, width) = features.layers(&moved(1.0))?;
    let (behind, _) = features.layers(&moved(-1.0))?;
    let each = ahead.iter().zip(&behind).enumerate();
    Ok((each.map(|(i, (a, b))| (f64::from(a - b) / (2.0 * steps[i / width])) as f32).collect(), width))
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
