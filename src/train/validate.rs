//! How far a solver's samples are from the ground truth.

use super::loss::feature_difference;
use crate::distance::Features;
use crate::error::Result;
use crate::ranks::Ranks;
use crate::sampler::{self, Plan};
use crate::samples::{Errors, chunk};
use crate::tensor::Tensor;
use crate::train::paths::Pool;
use crate::velocity::VelocityField;
use std::sync::Arc;

/// Errors of the solver `plan` on the samples `rows` of the pool, which are [`Pool::by_size`], as many at a time as
/// memory is for, each rank its share; in `features` too, where there are some.
///
/// # Errors
/// The field's and the features' own, or [`crate::Error::NonFinite`].
pub fn errors<F: VelocityField>(
    plan: &Arc<Plan>,
    field: &F,
    pool: &Pool<F::Tensor>,
    rows: &[usize],
    features: Option<&Features>,
    ranks: &Ranks,
) -> Result<Errors> {
    let own = &rows[ranks.share(rows.len())];
    let of_part = |part: &&[usize]| {
        let end = sampler::sample(plan, field, &pool.x0(part)?, &pool.condition(part)?)?;
        let x1 = pool.x1(part)?;
        let seen = match features {
            Some(features) => feature_difference(features, &end, &x1)?.lengths(),
            None => Vec::new(),
        };
        Ok((end.rmse(&x1)?, seen))
    };
    let found: Result<(Vec<_>, Vec<_>)> = pool.parts(own, chunk).iter().map(of_part).collect();
    let (rms, seen) = match found {
        Ok((rms, seen)) => (Ok(rms.concat()), Ok(seen.concat())),
        // What one rank fails at, the first gathering tells all.
        Err(error) => (Err(error), Ok(Vec::new())),
    };
    let rms = ranks.gather(rows.len(), rms)?;
    let features = features.map(|_| ranks.gather(rows.len(), seen)).transpose()?;
    Ok(Errors { rms, features })
}
