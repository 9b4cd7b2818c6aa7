//! How the end of a solve moves with each of the table's scalars, by evaluations alone.
//!
//! Every table is y_k = a_k x_0 + sum_{j<k} b_kj u_j with u_k = u(t_k, y_k) and the end y_N
//! ([`Contents`]). Along one of its scalars, whose own derivative is a dot,
//!
//! ```text
//! ydot_k = adot_k x_0 + sum_j (bdot_kj u_j + b_kj udot_j)
//! udot_k = [u(t_k + e tdot_k, y_k + e ydot_k) - u(t_k, y_k)] / e
//! ```
//!
//! A scalar moves nothing before its own stage, so that its tangent takes one evaluation for each
//! stage from there on: for a non-stationary table some N^3 / 6 in all, where as many solves as there
//! are scalars would take N^3 / 2. Tangents that begin at the same stage are evaluated as one batch.

use crate::error::{Error, Result};
use crate::number::Number;
use crate::tableau::{Contents, Tableau};
use crate::tensor::{PerRow, Register, Tensor};
use crate::train::accuracy::{Between, Differences};
use crate::velocity::{Condition, VelocityField};
use num_dual::Dual64;
use std::ops::Range;

/// A sum over x_0 and velocities.
struct Sum {
    x: f64,
    /// (evaluation, coefficient).
    u: Vec<(usize, f64)>,
}

/// A table over its start and its velocities, and which of its scalars move it how.
pub struct Tangents {
    times: Vec<f64>,
    /// y_k over x_0 and the velocities, y_N included.
    points: Vec<Sum>,
    /// In the order in which they begin.
    tangents: Vec<Tangent>,
}

/// The derivative of a table by one of its scalars.
struct Tangent {
    /// Which of [`Tableau::scalars`].
    scalar: usize,
    /// The first evaluation that it moves; N where it moves the end alone.
    begin: usize,
    /// The evaluation whose time the scalar is.
    time: Option<usize>,
    /// y_k over x_0 and the velocities, of which it keeps what is not zero.
    points: Vec<Sum>,
}

/// Numbers that tangents on their way may hold, beside one tangent of one sample.
pub const ROOM: usize = 1 << 24;

/// Takes a scalar, the end's derivative by it, and the end.
pub type Take<'a, T> = &'a mut dyn FnMut(usize, T, &T) -> Result<()>;

impl Tangents {
    /// Of the scalars of `table` for which `wanted` is true.
    pub fn new(table: &Tableau<f64>, wanted: impl Fn(usize) -> bool) -> Self {
        let scalars = table.scalars().len();
        let mut tangents: Vec<_> =
            (0..scalars).filter(|scalar| wanted(*scalar)).map(|scalar| Tangent::new(table, scalar)).collect();
        tangents.sort_by_key(|tangent| tangent.begin);
        Self {
            times: table.stages.iter().map(|stage| stage.t).collect(),
            points: points(table, |value| value),
            tangents,
        }
    }

    fn nfe(&self) -> usize {
        self.times.len()
    }

    /// Evaluations of one sample: the solve, and one for each stage of each tangent.
    pub fn evaluations(&self) -> usize {
        let of = |tangent: &Tangent| self.nfe() - tangent.begin.min(self.nfe());
        self.nfe() + self.tangents.iter().map(of).sum::<usize>()
    }

    /// How many samples' tangents `ROOM` is for, at least one.
    pub fn samples_at_once(&self, elements: usize) -> usize {
        let of_group = |range: &Range<usize>| range.len() * self.kept(self.tangents[range.start].begin);
        let most = self.groups(usize::MAX).iter().map(of_group).max().unwrap_or(0);
        (ROOM / elements.max(1) / (most + 2 * self.nfe())).max(1)
    }

    /// Arrays that a tangent that begins at `begin` holds on its way.
    fn kept(&self, begin: usize) -> usize {
        self.nfe() - begin.min(self.nfe()) + 4
    }

    /// Tangents that begin together, at most `most` of them.
    fn groups(&self, most: usize) -> Vec<Range<usize>> {
        let mut groups: Vec<Range<usize>> = Vec::new();
        for (i, tangent) in self.tangents.iter().enumerate() {
            match groups.last_mut() {
                Some(last) if self.tangents[last.start].begin == tangent.begin && last.len() < most => last.end += 1,
                _ => groups.push(i..i + 1),
            }
        }
        groups
    }

