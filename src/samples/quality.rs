//! How far samples are from the ground truth's.

use crate::document;
use serde::{Deserialize, Serialize};

/// Means over samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Root mean square error against the ground truth.
    #[serde(with = "document::any_number")]
    pub rmse: f64,
    /// Peak signal to noise ratio against the ground truth, in dB.
    #[serde(with = "document::any_number")]
    pub psnr: f64,
    /// Distance from the ground truth in a network's features, as the mean of its logarithm, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<f64>,
}

/// Sums of per-sample errors, so that batches can be joined.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    /// Of every sample, in order.
    pub rms: Vec<f64>,
    /// Distances in features of every sample, where they were asked for.
    pub features: Option<Vec<f64>>,
}

impl Errors {
    /// Means over all samples; `range` is the data's greatest minus least value.
    pub fn quality(&self, range: f64) -> Quality {
        let count = self.rms.len() as f64;
        // A perfect sample has no finite PSNR: cap it where f32 arithmetic ends.
        let psnr = |rms: &f64| 20.0 * (range / rms.max(range * 1e-9)).log10();
        let log_mean = |all: &Vec<f64>| (all.iter().copied().map(f64::ln).sum::<f64>() / count).exp();
        Quality {
            rmse: self.rms.iter().sum::<f64>() / count,
            psnr: self.rms.iter().map(psnr).sum::<f64>() / count,
            features: self.features.as_ref().map(log_mean),
        }
    }
}
