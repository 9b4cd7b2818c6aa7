//! Ground truth from the rank that has it to all others.

use super::paths::Solved;
use crate::dopri5::Dense;
use crate::error::Result;
use crate::ranks::Ranks;
use crate::samples::Batch;
use crate::tensor::Tensor;
use crate::velocity::{Evaluations, VelocityField};

/// A `batch` of a pool and what it took, as the rank `root` has it.
pub fn exchange<F: VelocityField>(
    field: &F,
    batch: &Batch,
    dense: bool,
    own: Option<(Solved<F::Tensor>, Evaluations)>,
    root: usize,
    ranks: &Ranks,
) -> Result<(Solved<F::Tensor>, Evaluations)> {
    let mut counts = own.as_ref().map_or([0; 2], |(_, took)| [took.forward, took.backward]);
    ranks.broadcast(root, &mut counts);
    let solved = match own {
        Some((solved, _)) => {
            if ranks.count() > 1 {
                send(&solved, root, ranks)?;
            }
            solved
        }
        None => receive(field, batch, dense, root, ranks)?,
    };
    Ok((solved, Evaluations { forward: counts[0], backward: counts[1] }))
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

/// What [`send`] sends.
fn receive<F: VelocityField>(
    field: &F,
    batch: &Batch,
    dense: bool,
    root: usize,
    ranks: &Ranks,
) -> Result<Solved<F::Tensor>> {
    let samples = || {
        let mut values = vec![0.0f32; batch.len() * batch.elements];
        ranks.broadcast(root, &mut values);
        field.upload(&values, batch.elements)
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
