//! `bespoke sample`

use super::say::note;
use super::{ModelArgs, NoiseArgs, PathArgs, ToleranceArgs, arrays, picture, progress};
use bespoke::evaluate::Ready;
use bespoke::model::FieldTask;
use bespoke::reference::Solver;
use bespoke::samples::chunk;
use bespoke::tensor::Tensor;
use bespoke::velocity::{Condition, VelocityField};
use bespoke::{Error, Result, npy, output};
use std::path::PathBuf;

/// Draw samples with any solver.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  bespoke sample --model models/digits-fm-ot.json --solver theta.json \
    --count 40 --out samples.npy --png samples.png")]
pub struct SampleArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A theta file, LADDER[@NFE], NAME@NFE[:GRID] (see bespoke solvers), or gt.
    #[arg(long, value_name = "SOLVER")]
    solver: String,
    #[command(flatten)]
    path: PathArgs,
    /// Where the samples are written: an .npy array [count, shape...] of float32.
    #[arg(long, value_name = "X.npy")]
    out: PathBuf,
    #[command(flatten)]
    noise: NoiseArgs,
    #[command(flatten)]
    tolerance: ToleranceArgs,
    /// A picture of the first samples: at most 100, or 5000 that are points in the plane.
    #[arg(long, value_name = "GRID.png")]
    png: Option<PathBuf>,
}

/// Samples drawn where no count is given.
const DEFAULT_COUNT: usize = 16;

/// x(1) of a batch of noises.
struct Solve<'a> {
    ready: &'a Ready,
    noise: &'a [f32],
    condition: &'a Condition,
}

impl FieldTask for Solve<'_> {
    type Output = Result<Vec<f32>>;

    fn run<F: VelocityField + Sync>(self, field: &F) -> Result<Vec<f32>> {
        self.ready.solve(field, &field.start(self.noise)?, self.condition)?.0.to_f32()
    }
}

pub fn run(args: SampleArgs) -> Result<()> {
    for path in std::iter::once(&args.out).chain(&args.png) {
        output::check(path)?;
    }
    let solver = Solver::parse(&args.solver)?;
    let tolerance = args.tolerance.tolerance()?;
    let (model, conditioning) = args.model.open(args.noise.seed)?;
    super::warn_foreign(&solver, &model)?;
    let card = model.card();
    let ready = Ready::new(&solver, &args.path.on(card.gaussian_path()?)?, tolerance)?;
    let shape = card.sample_shape()?;
    let noises = arrays::noises(&args.noise, &shape, DEFAULT_COUNT)?;
    let elements: usize = shape.iter().product();
    let count = noises.count(elements);
    let bar = progress::bar(count, "sampling", false);
    let mut pictured = Vec::new();
    let failed = |e| Error::io("write", &args.out, e);
    output::write_with(&args.out, |file| {
        let mut array = npy::begin(file, count, &shape).map_err(failed)?;
        for first in (0..count).step_by(chunk(elements)) {
            let indices = first..(first + chunk(elements)).min(count);
            let noise = noises.read(indices.clone(), elements)?;
            let condition = conditioning.of(indices.clone())?;
            let samples = model.with(Solve { ready: &ready, noise: &noise, condition: &condition })?;
            pictured
                .extend(samples.iter().copied().take((picture::most(card) * elements).saturating_sub(pictured.len())));
            array.extend(samples).map_err(failed)?;
            bar.inc(indices.len() as u64);
        }
        array.finish().map_err(failed)
    })?;
    bar.finish_and_clear();
    if let Some(path) = &args.png {
        picture::grid(card, &pictured)?.save(path)?;
    }
    note!("{count} samples by {} written to {}", solver.name(), args.out.display());
    Ok(())
}
