//! A table and a velocity to the next state: the only hot loop of serving.
//!
//! The samples of a batch may stand at different stages of different solvers: each row has its
//! own cursor, and neighbours at the same stage are advanced together.

use crate::error::{Error, Result};
use crate::path::GaussianPath;
use crate::scheduler::Output;
use crate::tableau::{Combination, Keep, Operand, Place, Tableau};
use crate::tensor::{self, Crew, PerRow, Register, Tensor, Update};
use crate::velocity::{Condition, VelocityField};
use std::ops::Range;
use std::sync::Arc;

/// Buffer of the state.
const STATE: usize = 0;
/// Buffer of the point, where that is not the state itself.
const POINT: usize = 1;
/// The first buffer of what is kept.
const FIRST_KEPT: usize = 2;

/// A table laid out for execution: which buffers each stage reads and writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    stages: Vec<PlannedStage>,
    kept: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct PlannedStage {
    t: f64,
    updates: Vec<Update>,
    /// Where the next point is.
    point: usize,
    /// Whether it needs nothing but the state it starts from: no point, nothing kept.
    self_contained: bool,
    ends_step: bool,
}

impl Plan {
    /// Lays out `tableau`. What no later stage reads is not kept.
    pub fn new(tableau: Tableau<f64>) -> Self {
        Self::lay_out(tableau, |_| (0.0, 1.0))
    }

    /// As [`Plan::new`], for a sampler that takes a model's `output` as it is where it else takes the
    /// velocity: u = p x + q output becomes part of the same update. Its times are those at which
    /// the output determines the velocity.
    pub fn of_outputs(mut tableau: Tableau<f64>, path: &GaussianPath, output: Output) -> Self {
        tableau.stages.iter_mut().for_each(|stage| stage.t = path.regular_time(output, stage.t));
        Self::lay_out(tableau, |t| path.velocity_coefficients(output, t))
    }

    /// `coefficients` of a time: (p, q) of the velocity p y + q o that what comes in, o, stands for.
    fn lay_out(tableau: Tableau<f64>, coefficients: impl Fn(f64) -> (f64, f64)) -> Self {
        let last_reads = last_reads(&tableau);
        let mut kept = Kept::default();
        // The last stage that reads something from before the present one.
        let mut reach = 0;
        let mut evaluated = STATE;
        let mut stages = Vec::with_capacity(tableau.nfe());
        // Stages go as they come, so that table and plan are never both there in full.
        for (k, stage) in tableau.stages.into_iter().enumerate() {
            let self_contained = evaluated == STATE && reach < k.max(1);
            let (p, q) = coefficients(stage.t);
            let intake = Intake { point: evaluated, p, q, kept: &kept };
            let point = match stage.place {
                Place::State => STATE,
                Place::Point => POINT,
            };
            let next = Update { out: point, terms: intake.terms(&stage.next) };
            let keep = match stage.keep {
                _ if last_reads[k] == k => None,
                Keep::Nothing => None,
                Keep::Velocity(slot) => Some((slot, intake.terms(&Combination::of(Operand::Velocity)))),
                Keep::Combination(slot, what) => Some((slot, intake.terms(&what))),
            };
            let keep = keep.map(|(slot, terms)| Update { out: kept.assign(slot, k, &last_reads), terms });
            let mut updates = Vec::with_capacity(1 + usize::from(keep.is_some()));
            updates.push(next);
            updates.extend(keep);
            reach = reach.max(last_reads[k]);
            stages.push(PlannedStage { t: stage.t, updates, point, self_contained, ends_step: stage.ends_step });
            evaluated = point;
        }
        Plan { stages, kept: kept.owners.len() }
    }

    /// Number of evaluations.
    pub fn nfe(&self) -> usize {
        self.stages.len()
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.stages.iter().filter(|stage| stage.ends_step).count()
    }

