//! The training loop: AdamW on one flat vector of weights, and their moving average.

use std::time::Instant;

use anyhow::{Result, ensure};
use tch::{Device, Tensor, no_grad};

use crate::layers::Layout;

pub struct Settings {
    pub iterations: i64,
    pub learning_rate: f64,
    pub weight_decay: f64,
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
    const BETA1: f64 = 0.9;
    const BETA2: f64 = 0.99;
    const MAX_GRADIENT: f64 = 1.0;
    let mut weights = layout.initial(device).set_requires_grad(true);
    let mut average = weights.detach().copy();
    let (mut mean, mut square) = (average.zeros_like(), average.zeros_like());

    let report_every = (settings.iterations / 10).max(1);
    let mut recent = Tensor::zeros([], (tch::Kind::Float, device));
    let started = Instant::now();
    for i in 1..=settings.iterations {
        let value = loss(&layout.split(&weights));
        let gradient = Tensor::run_backward(&[&value], &[&weights], false, false).remove(0);
        no_grad(|| {
            let gradient = &gradient * (MAX_GRADIENT / (gradient.norm() + 1e-8)).clamp_max(1.0);
            let _ = mean.lerp_(&gradient, 1.0 - BETA1);
            let _ = square.lerp_(&(&gradient * &gradient), 1.0 - BETA2);
            let mean = &mean / (1.0 - BETA1.powf(i as f64));
            let square = &square / (1.0 - BETA2.powf(i as f64));
            let rate = settings.learning_rate * schedule(i, settings.iterations);
            weights *= 1.0 - rate * settings.weight_decay;
            weights -= mean / (square.sqrt() + 1e-8) * rate;
            // The average must forget the start within a short run, too.
            let decay = ((1.0 + i as f64) / (10.0 + i as f64)).min(0.999);
            let _ = average.lerp_(&weights, 1.0 - decay);
            recent += value.detach();
        });
        if i % report_every == 0 {
            let mean_loss = recent.double_value(&[]) / report_every as f64;
            ensure!(
                mean_loss.is_finite(),
                "the loss is {mean_loss} at iteration {i}: try a smaller batch or another seed"
            );
            println!("  iteration {i:6}  loss {mean_loss:.5}  {:.0} s", started.elapsed().as_secs_f64());
            let _ = recent.zero_();
        }
    }
    Ok(average)
}

/// Warm-up over the first fiftieth, then a cosine to nearly nothing.
fn schedule(iteration: i64, iterations: i64) -> f64 {
    let done = iteration as f64 / iterations as f64;
    let warm = (done * 50.0).min(1.0);
    warm * (0.01 + 0.99 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()))
}
