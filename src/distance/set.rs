//! A set of samples as its features, gathered batch by batch.

use super::features::Features;
use super::frechet::Reference;
use super::manifold::{NEIGHBOURS, PrecisionRecall, precision_recall};
use super::moments::Moments;
use crate::document;
use crate::error::Result;
use crate::ranks::Ranks;
use serde::{Deserialize, Serialize};

/// Samples at most whose features are kept for precision and recall, the first ones; the Fréchet
/// distance is of all.
pub const MANIFOLD_SAMPLES: usize = 10_000;

/// How far one set is from another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distance {
    /// Squared Fréchet distance of the features.
    #[serde(with = "document::any_number")]
    pub frechet: f64,
    /// Of at most [`MANIFOLD_SAMPLES`] on either side; `None` where there are too few for neighbours.
    #[serde(flatten)]
    pub precision_recall: Option<PrecisionRecall>,
}

/// What is kept of a set of samples.
#[derive(Default)]
pub struct SampleSet {
    moments: Option<Moments>,
    /// Features of every batch, up to what is kept.
    kept: Vec<Vec<f32>>,
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
        self.keep(values);
        Ok(())
    }

    fn keep(&mut self, mut values: Vec<f32>) {
        let kept: usize = self.kept.iter().map(Vec::len).sum();
        values.truncate((MANIFOLD_SAMPLES * self.width).saturating_sub(kept));
        self.kept.push(values);
    }

    /// Takes in what the other `ranks` have; batches were dealt to them in turn.
    pub fn join(&mut self, ranks: &Ranks) {
        if ranks.count() == 1 {
            return;
        }
        let mut sizes = vec![0.0; 2 * ranks.count()];
        sizes[2 * ranks.rank()..][..2].copy_from_slice(&[self.width as f64, self.kept.len() as f64]);
        ranks.sum(&mut sizes);
        let (sizes, _) = sizes.as_chunks::<2>();
        // A rank that was dealt nothing does not know the width.
        self.width = sizes.iter().fold(0.0, |most, [width, _]| width.max(most)) as usize;
        self.moments = Some(self.moments.take().unwrap_or_else(|| Moments::new(self.width)).of_all(ranks));
        let own = std::mem::take(&mut self.kept);
        let most = sizes.iter().fold(0.0, |most, [_, batches]| batches.max(most)) as usize;
        for batch in 0..most {
            for root in (0..ranks.count()).filter(|root| (batch as f64) < sizes[*root][1]) {
                let mut values = own.get(batch).filter(|_| root == ranks.rank()).cloned().unwrap_or_default();
                let mut length = [values.len() as u64];
                ranks.broadcast(root, &mut length);
                values.resize(length[0] as usize, 0.0);
                ranks.broadcast(root, &mut values);
                self.keep(values);
            }
        }
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
            true => Some(precision_recall(&self.kept.concat(), &samples.kept.concat(), self.width, NEIGHBOURS)?),
            false => None,
        };
        Ok(Distance { frechet, precision_recall })
    }
}
