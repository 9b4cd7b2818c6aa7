//! The noises that arguments ask for.

use bespoke::card::{Card, Sizes};
use bespoke::model::Model;
use bespoke::npy::Samples;
use bespoke::samples::{Conditioning, Noises};
use bespoke::{Error, Result};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// As `args` say for samples of `model`, `default` of them where no count is given. The model learns named sizes of
/// given noise.
pub fn noises(
    args: &super::NoiseArgs,
    model: &mut Model,
    conditioning: &Conditioning,
    default: usize,
) -> Result<Noises> {
    let seeded = Noises::Seed { seed: args.seed, count: args.count.unwrap_or(default) };
    if conditioning.sizes() > 1 {
        let several = || Error::invalid("noise", "there", "absent: the samples are of several sizes");
        match conditioning.sample_sizes(model.card()) {
            Some(sizes) => model.set_sizes(&sizes),
            None if args.noise.is_some() => return Err(several()),
            None => {
                seeded.validate(0)?;
                return Ok(seeded);
            }
        }
    }
    let noises = match &args.noise {
        Some(path) => {
            let (samples, sizes) = samples(path, model.card())?;
            if !sizes.is_empty() {
                model.set_sizes(&sizes);
            }
            Noises::Given(samples.into_vec()?)
        }
        None => seeded,
    };
    noises.validate(model.card().sample_shape()?.iter().product())?;
    Ok(noises)
}

/// The array of samples at `path`, and what it says the named sizes of `card` are, where they are not known.
pub fn samples(path: &Path, card: &Card) -> Result<(Samples<BufReader<File>>, Sizes)> {
    let mut sizes = Sizes::new();
    let samples = Samples::open_as(path, |rows| {
        if card.shape.numbers().is_none() {
            sizes =
                card.sizes_of(rows).map_err(|e| Error::format(path.display().to_string(), "shape", e.to_string()))?;
        }
        card.with_sizes(&sizes).sample_shape()
    })?;
    Ok((samples, sizes))
}

/// Refuses what there is for samples of one size alone.
pub fn one_size(field: &str, conditioning: &Conditioning) -> Result<()> {
    if conditioning.sizes() == 1 {
        return Ok(());
    }
    Err(Error::invalid(field, "there", "absent: the samples are of several sizes"))
}
