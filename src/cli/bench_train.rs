//! `bespoke bench train`

use super::ModelArgs;
use super::say::say;
use bespoke::model::FieldTask;
use bespoke::samples::Conditioning;
use bespoke::samples::Noises;
use bespoke::tensor::{PerRow, PerRowBuf, Register, Tensor};
use bespoke::train::{Loss, Optimizer, Progress, Settings, TrainConfig, TrainedFamily, suited_to, train};
use bespoke::velocity::{Condition, VelocityField, Vjp};
use bespoke::{Error, Result};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::time::Instant;

#[derive(clap::Args)]
pub struct TrainArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// rk1, rk2 or ns.
    #[arg(long, default_value = "rk2", value_name = "FAMILY", hide_possible_values = true)]
    family: TrainedFamily,
    /// Evaluations of the solver.
    #[arg(long, default_value_t = 10, value_name = "N")]
    nfe: usize,
    /// rmse-bound, rmse or log-mse.
    #[arg(long, default_value = "log-mse", value_name = "LOSS", hide_possible_values = true)]
    loss: Loss,
    /// adam, gauss-newton or forward-gauss-newton [default: as in training].
    #[arg(long, value_name = "NAME", hide_possible_values = true)]
    optimizer: Option<Optimizer>,
    /// Samples an iteration [default: as in training].
    #[arg(long, value_name = "B")]
    batch: Option<usize>,
    /// Iterations measured.
    #[arg(long, default_value_t = 12, value_name = "I", value_parser = clap::value_parser!(u32).range(1..))]
    iterations: u32,
}

/// What the trainer asked of the network in one call.
#[derive(Clone)]
struct Call {
    t: PerRowBuf,
    condition: Condition,
    batch: usize,
    /// Of a vector-Jacobian product; none for an evaluation.
    cotangents: usize,
}

/// A field that notes what is asked of it.
struct Noting<'a, F> {
    field: &'a F,
    calls: Mutex<Vec<Call>>,
}

impl<F: VelocityField> Noting<'_, F> {
    fn note(&self, t: PerRow<'_>, x: &F::Tensor, condition: &Condition, cotangents: usize) -> Result<()> {
        let call = Call { t: t.map(|t| t)?, condition: condition.clone(), batch: x.batch(), cotangents };
        self.calls.lock().unwrap_or_else(|e| e.into_inner()).push(call);
        Ok(())
    }

    /// The calls since the last time.
    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(|e| e.into_inner()))
    }
}

impl<F: VelocityField> VelocityField for Noting<'_, F> {
    type Tensor = F::Tensor;

    fn elements(&self) -> usize {
        self.field.elements()
    }

    fn upload(&self, values: &[f32], elements: usize) -> Result<F::Tensor> {
        self.field.upload(values, elements)
    }

    fn start(&self, noise: &[f32], elements: usize) -> Result<F::Tensor> {
        self.field.start(noise, elements)
    }

    fn eval(&self, t: PerRow<'_>, x: &F::Tensor, condition: &Condition) -> Result<F::Tensor> {
        self.note(t, x, condition, 0)?;
        self.field.eval(t, x, condition)
    }

    fn accuracy(&self) -> f64 {
        self.field.accuracy()
    }

    fn differentiable(&self) -> bool {
        self.field.differentiable()
    }

    fn vjp(&self, t: PerRow<'_>, x: &F::Tensor, condition: &Condition, w: &[F::Tensor]) -> Result<Vjp<F::Tensor>> {
        self.note(t, x, condition, w.len())?;
        self.field.vjp(t, x, condition, w)
    }

    fn passes(&self, t: PerRow<'_>, batch: usize, condition: &Condition) -> Result<usize> {
        self.field.passes(t, batch, condition)
    }
}

