//! Unconstrained numbers in place of a theta's constrained ones (BES App. F), so that an
//! optimiser may move them freely.
//!
//! For knots: t_i = cumulative |a| / total |a|, t' = |b|, s = exp(c), s' = d, laid out as
//! `[a; K] [b; K] [c; K] [d; K]`. For non-stationary tables: times but the first, then the rows
//! (a_i, b_i0 ... b_ii).

use crate::error::Result;
use crate::scheduler::Number;
use crate::solvers::bespoke::{self, Knots};
use crate::tableau::{Base, Row, Stage, Tableau};
use crate::theta::{Family, NsTable, Theta};
use crate::train::config::Learn;
use nalgebra::DMatrix;
use num_dual::Dual64;
use serde::{Deserialize, Serialize};

/// What the numbers parametrise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// RK1-Bespoke with this many steps.
    Rk1(usize),
    /// RK2-Bespoke with this many steps.
    Rk2(usize),
    /// A non-stationary table with this many evaluations.
    Ns(usize),
}

/// A theta under training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// What the numbers parametrise.
    pub shape: Shape,
    /// The numbers.
    pub values: Vec<f64>,
    /// Which of them are learned: the Jacobians of the others are zero.
    pub learn: Learn,
}

/// Scalars as functions of the parameters: values and their Jacobian.
pub struct Linearised {
    /// The scalars.
    pub values: Vec<f64>,
    /// `[scalars, parameters]`.
    pub jacobian: DMatrix<f64>,
}

impl Shape {
    /// Of a theta.
    pub fn of(theta: &Theta) -> Self {
        match theta.family {
            Family::Rk1(_) => Shape::Rk1(theta.steps()),
            Family::Rk2(_) => Shape::Rk2(theta.steps()),
            Family::Ns(_) => Shape::Ns(theta.steps()),
        }
    }

    /// Evaluations of the whole solver.
    pub fn nfe(&self) -> usize {
        self.steps() * self.stages_per_step()
    }

    /// Evaluations in one step.
    pub fn stages_per_step(&self) -> usize {
        match self {
            Shape::Rk1(_) | Shape::Ns(_) => 1,
            Shape::Rk2(_) => 2,
        }
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        match *self {
            Shape::Rk1(steps) | Shape::Rk2(steps) | Shape::Ns(steps) => steps,
        }
    }

    /// How many numbers parametrise it.
    pub fn parameters(&self) -> usize {
        match *self {
            Shape::Rk1(_) | Shape::Rk2(_) => 4 * self.nfe(),
            Shape::Ns(nfe) => nfe - 1 + nfe + nfe * (nfe + 1) / 2,
        }
    }

    /// The solver with the parameters `values`, over any number type.
    pub fn tableau<D: Number>(&self, values: &[D]) -> Tableau<D> {
        match *self {
            Shape::Rk1(_) => bespoke::rk1(&knots(values)),
            Shape::Rk2(_) => bespoke::rk2(&knots(values)),
            Shape::Ns(nfe) => ns_tableau(nfe, values),
        }
    }

    /// M_i of the bound loss (BES Eq. 25); one for each step.
    pub fn bound_weights<D: Number>(&self, values: &[D], l_tau: f64) -> Vec<D> {
        bespoke::bound_weights(&bespoke::lipschitz(&knots(values), self.stages_per_step(), l_tau))
    }
}

/// Knots from `[a] [b] [c] [d]`.
fn knots<D: Number>(values: &[D]) -> Knots<D> {
    let k = values.len() / 4;
    let (a, rest) = values.split_at(k);
    let (b, rest) = rest.split_at(k);
    let (c, d) = rest.split_at(k);
    let total = a.iter().fold(D::zero(), |sum, a| sum + a.abs());
    let mut t = vec![D::zero()];
    let mut sum = D::zero();
    for a in &a[..k - 1] {
        sum += a.abs();
        t.push(sum / total);
    }
    // Exactly 1, and exactly constant: the sum above may be off in its last bit.
    t.push(D::one());
    Knots {
        t,
        t_dot: b.iter().map(|b| b.abs()).collect(),
        s: std::iter::once(D::one()).chain(c.iter().map(|c| c.exp())).collect(),
        s_dot: d.to_vec(),
    }
}

fn ns_tableau<D: Number>(nfe: usize, values: &[D]) -> Tableau<D> {
    let mut rows = nfe - 1;
    let stage = |i: usize| {
        let (x, first) = (values[rows], rows + 1);
        rows += i + 2;
        Stage {
            // The first evaluation is at the start: its time is no parameter.
            t: if i == 0 { D::zero() } else { values[i - 1] },
            next: Row { x, u: (0..=i).map(|j| (j, values[first + j])).collect() },
            base: Base::Keep,
            ends_step: true,
        }
    };
    Tableau { stages: (0..nfe).map(stage).collect() }
}

impl Parameters {
    /// The identity theta: Euler for RK1, midpoint for RK2; Euler's table for ns.
    pub fn identity(shape: Shape) -> Self {
        match shape {
            Shape::Rk1(_) | Shape::Rk2(_) => Self::from_knots(shape, &Knots::identity(shape.nfe())),
            Shape::Ns(nfe) => {
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
            Family::Rk1(knots) => Self::from_knots(Shape::Rk1(theta.steps()), knots),
            Family::Rk2(knots) => Self::from_knots(Shape::Rk2(theta.steps()), knots),
            Family::Ns(table) => Self::from_ns(table),
        }
    }

    /// The non-stationary parameters of any solver.
    pub fn from_tableau(tableau: &Tableau<f64>) -> Self {
        Self::from_ns(&NsTable::compile(tableau))
    }

    fn from_knots(shape: Shape, knots: &Knots<f64>) -> Self {
        let intervals = knots.t_dot.len() as f64;
        // Increments of order 1, whatever the number of knots.
        let a = knots.t.windows(2).map(|pair| (pair[1] - pair[0]) * intervals);
        let c = knots.s[1..].iter().map(|s| s.ln());
        let values = a.chain(knots.t_dot.iter().copied()).chain(c).chain(knots.s_dot.iter().copied()).collect();
        Self { shape, values, learn: Learn::Both }
    }

    fn from_ns(table: &NsTable) -> Self {
        let rows = table.a.iter().zip(&table.b).flat_map(|(a, b)| std::iter::once(*a).chain(b.iter().copied()));
        Self {
            shape: Shape::Ns(table.t.len()),
            values: table.t[1..].iter().copied().chain(rows).collect(),
            learn: Learn::Both,
        }
    }

    /// The theta that these parameters stand for.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] where an optimiser went astray: a knot that is not finite, or two
    /// that have met.
    pub fn theta(&self) -> Result<Theta> {
        Theta::new(match self.shape {
            Shape::Rk1(_) => Family::Rk1(knots(&self.values)),
            Shape::Rk2(_) => Family::Rk2(knots(&self.values)),
            Shape::Ns(_) => Family::Ns(NsTable::compile(&self.tableau())),
        })
    }

    /// The solver.
    pub fn tableau(&self) -> Tableau<f64> {
        self.shape.tableau(&self.values)
    }

    /// The solver's scalars ([`Tableau::scalars`]) and their exact Jacobian.
    pub fn table_jacobian(&self) -> Linearised {
        self.linearise(|values| self.shape.tableau(values).scalars())
    }

    /// The bound's weights M_i and their exact Jacobian.
    pub fn bound_jacobian(&self, l_tau: f64) -> Linearised {
        self.linearise(|values| self.shape.bound_weights(values, l_tau))
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
