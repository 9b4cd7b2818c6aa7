//! A velocity field given as functions of the program that uses this library.

use crate::error::{Error, Result};
use crate::memory;
use crate::networks::{Call, times};
use crate::tensor::{Host, PerRow, Register, Tensor};
use crate::velocity::{Condition, VelocityField, Vjp};

/// Evaluates a batch: reads times `[batch]` and the call's states and inputs, and writes velocities,
/// `[batch, elements]`.
pub type Evaluate<'a> = dyn Fn(&[f32], &Call<'_, Host<f32>>, &mut Host<f32>) -> Result<()> + 'a;

/// Pulls back the cotangents `w`, `[batch, elements]`: writes w^T du/dx, `[batch, elements]`, and
/// w . du/dt, `[batch, 1]`.
pub type PullBack<'a> =
    dyn Fn(&[f32], &Call<'_, Host<f32>>, &Host<f32>, &mut Host<f32>, &mut Host<f32>) -> Result<()> + 'a;

/// A velocity field made of functions.
pub struct CallerField<'a> {
    /// Shape of one sample.
    pub shape: Vec<usize>,
    /// Relative accuracy of a velocity, such as `f32::EPSILON`.
    pub accuracy: f64,
    /// u_t(x).
    pub evaluate: Box<Evaluate<'a>>,
    /// The vector-Jacobian product, where there is one.
    pub pull_back: Option<Box<PullBack<'a>>>,
}

impl VelocityField for CallerField<'_> {
    type Tensor = Host<f32>;

    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn upload(&self, values: &[f32], elements: usize) -> Result<Host<f32>> {
        Host::new(memory::copied(values)?, elements)
    }

    fn eval(&self, time: PerRow<'_>, x: &Host<f32>, condition: &Condition) -> Result<Host<f32>> {
        let mut u = x.zeros_like(x.batch())?;
        let call = Call { time, x, shape: &self.shape, inputs: &condition.inputs };
        (self.evaluate)(&times(time, x.batch())?, &call, &mut u)?;
        Ok(u)
    }

    fn accuracy(&self) -> f64 {
        self.accuracy
    }

    fn differentiable(&self) -> bool {
        self.pull_back.is_some()
    }

    fn vjp(
        &self,
        time: PerRow<'_>,
        x: &Host<f32>,
        condition: &Condition,
        cotangents: &[Host<f32>],
    ) -> Result<Vjp<Host<f32>>> {
        let Some(pull_back) = &self.pull_back else {
            return Err(Error::Unsupported("this velocity field has no vector-Jacobian product".into()));
        };
        let mut vjp = Vjp { x: Vec::new(), t: Vec::new() };
        let times = times(time, x.batch())?;
        let call = Call { time, x, shape: &self.shape, inputs: &condition.inputs };
        for cotangent in cotangents {
            let (mut by_x, mut by_t) = (x.zeros_like(x.batch())?, Host::zeros(x.batch(), 1)?);
            pull_back(&times, &call, cotangent, &mut by_x, &mut by_t)?;
            vjp.x.push(by_x);
            vjp.t.push(by_t);
        }
        Ok(vjp)
    }
}