pub fn run(args: TrainArgs) -> Result<()> {
    let (model, conditioning) = args.model.open(0)?;
    super::arrays::one_size("conditions", &conditioning)?;
    let config = TrainConfig {
        family: Some(args.family),
        nfe: vec![args.nfe],
        // A table learned from the start on: no other theta first.
        init: (args.family == TrainedFamily::Ns).then(|| format!("euler@{}", args.nfe)).into_iter().collect(),
        loss: vec![args.loss.into()],
        optimizer: args.optimizer,
        batch: args.batch,
        // One to warm up, one that ends with a validation.
        iterations: vec![args.iterations as usize + 2],
        validate_every: Some(args.iterations as usize + 2),
        validation: Some(50),
        pool: Some(args.batch.unwrap_or(400).saturating_add(100)),
        ..TrainConfig::default()
    };
    let config = suited_to(&config, model.differentiable())?;
    let [low, high] = model.card().data_range;
    let settings = config.settings(high - low, Some(&model.card().gaussian_path()?))?;
    model.with(Measure { conditioning: &conditioning, settings: &settings })
}

struct Measure<'a> {
    conditioning: &'a Conditioning,
    settings: &'a Settings,
}

impl FieldTask for Measure<'_> {
    type Output = Result<()>;

    fn run<F: VelocityField + Sync>(self, field: &F) -> Result<()> {
        measure(field, self.conditioning, self.settings)
    }
}

/// The fastest iteration and the fastest replay count: all else on the machine only slows.
fn measure<F: VelocityField>(field: &F, conditioning: &Conditioning, settings: &Settings) -> Result<()> {
    let noting = Noting { field, calls: Mutex::default() };
    let (mut whole, mut network) = (f64::INFINITY, f64::INFINITY);
    let mut last = Ok(Vec::new());
    let mut begun = Instant::now();
    train(&noting, conditioning, settings, &mut |progress: &Progress| {
        let (seconds, calls) = (begun.elapsed().as_secs_f64(), noting.take());
        // The first one warms up.
        if progress.iteration > 1 && !progress.validated {
            whole = whole.min(seconds);
            last = again(field, &calls).map(|seconds| {
                network = network.min(seconds);
                calls
            });
        }
        begun = Instant::now();
        if last.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    let calls = last?;
    let forward: usize = calls.iter().map(|call| call.batch).sum();
    let backward: usize = calls.iter().map(|call| call.batch * call.cotangents).sum();
    say!(
        "an iteration: {:.3} ms; its {} calls of the network alone ({forward} samples forward, {backward} backward): \
         {:.3} ms; ratio {:.3}, outside the network {:.1} %",
        whole * 1e3,
        calls.len(),
        network * 1e3,
        whole / network,
        100.0 * (1.0 - network / whole).max(0.0)
    )
}

/// Seconds that `calls` take by themselves.
fn again<F: VelocityField>(field: &F, calls: &[Call]) -> Result<f64> {
    let elements = field.elements();
    let most = calls.iter().map(|call| call.batch).max().unwrap_or(0);
    let noise = field.start(&Noises::Seed { seed: 0, count: most }.read(0..most, elements)?, elements)?;
    let mut inputs = Vec::with_capacity(calls.len());
    for call in calls {
        let cotangents = (0..call.cotangents).map(|_| noise.narrow(0..call.batch)).collect::<Result<Vec<_>>>()?;
        inputs.push((noise.narrow(0..call.batch)?, cotangents));
    }
    if !noise.is_finite()? {
        return Err(Error::NonFinite { evaluation: 0, t: 0.0 });
    }
    let begun = Instant::now();
    let mut last = noise;
    for (call, (x, cotangents)) in calls.iter().zip(&inputs) {
        let Call { t, condition, .. } = call;
        last = match cotangents.as_slice() {
            [] => field.eval(t.get(), x, condition)?,
            cotangents => field.vjp(t.get(), x, condition, cotangents)?.x.swap_remove(0),
        };
    }
    // Waits for a device that is behind.
    last.is_finite()?;
    Ok(begun.elapsed().as_secs_f64())
}
