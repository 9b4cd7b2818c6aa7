//! `bespoke sample`

use super::say::note;
use super::{ModelArgs, NoiseArgs, PathArgs, ToleranceArgs, arrays, picture, progress};
use bespoke::evaluate::Ready;
use bespoke::model::FieldTask;
use bespoke::reference::Solver;
use bespoke::samples::{Batch, Conditioning};
use bespoke::tensor::Tensor;
use bespoke::velocity::{Condition, VelocityField};
use bespoke::{Error, Result, npy, output};
use std::path::{Path, PathBuf};

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
    elements: usize,
    condition: &'a Condition,
}

impl FieldTask for Solve<'_> {
    type Output = Result<Vec<f32>>;

    fn run<F: VelocityField + Sync>(self, field: &F) -> Result<Vec<f32>> {
        self.ready.solve(field, &field.start(self.noise, self.elements)?, self.condition)?.0.to_f32()
    }
}

pub fn run(args: SampleArgs) -> Result<()> {
    for path in std::iter::once(&args.out).chain(&args.png) {
        output::check(path)?;
    }
    let solver = Solver::parse(&args.solver)?;
    let tolerance = args.tolerance.tolerance()?;
    let (mut model, conditioning) = args.model.open(args.noise.seed)?;
    args.model.warn_foreign(&solver, &model)?;
    let ready = Ready::new(&solver, &args.path.on(model.card().gaussian_path()?)?, tolerance)?;
    if output::is_stdout(&args.out) {
        arrays::one_size("out", &conditioning)?;
    }
    let noises = arrays::noises(&args.noise, &mut model, &conditioning, DEFAULT_COUNT)?;
    let card = model.card();
    let usual = card.sample_shape().map_or(0, |shape| shape.iter().product());
    let count = noises.count(usual);
    let batches = conditioning.batches(0..count, usual, usize::MAX);
    let bar = progress::bar(count, "sampling", false);
    let mut pictured = Vec::new();
    let mut written = Vec::new();
    for size in 0..conditioning.sizes() {
        let (card, own) = (conditioning.card(card, size), batches.iter().filter(|batch| batch.size == size));
        let of_size: usize = own.clone().map(Batch::len).sum();
        if of_size == 0 {
            continue;
        }
        let (out, shape) = (file_of(&args.out, &conditioning, size), card.sample_shape()?);
        let failed = |e| Error::io("write", &out, e);
        output::write_with(&out, |file| {
            let mut array = npy::begin(file, of_size, &shape).map_err(failed)?;
            for batch in own {
                let noise = noises.read(batch.samples(), batch.elements)?;
                let condition = conditioning.of(batch.samples())?;
                let solve = Solve { ready: &ready, noise: &noise, elements: batch.elements, condition: &condition };
                let samples = model.with(solve)?;
                if size == batches[0].size {
                    let most = picture::most(&card) * batch.elements;
                    pictured.extend(samples.iter().copied().take(most.saturating_sub(pictured.len())));
                }
                array.extend(samples).map_err(failed)?;
                bar.inc(batch.len() as u64);
            }
            array.finish().map_err(failed)
        })?;
        written.push(out.display().to_string());
    }
    bar.finish_and_clear();
    if let Some(path) = &args.png {
        picture::grid(&conditioning.card(card, batches[0].size), &pictured)?.save(path)?;
    }
    note!("{count} samples by {} written to {}", solver.name(), written.join(", "));
    Ok(())
}

/// Where samples of a size go: an array has one size, so that several are as many files, `NAME-frames-40.npy`.
fn file_of(out: &Path, conditioning: &Conditioning, size: usize) -> PathBuf {
    let Some(conditions) = conditioning.conditions.as_ref().filter(|conditions| conditions.groups() > 1) else {
        return out.to_owned();
    };
    let mut name = out.file_stem().unwrap_or_default().to_owned();
    let plain = |of: &str| of.replace(|c: char| !c.is_alphanumeric(), "_");
    conditions.sizes(size).iter().for_each(|(of, n)| name.push(format!("-{}-{n}", plain(of))));
    if let Some(extension) = out.extension() {
        name.push(".");
        name.push(extension);
    }
    out.with_file_name(name)
}
