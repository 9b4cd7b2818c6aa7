//! A sampler for one dtype, spoken to in tensors of the host.

use super::callback::Velocity;
use super::dlpack::DLTensor;
use super::layout::{HostTensor, SampleDtype, describe};
use super::watched::Watched;
use crate::error::{Error, Result};
use crate::sampler::{Plan, Row, Sampler};
use crate::tensor::{Crew, Element, Host, HostView, Tensor};
use half::{bf16, f16};
use std::ptr::null_mut;
use std::sync::Arc;

/// What a [`super::bespoke_sampler`] asks, whatever the dtype of its batch.
pub(super) trait Engine: Send {
    /// One step from and to `x`.
    fn step(&mut self, plan: &Arc<Plan>, step: usize, x: &HostTensor<'_>, velocity: &Velocity) -> Result<()>;

    /// The whole solve from `x0` to `x1`.
    fn sample(&mut self, plan: &Arc<Plan>, x0: &HostTensor<'_>, x1: &HostTensor<'_>, velocity: &Velocity)
    -> Result<()>;

    /// Begins a batch with the samples `x0`.
    fn start(&mut self, plan: &Arc<Plan>, x0: &HostTensor<'_>) -> Result<()>;

    /// Times and states of the next evaluation, or `None` when all samples are done.
    fn query(&mut self) -> Result<Option<(*const DLTensor, *const DLTensor)>>;

    /// Takes in the velocity asked for.
    fn update(&mut self, u: &HostTensor<'_>) -> Result<()>;

    /// Evaluation `k`, from its states `x` and velocity `u` to the states of the one after.
    fn advance(
        &mut self,
        plan: &Arc<Plan>,
        k: usize,
        x: &HostTensor<'_>,
        u: &HostTensor<'_>,
        next: &HostTensor<'_>,
    ) -> Result<()>;

    /// Writes x(1) of the whole batch, which must be done.
    fn finish(&mut self, x: &HostTensor<'_>) -> Result<()>;

    /// Appends the samples `x0`.
    fn join(&mut self, plan: &Arc<Plan>, x0: &HostTensor<'_>) -> Result<()>;

    /// Takes sample `row` out, by way of `x` where that is given.
    fn leave(&mut self, row: usize, x: Option<&HostTensor<'_>>) -> Result<()>;

    /// Where sample `row` stands.
    fn row(&self, row: usize) -> Result<Row>;

    /// Number of samples.
    fn batch(&self) -> usize;
}

/// The engine for a dtype, with updates on `threads` threads.
pub(super) fn engine(dtype: SampleDtype, threads: usize) -> Result<Box<dyn Engine>> {
    Ok(match dtype {
        SampleDtype::F32 => Box::new(Typed::<f32>::new(dtype, threads)?),
        SampleDtype::F64 => Box::new(Typed::<f64>::new(dtype, threads)?),
        SampleDtype::F16 => Box::new(Typed::<f16>::new(dtype, threads)?),
        SampleDtype::BF16 => Box::new(Typed::<bf16>::new(dtype, threads)?),
    })
}

struct Typed<E> {
    dtype: SampleDtype,
    sampler: Sampler<Host<E>>,
    /// Where a callback writes the velocity, or one that cannot be read in place is gathered.
    velocity: Host<E>,
    times: Vec<f32>,
    /// Of the batch, the batch first.
    shape: Vec<i64>,
    /// Whether the host's velocity function leaves the states as they are.
    watched: Watched,
    /// What the last query gave out.
    asked: (DLTensor, DLTensor),
}

// SAFETY: the descriptors point to memory that this very object owns.
unsafe impl<E: Send> Send for Typed<E> {}

impl<E: Element> Typed<E> {
    fn new(dtype: SampleDtype, threads: usize) -> Result<Self> {
        let mut sampler = Sampler::new(&Host::zeros(0, 1)?)?;
        if threads > 1 {
            let refused = |e| Error::State(format!("the system gives no {threads} threads: {e}"));
            sampler.set_crew(Some(Crew::new(threads).map_err(refused)?));
        }
        let nothing = describe::<E>(null_mut(), dtype, null_mut(), 0);
        Ok(Self {
            dtype,
            sampler,
            velocity: Host::zeros(0, 1)?,
            times: Vec::new(),
            shape: Vec::new(),
            watched: Watched::default(),
            asked: (nothing, nothing),
        })
    }

    /// Begins at `stage` with the samples `x`.
    fn begin(&mut self, plan: &Arc<Plan>, stage: usize, x: &HostTensor<'_>) -> Result<()> {
        x.gather(self.sampler.begin(plan, stage, x.batch(), x.elements())?, self.dtype);
        self.shape.clear();
        self.shape.extend_from_slice(x.shape());
        Ok(())
    }

    /// The times and states of the next evaluation, as tensors of this object's memory.
    fn ask(&mut self) -> Result<Option<(DLTensor, DLTensor)>> {
        let Some((times, x)) = self.sampler.query()? else { return Ok(None) };
        self.times.clear();
        let bytes = size_of_val(times);
        self.times.try_reserve(times.len()).map_err(|_| Error::Memory { bytes })?;
        self.times.extend(times.iter().map(|t| *t as f32));
        let shape = self.shape.as_mut_ptr();
        let t = describe(self.times.as_mut_ptr(), SampleDtype::F32, shape, 1);
        // The host is told not to write through it.
        let x = describe(x.data().as_ptr().cast_mut(), self.dtype, shape, self.shape.len());
        Ok(Some((t, x)))
    }

    /// Makes room for one velocity of the batch.
    fn hold_velocity(&mut self) -> Result<()> {
        let elements = self.shape[1..].iter().product::<i64>() as usize;
        if self.velocity.elements() != elements {
            self.velocity = Host::zeros(0, elements)?;
        }
        self.velocity.resize(self.sampler.batch())
    }

    /// One evaluation by the host's function, and the update with it.
    fn evaluate(&mut self, velocity: &Velocity) -> Result<()> {
        self.hold_velocity()?;
        let Some((t, x)) = self.ask()? else {
            return Err(Error::State("there is no evaluation left".into()));
        };
        let mut u =
            describe(self.velocity.data_mut().as_mut_ptr(), self.dtype, self.shape.as_mut_ptr(), self.shape.len());
        // SAFETY: the states of the batch, which this object owns and nothing but the callback could write.
        let states = unsafe { std::slice::from_raw_parts(x.data.cast::<E>(), self.velocity.data().len()) };
        self.watched.run("velocity", states, || velocity.call(&t, &x, &mut u))?;
        self.sampler.update(self.velocity.view())
    }

    /// Writes the states where the samples are.
    fn write_state(&mut self, x: &HostTensor<'_>) -> Result<()> {
        x.scatter(self.sampler.state()?.data(), self.dtype);
        Ok(())
    }

    /// Errors where a state overflowed although every velocity was finite.
    fn check_end(&mut self, evaluation: usize) -> Result<()> {
        if self.sampler.state()?.is_finite()? { Ok(()) } else { Err(Error::NonFinite { evaluation, t: 1.0 }) }
    }
}

impl<E: Element> Engine for Typed<E> {
    fn step(&mut self, plan: &Arc<Plan>, step: usize, x: &HostTensor<'_>, velocity: &Velocity) -> Result<()> {
        let no_step = || Error::invalid("step", step, format!("0 to {}", plan.steps() - 1));
        let stages = plan.step_stages(step).ok_or_else(no_step)?;
        x.check_writable()?;
        if plan.self_contained(stages.start) {
            self.begin(plan, stages.start, x)?;
        } else if self.batch() > 0 && self.sampler.stands_at(plan, stages.start) {
            x.check_shape(&self.shape)?;
        } else {
            return Err(Error::State(format!(
                "step {step} of this theta builds on the steps before it: call 0, 1, ... in order with the same \
                 theta, sampler and dtype"
            )));
        }
        for _ in stages {
            self.evaluate(velocity)?;
        }
        self.write_state(x)
    }

    fn sample(
        &mut self,
        plan: &Arc<Plan>,
        x0: &HostTensor<'_>,
        x1: &HostTensor<'_>,
        velocity: &Velocity,
    ) -> Result<()> {
        x1.check_shape(x0.shape())?;
        x1.check_dtype(self.dtype)?;
        x1.check_writable()?;
        if !x1.same_memory(x0) {
            x1.check_apart(x0.bytes(), "x0")?;
        }
        self.begin(plan, 0, x0)?;
        for _ in 0..plan.nfe() {
            self.evaluate(velocity)?;
        }
        self.check_end(plan.nfe() - 1)?;
        self.write_state(x1)
    }

    fn start(&mut self, plan: &Arc<Plan>, x0: &HostTensor<'_>) -> Result<()> {
        self.begin(plan, 0, x0)
    }

    fn query(&mut self) -> Result<Option<(*const DLTensor, *const DLTensor)>> {
        let Some(asked) = self.ask()? else { return Ok(None) };
        self.asked = asked;
        Ok(Some((&self.asked.0, &self.asked.1)))
    }

    fn update(&mut self, u: &HostTensor<'_>) -> Result<()> {
        u.check_shape(&self.shape)?;
        self.sampler.memory().try_for_each(|own| u.check_apart(&own, "the sampler's own memory"))?;
        if let Some(numbers) = u.as_slice(self.dtype) {
            return self.sampler.update(HostView::new(numbers, u.elements())?);
        }
        self.hold_velocity()?;
        u.gather(self.velocity.data_mut(), self.dtype);
        self.sampler.update(self.velocity.view())
    }

    fn advance(
        &mut self,
        plan: &Arc<Plan>,
        k: usize,
        x: &HostTensor<'_>,
        u: &HostTensor<'_>,
        next: &HostTensor<'_>,
    ) -> Result<()> {
        if k >= plan.nfe() {
            return Err(Error::invalid("k", k, format!("0 to {}", plan.nfe() - 1)));
        }
        next.check_shape(x.shape())?;
        next.check_dtype(self.dtype)?;
        next.check_writable()?;
        u.check_shape(x.shape())?;
        if plan.self_contained(k) {
            self.begin(plan, k, x)?;
        } else if self.batch() > 0 && self.sampler.stands_at(plan, k) {
            x.check_shape(&self.shape)?;
        } else {
            return Err(Error::State(format!(
                "evaluation {k} builds on the ones before it: give them in order to the same sampler, in one dtype"
            )));
        }
        self.sampler.query()?;
        self.update(u)?;
        self.write_state(next)
    }

    fn finish(&mut self, x: &HostTensor<'_>) -> Result<()> {
        x.check_shape(&self.shape)?;
        x.check_dtype(self.dtype)?;
        x.check_writable()?;
        for row in 0..self.batch() {
            let Row { stage, nfe, .. } = self.sampler.row(row)?;
            if stage < nfe {
                return Err(Error::State(format!(
                    "sample {row} is at evaluation {stage} of {nfe}: query and update first"
                )));
            }
            if row + 1 == self.batch() {
                self.check_end(nfe - 1)?;
            }
        }
        self.write_state(x)
    }

    fn join(&mut self, plan: &Arc<Plan>, x0: &HostTensor<'_>) -> Result<()> {
        if self.batch() == 0 {
            return self.begin(plan, 0, x0);
        }
        if x0.shape()[1..] != self.shape[1..] {
            let expected = format!("[any, {}", &format!("{:?}", &self.shape[1..])[1..]);
            return Err(Error::invalid("x0.shape", format!("{:?}", x0.shape()), expected));
        }
        x0.check_dtype(self.dtype)?;
        x0.gather(self.sampler.join(plan, x0.batch())?, self.dtype);
        self.shape[0] = self.sampler.batch() as i64;
        Ok(())
    }

    fn leave(&mut self, row: usize, x: Option<&HostTensor<'_>>) -> Result<()> {
        let state = self.sampler.row_state(row)?;
        if let Some(x) = x {
            if x.shape()[0] != 1 || x.shape()[1..] != self.shape[1..] {
                let expected = format!("[1, {}", &format!("{:?}", &self.shape[1..])[1..]);
                return Err(Error::invalid("x.shape", format!("{:?}", x.shape()), expected));
            }
            x.check_dtype(self.dtype)?;
            x.check_writable()?;
            x.scatter(state, self.dtype);
        }
        self.sampler.leave(row)?;
        self.shape[0] = self.sampler.batch() as i64;
        Ok(())
    }

    fn row(&self, row: usize) -> Result<Row> {
        self.sampler.row(row)
    }

    fn batch(&self) -> usize {
        self.sampler.batch()
    }
}
