//! The three Gaussian paths x_t = alpha x1 + sigma x0 and what a network learns on each.
//!
//! Written out here rather than taken from the library: this program makes what the library is
//! tried on, and must not share its mistakes.

use std::f64::consts::FRAC_PI_2;

use serde_json::json;
use tch::Tensor;

use crate::export::Reading;

#[derive(Clone, Copy)]
pub enum GaussianPath {
    /// alpha = t, sigma = 1 - t; learns the velocity.
    FmOt,
    /// alpha = sin(pi t / 2), sigma = cos(pi t / 2); learns v = alpha x0 - sigma x1.
    Cosine,
    /// alpha = exp(-T(1 - t) / 2); learns the noise.
    Vp,
}

const BETA_MIN: f64 = 0.1;
const BETA_MAX: f64 = 20.0;

impl GaussianPath {
    /// Where sampling stops. At t = 1 the noise scale of `Vp` has no finite derivative.
    pub fn end(self) -> f64 {
        match self {
            Self::FmOt | Self::Cosine => 1.0,
            Self::Vp => 0.999,
        }
    }

    pub fn alpha_sigma(self, t: &Tensor) -> (Tensor, Tensor) {
        match self {
            Self::FmOt => (t.shallow_clone(), 1.0 - t),
            Self::Cosine => ((t * FRAC_PI_2).sin(), (t * FRAC_PI_2).cos()),
            Self::Vp => {
                let s: Tensor = 1.0 - t;
                let exponent: Tensor = &s * &s * ((BETA_MAX - BETA_MIN) / 2.0) + &s * BETA_MIN;
                // sigma = sqrt(1 - exp(-T)), without the cancellation.
                ((&exponent * -0.5).exp(), (-(-exponent).expm1()).sqrt())
            }
        }
    }

    pub fn target(self, x0: &Tensor, x1: &Tensor, alpha: &Tensor, sigma: &Tensor) -> Tensor {
        match self {
            Self::FmOt => x1 - x0,
            Self::Cosine => alpha * x0 - sigma * x1,
            Self::Vp => x0.shallow_clone(),
        }
    }

    /// dx/dt at time `t` from the network's output there.
    pub fn velocity(self, output: &Tensor, x: &Tensor, t: f64) -> Tensor {
        match self {
            Self::FmOt => output.shallow_clone(),
            // alpha' x1 + sigma' x0 with alpha' = pi/2 sigma and sigma' = -pi/2 alpha.
            Self::Cosine => output * -FRAC_PI_2,
            // The same, with sigma' = -alpha alpha' / sigma, is (alpha' / alpha) (x - eps / sigma).
            Self::Vp => {
                let s = 1.0 - t;
                let log_alpha_rate = (s * (BETA_MAX - BETA_MIN) + BETA_MIN) / 2.0;
                let exponent = s * s * (BETA_MAX - BETA_MIN) / 2.0 + s * BETA_MIN;
                (x - output / (-(-exponent).exp_m1()).sqrt()) * log_alpha_rate
            }
        }
    }

    /// As the model card says it.
    pub fn reading(self) -> Reading {
        let (output, scheduler) = match self {
            Self::FmOt => ("velocity", json!({ "name": "fm-ot" })),
            Self::Cosine => ("v", json!({ "name": "cosine" })),
            Self::Vp => ("epsilon", json!({ "name": "vp", "beta_min": BETA_MIN, "beta_max": BETA_MAX })),
        };
        let time = json!({ "direction": "noise-to-data", "scale": 1.0, "end": self.end() });
        Reading { output, scheduler, time }
    }
}
