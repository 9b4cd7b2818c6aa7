//! Samples to features.

use crate::card::FeatureCard;
use crate::error::{Error, Result};
use crate::networks::{FeatureNetwork, open_features};
use crate::tensor::Device;
use std::path::Path;

/// An opened feature card, for the samples of one model. Any thread.
pub struct Features {
    card: FeatureCard,
    shape: Vec<usize>,
    data_range: [f64; 2],
    network: Option<Box<dyn FeatureNetwork>>,
}

impl Features {
    /// Opens the card at `path` for samples of `shape` with values in `data_range`.
    ///
    /// # Errors
    /// The card's own; [`Error::Unsupported`] where this build or machine cannot run it.
    pub fn open(path: &Path, device: Device, shape: &[usize], data_range: [f64; 2]) -> Result<Self> {
        let card = FeatureCard::load(path)?;
        let network = open_features(&card, device)?;
        Ok(Self { card, shape: shape.to_vec(), data_range, network })
    }

    /// The card.
    pub fn card(&self) -> &FeatureCard {
        &self.card
    }

    /// Features of `samples`, `[count, elements]`, and how many each has.
    ///
    /// # Errors
    /// The network's own; [`Error::Numeric`] where a feature is not finite.
    pub fn of(&self, samples: &[f32]) -> Result<(Vec<f32>, usize)> {
        let elements: usize = self.shape.iter().product();
        crate::tensor::check_length(samples.len(), elements)?;
        let images = self.card.scaled(samples, self.data_range);
        let (features, width) = match &self.network {
            None => (images, elements),
            Some(network) => network.features(&images, &self.shape)?,
        };
        let count = samples.len() / elements;
        if width == 0 || features.len() != count * width {
            return Err(Error::Numeric(format!(
                "{} gives {} features for {count} samples",
                self.card.path().display(),
                features.len()
            )));
        }
        if features.iter().any(|v| !v.is_finite()) {
            return Err(Error::Numeric(format!("{} gives a NaN or an infinity", self.card.path().display())));
        }
        Ok((features, width))
    }
}
