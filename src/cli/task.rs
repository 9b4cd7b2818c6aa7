//! What `eval` and `report` are asked: a model, some solvers, the noises.

use super::judge::JudgeArgs;
use super::{ModelArgs, NoiseArgs, PathArgs, ToleranceArgs, arrays};
use bespoke::Result;
use bespoke::evaluate::{Comparison, Ready};
use bespoke::model::Model;
use bespoke::ranks::Ranks;
use bespoke::reference::Solver;
use bespoke::samples::Conditioning;
use bespoke::tensor::Device;
use clap::Args;

/// What is compared, and how.
#[derive(Args)]
pub struct TaskArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// A theta file, LADDER[@NFE], NAME@NFE[:GRID] (see bespoke solvers), or gt; of several nfe at once
    /// NAME@N,N,... May be given several times.
    #[arg(long = "solver", value_name = "SOLVER", required = true)]
    solvers: Vec<String>,
    #[command(flatten)]
    pub path: PathArgs,
    #[command(flatten)]
    pub noise: NoiseArgs,
    #[command(flatten)]
    pub tolerance: ToleranceArgs,
    #[command(flatten)]
    pub judge: JudgeArgs,
    /// Show no progress.
    #[arg(long)]
    pub quiet: bool,
}

/// Noises where no count is given.
const DEFAULT_COUNT: usize = 1000;

/// The same, read and opened.
pub struct Task {
    pub model: Model,
    pub device: Device,
    pub conditioning: Conditioning,
    pub comparison: Comparison,
}

impl TaskArgs {
    /// The solvers asked for.
    pub fn solvers(&self) -> Result<Vec<Solver>> {
        let several = self.solvers.iter().map(|text| Solver::parse_several(text)).collect::<Result<Vec<_>>>()?;
        Ok(several.into_iter().flatten().collect())
    }

    /// Opens the model and the noises, and prepares `solvers` for them.
    pub fn open(&self, solvers: &[Solver], ranks: &Ranks) -> Result<Task> {
        let tolerance = self.tolerance.tolerance()?;
        let device = ranks.device(&self.model.device)?;
        let (mut model, conditioning) = self.model.open_on(device, self.noise.seed)?;
        if ranks.is_first() {
            solvers.iter().try_for_each(|solver| self.model.warn_foreign(solver, &model))?;
        }
        let path = self.path.on(model.card().gaussian_path()?)?;
        let ready = |solver: &Solver| Ok((solver.name(), Ready::new(solver, &path, tolerance)?));
        let [low, high] = model.card().data_range;
        let comparison = Comparison {
            solvers: solvers.iter().map(ready).collect::<Result<_>>()?,
            noises: arrays::noises(&self.noise, &mut model, &conditioning, DEFAULT_COUNT)?,
            tolerance,
            range: high - low,
        };
        Ok(Task { model, device, conditioning, comparison })
    }
}