    /// The evaluations of step `step`, or `None` where there is no such step.
    pub fn step_stages(&self, step: usize) -> Option<Range<usize>> {
        let mut ends = self.stages.iter().enumerate().filter(|(_, stage)| stage.ends_step).map(|(k, _)| k + 1);
        let start = if step == 0 { 0 } else { ends.nth(step - 1)? };
        Some(start..ends.next()?)
    }

    /// Solver time of evaluation `k` and whether it ends a step, or `None` where there is no such evaluation.
    pub fn evaluation(&self, k: usize) -> Option<(f64, bool)> {
        self.stages.get(k).map(|stage| (stage.t, stage.ends_step))
    }

    /// Registers that are kept from one evaluation to later ones, beside the state and the point.
    pub fn kept_registers(&self) -> usize {
        self.kept
    }

    /// What every evaluation does to the buffers.
    pub fn updates(&self) -> impl Iterator<Item = &[Update]> {
        self.stages.iter().map(|stage| stage.updates.as_slice())
    }

    /// Batches that the updates of a whole solve read and write: its memory traffic in units of one batch.
    pub fn streams(&self) -> usize {
        let streams = self.updates().map(|updates| {
            let mut read: Vec<tensor::Operand> =
                updates.iter().flat_map(|update| update.terms.iter().map(|term| term.0)).collect();
            read.sort_unstable_by_key(|operand| match operand {
                tensor::Operand::Velocity => usize::MAX,
                tensor::Operand::Buffer(i) => *i,
            });
            read.dedup();
            read.len() + updates.len()
        });
        streams.sum()
    }

    /// Batches that a solve touches: its buffers and the velocity that comes in.
    pub fn working_set(&self) -> usize {
        let mut buffers: Vec<usize> = self
            .updates()
            .flatten()
            .flat_map(|update| {
                let read = update.terms.iter().filter_map(|(operand, _)| match operand {
                    tensor::Operand::Buffer(i) => Some(*i),
                    tensor::Operand::Velocity => None,
                });
                read.chain([update.out])
            })
            .collect();
        buffers.sort_unstable();
        buffers.dedup();
        buffers.len() + 1
    }

    /// Memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let terms = |update: &Update| update.terms.capacity() * size_of::<(tensor::Operand, f64)>();
        let stage = |stage: &PlannedStage| {
            let updates = stage.updates.capacity() * size_of::<Update>();
            size_of::<PlannedStage>() + updates + stage.updates.iter().map(terms).sum::<usize>()
        };
        size_of::<Self>() + self.stages.iter().map(stage).sum::<usize>()
    }

    /// Whether `stage` needs nothing but the state it starts from, so that a solve may begin there:
    /// the first of any solver, the first of every step of a one-step method, and of a multistep
    /// method those whose step is of first order.
    pub fn self_contained(&self, stage: usize) -> bool {
        self.stages.get(stage).is_some_and(|stage| stage.self_contained)
    }
}

/// For each stage, the last one that reads what it keeps; itself where none does.
fn last_reads(tableau: &Tableau<f64>) -> Vec<usize> {
    let mut last: Vec<usize> = (0..tableau.nfe()).collect();
    // Who wrote each register last.
    let mut writers: Vec<Option<usize>> = Vec::new();
    for (k, stage) in tableau.stages.iter().enumerate() {
        let kept = if let Keep::Combination(_, what) = &stage.keep { what.terms.as_slice() } else { &[] };
        for (operand, _) in stage.next.terms.iter().chain(kept).filter(|(_, c)| *c != 0.0) {
            if let Operand::Kept(slot) = operand
                && let Some(Some(writer)) = writers.get(*slot)
            {
                last[*writer] = k;
            }
        }
        if let Some(slot) = stage.keep.slot() {
            writers.resize(writers.len().max(slot + 1), None);
            writers[slot] = Some(k);
        }
    }
    last
}

/// The buffers of kept registers: each register has one from where it is written to where it is read last.
#[derive(Default)]
struct Kept {
    /// Of each buffer, the stage whose keep it holds.
    owners: Vec<Option<usize>>,
    /// Of each register, its buffer.
    of_slot: Vec<Option<usize>>,
}

