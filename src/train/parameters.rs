//! Unconstrained numbers in place of a theta's constrained ones, so that an optimiser may move
//! them freely.
//!
//! `rk1` and `rk2` have two such sets of [`Coordinates`]. Times are the same in both: t_i = cumulative
//! |a| / total |a|. A non-stationary table's are its own numbers: times but the first, then the
//! rows (a_i, b_i0 ... b_ii).

use crate::error::Result;
use crate::number::Number;
use crate::tableau::{Combination, Keep, Operand, Place, Stage, Tableau};
use crate::theta::bound::{bound_weights, lipschitz};
use crate::theta::knots::{Knots, rk1, rk1_knots, rk2, rk2_knots};
use crate::theta::{Family, NsTable, Theta, table_row};
use crate::train::config::Learn;
use nalgebra::{DMatrix, DVector};
use num_dual::Dual64;
use serde::{Deserialize, Serialize};

/// What the numbers parametrise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Structure {
    /// RK1-Bespoke with this many steps.
    Rk1(usize),
    /// RK2-Bespoke with this many steps.
    Rk2(usize),
    /// A non-stationary table with this many evaluations.
    Ns(usize),
}

/// What stands for a theta of `rk1` or `rk2`, of K evaluations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coordinates {
    /// The knots (BES App. F): `[a; K] [b; K] [c; K] [d; K]` with t' = |b|, s = exp(c), s' = d.
    Knots,
    /// Its table: `[a; K]`, then the scalars of row after row. The last scalar of a row, that of the velocity just
    /// taken, enters as its absolute value.
    ///
    /// The end of a solve is nearly linear in these numbers. In the knots it is far from linear: Gauss-Newton would
    /// take hundreds of steps along narrow, bent valleys. Also, no two of these tables are the same solver, while
    /// knots have a scale that no step depends on.
    Table,
}

/// A theta under training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// What the numbers parametrise.
    pub structure: Structure,
    /// How. A non-stationary table has only one way, called [`Coordinates::Table`].
    pub coordinates: Coordinates,
    /// The numbers.
    pub values: Vec<f64>,
    /// Which of the knots' numbers are learned. The Jacobians of the others are zero.
    pub learn: Learn,
}

/// Scalars as functions of the parameters: values and their Jacobian.
pub struct Linearised {
    /// The scalars.
    pub values: Vec<f64>,
    /// `[scalars, parameters]`.
    pub jacobian: DMatrix<f64>,
}

impl Structure {
    /// Of a theta.
    pub fn of(theta: &Theta) -> Self {
        match theta.family {
            Family::Rk1(_) => Structure::Rk1(theta.steps()),
            Family::Rk2(_) => Structure::Rk2(theta.steps()),
            Family::Ns(_) => Structure::Ns(theta.steps()),
        }
    }

    /// Evaluations of the whole solver.
    pub fn nfe(&self) -> usize {
        self.steps() * self.stages_per_step()
    }

    /// Evaluations in one step.
    pub fn stages_per_step(&self) -> usize {
        match self {
            Structure::Rk1(_) | Structure::Ns(_) => 1,
            Structure::Rk2(_) => 2,
        }
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        match *self {
            Structure::Rk1(steps) | Structure::Rk2(steps) | Structure::Ns(steps) => steps,
        }
    }

    /// Evaluations that the exact Jacobian of one sample's end takes by forward passes
    /// ([`crate::train::loss::Tangents`]): the solve; row k's directions, each through the stages after it; and all
    /// times but the first, each through its own stage too.
    pub fn jacobian_evaluations(&self) -> u64 {
        let (nfe, per_step) = (self.nfe() as u64, self.stages_per_step() as u64);
        let row = |k: u64| match self {
            Structure::Ns(_) => k + 2,
            Structure::Rk1(_) | Structure::Rk2(_) => k % per_step + 2,
        };
        nfe + (0..nfe).map(|k| row(k) * (nfe - 1 - k)).sum::<u64>() + (1..nfe).map(|k| nfe - k).sum::<u64>()
    }

    /// How many numbers parametrise it.
    pub fn parameters(&self, coordinates: Coordinates) -> usize {
        match (*self, coordinates) {
            (Structure::Ns(nfe), _) => nfe - 1 + nfe + nfe * (nfe + 1) / 2,
            (_, Coordinates::Knots) => 4 * self.nfe(),
            (Structure::Rk1(steps), Coordinates::Table) => 3 * steps,
            (Structure::Rk2(steps), Coordinates::Table) => 7 * steps,
        }
    }

    /// The solver with the parameters `values`, over any number type.
    fn tableau<D: Number>(&self, coordinates: Coordinates, values: &[D]) -> Tableau<D> {
        match (*self, coordinates) {
            (Structure::Ns(nfe), _) => ns_tableau(nfe, values),
            (Structure::Rk1(_), Coordinates::Knots) => rk1(&knots(values)),
            (Structure::Rk2(_), Coordinates::Knots) => rk2(&knots(values)),
            (_, Coordinates::Table) => rk_tableau(self.nfe(), self.stages_per_step(), values),
        }
    }

