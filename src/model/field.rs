//! A network and its card as a velocity field: time, output and guidance are translated here.

use super::card::{Card, Direction, Runtime};
use crate::error::{Error, Result};
use crate::number::Number;
use crate::tensor::{PerRow, PerRowBuf, Tensor};
use crate::velocity::{Condition, VelocityField, Vjp};
use num_dual::{Dual64, first_derivative};

/// A network as it was trained: its own time, its own output.
pub trait Network: Send + Sync {
    /// Where its samples live.
    type Tensor: Tensor;

    /// Brings `[batch, elements]` values to where the network computes.
    fn upload(&self, values: &[f32]) -> Result<Self::Tensor>;

    /// The output for `x`, `[batch, elements]`; `class` is empty for a model without classes.
    fn forward(&self, time: PerRow<'_>, x: &Self::Tensor, class: &[i64]) -> Result<Self::Tensor>;

    /// Whether it has a `vjp`.
    fn differentiable(&self) -> bool {
        true
    }

    /// The output, and for each cotangent w of it w^T d output / dx and w . d output / d time.
    fn vjp(
        &self,
        time: PerRow<'_>,
        x: &Self::Tensor,
        class: &[i64],
        cotangents: &[Self::Tensor],
    ) -> Result<(Self::Tensor, Vjp<Self::Tensor>)>;
}

/// The velocity field of a model in solver time: u_tau(x) = end u_{end tau}(x), tau in [0, 1].
pub struct ModelField<N> {
    card: Card,
    network: N,
}

/// Per-row scalars of one evaluation, with their derivatives by solver time.
struct Coefficients {
    /// The network's time.
    time: PerRowBuf,
    /// d(network time) / d tau.
    time_dot: PerRowBuf,
    /// u = p x + q output.
    p: PerRowBuf,
    q: PerRowBuf,
    p_dot: PerRowBuf,
    q_dot: PerRowBuf,
}

impl<N: Network> ModelField<N> {
    /// Joins a network with what its card says of it.
    pub fn new(card: Card, network: N) -> Self {
        Self { card, network }
    }

    /// The model's card.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// The network's time at solver time `tau`.
    fn network_time<D: Number>(&self, tau: D) -> D {
        let time = &self.card.time;
        let t = tau * time.end;
        // A mixture knows the scheduler itself; an EDM network knows only its noise level.
        let t = if self.card.runtime == Runtime::Mixture { t } else { self.card.scheduler.conditioning(t) };
        let directed = if time.direction == Direction::DataToNoise { -t + 1.0 } else { t };
        directed * time.scale
    }

    fn coefficients(&self, tau: PerRow<'_>) -> Coefficients {
        let (scheduler, output, end) = (&self.card.scheduler, self.card.output, self.card.time.end);
        let regular = tau.map(|tau| output.regular_time(scheduler, tau * end) / end);
        let tau = regular.get();
        let of = |f: &dyn Fn(Dual64) -> Dual64| {
            (tau.map(|tau| first_derivative(f, tau).0), tau.map(|tau| first_derivative(f, tau).1))
        };
        let (time, time_dot) = of(&|tau| self.network_time(tau));
        let (p, p_dot) = of(&|tau| output.velocity_coefficients(scheduler, tau * end).0 * end);
        let (q, q_dot) = of(&|tau| output.velocity_coefficients(scheduler, tau * end).1 * end);
        Coefficients { time, time_dot, p, q, p_dot, q_dot }
    }

    /// Whether some sample is guided.
    fn guided(&self, condition: &Condition) -> bool {
        condition.guidance_scale.iter().any(|s| *s != 1.0)
    }

    fn check(&self, tau: PerRow<'_>, batch: usize, condition: &Condition) -> Result<()> {
        tau.check("t", batch)?;
        let Condition { class, guidance_scale } = condition;
        if self.card.classes > 0 {
            if class.len() != batch {
                return Err(Error::invalid(
                    "class",
                    format!("{} classes", class.len()),
                    format!("{batch}, one a sample"),
                ));
            }
            let known = |c: i64| (0..self.card.classes).contains(&c) || Some(c) == self.card.null_class;
            if let Some(c) = class.iter().find(|c| !known(**c)) {
                return Err(Error::invalid("class", c, format!("0 to {}", self.card.classes - 1)));
            }
        } else if !class.is_empty() {
            return Err(Error::invalid("class", class[0], "none: the model has no classes"));
        }
        if !guidance_scale.is_empty() && guidance_scale.len() != batch {
            let value = format!("{} numbers", guidance_scale.len());
            return Err(Error::invalid("guidance_scale", value, format!("{batch}, one a sample")));
        }
        if let Some(s) = guidance_scale.iter().find(|s| !s.is_finite()) {
            return Err(Error::invalid("guidance_scale", s, "a finite number"));
        }
        if let Some(s) = guidance_scale.iter().find(|s| **s != 1.0)
            && self.card.null_class.is_none()
        {
            return Err(Error::invalid("guidance_scale", s, "1: the model has no null_class to guide from"));
        }
        Ok(())
    }

    /// Classes of the stacked batch: the asked-for ones, then the null class.
    fn stacked_classes(&self, condition: &Condition) -> Vec<i64> {
        let null = self.card.null_class.unwrap_or_default();
        condition.class.iter().copied().chain(condition.class.iter().map(|_| null)).collect()
    }
}

impl<N: Network> VelocityField for ModelField<N> {
    type Tensor = N::Tensor;

    fn elements(&self) -> usize {
        self.card.elements()
    }

