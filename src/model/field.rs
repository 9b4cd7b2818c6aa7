//! A network and its card as a velocity field: time, output and guidance are translated here.

use super::guidance::{Chain, Stack, of_card};
use super::nulls::{self, NullRow};
use crate::card::{Card, Signature, Sizes, TimeDtype};
use crate::error::{Error, Result};
use crate::inputs::{Column, Inputs, Kept};
use crate::memory;
use crate::networks::{Call, Network};
use crate::tensor::{Dtype, PerRow, PerRowBuf, Tensor};
use crate::velocity::{Condition, GUIDANCE_SCALE, Scale, VelocityField, Vjp};
use num_dual::{Dual64, first_derivative};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The velocity field of a model in solver time: u_tau(x) = end u_{end tau}(x), tau in [0, 1].
pub struct ModelField<T> {
    card: Card,
    signature: Signature,
    chain: Chain,
    nulls: Vec<NullRow>,
    network: Box<dyn Network<Tensor = T>>,
    /// Which field this is, with these sizes, among all of the process.
    identity: u64,
}

/// The next field's identity.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The inputs of one batch, checked against the card: once for all evaluations of a solve.
struct Bound {
    /// Of the field that checked them.
    identity: u64,
    batch: usize,
    elements: usize,
    scales: Vec<Scale>,
    /// Shape of one sample.
    shape: Vec<usize>,
    /// What the network is given, in its order.
    inputs: Inputs,
    /// The same stacked for several passes.
    stacked: Kept,
}