    /// The end of the solves from `x0`, `[batch, elements]`; `take` is given each scalar's derivative of
    /// it, of the same shape, and the end.
    ///
    /// # Errors
    /// The field's own; [`Error::NonFinite`] at the evaluation near which a velocity is not finite.
    pub fn solve<F: VelocityField>(
        &self,
        field: &F,
        differences: &Differences,
        x0: &F::Tensor,
        condition: &Condition,
        take: Take<'_, F::Tensor>,
    ) -> Result<F::Tensor> {
        let (mut states, mut velocities) = (Vec::with_capacity(self.nfe()), Vec::with_capacity(self.nfe()));
        for (point, t) in self.points.iter().zip(&self.times) {
            let state = over(point, x0, &velocities)?;
            velocities.push(field.eval(PerRow::All(*t), &state, condition)?);
            states.push(state);
        }
        let end = over(&self.points[self.nfe()], x0, &velocities)?;
        let solve = Solve { table: self, field, differences, x0, condition, states, velocities };
        let room = ROOM / x0.elements().max(1) / x0.batch();
        for whole in self.groups(usize::MAX) {
            let most = (room / self.kept(self.tangents[whole.start].begin)).max(1);
            for first in whole.clone().step_by(most) {
                let group = &self.tangents[first..(first + most).min(whole.end)];
                solve.run(group, &mut |scalar, derivative| take(scalar, derivative, &end))?;
            }
        }
        Ok(end)
    }
}

impl Tangent {
    fn new(table: &Tableau<f64>, scalar: usize) -> Self {
        let mut index = 0;
        let seeded = table.map(|value| {
            index += 1;
            Dual64::new(*value, if index == scalar + 1 { 1.0 } else { 0.0 })
        });
        let points = points(&seeded, |value| value.eps);
        let time = seeded.stages.iter().position(|stage| stage.t.eps != 0.0);
        let moved = points.iter().position(|row| !is_zero(row)).unwrap_or(table.nfe());
        Self { scalar, begin: time.unwrap_or(moved), time, points }
    }
}

/// y_0 ... y_N of a table, each number as `part` has it, without zeros.
fn points<D: Number>(table: &Tableau<D>, part: impl Fn(D) -> f64) -> Vec<Sum> {
    let sum = |point: &[D]| {
        let u = point[1..].iter().map(|c| part(*c)).enumerate().filter(|(_, c)| *c != 0.0);
        Sum { x: part(point[0]), u: u.collect() }
    };
    let mut contents = Contents::start();
    let mut points = vec![sum(contents.point())];
    for stage in &table.stages {
        contents.advance(stage);
        points.push(sum(contents.point()));
    }
    points
}

fn is_zero(row: &Sum) -> bool {
    row.x == 0.0 && row.u.is_empty()
}

/// `row` over a start and velocities.
fn over<T: Tensor>(row: &Sum, start: &T, velocities: &[T]) -> Result<T> {
    let mut terms = vec![(PerRow::All(row.x), start)];
    terms.extend(row.u.iter().map(|(j, c)| (PerRow::All(*c), &velocities[*j])));
    T::linear_combination(&terms)
}

/// `copies` of a batch, one after the other.
fn stacked<T: Tensor>(batch: &T, copies: usize) -> Result<T> {
    T::concatenate(&vec![batch; copies])
}

/// A solve with its states and velocities.
struct Solve<'a, F: VelocityField> {
    table: &'a Tangents,
    field: &'a F,
    differences: &'a Differences,
    x0: &'a F::Tensor,
    condition: &'a Condition,
    states: Vec<F::Tensor>,
    velocities: Vec<F::Tensor>,
}

