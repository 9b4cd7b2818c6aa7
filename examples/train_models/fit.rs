//! The training loops: AdamW on one flat vector of weights, and their moving average.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor, no_grad};

use crate::layers::Layout;

pub struct Settings {
    pub iterations: i64,
    pub learning_rate: f64,
    pub weight_decay: f64,
}

/// What is trained, and the optimiser's moments.
struct State {
    weights: Tensor,
    average: Tensor,
    mean: Tensor,
    square: Tensor,
}

impl State {
    fn new(weights: Tensor) -> Self {
        let weights = weights.set_requires_grad(true);
        let average = weights.detach().copy();
        let (mean, square) = (average.zeros_like(), average.zeros_like());
        Self { weights, average, mean, square }
    }

    /// Iteration `i`, counted from 1: one step down `value`.
    fn step(&mut self, i: i64, value: &Tensor, rate: f64, weight_decay: f64) {
        const BETA1: f64 = 0.9;
        const BETA2: f64 = 0.99;
        const MAX_GRADIENT: f64 = 1.0;
        let gradient = Tensor::run_backward(&[value], &[&self.weights], false, false).remove(0);
        no_grad(|| {
            let gradient = &gradient * (MAX_GRADIENT / (gradient.norm() + 1e-8)).clamp_max(1.0);
            let _ = self.mean.lerp_(&gradient, 1.0 - BETA1);
            let _ = self.square.lerp_(&(&gradient * &gradient), 1.0 - BETA2);
            let mean = &self.mean / (1.0 - BETA1.powf(i as f64));
            let square = &self.square / (1.0 - BETA2.powf(i as f64));
            self.weights *= 1.0 - rate * weight_decay;
            self.weights -= mean / (square.sqrt() + 1e-8) * rate;
            // The average must forget the start within a short run, too.
            let decay = ((1.0 + i as f64) / (10.0 + i as f64)).min(0.999);
            let _ = self.average.lerp_(&self.weights, 1.0 - decay);
        });
    }
}

/// Minimises `loss`, given the split weights, and returns the moving average of the weights.
///
/// The host never waits for the device but to print.
pub fn fit(
    layout: &Layout,
    settings: &Settings,
    device: Device,
    mut loss: impl FnMut(&[Tensor]) -> Tensor,
) -> Result<Tensor> {
    let mut state = State::new(layout.initial(device));
    let report_every = (settings.iterations / 10).max(1);
    let mut recent = Tensor::zeros([], (Kind::Float, device));
    let started = Instant::now();
    for i in 1..=settings.iterations {
        let value = loss(&layout.split(&state.weights));
        let rate = settings.learning_rate * schedule(i, settings.iterations);
        state.step(i, &value, rate, settings.weight_decay);
        no_grad(|| recent += value.detach());
        if i % report_every == 0 {
            let mean_loss = recent.double_value(&[]) / report_every as f64;
            check_loss(mean_loss, i)?;
            println!("  iteration {i:6}  loss {mean_loss:.5}  {:.0} s", started.elapsed().as_secs_f64());
            let _ = recent.zero_();
        }
    }
    Ok(state.average)
}

fn check_loss(loss: f64, iteration: i64) -> Result<()> {
    ensure!(loss.is_finite(), "the loss is {loss} at iteration {iteration}: try a smaller batch or another seed");
    Ok(())
}

/// Warm-up over the first fiftieth, then a cosine to nearly nothing.
fn schedule(iteration: i64, iterations: i64) -> f64 {
    let done = iteration as f64 / iterations as f64;
    let warm = (done * 50.0).min(1.0);
    warm * (0.01 + 0.99 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()))
}

/// A training of an hour or more, which may be stopped at any time and goes on from its checkpoint.
pub struct Long {
    pub settings: Settings,
    pub seed: i64,
    pub checkpoint: PathBuf,
    /// What else decides the numbers, the batch size and the sizes of the network: a checkpoint of others is refused.
    pub choices: Vec<i64>,
}

/// Iterations between two checkpoints, a minute or so.
const CHECKPOINT_EVERY: i64 = 250;
/// Iterations between two looks at what has been learned.
const LOOK_EVERY: i64 = 2000;

