//! A velocity field given as functions: the host's own engine.

use crate::error::{Error, Result};
use crate::tensor::{Host, PerRow, Tensor};
use crate::velocity::{Condition, VelocityField, Vjp};

/// Evaluates a batch: times `[batch]`, states `[batch, elements]` and classes, `[batch]` or empty, to
/// velocities, `[batch, elements]`, which are to be written.
pub type Evaluate<'a> = dyn Fn(&[f32], &Host<f32>, &[i64], &mut Host<f32>) -> Result<()> + 'a;

/// Pulls back the cotangents `w`, `[batch, elements]`: writes w^T du/dx, `[batch, elements]`, and
/// w . du/dt, `[batch, 1]`.
pub type PullBack<'a> =
    dyn Fn(&[f32], &Host<f32>, &[i64], &Host<f32>, &mut Host<f32>, &mut Host<f32>) -> Result<()> + 'a;

/// A velocity field made of functions.
pub struct Given<'a> {
    /// Numbers per sample.
    pub elements: usize,
    /// Relative accuracy of a velocity, such as `f32::EPSILON`.
    pub accuracy: f64,
    /// u_t(x).
    pub evaluate: Box<Evaluate<'a>>,
    /// The vector-Jacobian product, where there is one.
    pub pull_back: Option<Box<PullBack<'a>>>,
}

fn times(t: PerRow<'_>, batch: usize) -> Vec<f32> {
    (0..batch).map(|row| t.at(row) as f32).collect()
}

fn check_finite(u: &Host<f32>, t: PerRow<'_>) -> Result<()> {
    if u.is_finite()? {
        return Ok(());
    }
    let mut row = 0;
    while Host::finite_row(u.view(), row)? {
        row += 1;
    }
    let problem = format!("the velocity at t = {} holds a NaN or an infinity", t.at(row));
    Err(Error::Numeric(problem))
}

impl VelocityField for Given<'_> {
    type Tensor = Host<f32>;

    fn elements(&self) -> usize {
        self.elements
    }

    fn upload(&self, values: &[f32]) -> Result<Host<f32>> {
        Host::new(values.to_vec(), self.elements)
    }

    fn start(&self, noise: &[f32]) -> Result<Host<f32>> {
        self.upload(noise)
    }

    fn eval(&self, t: PerRow<'_>, x: &Host<f32>, condition: &Condition) -> Result<Host<f32>> {
        let mut u = x.zeros_like(x.batch())?;
        (self.evaluate)(&times(t, x.batch()), x, &condition.class, &mut u)?;
        check_finite(&u, t)?;
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
        t: PerRow<'_>,
        x: &Host<f32>,
        condition: &Condition,
        cotangents: &[Host<f32>],
    ) -> Result<Vjp<Host<f32>>> {
        let Some(pull_back) = &self.pull_back else {
            return Err(Error::Unsupported("this velocity field has no vector-Jacobian product".into()));
        };
        let mut vjp = Vjp { x: Vec::new(), t: Vec::new() };
        let times = times(t, x.batch());
        for cotangent in cotangents {
            let (mut by_x, mut by_t) = (x.zeros_like(x.batch())?, Host::zeros(x.batch(), 1)?);
            pull_back(&times, x, &condition.class, cotangent, &mut by_x, &mut by_t)?;
            check_finite(&by_x, t)?;
            vjp.x.push(by_x);
            vjp.t.push(by_t);
        }
        Ok(vjp)
    }
}
