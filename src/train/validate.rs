//! How far a solver's samples are from the ground truth.

use crate::document;
use crate::error::Result;
use crate::ranks::Ranks;
use crate::sampler::{self, Plan};
use crate::tensor::Tensor;
use crate::train::paths::Pool;
use crate::velocity::VelocityField;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// Means over samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Root mean square error against the ground truth.
    #[serde(with = "document::any_number")]
    pub rmse: f64,
    /// Peak signal to noise ratio against the ground truth, in dB.
    #[serde(with = "document::any_number")]
    pub psnr: f64,
}

/// Sums of per-sample errors, so that batches can be joined.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    /// Of every sample, in order.
    pub rms: Vec<f64>,
}

impl Errors {
    /// Means over all samples; `range` is the data's greatest minus least value.
    pub fn quality(&self, range: f64) -> Quality {
        let count = self.rms.len() as f64;
        // A perfect sample has no finite PSNR: cap it where f32 arithmetic ends.
        let psnr = |rms: &f64| 20.0 * (range / rms.max(range * 1e-9)).log10();
        Quality { rmse: self.rms.iter().sum::<f64>() / count, psnr: self.rms.iter().map(psnr).sum::<f64>() / count }
    }
}

/// Errors of the solver `plan` on the samples `rows` of the pool, `chunk` at a time, each rank its share.
///
/// # Errors
/// The field's own, or [`crate::Error::NonFinite`].
pub fn errors<F: VelocityField>(
    plan: &Arc<Plan>,
    field: &F,
    pool: &Pool<F::Tensor>,
    rows: Range<usize>,
    chunk: usize,
    ranks: &Ranks,
) -> Result<Errors> {
    let share = ranks.share(rows.len());
    let own = rows.start + share.start..rows.start + share.end;
    let of_batch = |first: usize| {
        let part = first..(first + chunk).min(own.end);
        let condition = pool.condition(&part.clone().collect::<Vec<_>>())?;
        let x1 = sampler::sample(plan, field, &pool.x0.narrow(part.clone())?, &condition)?;
        x1.rmse(&pool.x1.narrow(part)?)
    };
    let found: Result<Vec<_>> = own.clone().step_by(chunk).map(of_batch).collect();
    Ok(Errors { rms: ranks.gather(rows.len(), found.map(|batches| batches.concat()))? })
}
