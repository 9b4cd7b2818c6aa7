//! Samples to features.

use crate::card::FeatureCard;
use crate::error::{Error, Result};
use crate::networks::{Cotangents, FeatureNetwork, open_features};
use crate::tensor::Device;
use std::path::Path;

/// An opened feature card, for the samples of one model. Any thread.
pub struct Features {
    card: FeatureCard,
    shape: Vec<usize>,
    data_range: [f64; 2],
    network: Option<Box<dyn FeatureNetwork>>,
}

/// Layers, of unit length at every place, that are as good as equal.
const SAME: f32 = 1e-5;

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
        let count = self.count(samples)?;
        let images = self.card.scaled(samples, self.data_range);
        let (features, width) = match &self.network {
            None => (images, self.shape.iter().product()),
            Some(network) => network.features(&images, &self.shape)?,
        };
        self.check(&features, width, count)?;
        Ok((features, width))
    }

    /// The network, for a loss.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a card that no loss can be made of.
    fn compared(&self) -> Result<&dyn FeatureNetwork> {
        let path = self.card.path().display();
        let network = self.network.as_deref().ok_or_else(|| {
            let expected = "a card with a network: of the samples' own numbers log-mse is the loss";
            Error::invalid("features", &path, expected)
        })?;
        if self.card.quantize {
            return Err(Error::invalid("features", path, "a card without quantize: rounding has no gradient"));
        }
        Ok(network)
    }

    /// Tries a loss out on two made-up samples, and its gradient where it is `differentiated`.
    ///
    /// # Errors
    /// The network's own; [`Error::Invalid`] for a card that no loss can be made of: without a network, with random
    /// numbers in it, or blind to the difference between the samples.
    pub fn try_loss(&self, differentiated: bool) -> Result<()> {
        let elements: usize = self.shape.iter().product();
        let [low, high] = self.data_range;
        // No two alike, all over the range of the data.
        let number = |i: usize| low + (high - low) * (0.5 + 0.5 * (1.7 * i as f64 + 0.3 * (i / elements) as f64).sin());
        let samples: Vec<f32> = (0..2 * elements).map(|i| number(i) as f32).collect();
        let (layers, width) = self.layers(&samples)?;
        let difference = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        let path = self.card.path().display();
        if difference(&layers, &self.layers(&samples)?.0) > SAME {
            return Err(Error::invalid("features", path, "a network that answers the same for the same samples"));
        }
        if difference(&layers[..width], &layers[width..]) <= SAME {
            let expected = "a network whose layers differ between two samples by more than rounding";
            return Err(Error::invalid("features", path, expected));
        }
        if differentiated {
            self.layers_vjp(&samples, &mut |layers, _| Ok(vec![vec![1.0; layers.len()]]))?;
        }
        Ok(())
    }

    /// The layers of `samples` that a loss compares ([`FeatureNetwork::layers`]), and how many numbers each has.
    ///
    /// # Errors
    /// As [`Features::of`]; [`Error::Invalid`] for a card that no loss can be made of.
    pub fn layers(&self, samples: &[f32]) -> Result<(Vec<f32>, usize)> {
        let count = self.count(samples)?;
        let (layers, width) = self.compared()?.layers(&self.card.scaled(samples, self.data_range), &self.shape)?;
        self.check(&layers, width, count)?;
        Ok((layers, width))
    }

    /// For each of the cotangents of [`Features::layers`] that `cotangents` makes of them, its product with their
    /// Jacobian by the samples.
    ///
    /// # Errors
    /// As [`Features::layers`]; those of `cotangents`.
    pub fn layers_vjp(&self, samples: &[f32], cotangents: Cotangents<'_>) -> Result<Vec<Vec<f32>>> {
        let count = self.count(samples)?;
        let images = self.card.scaled(samples, self.data_range);
        let mut checked = |layers: &[f32], width: usize| {
            self.check(layers, width, count)?;
            cotangents(layers, width)
        };
        let mut products = self.compared()?.layers_vjp(&images, &self.shape, &mut checked)?;
        // The images are the samples brought to the card's range.
        let [low, high] = self.card.range;
        let slope = ((high - low) / (self.data_range[1] - self.data_range[0])) as f32;
        products.iter_mut().flatten().for_each(|value| *value *= slope);
        if products.iter().flatten().any(|v| !v.is_finite()) {
            return Err(Error::Numeric(format!("{} gives a gradient that is not finite", self.card.path().display())));
        }
        Ok(products)
    }

    /// How many samples there are.
    fn count(&self, samples: &[f32]) -> Result<usize> {
        let elements: usize = self.shape.iter().product();
        crate::tensor::check_length(samples.len(), elements)?;
        Ok(samples.len() / elements)
    }

    fn check(&self, features: &[f32], width: usize, count: usize) -> Result<()> {
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
        Ok(())
    }
}
