//! A solver as a table of scalars: what each evaluation does to a few registers.
//!
//! A register is an array of the batch's shape. There is the *state*, which begins as x(0); the
//! *point* of an evaluation amid a step; and whatever a solver keeps of earlier evaluations, as many
//! registers as its order asks for. Evaluation k takes the velocity u_k = u_{t_k}(y_k), with y_k
//! in the state or in the point; then
//!
//! ```text
//! y_{k+1} = sum_r c_r register_r + c_u u_k     into the state (a step of its own) or the point
//! kept_i  = u_k, or another such sum
//! ```
//!
//! where everything is read before anything is written. y_0 is the state, and y_N is x(1). So every
//! solver is its published recurrence: a multistep method of order k costs k registers, whatever
//! its number of evaluations. Non-stationary tables alone keep every velocity.

use crate::number::Number;

/// What a combination reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operand {
    /// The state: x(0) at first, then what stages write to it.
    State,
    /// The point of the present evaluation: the state itself, where the stage before wrote it there.
    Point,
    /// A kept register; zero until it is written.
    Kept(usize),
    /// The velocity that was just taken.
    Velocity,
}

/// A linear combination of registers and the velocity.
#[derive(Clone, Debug, PartialEq)]
pub struct Combination<D> {
    /// Each operand once, in increasing order, with its coefficient.
    pub terms: Vec<(Operand, D)>,
}

/// Where the next point goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is the next state.
    State,
    /// The state stays, for later stages of the step.
    Point,
}

/// What a stage keeps for later ones, and in which kept register.
#[derive(Clone, Debug, PartialEq)]
pub enum Keep<D> {
    /// Nothing.
    Nothing,
    /// The velocity.
    Velocity(usize),
    /// A prediction made of it.
    Combination(usize, Combination<D>),
}

/// One evaluation and what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage<D> {
    /// Solver time of the evaluation, in [0, 1].
    pub t: D,
    /// The next point.
    pub next: Combination<D>,
    /// Where it goes.
    pub place: Place,
    /// What is kept of this evaluation.
    pub keep: Keep<D>,
    /// Whether the next point is the solver's state at a grid time: the end of a step.
    pub ends_step: bool,
}

/// A solver: one stage per evaluation.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Tableau<D> {
    /// In order of evaluation.
    pub stages: Vec<Stage<D>>,
}

impl<D: Number> Combination<D> {
    /// `operand` itself.
    pub fn of(operand: Operand) -> Self {
        Self { terms: vec![(operand, D::one())] }
    }

    /// `sum_j coefficient_j combination_j`.
    pub fn sum<'a>(parts: impl IntoIterator<Item = (D, &'a Self)>) -> Self
    where
        D: 'a,
    {
        let mut sum = Self { terms: Vec::new() };
        for (factor, part) in parts {
            for (operand, c) in &part.terms {
                sum.add(*operand, factor * *c);
            }
        }
        // Tables have a thousand of them: no room to grow.
        sum.terms.shrink_to_fit();
        sum
    }

    fn add(&mut self, operand: Operand, c: D) {
        match self.terms.binary_search_by_key(&operand, |term| term.0) {
            Ok(at) => self.terms[at].1 += c,
            Err(at) => self.terms.insert(at, (operand, c)),
        }
    }

    /// The same sum with each operand replaced by a combination.
    pub fn substitute(&self, by: impl Fn(Operand) -> Self) -> Self {
        let parts: Vec<(D, Self)> = self.terms.iter().map(|(operand, c)| (*c, by(*operand))).collect();
        Self::sum(parts.iter().map(|(c, part)| (*c, part)))
    }
}

impl<D> Combination<D> {
    fn map<B>(&self, f: &mut impl FnMut(&D) -> B) -> Combination<B> {
        Combination { terms: self.terms.iter().map(|(operand, c)| (*operand, f(c))).collect() }
    }
}

impl<D> Keep<D> {
    /// The kept register that is written.
    pub fn slot(&self) -> Option<usize> {
        match self {
            Keep::Nothing => None,
            Keep::Velocity(slot) | Keep::Combination(slot, _) => Some(*slot),
        }
    }
}

