//! How far a solver's samples are from the ground truth.

use crate::error::Result;
use crate::ranks::Ranks;
use crate::sampler::{self, Plan};
use crate::samples::{Errors, chunk};
use crate::tensor::Tensor;
use crate::train::paths::Pool;
use crate::velocity::VelocityField;
use std::ops::Range;
use std::sync::Arc;

/// Errors of the solver `plan` on the samples `rows` of the pool, in their order, as many at a time as memory is
/// for, each rank its share.
///
/// # Errors
/// The field's own, or [`crate::Error::NonFinite`].
pub fn errors<F: VelocityField>(
    plan: &Arc<Plan>,
    field: &F,
    pool: &Pool<F::Tensor>,
    rows: Range<usize>,
    ranks: &Ranks,
) -> Result<Errors> {
    let order = pool.by_size(rows.clone().collect());
    let own = &order[ranks.share(order.len())];
    let of_part = |part: &&[usize]| {
        let x1 = sampler::sample(plan, field, &pool.x0(part)?, &pool.condition(part)?)?;
        x1.rmse(&pool.x1(part)?)
    };
    let found: Result<Vec<_>> = pool.parts(own, chunk).iter().map(of_part).collect();
    let found = ranks.gather(order.len(), found.map(|parts| parts.concat()))?;
    let mut rms = vec![0.0; order.len()];
    order.iter().zip(found).for_each(|(row, found)| rms[row - rows.start] = found);
    Ok(Errors { rms })
}
