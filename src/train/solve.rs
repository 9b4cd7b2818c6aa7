//! The ground truth of a pool by all ranks, batch by batch: taken from disk, or solved and kept there.

use super::exchange::exchange;
use super::kept::Kept;
use super::paths::{Pool, PoolOptions, solve_batch, starts};
use crate::error::Result;
use crate::ranks::Ranks;
use crate::samples::Conditioning;
use crate::velocity::{Counted, Evaluations, VelocityField};

/// The pool of `options`. Ranks are dealt the batches in turn; each then has the whole pool. The first takes the
/// batches that it has `kept`, and keeps the others as they come. `watch` gets the share of all batches that is
/// solved, from 0 to 1.
///
/// # Errors
/// As [`Pool::solve`], and what is kept has its own.
pub fn solve<F: VelocityField>(
    field: &Counted<'_, F>,
    conditioning: &Conditioning,
    options: &PoolOptions,
    kept: &Kept,
    ranks: &Ranks,
    watch: &mut dyn FnMut(f64),
) -> Result<Pool<F::Tensor>> {
    let batches = options.batches(conditioning, field.elements());
    let starts = starts(field, options, &batches)?;
    let numbers: Vec<usize> = (0..starts.len()).collect();
    let mut all = Vec::with_capacity(starts.len());
    // A round: as many batches as there are ranks. Each is kept before the next one is begun.
    for round in numbers.chunks(ranks.count()) {
        let mut found = round.iter().map(|i| kept.read(field, options, &batches, *i)).collect::<Result<Vec<_>>>()?;
        let there = ranks.of_first(Some(found.iter().map(Option::is_some).collect::<Vec<_>>()))?.unwrap_or_default();
        for (_, took) in found.iter().flatten() {
            field.add(*took);
        }
        for ((i, there), found) in round.iter().zip(&there).zip(&mut found) {
            if !there && ranks.owns(*i) {
                let before = field.evaluations();
                let within = &mut |t: f64| watch((*i as f64 + t) / starts.len() as f64);
                let solved = solve_batch(field, conditioning, options, &batches[*i], &starts[*i], within)?;
                *found = Some((solved, field.evaluations().since(before)));
            }
        }
        for ((i, there), found) in round.iter().zip(there).zip(found) {
            let root = if there { 0 } else { ranks.owner(*i) };
            let (solved, took): (_, Evaluations) = exchange(field, &batches[*i], options.dense, found, root, ranks)?;
            if !there {
                kept.write(options, (&batches[*i], *i), &solved, took)?;
            }
            all.push(solved);
        }
    }
    Pool::assemble(conditioning, options, &batches, &starts, all)
}