    fn upload(&self, values: &[f32]) -> Result<N::Tensor> {
        self.network.upload(values)
    }

    fn start(&self, noise: &[f32]) -> Result<N::Tensor> {
        let x0 = self.network.upload(noise)?;
        match self.card.scheduler.initial_scale() {
            1.0 => Ok(x0),
            scale => N::Tensor::linear_combination(&[(PerRow::All(scale), &x0)]),
        }
    }

    fn eval(&self, tau: PerRow<'_>, x: &N::Tensor, condition: &Condition) -> Result<N::Tensor> {
        let batch = x.batch();
        self.check(tau, batch, condition)?;
        let Coefficients { time, p, q, .. } = self.coefficients(tau);
        if !self.guided(condition) {
            let output = self.network.forward(time.get(), x, &condition.class)?;
            return N::Tensor::linear_combination(&[(p.get(), x), (q.get(), &output)]);
        }
        // One pass over 2B samples: conditional, then unconditional.
        let stacked = N::Tensor::concatenate(&[x, x])?;
        let output = self.network.forward(time.doubled().get(), &stacked, &self.stacked_classes(condition))?;
        let guidance = PerRow::Each(&condition.guidance_scale);
        let on = product(&q, guidance, |s| s);
        let off = product(&q, guidance, |s| 1.0 - s);
        let (with, without) = (output.narrow(0..batch)?, output.narrow(batch..2 * batch)?);
        N::Tensor::linear_combination(&[(p.get(), x), (on.get(), &with), (off.get(), &without)])
    }

    fn differentiable(&self) -> bool {
        self.network.differentiable()
    }

    fn vjp(
        &self,
        tau: PerRow<'_>,
        x: &N::Tensor,
        condition: &Condition,
        cotangents: &[N::Tensor],
    ) -> Result<Vjp<N::Tensor>> {
        let batch = x.batch();
        self.check(tau, batch, condition)?;
        let c = self.coefficients(tau);
        let scaled = |w: &N::Tensor, by: &PerRowBuf| N::Tensor::linear_combination(&[(by.get(), w)]);
        if !self.guided(condition) {
            let seeds = cotangents.iter().map(|w| scaled(w, &c.q)).collect::<Result<Vec<_>>>()?;
            let (output, through) = self.network.vjp(c.time.get(), x, &condition.class, &seeds)?;
            return assemble(&c, x, &output, cotangents, through);
        }
        let guidance = PerRow::Each(&condition.guidance_scale);
        let (on, off) = (product(&c.q, guidance, |s| s), product(&c.q, guidance, |s| 1.0 - s));
        let stacked = N::Tensor::concatenate(&[x, x])?;
        let seeds = cotangents
            .iter()
            .map(|w| N::Tensor::concatenate(&[&scaled(w, &on)?, &scaled(w, &off)?]))
            .collect::<Result<Vec<_>>>()?;
        let classes = self.stacked_classes(condition);
        let (output, through) = self.network.vjp(c.time.doubled().get(), &stacked, &classes, &seeds)?;
        let (with, without) = (output.narrow(0..batch)?, output.narrow(batch..2 * batch)?);
        let (s, rest) = (guidance.map(|s| s), guidance.map(|s| 1.0 - s));
        let guided = N::Tensor::linear_combination(&[(s.get(), &with), (rest.get(), &without)])?;
        let fold = |stacked: &N::Tensor| {
            let (a, b) = (stacked.narrow(0..batch)?, stacked.narrow(batch..2 * batch)?);
            N::Tensor::linear_combination(&[(PerRow::All(1.0), &a), (PerRow::All(1.0), &b)])
        };
        let folded = Vjp {
            x: through.x.iter().map(fold).collect::<Result<Vec<_>>>()?,
            t: through.t.iter().map(fold).collect::<Result<Vec<_>>>()?,
        };
        assemble(&c, x, &guided, cotangents, folded)
    }

    fn passes(&self, condition: &Condition) -> usize {
        if self.guided(condition) { 2 } else { 1 }
    }
}

/// Row by row, `a` times `f(b)`.
fn product(a: &PerRowBuf, b: PerRow<'_>, f: impl Fn(f64) -> f64) -> PerRowBuf {
    match (a, b) {
        (PerRowBuf::All(a), b) => b.map(|b| a * f(b)),
        (PerRowBuf::Each(a), b) => PerRowBuf::Each(a.iter().enumerate().map(|(i, a)| a * f(b.at(i))).collect()),
    }
}

/// The product rule over u = p x + q output, from `through`, the network's own part for the
/// cotangents q w: x gets p w more, and t gets w . (p' x + q' output), with the inner derivative
/// of the network's time.
fn assemble<T: Tensor>(c: &Coefficients, x: &T, output: &T, cotangents: &[T], through: Vjp<T>) -> Result<Vjp<T>> {
    let explicit = T::linear_combination(&[(c.p_dot.get(), x), (c.q_dot.get(), output)])?;
    let mut vjp = Vjp { x: Vec::with_capacity(cotangents.len()), t: Vec::with_capacity(cotangents.len()) };
    for ((w, x_part), t_part) in cotangents.iter().zip(&through.x).zip(&through.t) {
        vjp.x.push(T::linear_combination(&[(PerRow::All(1.0), x_part), (c.p.get(), w)])?);
        let direct = w.dot(&explicit)?;
        vjp.t.push(T::linear_combination(&[(c.time_dot.get(), t_part), (PerRow::All(1.0), &direct)])?);
    }
    Ok(vjp)
}
