//! How far a solver's samples are from the ground truth.

use crate::error::Result;
use crate::ranks::Ranks;
use crate::sampler::{self, Plan};
use crate::samples::Errors;
use crate::tensor::Tensor;
use crate::train::paths::Pool;
use crate::velocity::VelocityField;
use std::ops::Range;
use std::sync::Arc;

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