    /// M_i of the bound loss (BES Eq. 25), from knots; one for each step.
    fn bound_weights<D: Number>(&self, values: &[D], l_tau: f64) -> Vec<D> {
        bound_weights(&lipschitz(&knots(values), self.stages_per_step(), l_tau))
    }
}

/// t_0 = 0 ... t_K = 1 from K increments of any size and sign.
fn times<D: Number>(increments: &[D]) -> Vec<D> {
    let total = increments.iter().fold(D::zero(), |sum, a| sum + a.abs());
    let mut t = vec![D::zero()];
    let mut sum = D::zero();
    for a in &increments[..increments.len() - 1] {
        sum += a.abs();
        t.push(sum / total);
    }
    // Exactly 1, and exactly constant: the sum above may be off in its last bit.
    t.push(D::one());
    t
}

/// Knots from `[a] [b] [c] [d]`.
fn knots<D: Number>(values: &[D]) -> Knots<D> {
    let k = values.len() / 4;
    let (a, rest) = values.split_at(k);
    let (b, rest) = rest.split_at(k);
    let (c, d) = rest.split_at(k);
    Knots {
        t: times(a),
        t_dot: b.iter().map(|b| b.abs()).collect(),
        s: std::iter::once(D::one()).chain(c.iter().map(|c| c.exp())).collect(),
        s_dot: d.to_vec(),
    }
}

/// A one-step solver from `[a]` and its rows.
fn rk_tableau<D: Number>(nfe: usize, stages_per_step: usize, values: &[D]) -> Tableau<D> {
    let (increments, mut rows) = values.split_at(nfe);
    let t = times(increments);
    let stage = |k: usize| {
        let in_step = k % stages_per_step;
        let (row, others) = rows.split_at(in_step + 2);
        rows = others;
        // t' > 0: the velocity just taken moves the state forwards.
        let now = row[in_step + 1].abs();
        let kept = row[1..=in_step].iter().enumerate().map(|(j, c)| (Operand::Kept(j), *c));
        let terms = std::iter::once((Operand::State, row[0])).chain(kept).chain([(Operand::Velocity, now)]).collect();
        let ends_step = in_step + 1 == stages_per_step;
        Stage {
            t: t[k],
            next: Combination { terms },
            place: if ends_step { Place::State } else { Place::Point },
            keep: if ends_step { Keep::Nothing } else { Keep::Velocity(in_step) },
            ends_step,
        }
    };
    Tableau { stages: (0..nfe).map(stage).collect() }
}

fn ns_tableau<D: Number>(nfe: usize, values: &[D]) -> Tableau<D> {
    let mut rows = nfe - 1;
    let stage = |i: usize| {
        let (x, first) = (values[rows], rows + 1);
        rows += i + 2;
        // The first evaluation is at the start: its time is no parameter.
        let t = if i == 0 { D::zero() } else { values[i - 1] };
        table_row(t, x, &values[first..first + i], values[first + i])
    };
    Tableau { stages: (0..nfe).map(stage).collect() }
}

/// Differences of a theta's times, of order 1 whatever the number of knots.
fn increments(knots: &Knots<f64>) -> Vec<f64> {
    let intervals = knots.t_dot.len() as f64;
    knots.t.windows(2).map(|pair| (pair[1] - pair[0]) * intervals).collect()
}

impl Parameters {
    /// The identity theta: Euler for RK1, midpoint for RK2; Euler's table for ns.
    pub fn identity(structure: Structure) -> Self {
        match structure {
            Structure::Rk1(_) | Structure::Rk2(_) => Self::from_knots(structure, &Knots::identity(structure.nfe())),
            Structure::Ns(nfe) => {
                Self::from_tableau(&crate::solvers::classical::euler(&crate::solvers::classical::uniform_grid(nfe)))
            }
        }
    }

    /// The same numbers, of which `learn` are learned; a table of its own (ns) has no parts.
    pub fn learning(self, learn: Learn) -> Self {
        Self { learn, ..self }
    }

    /// Whether the number `j` is learned: times are the first half of the knots' numbers.
    fn is_learned(&self, j: usize) -> bool {
        let time = j < self.values.len() / 2;
        match self.learn {
            Learn::Both => true,
            Learn::Time => time,
            Learn::Scale => !time,
        }
    }

    /// The parameters whose theta is `theta`.
    pub fn from_theta(theta: &Theta) -> Self {
        match &theta.family {
            Family::Rk1(knots) => Self::from_knots(Structure::Rk1(theta.steps()), knots),
            Family::Rk2(knots) => Self::from_knots(Structure::Rk2(theta.steps()), knots),
            Family::Ns(table) => Self::from_ns(table),
        }
    }

    /// The non-stationary parameters of any solver.
    pub fn from_tableau(tableau: &Tableau<f64>) -> Self {
        Self::from_ns(&NsTable::compile(tableau))
    }