/// The inputs of a stacked batch, and for each of its rows the pass and the sample.
struct Stacked {
    rows: Vec<(usize, usize)>,
    inputs: Inputs,
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
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] for a file of a null.
    pub fn new(card: Card, network: Box<dyn Network<Tensor = T>>) -> Result<Self> {
        let (signature, chain, nulls) = (card.signature(), of_card(&card), nulls::load(&card)?);
        let identity = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { card, signature, chain, nulls, network, identity })
    }

    /// Says what the card's named sizes are in all that follows.
    pub fn set_sizes(&mut self, sizes: &Sizes) {
        self.card = self.card.with_sizes(sizes);
        self.signature = self.card.signature();
        self.identity = NEXT.fetch_add(1, Ordering::Relaxed);
    }

    /// The model's card.
    pub fn card(&self) -> &Card {
        &self.card
    }

    fn coefficients(&self, tau: PerRow<'_>) -> Result<Coefficients> {
        let (scheduler, output, end) = (&self.card.scheduler, self.card.output, self.card.time.end);
        let regular = tau.map(|tau| output.regular_time(scheduler, tau * end) / end)?;
        let tau = regular.get();
        let of = |f: &dyn Fn(Dual64) -> Dual64| -> Result<(PerRowBuf, PerRowBuf)> {
            Ok((tau.map(|tau| first_derivative(f, tau).0)?, tau.map(|tau| first_derivative(f, tau).1)?))
        };
        let (mut time, mut time_dot) = of(&|tau| self.card.time_of_network(tau * end))?;
        if self.card.time.dtype == TimeDtype::Int64 {
            // The field is constant between the times that the network knows.
            (time, time_dot) = (time.get().map(f64::round)?, PerRowBuf::All(0.0));
        }
        let (p, p_dot) = of(&|tau| output.velocity_coefficients(scheduler, tau * end).0 * end)?;
        let (q, q_dot) = of(&|tau| output.velocity_coefficients(scheduler, tau * end).1 * end)?;
        Ok(Coefficients { time, time_dot, p, q, p_dot, q_dot })
    }

    /// Checks a batch of `x` at `tau` against the card, where it has not checked it before.
    fn bind(&self, tau: PerRow<'_>, x: &T, condition: &Condition) -> Result<Arc<Bound>> {
        let (batch, elements) = (x.batch(), x.elements());
        tau.check("t", batch)?;
        let same = |bound: &Bound| {
            (bound.identity, bound.batch, bound.elements) == (self.identity, batch, elements)
                && bound.scales == condition.scales
        };
        condition.inputs.kept().get(same, || self.bound(batch, elements, condition))
    }

    fn bound(&self, batch: usize, elements: usize, condition: &Condition) -> Result<Bound> {
        let (mut columns, mut sizes) = self.signature.bind(batch, &condition.inputs)?;
        match &self.card.guidance.scale_input {
            None => self.chain.check(batch, condition)?,
            Some(name) => {
                let at = self.signature.inputs().iter().position(|input| input.name == *name).unwrap_or_default();
                columns.insert(at, self.scale_column(name, batch, condition)?);
            }
        }
        self.card.shape.learn_elements(elements, &mut sizes)?;
        let copied = |scale: &Scale| Ok(Scale { name: scale.name.clone(), values: memory::copied(&scale.values)? });
        Ok(Bound {
            identity: self.identity,
            batch,
            elements,
            scales: condition.scales.iter().map(copied).collect::<Result<_>>()?,
            shape: self.card.shape.resolve(&sizes)?,
            inputs: Inputs::new(columns)?,
            stacked: Kept::default(),
        })
    }

    /// Names of the scales of guidance, in the order of the passes.
    pub fn scales(&self) -> Vec<String> {
        match &self.card.guidance.scale_input {
            Some(_) => vec![GUIDANCE_SCALE.to_owned()],
            None => self.chain.passes().iter().filter_map(|pass| pass.scale.clone()).collect(),
        }
    }

    /// Whether `condition` has the scales of this model, and no others.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the scale.
    pub fn check_guidance(&self, batch: usize, condition: &Condition) -> Result<()> {
        match &self.card.guidance.scale_input {
            None => self.chain.check(batch, condition),
            Some(name) => self.scale_column(name, batch, condition).map(drop),
        }
    }

    /// The guidance scale as the input `name`.
    fn scale_column(&self, name: &str, batch: usize, condition: &Condition) -> Result<Column> {
        let expected = format!("{batch} finite numbers: the network is given them as its input {name:?}");
        let wrong = |value: String| Error::invalid(GUIDANCE_SCALE, value, expected.clone());
        let dtype = self.signature.get(name).map_or(Dtype::Float32, |input| input.dtype);
        let values = condition.scale(GUIDANCE_SCALE).ok_or_else(|| wrong("absent".into()))?;
        if values.len() != batch || !values.iter().all(|s| s.is_finite()) {
            return Err(wrong(format!("{values:?}")));
        }
        if let Some(scale) = condition.scales.iter().find(|scale| scale.name != GUIDANCE_SCALE) {
            return Err(Error::invalid(&scale.name, "there", "absent: the model's only scale is guidance_scale"));
        }
        let encoded = |s: &f64| {
            let held = || format!("a number that {dtype} holds, the type of the network's input {name:?}");
            dtype.encode(*s).map_err(|_| Error::invalid(GUIDANCE_SCALE, s, held()))
        };
        let bytes = values.iter().map(encoded).collect::<Result<Vec<_>>>()?.concat();
        Column::new(name, dtype, &[], batch, &bytes)
    }

    /// The inputs of the stacked batch: those of the evaluation before, where its passes had the same rows.
    fn stacked_inputs(&self, stack: &Stack, bound: &Bound) -> Result<Arc<Stacked>> {
        let same =
            |stacked: &Stacked| stacked.rows.len() == stack.size() && stacked.rows.iter().copied().eq(stack.rows());
        let make = || {
            let mut rows = memory::room(stack.size())?;
            rows.extend(stack.rows());
            Ok(Stacked { inputs: self.with_nulls(&rows, &bound.inputs)?, rows })
        };
        bound.stacked.get(same, make)
    }

    /// The inputs of `rows`, a pass and a sample each: where the pass goes without an input, the null in its place.
    fn with_nulls(&self, rows: &[(usize, usize)], inputs: &Inputs) -> Result<Inputs> {
        let column = |(column, null): (&Column, &NullRow)| {
            let mut bytes = memory::room(memory::numbers(rows.len(), column.bytes().len() / column.batch().max(1))?)?;
            for (pass, sample) in rows.iter().copied() {
                let given = column.row(sample);
                match self.chain.passes()[pass].without.iter().any(|name| name == column.name()) {
                    true => bytes.extend(null.bytes(column.name(), column.shape(), given)?),
                    false => bytes.extend_from_slice(given),
                }
            }
            Column::new(column.name(), column.dtype(), column.shape(), rows.len(), &bytes)
        };
        Inputs::new(inputs.columns().iter().zip(&self.nulls).map(column).collect::<Result<_>>()?)
    }

    /// The network's output of a stack of passes over `x`.
    fn stacked_call<R>(
        &self,
        stack: &Stack,
        time: &PerRowBuf,
        x: &T,
        bound: &Bound,
        run: impl FnOnce(&Call<'_, T>) -> Result<R>,
    ) -> Result<R> {
        let (time, x) = (stack.numbers(time)?, stack.stacked(x)?);
        let stacked = self.stacked_inputs(stack, bound)?;
        run(&Call { time: time.get(), x: &x, shape: &bound.shape, inputs: &stacked.inputs })
    }
}

