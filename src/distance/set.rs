//! A set of samples as its features, gathered batch by batch.

use super::features::Features;
use super::frechet::Reference;
use super::manifold::{NEIGHBOURS, PrecisionRecall, precision_recall};
use super::moments::Moments;
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// Samples at most whose features are kept for precision and recall, the first ones; the Fréchet
/// distance is of all.
pub const MANIFOLD_SAMPLES: usize = 10_000;

/// How far one set is from another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distance {
    /// Squared Fréchet distance of the features.
    pub frechet: f64,
    /// Of at most [`MANIFOLD_SAMPLES`] on either side; `None` where there are too few for neighbours.
    #[serde(flatten)]
    pub precision_recall: Option<PrecisionRecall>,
}

/// What is kept of a set of samples.
#[derive(Default)]
pub struct SampleSet {
    moments: Option<Moments>,
    kept: Vec<f32>,
    width: usize,
    reference: Option<Reference>,
}

impl SampleSet {
    /// Takes in `samples`, `[count, elements]`.
    ///
    /// # Errors
    /// As [`Features::of`].
    pub fn add(&mut self, features: &Features, samples: &[f32]) -> Result<()> {
        let (values, width) = features.of(samples)?;
        self.width = width;
        self.reference = None;
        self.moments.get_or_insert_with(|| Moments::new(width)).add(&values)?;
        let room = (MANIFOLD_SAMPLES * width).saturating_sub(self.kept.len()).min(values.len());
        self.kept.extend_from_slice(&values[..room]);
        Ok(())
    }

    /// Number of samples.
    pub fn count(&self) -> usize {
        self.moments.as_ref().map_or(0, Moments::count)
    }

    /// How far `samples` are from this set.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for fewer than two samples on either side; [`crate::Error::Numeric`].
    pub fn distance(&mut self, samples: &SampleSet) -> Result<Distance> {
        let empty = Moments::new(self.width);
        let reference = match self.reference.take() {
            Some(reference) => reference,
            None => Reference::new(self.moments.as_ref().unwrap_or(&empty))?,
        };
        let frechet = reference.distance(samples.moments.as_ref().unwrap_or(&empty))?;
        self.reference = Some(reference);
        let enough = |set: &SampleSet| set.count() > NEIGHBOURS;
        let precision_recall = match enough(self) && enough(samples) {
            true => Some(precision_recall(&self.kept, &samples.kept, self.width, NEIGHBOURS)?),
            false => None,
        };
        Ok(Distance { frechet, precision_recall })
    }
}
