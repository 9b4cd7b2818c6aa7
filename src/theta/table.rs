//! The non-stationary family: a solver written out, every state by x(0) and all velocities before it.

use crate::tableau::Operand::{Kept, State, Velocity};
use crate::tableau::{Combination, Contents, Keep, Place, Stage, Tableau};

/// A non-stationary table: x_{i+1} = a_i x_0 + sum_{j <= i} b_ij u_{t_j}(x_j), output x_N.
#[derive(Clone, Debug, PartialEq)]
pub struct NsTable {
    /// Times of the N evaluations, in [0, 1].
    pub t: Vec<f64>,
    /// Coefficients of x_0, N.
    pub a: Vec<f64>,
    /// N rows, row i of length i + 1.
    pub b: Vec<Vec<f64>>,
}

impl NsTable {
    /// Any solver as a non-stationary table, by propagating its recurrence.
    pub fn compile(tableau: &Tableau<f64>) -> Self {
        let n = tableau.nfe();
        let mut table = NsTable { t: Vec::with_capacity(n), a: Vec::with_capacity(n), b: Vec::with_capacity(n) };
        let mut contents = Contents::start();
        for stage in &tableau.stages {
            contents.advance(stage);
            table.t.push(stage.t);
            table.a.push(contents.point()[0]);
            table.b.push(contents.point()[1..].to_vec());
        }
        table
    }

    /// As a table: the one whose rows are full, and which keeps all velocities.
    pub fn tableau(&self) -> Tableau<f64> {
        let stage = |i: usize| {
            let (now, before) = self.b[i].split_last().map_or((0.0, &[][..]), |(now, before)| (*now, before));
            row(self.t[i], self.a[i], before, now)
        };
        Tableau { stages: (0..self.t.len()).map(stage).collect() }
    }
}

/// Row `before.len()` of a non-stationary table: coefficients of x(0), of the velocities `before`, and
/// of the one of this evaluation.
pub(crate) fn row<D: Copy>(t: D, x: D, before: &[D], now: D) -> Stage<D> {
    let kept = before.iter().enumerate().map(|(j, c)| (Kept(j), *c));
    let terms = std::iter::once((State, x)).chain(kept).chain([(Velocity, now)]).collect();
    Stage { t, next: Combination { terms }, place: Place::Point, keep: Keep::Velocity(before.len()), ends_step: true }
}
