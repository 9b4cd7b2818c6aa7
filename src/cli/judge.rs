//! Whose features samples are judged in, and what data they are compared with.

use bespoke::Result;
use bespoke::card::Card;
use bespoke::distance::{Features, SampleSet};
use bespoke::npy::Samples;
use bespoke::ranks::Ranks;
use bespoke::samples::chunk;
use bespoke::tensor::Device;
use clap::Args;
use std::path::{Path, PathBuf};

/// Whose features, and what data.
#[derive(Args)]
pub struct JudgeArgs {
    /// Feature card (JSON) of the network whose features the Fréchet distance is in; the model card's
    /// own where absent.
    #[arg(long, value_name = "CARD")]
    pub features: Option<PathBuf>,
    /// Data to compare the samples with: an .npy array [count, shape...] of f32 or f64 in the model's
    /// data_range, or of bytes, whose 0 to 255 are then that range.
    #[arg(long, value_name = "DATA.npy")]
    pub data: Option<PathBuf>,
}

/// Features, and what is known of the data.
pub struct Judge {
    pub features: Features,
    pub data: Option<SampleSet>,
}

impl JudgeArgs {
    /// The feature card that is asked for, if any is.
    pub fn card(&self, card: &Card) -> Option<PathBuf> {
        self.features.clone().or_else(|| card.features_path())
    }

    /// Opens the network and reads the data.
    pub fn open(&self, features: &Path, card: &Card, device: Device, ranks: &Ranks) -> Result<Judge> {
        let shape = card.sample_shape()?;
        let features = Features::open(features, device, &shape, card.data_range)?;
        // The first rank alone compares.
        let data = match self.data.as_ref().filter(|_| ranks.is_first()) {
            None => None,
            Some(path) => {
                let mut set = SampleSet::default();
                let size = chunk(shape.iter().product());
                Samples::open(path, &shape)?.for_each(card.data_range, size, |part| set.add(&features, part))?;
                Some(set)
            }
        };
        Ok(Judge { features, data })
    }
}