impl Kept {
    fn get(&self, slot: usize) -> Option<usize> {
        self.of_slot.get(slot).copied().flatten()
    }

    /// A buffer for what stage `k` keeps in `slot`. What that stage is the last to read may be overwritten
    /// by it: all reads come first.
    fn assign(&mut self, slot: usize, k: usize, last_reads: &[usize]) -> usize {
        let free = |owner: &Option<usize>| owner.is_none_or(|owner| last_reads[owner] <= k);
        let index = self.owners.iter().position(free).unwrap_or_else(|| {
            self.owners.push(None);
            self.owners.len() - 1
        });
        self.owners[index] = Some(k);
        self.of_slot.resize(self.of_slot.len().max(slot + 1), None);
        self.of_slot[slot] = Some(FIRST_KEPT + index);
        FIRST_KEPT + index
    }
}

/// What an evaluation takes in, o, as the velocity p y + q o; y lies in buffer `point`.
struct Intake<'a> {
    point: usize,
    p: f64,
    q: f64,
    kept: &'a Kept,
}

impl Intake<'_> {
    /// `combination` over buffers and what comes in: every operand once, none that adds nothing.
    fn terms(&self, combination: &Combination<f64>) -> Vec<(tensor::Operand, f64)> {
        let mut terms: Vec<(tensor::Operand, f64)> =
            Vec::with_capacity(combination.terms.len() + usize::from(self.p != 0.0));
        // The point may be the state, and is part of the velocity.
        let add = |terms: &mut Vec<(tensor::Operand, f64)>, buffer: usize, c: f64| {
            let operand = tensor::Operand::Buffer(buffer);
            match terms.iter_mut().find(|term| term.0 == operand) {
                Some(term) => term.1 += c,
                None => terms.push((operand, c)),
            }
        };
        for (operand, c) in combination.terms.iter().filter(|(_, c)| *c != 0.0) {
            match operand {
                Operand::State => add(&mut terms, STATE, *c),
                Operand::Point => add(&mut terms, self.point, *c),
                Operand::Velocity => {
                    if self.p != 0.0 {
                        add(&mut terms, self.point, c * self.p);
                    }
                    terms.push((tensor::Operand::Velocity, c * self.q));
                }
                Operand::Kept(slot) => {
                    terms.extend(self.kept.get(*slot).map(|buffer| (tensor::Operand::Buffer(buffer), *c)));
                }
            }
        }
        if terms.is_empty() {
            terms.push((tensor::Operand::Buffer(STATE), 0.0));
        }
        terms
    }
}

/// Where one sample stands in its solver.
#[derive(Clone, Debug)]
struct Cursor {
    plan: Arc<Plan>,
    stage: usize,
    /// Whether the velocity at `stage` was not finite: the sample goes no further.
    failed: bool,
}

impl Cursor {
    fn new(plan: &Arc<Plan>, stage: usize) -> Self {
        Self { plan: plan.clone(), stage, failed: false }
    }

    fn point(&self) -> usize {
        if self.stage == 0 { STATE } else { self.plan.stages[self.stage - 1].point }
    }

    fn done(&self) -> bool {
        self.stage == self.plan.nfe()
    }

    fn stands_at(&self, plan: &Arc<Plan>, stage: usize) -> bool {
        self.stage == stage && !self.failed && Arc::ptr_eq(&self.plan, plan)
    }
}

/// The states of one batch on its way through a solver. One thread at a time.
///
/// [`Sampler::query`] says where to evaluate the velocity, [`Sampler::update`] takes it in.
/// After the first batch of a shape, neither allocates.
pub struct Sampler<T> {
    buffers: Vec<T>,
    cursors: Vec<Cursor>,
    times: Vec<f64>,
    /// Whether the samples are those of the last query, so that its velocity may come in.
    asked: bool,
    /// Whether the last start or launch failed, so that there is no solve.
    failed: bool,
    /// Threads that share an update, where there is more than one.
    crew: Option<Crew>,
}