impl<T: Tensor> VelocityField for ModelField<T> {
    type Tensor = T;

    /// 0 where the card has a named size that [`ModelField::set_sizes`] has not said.
    fn elements(&self) -> usize {
        self.card.sample_shape().map_or(0, |shape| shape.iter().product())
    }

    fn upload(&self, values: &[f32], elements: usize) -> Result<T> {
        self.network.upload(values, elements)
    }

    fn start(&self, noise: &[f32], elements: usize) -> Result<T> {
        let x0 = self.upload(noise, elements)?;
        match self.card.scheduler.initial_scale() {
            1.0 => Ok(x0),
            scale => T::linear_combination(&[(PerRow::All(scale), &x0)]),
        }
    }

    fn eval(&self, tau: PerRow<'_>, x: &T, condition: &Condition) -> Result<T> {
        let bound = self.bind(tau, x, condition)?;
        let Coefficients { time, p, q, .. } = self.coefficients(tau)?;
        let stack = self.chain.stack(tau, x.batch(), condition)?;
        if stack.is_plain() {
            let call = Call { time: time.get(), x, shape: &bound.shape, inputs: &bound.inputs };
            let output = self.network.forward(&call)?;
            return T::linear_combination(&[(p.get(), x), (q.get(), &output)]);
        }
        let output = self.stacked_call(&stack, &time, x, &bound, |call| self.network.forward(call))?;
        stack.combined(Some((&p, x)), &q, &output)
    }

    fn differentiable(&self) -> bool {
        self.network.differentiable()
    }

    fn vjp(&self, tau: PerRow<'_>, x: &T, condition: &Condition, cotangents: &[T]) -> Result<Vjp<T>> {
        let bound = self.bind(tau, x, condition)?;
        let c = self.coefficients(tau)?;
        let stack = self.chain.stack(tau, x.batch(), condition)?;
        if stack.is_plain() {
            let scaled = |w: &T| T::linear_combination(&[(c.q.get(), w)]);
            let seeds = cotangents.iter().map(scaled).collect::<Result<Vec<_>>>()?;
            let call = Call { time: c.time.get(), x, shape: &bound.shape, inputs: &bound.inputs };
            let (output, through) = self.network.vjp(&call, &seeds)?;
            return assemble(&c, x, &output, cotangents, through);
        }
        let seeds = cotangents.iter().map(|w| stack.seeds(&c.q, w)).collect::<Result<Vec<_>>>()?;
        let (output, through) = self.stacked_call(&stack, &c.time, x, &bound, |call| self.network.vjp(call, &seeds))?;
        let guided = stack.combined(None, &PerRowBuf::All(1.0), &output)?;
        let folded = Vjp {
            x: through.x.iter().map(|part| stack.folded(part)).collect::<Result<Vec<_>>>()?,
            t: through.t.iter().map(|part| stack.folded(part)).collect::<Result<Vec<_>>>()?,
        };
        assemble(&c, x, &guided, cotangents, folded)
    }

    fn passes(&self, t: PerRow<'_>, batch: usize, condition: &Condition) -> Result<usize> {
        self.check_guidance(batch, condition)?;
        Ok(self.chain.rows(t, batch, condition))
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
