//! A network and its card as a velocity field: time, output and guidance are translated here.

use super::guidance::{Chain, Stack};
use crate::card::{Card, Direction, Runtime};
use crate::error::{Error, Result};
use crate::inputs::{CLASS, Column, Inputs};
use crate::networks::{Call, Network};
use crate::number::Number;
use crate::tensor::{PerRow, PerRowBuf, Tensor};
use crate::velocity::{Condition, VelocityField, Vjp};
use num_dual::{Dual64, first_derivative};

/// The velocity field of a model in solver time: u_tau(x) = end u_{end tau}(x), tau in [0, 1].
pub struct ModelField<T> {
    card: Card,
    chain: Chain,
    network: Box<dyn Network<Tensor = T>>,
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

impl<T: Tensor> ModelField<T> {
    /// Joins a network with what its card says of it.
    pub fn new(card: Card, network: Box<dyn Network<Tensor = T>>) -> Self {
        let chain = card.null_class.map_or_else(Chain::default, |_| super::guidance::plain(vec![CLASS.to_owned()]));
        Self { card, chain, network }
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

    fn check(&self, tau: PerRow<'_>, batch: usize, condition: &Condition) -> Result<()> {
        tau.check("t", batch)?;
        self.check_inputs(batch, &condition.inputs)?;
        self.chain.check(batch, condition)
    }

    fn check_inputs(&self, batch: usize, inputs: &Inputs) -> Result<()> {
        if let Some(column) = inputs.columns().iter().find(|column| column.name() != CLASS) {
            return Err(Error::invalid(column.name(), "there", "absent: the model has no such input"));
        }
        if self.card.classes == 0
            && let Some(class) = inputs.get(CLASS).and_then(Column::integers).and_then(<[i64]>::first)
        {
            return Err(Error::invalid(CLASS, class, "none: the model has no classes"));
        }
        if self.card.classes == 0 {
            return Ok(());
        }
        let class = inputs.get(CLASS).and_then(Column::integers).unwrap_or_default();
        if class.len() != batch {
            let expected = format!("{batch}, one a sample");
            return Err(Error::invalid(CLASS, format!("{} classes", class.len()), expected));
        }
        let known = |c: i64| (0..self.card.classes).contains(&c) || Some(c) == self.card.null_class;
        match class.iter().find(|c| !known(**c)) {
            Some(c) => Err(Error::invalid(CLASS, c, format!("0 to {}", self.card.classes - 1))),
            None => Ok(()),
        }
    }

    /// The inputs of the stacked batch, where a pass goes without some the null in their place.
    fn stacked_inputs(&self, stack: &Stack, inputs: &Inputs) -> Result<Inputs> {
        let null = self.card.null_class.unwrap_or_default().to_ne_bytes();
        let column = |column: &Column| {
            let mut rows: Vec<&[u8]> = Vec::new();
            for (pass, own) in stack.passes() {
                let without = self.chain.passes()[pass].without.iter().any(|name| name == column.name());
                rows.extend(own.into_iter().map(|row| if without { &null[..] } else { column.row(row) }));
            }
            column.of_rows(&rows)
        };
        Inputs::new(inputs.columns().iter().map(column).collect::<Result<_>>()?)
    }

    /// The network's output of a stack of passes over `x`.
    fn stacked_call<R>(
        &self,
        stack: &Stack,
        time: &PerRowBuf,
        x: &T,
        inputs: &Inputs,
        run: impl FnOnce(&Call<'_, T>) -> Result<R>,
    ) -> Result<R> {
        let (time, x) = (stack.numbers(time), stack.stacked(x)?);
        run(&Call { time: time.get(), x: &x, shape: &self.card.shape, inputs: &self.stacked_inputs(stack, inputs)? })
    }
}

impl<T: Tensor> VelocityField for ModelField<T> {
    type Tensor = T;

    fn elements(&self) -> usize {
        self.card.elements()
    }

    fn upload(&self, values: &[f32]) -> Result<T> {
        self.network.upload(values, self.elements())
    }

    fn start(&self, noise: &[f32]) -> Result<T> {
        let x0 = self.upload(noise)?;
        match self.card.scheduler.initial_scale() {
            1.0 => Ok(x0),
            scale => T::linear_combination(&[(PerRow::All(scale), &x0)]),
        }
    }

    fn eval(&self, tau: PerRow<'_>, x: &T, condition: &Condition) -> Result<T> {
        let batch = x.batch();
        self.check(tau, batch, condition)?;
        let Coefficients { time, p, q, .. } = self.coefficients(tau);
        let stack = self.chain.stack(tau, batch, condition);
        if stack.is_plain() {
            let call = Call { time: time.get(), x, shape: &self.card.shape, inputs: &condition.inputs };
            let output = self.network.forward(&call)?;
            return T::linear_combination(&[(p.get(), x), (q.get(), &output)]);
        }
        let output = self.stacked_call(&stack, &time, x, &condition.inputs, |call| self.network.forward(call))?;
        stack.combined(Some((&p, x)), &q, &output)
    }

    fn differentiable(&self) -> bool {
        self.network.differentiable()
    }

    fn vjp(&self, tau: PerRow<'_>, x: &T, condition: &Condition, cotangents: &[T]) -> Result<Vjp<T>> {
        let batch = x.batch();
        self.check(tau, batch, condition)?;
        let c = self.coefficients(tau);
        let stack = self.chain.stack(tau, batch, condition);
        if stack.is_plain() {
            let scaled = |w: &T| T::linear_combination(&[(c.q.get(), w)]);
            let seeds = cotangents.iter().map(scaled).collect::<Result<Vec<_>>>()?;
            let call = Call { time: c.time.get(), x, shape: &self.card.shape, inputs: &condition.inputs };
            let (output, through) = self.network.vjp(&call, &seeds)?;
            return assemble(&c, x, &output, cotangents, through);
        }
        let seeds = cotangents.iter().map(|w| stack.seeds(&c.q, w)).collect::<Result<Vec<_>>>()?;
        let (output, through) =
            self.stacked_call(&stack, &c.time, x, &condition.inputs, |call| self.network.vjp(call, &seeds))?;
        let guided = stack.combined(None, &PerRowBuf::All(1.0), &output)?;
        let folded = Vjp {
            x: through.x.iter().map(|part| stack.folded(part)).collect::<Result<Vec<_>>>()?,
            t: through.t.iter().map(|part| stack.folded(part)).collect::<Result<Vec<_>>>()?,
        };
        assemble(&c, x, &guided, cotangents, folded)
    }

    fn passes(&self, condition: &Condition) -> usize {
        self.chain.count(condition)
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