impl<F: VelocityField> Solve<'_, F> {
    /// Takes tangents that begin together to the end.
    fn run(&self, tangents: &[Tangent], take: &mut dyn FnMut(usize, F::Tensor) -> Result<()>) -> Result<()> {
        let begin = tangents.first().map_or(0, |tangent| tangent.begin);
        let condition = self.condition.repeat(self.x0.batch(), tangents.len())?;
        let mut velocities: Vec<F::Tensor> = Vec::new();
        for k in begin..self.table.nfe() {
            let along = self.along(tangents, k, begin, &velocities)?;
            velocities.push(self.derivative(tangents, k, along.as_ref(), &condition)?);
        }
        let batch = self.x0.batch();
        let end = match self.along(tangents, self.table.nfe(), begin, &velocities)? {
            Some(end) => end,
            None => self.x0.zeros_like(batch * tangents.len())?,
        };
        for (i, tangent) in tangents.iter().enumerate() {
            take(tangent.scalar, end.narrow(i * batch..(i + 1) * batch)?)?;
        }
        Ok(())
    }

    /// ydot_k of all tangents, one batch after the other, where `velocities` are their udot from `begin`
    /// on; `None` where all are zero.
    fn along(
        &self,
        tangents: &[Tangent],
        k: usize,
        begin: usize,
        velocities: &[F::Tensor],
    ) -> Result<Option<F::Tensor>> {
        let own = if tangents.iter().all(|tangent| is_zero(&tangent.points[k])) {
            None
        } else {
            let parts = tangents.iter().map(|tangent| over(&tangent.points[k], self.x0, &self.velocities));
            let parts = parts.collect::<Result<Vec<_>>>()?;
            Some(F::Tensor::concatenate(&parts.iter().collect::<Vec<_>>())?)
        };
        let row = self.table.points[k].u.iter().filter(|(j, c)| *j >= begin && *c != 0.0);
        let through = row.map(|(j, c)| (PerRow::All(*c), &velocities[*j - begin]));
        let terms: Vec<_> = own.iter().map(|own| (PerRow::All(1.0), own)).chain(through).collect();
        if terms.is_empty() { Ok(None) } else { F::Tensor::linear_combination(&terms).map(Some) }
    }

    /// udot_k of all tangents: u's derivative along `along`, or along time for those of its time.
    fn derivative(
        &self,
        tangents: &[Tangent],
        k: usize,
        along: Option<&F::Tensor>,
        condition: &Condition,
    ) -> Result<F::Tensor> {
        let (state, t, batch) = (&self.states[k], self.table.times[k], self.x0.batch());
        let by_time: Vec<bool> = tangents.iter().map(|tangent| tangent.time == Some(k)).collect();
        let states = stacked(state, tangents.len())?;
        let sizes = F::Tensor::fetch(&[&state.dot(state)?])?.swap_remove(0);
        let squares = match along {
            Some(along) => F::Tensor::fetch(&[&along.dot(along)?])?.swap_remove(0),
            None => vec![0.0; batch * tangents.len()],
        };
        let place = |row: usize| {
            let (size, square) = (sizes[row % batch], squares[row]);
            if by_time[row / batch] {
                self.differences.in_time(t)
            } else if square > 0.0 && square.is_finite() {
                self.differences.in_state().times((size / square).sqrt())
            } else {
                Between::NOWHERE
            }
        };
        let places: Vec<Between> = (0..batch * tangents.len()).map(place).collect();
        let at = |side: fn(&Between) -> f64| {
            let offsets: Vec<f64> = places.iter().map(side).collect();
            let time = |(row, offset): (usize, &f64)| if by_time[row / batch] { t + offset } else { t };
            // The rounding of a sum may be beyond the end.
            let times: Vec<f64> = offsets.iter().enumerate().map(time).map(|t| t.clamp(0.0, 1.0)).collect();
            let moved = match along {
                None => stacked(state, tangents.len())?,
                Some(along) => {
                    F::Tensor::linear_combination(&[(PerRow::All(1.0), &states), (PerRow::Each(&offsets), along)])?
                }
            };
            self.evaluate(&times, &moved, condition)
        };
        let ahead = at(|place| place.ahead)?;
        let behind = match self.differences.central {
            true => at(|place| place.behind)?,
            false => stacked(&self.velocities[k], tangents.len())?,
        };
        let weights: Vec<f64> = places.iter().map(|place| place.per_width()).collect();
        let minus: Vec<f64> = weights.iter().map(|w| -w).collect();
        let found =
            F::Tensor::linear_combination(&[(PerRow::Each(&weights), &ahead), (PerRow::Each(&minus), &behind)])?;
        if found.is_finite()? { Ok(found) } else { Err(Error::NonFinite { evaluation: k, t }) }
    }

    /// u of a stacked batch, no more samples at a time than elsewhere.
    fn evaluate(&self, times: &[f64], states: &F::Tensor, condition: &Condition) -> Result<F::Tensor> {
        let (batch, most) = (states.batch(), STACKED);
        if batch <= most {
            return self.field.eval(PerRow::Each(times), states, condition);
        }
        let of_part = |first: usize| {
            let part = first..(first + most).min(batch);
            let rows: Vec<usize> = part.clone().collect();
            self.field.eval(PerRow::Each(&times[part.clone()]), &states.narrow(part)?, &condition.select(&rows)?)
        };
        let parts = (0..batch).step_by(most).map(of_part).collect::<Result<Vec<_>>>()?;
        F::Tensor::concatenate(&parts.iter().collect::<Vec<_>>())
    }
}

/// Samples evaluated at once at most.
const STACKED: usize = 512;
