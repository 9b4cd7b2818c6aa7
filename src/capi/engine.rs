//! A sampler for one dtype, spoken to in tensors of the host.

use super::callback::Velocity;
use super::device::Place;
use super::dlpack::{DLDevice, DLTensor};
use super::layout::{HostTensor, SampleDtype, describe};
use super::lent::Lent;
use super::watched::Watched;
use crate::error::{Error, Result};
use crate::sampler::{Plan, Row, Sampler};
use crate::tensor::{Crew, Host, Remote};
use half::{bf16, f16};
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;

/// What a [`super::bespoke_sampler`] asks, whatever the dtype of its batch. That a batch to begin with is on the
/// engine's device was checked where the engine was chosen (`Inner::engine`).
pub(super) trait Engine: Send {
    /// Whose memory its tensors are in; `None` for the host's own.
    fn device(&self) -> Option<DLDevice>;

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

    /// Says of every sample whether its state is finite: 1 or 0, `batch` of them. Waits for a device.
    fn finite(&mut self, finite: &mut [u8]) -> Result<()>;
}

/// The engine for a dtype of a place, with updates on `threads` threads.
pub(super) fn engine(dtype: SampleDtype, threads: usize, place: Place) -> Result<Box<dyn Engine>> {
    if let Place::Device(device, memory) = place {
        let prototype = Remote::new(memory, dtype.any(), 1);
        return Ok(Box::new(Typed::new(prototype, dtype, threads, Some(device))?));
    }
    Ok(match dtype {
        SampleDtype::F32 => Box::new(Typed::new(Host::<f32>::zeros(0, 1)?, dtype, threads, None)?),
        SampleDtype::F64 => Box::new(Typed::new(Host::<f64>::zeros(0, 1)?, dtype, threads, None)?),
        SampleDtype::F16 => Box::new(Typed::new(Host::<f16>::zeros(0, 1)?, dtype, threads, None)?),
        SampleDtype::BF16 => Box::new(Typed::new(Host::<bf16>::zeros(0, 1)?, dtype, threads, None)?),
    })
}

struct Typed<T: Lent> {
    dtype: SampleDtype,
    /// Whose memory all tensors are in; `None` for the host's own.
    device: Option<DLDevice>,
    sampler: Sampler<T>,
    /// Where a callback writes the velocity, or one that cannot be read in place is gathered.
    velocity: T,
    times: T::Times,
    /// Of the batch, the batch first.
    shape: Vec<i64>,
    /// Whether the host's velocity function leaves the states as they are.
    watched: Watched,
    /// What the last query gave out.
    asked: (DLTensor, DLTensor),
}

// SAFETY: the descriptors point to memory that this very object owns.
unsafe impl<T: Lent> Send for Typed<T> {}

impl<T: Lent> Typed<T> {
    fn new(prototype: T, dtype: SampleDtype, threads: usize, device: Option<DLDevice>) -> Result<Self> {
        let mut sampler = Sampler::new(&prototype)?;
        if threads > 1 {
            let refused = |e| Error::State(format!("the system gives no {threads} threads: {e}"));
            sampler.set_crew(Some(Crew::new(threads).map_err(refused)?));
        }
        let nothing = describe(null_mut(), DLDevice::HOST, dtype, null_mut(), 0);
        Ok(Self {
            dtype,
            device,
            sampler,
            times: prototype.times(),
            velocity: prototype,
            shape: Vec::new(),
            watched: Watched::default(),
            asked: (nothing, nothing),
        })
    }

