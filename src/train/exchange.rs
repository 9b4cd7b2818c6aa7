//! Ground truth from the rank that has it to all others.

use super::paths::{PoolOptions, Solved};
use crate::dopri5::Dense;
use crate::error::Result;
use crate::ranks::Ranks;
use crate::tensor::Tensor;
use crate::velocity::VelocityField;

/// All batches of a pool. This rank has the batches `own`, by their numbers; `owner` says which rank has a batch.
pub fn exchange<F: VelocityField>(
    field: &F,
    options: &PoolOptions,
    own: Vec<(usize, Solved<F::Tensor>)>,
    owner: impl Fn(usize) -> usize,
    ranks: &Ranks,
) -> Result<Vec<Solved<F::Tensor>>> {
    let mut own = own.into_iter().peekable();
    let mut all = Vec::new();
    for (i, batch) in options.batches().enumerate() {
        all.push(match own.next_if(|(number, _)| *number == i) {
            Some((_, solved)) => {
                if ranks.count() > 1 {
                    send(&solved, owner(i), ranks)?;
                }
                solved
            }
            None => receive(field, batch.len(), options.dense, owner(i), ranks)?,
        });
    }
    Ok(all)
}

fn send<T: Tensor>(solved: &Solved<T>, root: usize, ranks: &Ranks) -> Result<()> {
    ranks.broadcast(root, &mut solved.x1.to_f32()?);
    let Some(path) = &solved.path else { return Ok(()) };
    let mut times: Vec<f64> = path.segments().flat_map(|(start, h, _)| [start, h]).collect();
    ranks.broadcast(root, &mut [times.len() as u64]);
    ranks.broadcast(root, &mut times);
    for coefficient in path.segments().flat_map(|(_, _, coefficients)| coefficients) {
        ranks.broadcast(root, &mut coefficient.to_f32()?);
    }
    Ok(())
}

/// What [`send`] sends, `count` samples.
fn receive<F: VelocityField>(
    field: &F,
    count: usize,
    dense: bool,
    root: usize,
    ranks: &Ranks,
) -> Result<Solved<F::Tensor>> {
    let samples = || {
        let mut values = vec![0.0f32; count * field.elements()];
        ranks.broadcast(root, &mut values);
        field.upload(&values)
    };
    let x1 = samples()?;
    if !dense {
        return Ok(Solved { x1, path: None });
    }
    let mut length = [0u64];
    ranks.broadcast(root, &mut length);
    let mut times = vec![0.0f64; length[0] as usize];
    ranks.broadcast(root, &mut times);
    let (times, _) = times.as_chunks::<2>();
    let mut segments = Vec::with_capacity(times.len());
    for [start, h] in times {
        segments.push((*start, *h, [samples()?, samples()?, samples()?, samples()?, samples()?]));
    }
    Ok(Solved { x1, path: Some(Dense::from_segments(segments)) })
}