    /// The same solver in other coordinates. A non-stationary table has no others.
    ///
    /// # Errors
    /// As [`Parameters::theta`].
    pub fn in_coordinates(self, coordinates: Coordinates) -> Result<Self> {
        if self.coordinates == coordinates || matches!(self.structure, Structure::Ns(_)) {
            return Ok(self);
        }
        let values = match (coordinates, self.theta()?.family) {
            (Coordinates::Table, Family::Rk1(knots) | Family::Rk2(knots)) => {
                let rows = self.tableau().stages.into_iter().flat_map(|stage| stage.next.terms);
                let rows = rows.map(|(_, coefficient)| coefficient);
                increments(&knots).into_iter().chain(rows).collect()
            }
            (_, Family::Rk1(knots) | Family::Rk2(knots)) => Self::from_knots(self.structure, &knots).values,
            (_, Family::Ns(_)) => self.values,
        };
        Ok(Self { coordinates, values, ..self })
    }

    /// The same solver in the family `structure`. A non-stationary table can stand for a solver of any family.
    pub fn in_structure(&self, structure: Structure) -> Self {
        if self.structure == structure { self.clone() } else { Self::from_tableau(&self.tableau()) }
    }

    /// How far the first numbers may move, down and up: the times of a table stay in [0, 1]. All others are free.
    pub fn limits(&self) -> Vec<(f64, f64)> {
        let times = match self.structure {
            Structure::Ns(nfe) => nfe - 1,
            Structure::Rk1(_) | Structure::Rk2(_) => 0,
        };
        self.values[..times].iter().map(|t| (-t, 1.0 - t)).collect()
    }

    /// These numbers and a `step`.
    pub fn moved(&self, step: &DVector<f64>) -> Self {
        let mut moved = self.clone();
        moved.values.iter_mut().zip(step.iter()).for_each(|(value, by)| *value += by);
        moved
    }

    /// Whether there are as many numbers as there must be.
    pub fn is_whole(&self) -> bool {
        self.values.len() == self.structure.parameters(self.coordinates)
    }

    fn from_knots(structure: Structure, knots: &Knots<f64>) -> Self {
        let c = knots.s[1..].iter().map(|s| s.ln());
        let others = knots.t_dot.iter().copied().chain(c).chain(knots.s_dot.iter().copied());
        let values = increments(knots).into_iter().chain(others).collect();
        Self { structure, coordinates: Coordinates::Knots, values, learn: Learn::Both }
    }

    fn from_ns(table: &NsTable) -> Self {
        let rows = table.a.iter().zip(&table.b).flat_map(|(a, b)| std::iter::once(*a).chain(b.iter().copied()));
        Self {
            structure: Structure::Ns(table.t.len()),
            coordinates: Coordinates::Table,
            values: table.t[1..].iter().copied().chain(rows).collect(),
            learn: Learn::Both,
        }
    }

    /// The theta that these parameters stand for.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] where an optimiser went astray: a knot that is not finite, two that
    /// have met, a table that is none of the family's.
    pub fn theta(&self) -> Result<Theta> {
        Theta::new(match (self.structure, self.coordinates) {
            (Structure::Ns(_), _) => Family::Ns(NsTable::compile(&self.tableau())),
            (Structure::Rk1(_), Coordinates::Knots) => Family::Rk1(knots(&self.values)),
            (Structure::Rk2(_), Coordinates::Knots) => Family::Rk2(knots(&self.values)),
            (Structure::Rk1(_), Coordinates::Table) => Family::Rk1(rk1_knots(&self.tableau())),
            (Structure::Rk2(_), Coordinates::Table) => Family::Rk2(rk2_knots(&self.tableau())),
        })
    }

    /// The solver.
    pub fn tableau(&self) -> Tableau<f64> {
        self.structure.tableau(self.coordinates, &self.values)
    }

    /// The solver's scalars ([`Tableau::scalars`]) and their exact Jacobian.
    pub fn table_jacobian(&self) -> Linearised {
        self.linearise(|values| self.structure.tableau(self.coordinates, values).scalars())
    }

    /// The bound's weights M_i and their exact Jacobian.
    pub fn bound_jacobian(&self, l_tau: f64) -> Linearised {
        self.linearise(|values| self.structure.bound_weights(values, l_tau))
    }

    /// One dual pass per parameter: the scalars are few.
    fn linearise(&self, scalars: impl Fn(&[Dual64]) -> Vec<Dual64>) -> Linearised {
        let mut duals: Vec<Dual64> = self.values.iter().map(|v| Dual64::from(*v)).collect();
        let values: Vec<f64> = scalars(&duals).iter().map(|s| s.re).collect();
        let mut jacobian = DMatrix::zeros(values.len(), self.values.len());
        for j in (0..duals.len()).filter(|j| self.is_learned(*j)) {
            duals[j].eps = 1.0;
            for (i, scalar) in scalars(&duals).iter().enumerate() {
                jacobian[(i, j)] = scalar.eps;
            }
            duals[j].eps = 0.0;
        }
        Linearised { values, jacobian }
    }
}