/// Where one sample stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Evaluations done.
    pub stage: usize,
    /// Evaluations of its solver.
    pub nfe: usize,
    /// Whether its last velocity was not finite.
    pub failed: bool,
}

impl<T: Register> Sampler<T> {
    /// Scratch like `prototype` in elements, dtype and device; samples come with [`Sampler::start`].
    ///
    /// # Errors
    /// The register's own, where memory cannot be had.
    pub fn new(prototype: &T) -> Result<Self> {
        Ok(Self {
            buffers: vec![prototype.beside(1, 0, prototype.elements())?],
            cursors: Vec::new(),
            times: Vec::new(),
            asked: false,
            failed: false,
            crew: None,
        })
    }

    /// Shares updates among `crew`; without it they run on the caller's thread.
    pub fn set_crew(&mut self, crew: Option<Crew>) {
        self.crew = crew;
    }

    /// Begins a solve of the whole batch `x0`, `[batch, elements]`.
    ///
    /// # Errors
    /// The register's own.
    pub fn start(&mut self, plan: &Arc<Plan>, x0: &T) -> Result<()> {
        self.begin(plan, 0, (x0.batch(), x0.elements()), |state| {
            state.copy_rows(x0.view(), 0..x0.batch())?;
            T::launch(std::slice::from_ref(state))
        })
    }

    /// Begins a solve of `shape`, batch and elements, at `stage`; `write` writes all its states.
    ///
    /// # Errors
    /// [`Error::Memory`]; [`Error::State`] where `stage` needs what an earlier one computed; those of `write`.
    pub fn begin(
        &mut self,
        plan: &Arc<Plan>,
        stage: usize,
        (batch, elements): (usize, usize),
        write: impl FnOnce(&mut T) -> Result<()>,
    ) -> Result<()> {
        if !plan.self_contained(stage) {
            return Err(Error::State(format!("evaluation {stage} builds on earlier ones: begin with evaluation 0")));
        }
        // Until the new solve stands, there is none.
        self.failed = true;
        self.cursors.clear();
        if self.buffers[STATE].elements() != elements {
            let state = self.buffers[STATE].beside(1, 0, elements)?;
            self.buffers.clear();
            self.buffers.push(state);
        }
        if batch > self.buffers[STATE].batch() {
            // What earlier samples left need not be copied into more room.
            self.buffers.iter_mut().try_for_each(|buffer| buffer.resize(0))?;
        }
        self.hold(plan, batch)?;
        self.cursors.resize(batch, Cursor::new(plan, stage));
        self.times.resize(batch, 0.0);
        self.asked = false;
        let written = write(&mut self.buffers[STATE]);
        if written.is_err() {
            self.cursors.clear();
        }
        self.failed = written.is_err();
        written
    }