impl Long {
    /// As `fit`. Every iteration draws from a seed of its own, so that a run in parts has the numbers of one in a piece.
    /// `look` is shown the moving average from time to time.
    pub fn fit(
        &self,
        layout: &Layout,
        device: Device,
        mut loss: impl FnMut(&[Tensor]) -> Tensor,
        mut look: impl FnMut(i64, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let iterations = self.settings.iterations;
        tch::manual_seed(self.seed);
        let mut state = State::new(layout.initial(device));
        let first = if self.checkpoint.exists() { self.read(&mut state, device)? } else { 0 };
        if first > 0 {
            println!("  goes on from iteration {first}, {}", self.checkpoint.display());
        }
        let (mut recent, mut count) = (Tensor::zeros([], (Kind::Float, device)), 0);
        let started = Instant::now();
        for i in first + 1..=iterations {
            tch::manual_seed(self.seed + (i << 20));
            let value = loss(&layout.split(&state.weights));
            let rate = self.settings.learning_rate * level_schedule(i, iterations);
            state.step(i, &value, rate, self.settings.weight_decay);
            no_grad(|| recent += value.detach());
            count += 1;
            if i % CHECKPOINT_EVERY == 0 || i == iterations {
                let mean_loss = recent.double_value(&[]) / count as f64;
                check_loss(mean_loss, i)?;
                let seconds = started.elapsed().as_secs_f64();
                let left = seconds / (i - first) as f64 * (iterations - i) as f64;
                println!(
                    "  iteration {i:6} of {iterations}  loss {mean_loss:.5}  {seconds:.0} s, about {:.0} min to go",
                    left / 60.0
                );
                let _ = recent.zero_();
                count = 0;
                self.write(&state, i)?;
            }
            if i % LOOK_EVERY == 0 && i < iterations {
                look(i, &state.average)?;
            }
        }
        Ok(state.average)
    }

    fn write(&self, state: &State, iteration: i64) -> Result<()> {
        let describe = || format!("cannot write {}", self.checkpoint.display());
        let choices = [&[iteration, self.settings.iterations, self.seed], self.choices.as_slice()].concat();
        let choices = Tensor::from_slice(&choices);
        let weights = state.weights.detach();
        let tensors = [
            ("choices", &choices),
            ("weights", &weights),
            ("average", &state.average),
            ("mean", &state.mean),
            ("square", &state.square),
        ];
        // A stop amid writing leaves the earlier one.
        let partial = self.checkpoint.with_extension("partial");
        Tensor::write_safetensors(&tensors, &partial).with_context(describe)?;
        std::fs::rename(&partial, &self.checkpoint).with_context(describe)
    }

    /// Reads the state, and answers after which iteration it is.
    fn read(&self, state: &mut State, device: Device) -> Result<i64> {
        let path = &self.checkpoint;
        let tensors = Tensor::read_safetensors(path).with_context(|| format!("cannot read {}", path.display()))?;
        let find = |name: &str| {
            let found = tensors.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor.to_device(device));
            found.with_context(|| format!("{}: no {name}", path.display()))
        };
        let choices = Vec::<i64>::try_from(find("choices")?)?;
        let (iterations, mine) = (self.settings.iterations, [&[self.seed], self.choices.as_slice()].concat());
        let [done, planned, theirs @ ..] = choices.as_slice() else {
            anyhow::bail!("{}: choices are {choices:?}", path.display());
        };
        ensure!(
            *theirs == mine,
            "{}: made with seed, batch and sizes {theirs:?}, not {mine:?}: remove it, or ask for those",
            path.display()
        );
        // Up to where the rate begins to fall, a longer or shorter run has the same numbers.
        ensure!(
            *planned == iterations || *done <= falls_from(*planned).min(falls_from(iterations)),
            "{}: after {done} of {planned} iterations, whose rate falls by now: --iterations {iterations} would be another run",
            path.display()
        );
        let size = state.average.size();
        let load = |name: &str| {
            let tensor = find(name)?;
            ensure!(tensor.size() == size, "{}: {name} is {:?}, not {size:?}", path.display(), tensor.size());
            Ok(tensor)
        };
        state.weights = load("weights")?.set_requires_grad(true);
        (state.average, state.mean, state.square) = (load("average")?, load("mean")?, load("square")?);
        Ok(*done)
    }
}

/// The checkpoint of the model of this name.
pub fn checkpoint(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.safetensors"))
}

/// After which iteration the rate falls.
fn falls_from(iterations: i64) -> i64 {
    iterations - iterations * 3 / 10
}

/// Warm-up over 200 iterations, level, and over the last three tenths down to nearly nothing: until then it does not
/// depend on how many iterations there are.
fn level_schedule(iteration: i64, iterations: i64) -> f64 {
    let warm = (iteration as f64 / 200.0).min(1.0);
    let from = falls_from(iterations);
    let fallen = (iteration - from).max(0) as f64 / (iterations - from).max(1) as f64;
    warm * (1.0 - 0.99 * fallen)
}
