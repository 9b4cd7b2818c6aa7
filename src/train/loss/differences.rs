//! Gradients of a step's end for a field that can only be evaluated: tangents by central differences.
//!
//! The end of a step is linear in the last row's scalars, so theirs cost nothing. For every other
//! scalar the tangent (dt_k, dy_k) runs through the later evaluations,
//!
//! ```text
//! du_k = [u(t_k + e dt_k, y_k + e dy_k) - u(t_k - e dt_k, y_k - e dy_k)] / 2e
//! ```
//!
//! with e chosen per sample, relative to the size of the state and to the unit of time. Truncation
//! costs e^2 / 6 of the third derivative and rounding a / e of the velocity, a its relative
//! accuracy; e = (3 a)^(1/3) balances the two and leaves an error of the order a^(2/3): e = .007 and
//! 2e-5 for float32, e = .14 and 1e-2 for a field rounded to float16, e = 9e-6 and 4e-11 for an exact
//! one in float64. Rounding differs from element to element, so that its part all but vanishes in
//! the dot products with the cotangent.

use super::adjoint::{Source, sources};
use crate::error::{Error, Result};
use crate::tableau::Tableau;
use crate::tensor::{PerRow, PerRowBuf, Register, Tensor};
use crate::velocity::{Condition, VelocityField};

/// A step, its states and velocities, for tangents along them.
pub struct SolverStep<'a, F: VelocityField> {
    pub tableau: &'a Tableau<PerRowBuf>,
    pub field: &'a F,
    pub condition: &'a Condition,
    /// (y_k, state) of every stage: the state is the step's start throughout.
    pub states: &'a [(F::Tensor, F::Tensor)],
    pub velocities: &'a [F::Tensor],
}

/// A tangent on its way: of the step's start and of the velocities so far.
struct Tangent<T> {
    start: Option<T>,
    velocities: Vec<Option<T>>,
}

impl<F: VelocityField> SolverStep<'_, F> {
    /// <cotangent, d end / d scalar> per sample, `[batch, 1]` for each scalar in the order of
    /// [`Tableau::scalars`]. The start moves along the path with the first time.
    pub fn pull_back(&self, cotangent: &F::Tensor) -> Result<Vec<F::Tensor>> {
        let sources = sources(self.tableau)?;
        let mut columns = Vec::new();
        for (k, read) in sources.iter().enumerate() {
            columns.push(cotangent.dot(&self.by_time(k, &sources)?)?);
            for source in read {
                let source = source.of(&self.states[k].1, self.velocities);
                columns.push(cotangent.dot(&self.by_coefficient(k, source, &sources)?)?);
            }
        }
        Ok(columns)
    }

    /// d end by t_k; at the start of the step x moves along the path, dx/dt = u_0 (BES Eq. 27).
    fn by_time(&self, k: usize, sources: &[Vec<Source>]) -> Result<F::Tensor> {
        let start = (k == 0).then(|| self.velocities[0].duplicate()).transpose()?;
        let along = self.derivative(k, 1.0, start.as_ref())?;
        let mut tangent = Tangent { start, velocities: (0..self.velocities.len()).map(|_| None).collect() };
        tangent.velocities[k] = Some(along);
        self.run(k, tangent, sources)
    }

    /// d end by a coefficient of the row after evaluation k, whose term is `source`.
    fn by_coefficient(&self, k: usize, source: &F::Tensor, sources: &[Vec<Source>]) -> Result<F::Tensor> {
        if k + 1 == self.velocities.len() {
            return source.duplicate();
        }
        let mut tangent = Tangent { start: None, velocities: (0..self.velocities.len()).map(|_| None).collect() };
        tangent.velocities[k + 1] = Some(self.derivative(k + 1, 0.0, Some(source))?);
        self.run(k + 1, tangent, sources)
    }

    /// Takes a tangent whose velocities are known up to stage `k` to the end.
    fn run(&self, mut k: usize, mut tangent: Tangent<F::Tensor>, sources: &[Vec<Source>]) -> Result<F::Tensor> {
        loop {
            let next = self.combine(k, &sources[k], &tangent)?;
            k += 1;
            if k == self.velocities.len() {
                return Ok(next);
            }
            tangent.velocities[k] = Some(self.derivative(k, 0.0, Some(&next))?);
        }
    }

    /// The next point of stage `k` over the tangent; what it does not name is zero.
    fn combine(&self, k: usize, sources: &[Source], tangent: &Tangent<F::Tensor>) -> Result<F::Tensor> {
        let terms = self.tableau.stages[k].next.terms.iter().zip(sources).filter_map(|((_, c), source)| {
            let tangent = match source {
                Source::State => tangent.start.as_ref(),
                Source::Velocity(j) => tangent.velocities[*j].as_ref(),
            };
            Some((c.get(), tangent?))
        });
        let terms: Vec<_> = terms.collect();
        if terms.is_empty() {
            return self.velocities[0].zeros_like(self.velocities[0].batch());
        }
        F::Tensor::linear_combination(&terms)
    }

    /// The derivative of u at evaluation `k` along (dt, dy).
    fn derivative(&self, k: usize, dt: f64, dy: Option<&F::Tensor>) -> Result<F::Tensor> {
        let (y, t) = (&self.states[k].0, self.tableau.stages[k].t.get());
        let steps = self.steps(y, t, dt, dy)?;
        let at = |sign: f64| {
            let times: Vec<f64> = steps.iter().enumerate().map(|(row, e)| t.at(row) + sign * e * dt).collect();
            let offsets: Vec<f64> = steps.iter().map(|e| sign * e).collect();
            let moved = match dy {
                None => y.duplicate()?,
                Some(dy) => F::Tensor::linear_combination(&[(PerRow::All(1.0), y), (PerRow::Each(&offsets), dy)])?,
            };
            let velocity = self.field.eval(PerRow::Each(&times), &moved, self.condition)?;
            if velocity.is_finite()? { Ok(velocity) } else { Err(Error::NonFinite { evaluation: k, t: t.at(0) }) }
        };
        let (ahead, behind) = (at(1.0)?, at(-1.0)?);
        let weights: Vec<f64> = steps.iter().map(|e| if *e > 0.0 { 0.5 / e } else { 0.0 }).collect();
        let minus: Vec<f64> = weights.iter().map(|w| -w).collect();
        F::Tensor::linear_combination(&[(PerRow::Each(&weights), &ahead), (PerRow::Each(&minus), &behind)])
    }

    /// e of every sample; 0 where it stands at an end of time, which no parameter moves.
    fn steps(&self, y: &F::Tensor, t: PerRow<'_>, dt: f64, dy: Option<&F::Tensor>) -> Result<Vec<f64>> {
        let relative = (3.0 * self.field.accuracy()).cbrt();
        let mut steps: Vec<f64> = match dy {
            None => vec![relative; y.batch()],
            Some(dy) => {
                let squares = [y.dot(y)?, dy.dot(dy)?];
                let columns = F::Tensor::fetch(&[&squares[0], &squares[1]])?;
                let ratio = |(y, dy): (&f64, &f64)| if *dy > 0.0 { relative * (y / dy).sqrt() } else { 0.0 };
                columns[0].iter().zip(&columns[1]).map(ratio).collect()
            }
        };
        if dt != 0.0 {
            for (row, e) in steps.iter_mut().enumerate() {
                let room = t.at(row).min(1.0 - t.at(row)).max(0.0);
                *e = e.min(relative).min(room / dt.abs());
            }
        }
        Ok(steps)
    }
}