    /// Errors where one of `tensors` is not where this sampler's memory is.
    fn check_device(&self, tensors: &[&HostTensor<'_>]) -> Result<()> {
        tensors.iter().try_for_each(|tensor| tensor.check_device(self.device))
    }

    /// Errors where one of `tensors` lies in this sampler's own memory, as what `query` gives does: it may go, or change,
    /// before it is read or written.
    fn check_apart(&self, tensors: &[&HostTensor<'_>]) -> Result<()> {
        let own = "the sampler's own memory";
        let apart = |tensor: &&HostTensor<'_>| {
            self.sampler.registers().iter().try_for_each(|register| tensor.check_apart(&register.addresses(), own))
        };
        tensors.iter().try_for_each(apart)
    }

    /// Begins at `stage` with the samples `x`.
    fn begin(&mut self, plan: &Arc<Plan>, stage: usize, x: &HostTensor<'_>) -> Result<()> {
        let dtype = self.dtype;
        self.begin_by(plan, stage, x, |state| state.gather(0..x.batch(), x, dtype))
    }

    /// Begins at `stage` with the samples `x`, which `write` writes.
    fn begin_by(
        &mut self,
        plan: &Arc<Plan>,
        stage: usize,
        x: &HostTensor<'_>,
        write: impl FnOnce(&mut T) -> Result<()>,
    ) -> Result<()> {
        self.sampler.begin(plan, stage, (x.batch(), x.elements()), write)?;
        self.shape.clear();
        self.shape.extend_from_slice(x.shape());
        Ok(())
    }

    /// A tensor of the batch's shape, or of its first `rank` sizes, in this object's memory.
    fn describe(&mut self, data: *mut c_void, dtype: SampleDtype, rank: usize) -> DLTensor {
        describe(data, self.device.unwrap_or(DLDevice::HOST), dtype, self.shape.as_mut_ptr(), rank)
    }

    /// The times and states of the next evaluation, as tensors of this object's memory.
    fn ask(&mut self) -> Result<Option<(DLTensor, DLTensor)>> {
        let Some((times, x)) = self.sampler.query()? else { return Ok(None) };
        // The host is told not to write through it.
        let (times, states) = (T::put_times(&mut self.times, times)?, x.first());
        let rank = self.shape.len();
        Ok(Some((self.describe(times, SampleDtype::F32, 1), self.describe(states, self.dtype, rank))))
    }

    /// Makes room for one velocity of the batch.
    fn hold_velocity(&mut self) -> Result<()> {
        let elements = self.shape[1..].iter().product::<i64>() as usize;
        if self.velocity.elements() != elements {
            self.velocity = self.velocity.beside(0, 0, elements)?;
        }
        self.velocity.resize(self.sampler.batch())
    }

    /// One evaluation by the host's function, and the update with it.
    fn evaluate(&mut self, velocity: &Velocity) -> Result<()> {
        self.hold_velocity()?;
        let Some((t, x)) = self.ask()? else {
            return Err(Error::State("there is no evaluation left".into()));
        };
        let (own, rank) = (self.velocity.first(), self.shape.len());
        let mut u = self.describe(own, self.dtype, rank);
        let numbers = self.velocity.batch() * self.velocity.elements();
        // SAFETY: the states of the batch, which this object owns and nothing but the callback could write.
        let checksum = || unsafe { T::checksum(x.data, numbers) };
        self.watched.run("velocity", checksum, || velocity.call(&t, &x, &mut u))?;
        self.sampler.update(self.velocity.view())
    }

    /// Writes the states where the samples are.
    fn write_state(&mut self, x: &HostTensor<'_>) -> Result<()> {
        let rows = 0..self.batch();
        self.sampler.state()?.scatter(rows, x, self.dtype)
    }

    /// Whether an update can go from `x` and `u` to `next` in one go: where no two overlap but for being the same.
    fn in_place(x: &HostTensor<'_>, u: &HostTensor<'_>, next: &HostTensor<'_>) -> bool {
        let apart = |a: &HostTensor<'_>, b: &HostTensor<'_>| {
            a.same_memory(b) && a.dtype() == b.dtype() || a.check_apart(b.bytes(), "").is_ok()
        };
        T::IN_PLACE && apart(next, x) && apart(next, u)
    }

    /// Errors where a state overflowed although every velocity was finite, as far as that is known.
    fn check_end(&mut self, evaluation: usize) -> Result<()> {
        if self.sampler.state()?.known_finite() { Ok(()) } else { Err(Error::NonFinite { evaluation, t: 1.0 }) }
    }
}

impl<T: Lent> Engine for Typed<T> {
    fn device(&self) -> Option<DLDevice> {
        self.device
    }