    /// Appends `count` samples at the start of `plan`; `write` writes their states, the rows that it is told.
    ///
    /// # Errors
    /// [`Error::Memory`], and those of `write`: the batch is then as before. [`Error::State`] after a failed launch.
    pub fn join(
        &mut self,
        plan: &Arc<Plan>,
        count: usize,
        write: impl FnOnce(&mut T, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        self.check_there()?;
        let (before, buffers) = (self.batch(), self.buffers.len());
        let rows = before..before + count;
        let joined = self.hold(plan, rows.end).and_then(|()| write(&mut self.buffers[STATE], rows.clone()));
        if let Err(error) = joined {
            self.buffers.truncate(buffers);
            self.buffers.iter_mut().try_for_each(|buffer| buffer.resize(before))?;
            return Err(error);
        }
        self.failed = false;
        self.cursors.resize(rows.end, Cursor::new(plan, 0));
        self.times.resize(rows.end, 0.0);
        self.asked = false;
        Ok(())
    }

    /// Takes sample `row` out; the last sample takes its place.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is no such sample.
    pub fn leave(&mut self, row: usize) -> Result<()> {
        let last = self.batch().checked_sub(1).filter(|last| row <= *last).ok_or_else(|| no_row(row, self.batch()))?;
        let moved = self.buffers.iter_mut().try_for_each(|buffer| buffer.move_row(last, row));
        let moved = moved.and_then(|()| T::launch(&self.buffers));
        // What of it was done is not known.
        self.failed |= moved.is_err();
        moved?;
        self.buffers.iter_mut().try_for_each(|buffer| buffer.resize(last))?;
        self.cursors.swap_remove(row);
        self.times.truncate(last);
        self.asked = false;
        Ok(())
    }

    /// The register in whose sample `row` the state of sample `row` is now.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is no such sample; [`Error::State`] after a failed launch.
    pub fn holder(&self, row: usize) -> Result<&T> {
        self.check_there()?;
        let cursor = self.cursors.get(row).ok_or_else(|| no_row(row, self.batch()))?;
        Ok(&self.buffers[cursor.point()])
    }

    /// The register that holds the state after evaluation `stage` of `plan`, for which there is room.
    pub fn next_holder(&mut self, plan: &Plan, stage: usize) -> Option<&mut T> {
        self.buffers.get_mut(plan.stages.get(stage)?.point)
    }

    /// All its registers.
    pub fn registers(&self) -> &[T] {
        &self.buffers
    }

    /// Whether all samples wait for the evaluation `stage` of `plan`.
    pub fn stands_at(&self, plan: &Arc<Plan>, stage: usize) -> bool {
        self.cursors.iter().all(|cursor| cursor.stands_at(plan, stage))
    }

    /// Errors where the samples' numbers were never computed.
    fn check_there(&self) -> Result<()> {
        if self.failed && self.batch() > 0 { Err(gone()) } else { Ok(()) }
    }

    /// Makes room for `batch` samples in all buffers that `plan` and the present samples use.
    fn hold(&mut self, plan: &Plan, batch: usize) -> Result<()> {
        while self.buffers.len() < FIRST_KEPT + plan.kept {
            let (place, state) = (self.buffers.len() + 1, &self.buffers[STATE]);
            let buffer = state.beside(place, 0, state.elements())?;
            self.buffers.push(buffer);
        }
        self.buffers.iter_mut().try_for_each(|buffer| buffer.resize(batch))
    }

    /// Number of samples.
    pub fn batch(&self) -> usize {
        self.cursors.len()
    }

    /// Whether every sample has reached its solver's end.
    pub fn done(&self) -> bool {
        self.cursors.iter().all(Cursor::done)
    }

    /// The times, `[batch]` in [0, 1], and the states, `[batch, elements]`, of the next evaluation;
    /// `None` when all samples are done. A sample that is done stays where it is.
    ///
    /// # Errors
    /// [`Error::State`] after a failed update.
    pub fn query(&mut self) -> Result<Option<(&[f64], &T)>> {
        self.check()?;
        if self.done() {
            return Ok(None);
        }
        for (time, cursor) in self.times.iter_mut().zip(&self.cursors) {
            *time = cursor.plan.stages.get(cursor.stage).map_or(1.0, |stage| stage.t);
        }
        let buffer = self.gather()?;
        self.asked = true;
        Ok(Some((&self.times, &self.buffers[buffer])))
    }

    /// Takes in the velocity at the last query's times and states, `[batch, elements]`.
    ///
    /// # Errors
    /// [`Error::NonFinite`] naming the evaluation: the samples concerned go no further, and the others
    /// have advanced. [`Error::State`] where nothing was asked for.
    pub fn update(&mut self, velocity: T::View<'_>) -> Result<()> {
        self.check()?;
        if !std::mem::take(&mut self.asked) {
            return Err(Error::State("an update without a query before it".into()));
        }
        let mut outcome = Ok(());
        let mut row = 0;
        while row < self.cursors.len() {
            let group = self.group(row);
            row = group.end;
            let cursor = &self.cursors[group.start];
            let Some(stage) = cursor.plan.stages.get(cursor.stage) else { continue };
            let finite = T::advance(&mut self.buffers, velocity, group.clone(), &stage.updates, self.crew.as_mut())?;
            if !finite {
                outcome = Err(Error::NonFinite { evaluation: cursor.stage, t: stage.t });
            }
            for row in group {
                let finite = finite || self.buffers[STATE].finite_row(velocity, row)?;
                let cursor = &mut self.cursors[row];
                cursor.failed = !finite;
                cursor.stage += usize::from(finite);
            }
        }
        if let Err(error) = T::launch(&self.buffers) {
            self.failed = true;
            return Err(error);
        }
        outcome
    }

    /// The states where the samples are now, `[batch, elements]`: x(1) once [`Sampler::done`].
    ///
    /// # Errors
    /// [`Error::State`] after a failed update.
    pub fn state(&mut self) -> Result<&T> {
        self.check()?;
        let buffer = self.gather()?;
        Ok(&self.buffers[buffer])
    }

    /// The rows from `start` on that stand where `start` stands.
    fn group(&self, start: usize) -> Range<usize> {
        let first = &self.cursors[start];
        let length = self.cursors[start..].iter().take_while(|c| c.stands_at(&first.plan, first.stage)).count();
        start..start + length
    }

    /// Brings all points into one buffer and says which.
    fn gather(&mut self) -> Result<usize> {
        if self.cursors.iter().all(|cursor| cursor.point() == STATE) {
            return Ok(STATE);
        }
        let (bases, points) = self.buffers.split_at_mut(POINT);
        let mut row = 0;
        for run in self.cursors.chunk_by(|a, b| a.point() == b.point()) {
            if run[0].point() == STATE {
                points[0].copy_rows(bases[STATE].view(), row..row + run.len())?;
            }
            row += run.len();
        }
        T::launch(&self.buffers)?;
        Ok(POINT)
    }

    fn check(&self) -> Result<()> {
        if self.failed {
            return Err(gone());
        }
        match self.cursors.iter().position(|cursor| cursor.failed) {
            None => Ok(()),
            Some(row) => Err(Error::State(format!(
                "sample {row} failed at evaluation {}: start a new solve, or go on without it",
                self.cursors[row].stage
            ))),
        }
    }

    /// Where sample `row` stands.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is no such sample.
    pub fn row(&self, row: usize) -> Result<Row> {
        let cursor = self.cursors.get(row).ok_or_else(|| no_row(row, self.cursors.len()))?;
        Ok(Row { stage: cursor.stage, nfe: cursor.plan.nfe(), failed: cursor.failed })
    }
}

fn gone() -> Error {
    Error::State("the solve failed: start a new one".into())
}

fn no_row(row: usize, batch: usize) -> Error {
    Error::invalid("row", row, format!("less than {batch}, the number of samples"))
}

/// Solves from x(0) = `x0`, `[batch, elements]`, to x(1) with one evaluation of `field` per stage.
///
/// ```
/// use bespoke::networks::{Mixture, MixtureDocument, MixtureField};
/// use bespoke::noise::{self, Purpose};
/// use bespoke::path::GaussianPath;
/// use bespoke::reference::Solver;
/// use bespoke::sampler::{self, Plan};
/// use bespoke::scheduler::Scheduler;
/// use bespoke::velocity::{Condition, VelocityField};
/// use std::sync::Arc;
///
/// // All data are near one point, and so are all samples.
/// let point = MixtureDocument { std: 0.01, means: vec![vec![0.7, -0.2]], weights: None, class: None };
/// let field = MixtureField::<f32>::new(Mixture::new(point)?, Scheduler::FmOt, None);
/// let path = GaussianPath::new(Scheduler::FmOt, 1.0)?;
/// let table = Solver::parse("midpoint@10")?.tableau(&path)?.expect("a fixed number of evaluations");
/// let x0 = field.start(&noise::normal(0, Purpose::Sample, 0..4, 2)?, 2)?;
/// let x1 = sampler::sample(&Arc::new(Plan::new(table)), &field, &x0, &Condition::default())?;
/// assert!((0..4).all(|i| (x1.row(i)[0] - 0.7).abs() < 0.1));
/// # Ok::<(), bespoke::Error>(())
/// ```
///
/// # Errors
/// The field's own, or [`Error::NonFinite`].
pub fn sample<F: VelocityField>(
    plan: &Arc<Plan>,
    field: &F,
    x0: &F::Tensor,
    condition: &Condition,
) -> Result<F::Tensor> {
    let mut sampler = Sampler::new(x0)?;
    sampler.start(plan, x0)?;
    while let Some((times, x)) = sampler.query()? {
        // One solver for the whole batch: one time.
        let velocity = field.eval(PerRow::All(times[0]), x, condition)?;
        sampler.update(velocity.view())?;
    }
    let x1 = sampler.state()?;
    if !x1.is_finite()? {
        return Err(Error::NonFinite { evaluation: plan.nfe().saturating_sub(1), t: 1.0 });
    }
    x1.duplicate()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solvers::classical::{euler, heun, rk4, uniform_grid};
    use crate::tensor::{Host, Register};
    use crate::theta::NsTable;

    /// Of operations that are exact to the bit wherever they are made: Miri's `sin` is not.
    fn velocity(times: &[f64], x: &Host<f64>) -> Host<f64> {
        let rows = (0..x.batch()).flat_map(|row| x.row(row).iter().map(move |x| (row, x)));
        Host::new(rows.map(|(row, x)| (times[row] + 0.5 - x) * (1.0 + x)).collect(), x.elements()).unwrap()
    }

    fn finish(sampler: &mut Sampler<Host<f64>>) -> Vec<Vec<f64>> {
        while let Some((times, x)) = sampler.query().unwrap() {
            let u = velocity(times, x);
            sampler.update(u.view()).unwrap();
        }
        let x1 = sampler.state().unwrap();
        (0..x1.batch()).map(|row| x1.row(row).to_vec()).collect()
    }

    #[test]
    fn samples_of_several_solvers_and_stages_share_a_batch() {
        let ns = NsTable::compile(&rk4(&uniform_grid(2))).tableau();
        let tables = [heun(&uniform_grid(2)), rk4(&uniform_grid(1)), ns, euler(&uniform_grid(5))];
        let plans = tables.map(|tableau| Arc::new(Plan::new(tableau)));
        let starts = [0.3, -0.4, 0.8, 0.3, 0.1, -0.9];
        let of_row = [0, 0, 1, 2, 3, 1];
        let x0 = Host::new(starts.iter().flat_map(|x| [*x, x + 1.0]).collect(), 2).unwrap();
        // The plan that keeps most comes first, so that there are buffers for all.
        let mut mixed = Sampler::new(&x0).unwrap();
        mixed.start(&plans[2], &x0).unwrap();
        for (cursor, plan) in mixed.cursors.iter_mut().zip(of_row) {
            *cursor = Cursor::new(&plans[plan], 0);
        }
        // Sample 1 begins anew later, when its neighbours are on their way.
        for _ in 0..3 {
            let (times, x) = mixed.query().unwrap().unwrap();
            let u = velocity(times, x);
            mixed.update(u.view()).unwrap();
        }
        mixed.cursors[1].stage = 0;
        mixed.buffers[STATE].copy_rows(x0.view(), 1..2).unwrap();
        let together = finish(&mut mixed);
        for (row, plan) in of_row.into_iter().enumerate() {
            let mut alone = Sampler::new(&x0).unwrap();
            alone.start(&plans[plan], &x0.select(&[row]).unwrap()).unwrap();
            assert_eq!(together[row], finish(&mut alone)[0], "sample {row}");
        }
    }
}
