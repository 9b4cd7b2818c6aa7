//! The noises that arguments ask for.

use bespoke::Result;
use bespoke::npy::Samples;
use bespoke::samples::Noises;

/// As `args` say, `default` of them where no count is given.
pub fn noises(args: &super::NoiseArgs, shape: &[usize], default: usize) -> Result<Noises> {
    let noises = match &args.noise {
        Some(path) => Noises::Given(Samples::open(path, shape)?.into_vec()?),
        None => Noises::Seed { seed: args.seed, count: args.count.unwrap_or(default) },
    };
    noises.validate(shape.iter().product())?;
    Ok(noises)
}