    fn step(&mut self, plan: &Arc<Plan>, step: usize, x: &HostTensor<'_>, velocity: &Velocity) -> Result<()> {
        let no_step = || Error::invalid("step", step, format!("0 to {}", plan.steps() - 1));
        let stages = plan.step_stages(step).ok_or_else(no_step)?;
        x.check_writable()?;
        self.check_apart(&[x])?;
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
        self.check_device(&[x1])?;
        x1.check_shape(x0.shape())?;
        x1.check_dtype(self.dtype)?;
        x1.check_writable()?;
        if !x1.same_memory(x0) {
            x1.check_apart(x0.bytes(), "x0")?;
        }
        self.check_apart(&[x0, x1])?;
        self.begin(plan, 0, x0)?;
        for _ in 0..plan.nfe() {
            self.evaluate(velocity)?;
        }
        self.check_end(plan.nfe() - 1)?;
        self.write_state(x1)
    }

    fn start(&mut self, plan: &Arc<Plan>, x0: &HostTensor<'_>) -> Result<()> {
        self.check_apart(&[x0])?;
        self.begin(plan, 0, x0)
    }

    fn query(&mut self) -> Result<Option<(*const DLTensor, *const DLTensor)>> {
        let Some(asked) = self.ask()? else { return Ok(None) };
        self.asked = asked;
        Ok(Some((&self.asked.0, &self.asked.1)))
    }

    fn update(&mut self, u: &HostTensor<'_>) -> Result<()> {
        self.check_device(&[u])?;
        u.check_shape(&self.shape)?;
        self.check_apart(&[u])?;
        if let Some(lent) = T::lend(u, self.dtype)? {
            return self.sampler.update(lent);
        }
        self.hold_velocity()?;
        self.velocity.gather(0..u.batch(), u, self.dtype)?;
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
        self.check_device(&[u, next])?;
        next.check_shape(x.shape())?;
        next.check_dtype(self.dtype)?;
        next.check_writable()?;
        u.check_shape(x.shape())?;
        self.check_apart(&[x, next])?;
        let in_place = Self::in_place(x, u, next);
        if plan.self_contained(k) && in_place {
            self.begin_by(plan, k, x, |state| {
                state.read_at(x);
                Ok(())
            })?;
        } else if plan.self_contained(k) {
            self.begin(plan, k, x)?;
        } else if self.batch() > 0 && self.sampler.stands_at(plan, k) {
            x.check_shape(&self.shape)?;
        } else {
            return Err(Error::State(format!(
                "evaluation {k} builds on the ones before it: give them in order to the same sampler, in one dtype"
            )));
        }
        self.sampler.query()?;
        let holder = if in_place { self.sampler.next_holder(plan, k) } else { None };
        match holder {
            Some(holder) => {
                holder.copy_to(next);
                self.update(u)
            }
            None => {
                self.update(u)?;
                self.write_state(next)
            }
        }
    }

    fn finish(&mut self, x: &HostTensor<'_>) -> Result<()> {
        self.check_device(&[x])?;
        self.check_apart(&[x])?;
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
        self.check_device(&[x0])?;
        self.check_apart(&[x0])?;
        if self.batch() == 0 {
            return self.begin(plan, 0, x0);
        }
        if x0.shape()[1..] != self.shape[1..] {
            let expected = format!("[any, {}", &format!("{:?}", &self.shape[1..])[1..]);
            return Err(Error::invalid("x0.shape", format!("{:?}", x0.shape()), expected));
        }
        x0.check_dtype(self.dtype)?;
        let dtype = self.dtype;
        self.sampler.join(plan, x0.batch(), |state, rows| state.gather(rows, x0, dtype))?;
        self.shape[0] = self.sampler.batch() as i64;
        Ok(())
    }

    fn leave(&mut self, row: usize, x: Option<&HostTensor<'_>>) -> Result<()> {
        let state = self.sampler.holder(row)?;
        if let Some(x) = x {
            self.check_device(&[x])?;
            self.check_apart(&[x])?;
            if x.shape()[0] != 1 || x.shape()[1..] != self.shape[1..] {
                let expected = format!("[1, {}", &format!("{:?}", &self.shape[1..])[1..]);
                return Err(Error::invalid("x.shape", format!("{:?}", x.shape()), expected));
            }
            x.check_dtype(self.dtype)?;
            x.check_writable()?;
            state.scatter(row..row + 1, x, self.dtype)?;
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

    fn finite(&mut self, finite: &mut [u8]) -> Result<()> {
        self.sampler.state()?.finite_rows(finite)
    }
}
