//! The noises that arguments ask for.

use bespoke::card::Card;
use bespoke::npy::Samples;
use bespoke::samples::{Conditioning, Noises};
use bespoke::{Error, Result};

/// As `args` say for samples of the model of `card`, `default` of them where no count is given.
pub fn noises(args: &super::NoiseArgs, card: &Card, conditioning: &Conditioning, default: usize) -> Result<Noises> {
    let seeded = Noises::Seed { seed: args.seed, count: args.count.unwrap_or(default) };
    if conditioning.sizes() > 1 {
        if args.noise.is_some() {
            return Err(Error::invalid("noise", "there", "absent: the samples are of several sizes"));
        }
        seeded.validate(0)?;
        return Ok(seeded);
    }
    let shape = card.sample_shape()?;
    let noises = match &args.noise {
        Some(path) => Noises::Given(Samples::open(path, &shape)?.into_vec()?),
        None => seeded,
    };
    noises.validate(shape.iter().product())?;
    Ok(noises)
}

/// Refuses what there is for samples of one size alone.
pub fn one_size(field: &str, conditioning: &Conditioning) -> Result<()> {
    if conditioning.sizes() == 1 {
        return Ok(());
    }
    Err(Error::invalid(field, "there", "absent: the samples are of several sizes"))
}