impl<D> Tableau<D> {
    /// Number of velocity evaluations.
    pub fn nfe(&self) -> usize {
        self.stages.len()
    }

    /// Where the evaluation of stage `k` is made.
    pub fn place(&self, k: usize) -> Place {
        k.checked_sub(1).and_then(|before| self.stages.get(before)).map_or(Place::State, |before| before.place)
    }

    /// The same table over other scalars.
    pub fn map<B>(&self, mut f: impl FnMut(&D) -> B) -> Tableau<B> {
        let mut stage = |stage: &Stage<D>| Stage {
            t: f(&stage.t),
            next: stage.next.map(&mut f),
            place: stage.place,
            keep: match &stage.keep {
                Keep::Nothing => Keep::Nothing,
                Keep::Velocity(slot) => Keep::Velocity(*slot),
                Keep::Combination(slot, what) => Keep::Combination(*slot, what.map(&mut f)),
            },
            ends_step: stage.ends_step,
        };
        Tableau { stages: self.stages.iter().map(&mut stage).collect() }
    }
}

impl<D: Number> Tableau<D> {
    /// All scalars, stage by stage: t, the next point's coefficients, then those of what is kept.
    pub fn scalars(&self) -> Vec<D> {
        let mut out = Vec::new();
        self.map(|scalar| out.push(*scalar));
        out
    }
}

/// What the registers hold along a table, each as a combination of x(0) and of all velocities so
/// far: `[c, c_0 ... c_{k-1}]` is c x(0) + sum_j c_j u_j.
#[derive(Clone, Debug)]
pub struct Contents<D = f64> {
    evaluations: usize,
    place: Place,
    state: Vec<D>,
    point: Vec<D>,
    kept: Vec<Held<D>>,
}

/// What a kept register holds.
#[derive(Clone, Debug)]
enum Held<D> {
    Velocity(usize),
    Combination(Vec<D>),
}

impl<D: Number> Contents<D> {
    /// Before the first evaluation.
    pub fn start() -> Self {
        Self { evaluations: 0, place: Place::State, state: vec![D::one()], point: Vec::new(), kept: Vec::new() }
    }

    /// The state.
    pub fn state(&self) -> &[D] {
        &self.state
    }

    /// Where the next evaluation is made; after the last, x(1).
    pub fn point(&self) -> &[D] {
        match self.place {
            Place::State => &self.state,
            Place::Point => &self.point,
        }
    }

    /// Takes in the evaluation of `stage`.
    pub fn advance(&mut self, stage: &Stage<D>) {
        let next = self.apply(&stage.next);
        let kept = match &stage.keep {
            Keep::Nothing => None,
            Keep::Velocity(slot) => Some((*slot, Held::Velocity(self.evaluations))),
            Keep::Combination(slot, what) => Some((*slot, Held::Combination(self.apply(what)))),
        };
        if let Some((slot, held)) = kept {
            if self.kept.len() <= slot {
                self.kept.resize(slot + 1, Held::Combination(Vec::new()));
            }
            self.kept[slot] = held;
        }
        self.place = stage.place;
        match stage.place {
            Place::State => self.state = next,
            Place::Point => self.point = next,
        }
        self.evaluations += 1;
    }

    fn apply(&self, combination: &Combination<D>) -> Vec<D> {
        let mut sum = vec![D::zero(); self.evaluations + 2];
        let mut add = |c: D, of: &[D]| of.iter().zip(&mut sum).for_each(|(of, sum)| *sum += c * *of);
        let mut single = Vec::new();
        for (operand, c) in &combination.terms {
            match operand {
                Operand::State => add(*c, &self.state),
                Operand::Point => add(*c, self.point()),
                Operand::Velocity => single.push((self.evaluations, *c)),
                Operand::Kept(slot) => match self.kept.get(*slot) {
                    Some(Held::Velocity(j)) => single.push((*j, *c)),
                    Some(Held::Combination(of)) => add(*c, of),
                    None => {}
                },
            }
        }
        for (j, c) in single {
            sum[j + 1] += c;
        }
        sum
    }
}
