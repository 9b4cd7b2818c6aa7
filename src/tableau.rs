//! Every solver as a table of scalars.
//!
//! Evaluation k is u_k = u_{t_k}(y_k); the next point and the base it is built on are linear in
//! the base and the velocities so far (`method.md`, "Every solver is a table of numbers"):
//!
//! ```text
//! y_{k+1} = next.x * base + sum_j next.u_j u_j
//! ```
//!
//! The base is the state at the start of a step (Runge-Kutta), or of the whole solve
//! (non-stationary tables). y_0 is the base, and y_N is the result.

use crate::number::Number;

/// A linear combination of the base and of velocities.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<D> {
    /// Coefficient of the base.
    pub x: D,
    /// (evaluation, coefficient) of the velocities, in order of evaluation.
    pub u: Vec<(usize, D)>,
}

impl<D: Number> Row<D> {
    /// The base itself.
    pub fn base() -> Self {
        Row { x: D::one(), u: Vec::new() }
    }

    /// The velocity of evaluation `k`.
    pub fn velocity(k: usize) -> Self {
        Row { x: D::zero(), u: vec![(k, D::one())] }
    }

    /// `sum_j coefficient_j row_j`.
    pub fn sum(terms: &[(D, &Row<D>)]) -> Self {
        let mut sum = Row { x: D::zero(), u: Vec::new() };
        for (factor, row) in terms {
            sum.x += *factor * row.x;
            for (j, c) in &row.u {
                match sum.u.binary_search_by_key(j, |(index, _)| *index) {
                    Ok(at) => sum.u[at].1 += *factor * *c,
                    Err(at) => sum.u.insert(at, (*j, *factor * *c)),
                }
            }
        }
        sum
    }
}

/// What the base becomes after an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub enum Base<D> {
    /// It stays.
    Keep,
    /// The next point: the step ends here.
    Next,
    /// Something else, as where a corrector mends the state after the evaluation (UniPC).
    Row(Row<D>),
}

/// One evaluation and what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage<D> {
    /// Solver time of the evaluation, in [0, 1].
    pub t: D,
    /// The next point.
    pub next: Row<D>,
    /// The next base.
    pub base: Base<D>,
    /// Whether the next point is the solver's state at a grid time: the end of a step.
    pub ends_step: bool,
}

/// A solver: one stage per evaluation.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Tableau<D> {
    /// In order of evaluation.
    pub stages: Vec<Stage<D>>,
}

impl<D> Tableau<D> {
    /// Number of velocity evaluations.
    pub fn nfe(&self) -> usize {
        self.stages.len()
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.stages.iter().filter(|stage| stage.ends_step).count()
    }

    /// Whether every row reads only velocities that were taken on the base it stands on.
    pub fn is_one_step(&self) -> bool {
        let mut first = 0;
        self.stages.iter().enumerate().all(|(k, stage)| {
            let local = stage.next.u.iter().all(|(j, _)| *j >= first);
            if matches!(stage.base, Base::Next) {
                first = k + 1;
            }
            local && !matches!(stage.base, Base::Row(_))
        })
    }

    /// The stages of step `step`, or `None` where there is no such step.
    pub fn step_stages(&self, step: usize) -> Option<std::ops::Range<usize>> {
        let mut ends = self.stages.iter().enumerate().filter(|(_, stage)| stage.ends_step).map(|(k, _)| k + 1);
        let start = if step == 0 { 0 } else { ends.nth(step - 1)? };
        Some(start..ends.next()?)
    }
}

impl<D: Number> Tableau<D> {
    /// All scalars, stage by stage: t, next.x, next.u..., then the base's row where it has one.
    pub fn scalars(&self) -> Vec<D> {
        let mut out = Vec::new();
        let push_row = |out: &mut Vec<D>, row: &Row<D>| {
            out.push(row.x);
            out.extend(row.u.iter().map(|(_, c)| *c));
        };
        for stage in &self.stages {
            out.push(stage.t);
            push_row(&mut out, &stage.next);
            if let Base::Row(row) = &stage.base {
                push_row(&mut out, row);
            }
        }
        out
    }

    /// Every y_k and every base in terms of x_0 and the velocities: `(points, bases)`, of which
    /// points has one more, y_N.
    pub fn propagate(&self) -> (Vec<Row<D>>, Vec<Row<D>>) {
        let start = Row::base();
        let (mut points, mut bases) = (vec![start.clone()], vec![start]);
        for (k, stage) in self.stages.iter().enumerate() {
            let base = &bases[k];
            let next = substitute(&stage.next, base);
            bases.push(match &stage.base {
                Base::Keep => base.clone(),
                Base::Next => next.clone(),
                Base::Row(row) => substitute(row, base),
            });
            points.push(next);
        }
        bases.pop();
        (points, bases)
    }
}

/// `row` with its base replaced by what the base is in terms of x_0 and velocities.
fn substitute<D: Number>(row: &Row<D>, base: &Row<D>) -> Row<D> {
    let velocities = Row { x: D::zero(), u: row.u.clone() };
    Row::sum(&[(row.x, base), (D::one(), &velocities)])
}
