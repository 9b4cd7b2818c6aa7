//! Guidance: a chain of passes through the network, u = u_0 + sum_k s_k (u_k - u_(k-1)).
//!
//! Written by passes it is u = sum_k w_k u_k with w_k = s_k - s_(k+1), s_0 = 1 and the last pass, which sees all
//! inputs, alone where every scale is 1. Each pass runs on the rows whose weight for it is not 0; the rows of
//! all passes are one batch of the network.

use crate::card::{Card, GuidancePass, Null};
use crate::error::{Error, Result};
use crate::memory;
use crate::tensor::{PerRow, PerRowBuf, Tensor};
use crate::velocity::{Condition, GUIDANCE_SCALE};
use std::ops::Range;

/// One pass through the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// Names of the inputs that this pass goes without: it is given their nulls.
    pub without: Vec<String>,
    /// The scale s_k of this pass; the first has none.
    pub scale: Option<String>,
}

/// The passes of a model, from the one that sees least to the one that sees all.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    passes: Vec<Pass>,
    /// Solver times, both included, outside which the last pass alone is run.
    interval: [f64; 2],
}

/// No interval: guidance at any time.
pub const ALWAYS: [f64; 2] = [f64::NEG_INFINITY, f64::INFINITY];

/// The rows of a batch that one pass runs on.
#[derive(Clone, Debug, PartialEq)]
enum Rows {
    All,
    These(Vec<usize>),
}

/// One pass over a batch.
struct Part {
    pass: usize,
    rows: Rows,
    /// Its rows within the stacked batch.
    range: Range<usize>,
    /// w_k of every sample of the batch; 0 where the pass does not run.
    weight: PerRowBuf,
}

/// What one evaluation of a batch runs through the network: all passes stacked, the last one first.
pub struct Stack {
    batch: usize,
    parts: Vec<Part>,
}

impl Chain {
    /// A chain of `passes`, at least one.
    pub fn new(passes: Vec<Pass>, interval: [f64; 2]) -> Self {
        Self { passes, interval }
    }

    /// The passes.
    pub fn passes(&self) -> &[Pass] {
        &self.passes
    }

    fn scales(&self) -> impl Iterator<Item = &str> {
        self.passes.iter().filter_map(|pass| pass.scale.as_deref())
    }

    /// Whether `condition` has scales of this chain alone, one finite number a sample.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the scale.
    pub fn check(&self, batch: usize, condition: &Condition) -> Result<()> {
        for scale in &condition.scales {
            let wrong = |value: String, expected: String| Err(Error::invalid(&scale.name, value, expected));
            if scale.values.len() != batch {
                return wrong(format!("{} numbers", scale.values.len()), format!("{batch}, one a sample"));
            }
            if let Some(s) = scale.values.iter().find(|s| !s.is_finite()) {
                return wrong(s.to_string(), "a finite number".into());
            }
            if self.scales().any(|own| own == scale.name) {
                continue;
            }
            let Some(s) = scale.values.iter().find(|s| **s != 1.0) else { continue };
            let known: Vec<&str> = self.scales().collect();
            return match known.as_slice() {
                [] => wrong(
                    s.to_string(),
                    "1: the model has no null_class, nor an input with a null, to guide from".into(),
                ),
                known => wrong(s.to_string(), format!("absent: the model's scales are {}", known.join(", "))),
            };
        }
        Ok(())
    }

    /// s_k of sample `row`.
    fn scale(&self, pass: usize, row: usize, tau: PerRow<'_>, condition: &Condition) -> f64 {
        let inside = (self.interval[0]..=self.interval[1]).contains(&tau.at(row));
        match &self.passes[pass].scale {
            Some(name) if inside => condition.scale(name).map_or(1.0, |values| values[row]),
            _ => 1.0,
        }
    }

    /// w_k of sample `row`.
    fn weight(&self, pass: usize, row: usize, tau: PerRow<'_>, condition: &Condition) -> f64 {
        let last = pass + 1 == self.passes.len();
        let after = if last { 0.0 } else { self.scale(pass + 1, row, tau, condition) };
        self.scale(pass, row, tau, condition) - after
    }

    /// Rows of the stack for a batch of `condition` at the times `tau`.
    pub fn rows(&self, tau: PerRow<'_>, batch: usize, condition: &Condition) -> usize {
        let last = self.passes.len() - 1;
        let runs = |pass: usize, row: usize| pass == last || self.weight(pass, row, tau, condition) != 0.0;
        (0..=last).map(|pass| (0..batch).filter(|row| runs(pass, *row)).count()).sum()
    }

    /// What runs for a batch of `condition` at the times `tau`.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn stack(&self, tau: PerRow<'_>, batch: usize, condition: &Condition) -> Result<Stack> {
        let last = self.passes.len() - 1;
        let mut parts = Vec::new();
        let mut start = 0;
        for pass in (0..=last).rev() {
            let weights: Vec<f64> = memory::collected((0..batch).map(|row| self.weight(pass, row, tau, condition)))?;
            let mut runs = memory::room(batch)?;
            runs.extend((0..batch).filter(|row| pass == last || weights[*row] != 0.0));
            if runs.is_empty() {
                continue;
            }
            let range = start..start + runs.len();
            start = range.end;
            let rows = if runs.len() == batch { Rows::All } else { Rows::These(runs) };
            let plain = weights.iter().all(|w| *w == 1.0);
            let weight = if plain { PerRowBuf::All(1.0) } else { PerRowBuf::Each(weights) };
            parts.push(Part { pass, rows, range, weight });
        }
        Ok(Stack { batch, parts })
    }
}

impl Default for Chain {
    /// No guidance: one pass.
    fn default() -> Self {
        Self::new(vec![Pass { without: Vec::new(), scale: None }], ALWAYS)
    }
}

/// The chain that a card asks for; where it names no passes, plain guidance from all inputs that have a null.
pub fn of_card(card: &Card) -> Chain {
    let interval = card.guidance.interval.unwrap_or(ALWAYS);
    if card.guidance.scale_input.is_some() {
        return Chain::default();
    }
    if !card.guidance.passes.is_empty() {
        let pass = |pass: &GuidancePass| Pass { without: pass.without.clone(), scale: pass.scale.clone() };
        return Chain::new(card.guidance.passes.iter().map(pass).collect(), interval);
    }
    let signature = card.signature();
    let nulled = signature.inputs().iter().filter(|input| !matches!(input.null, Null::Keep(_)));
    let without: Vec<String> = nulled.map(|input| input.name.clone()).collect();
    if without.is_empty() {
        return Chain::default();
    }
    let scale = Some(GUIDANCE_SCALE.to_owned());
    Chain::new(vec![Pass { without, scale: None }, Pass { without: Vec::new(), scale }], interval)
}

impl Stack {
    /// Whether this is one unguided pass over the batch as it is.
    pub fn is_plain(&self) -> bool {
        self.parts.len() == 1 && matches!(self.parts[0].weight, PerRowBuf::All(1.0))
    }

    /// For every row of the stacked batch the place of its pass in the chain, and its sample.
    pub fn rows(&self) -> impl Iterator<Item = (usize, usize)> {
        self.parts.iter().flat_map(|part| {
            let sample = |i| match &part.rows {
                Rows::All => i,
                Rows::These(rows) => rows[i],
            };
            (0..part.range.len()).map(move |i| (part.pass, sample(i)))
        })
    }

    /// Rows of the stacked batch.
    pub fn size(&self) -> usize {
        self.parts.iter().map(|part| part.range.len()).sum()
    }

    /// The stacked batch of numbers that each sample has one of.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn numbers(&self, values: &PerRowBuf) -> Result<PerRowBuf> {
        let PerRowBuf::Each(values) = values else { return Ok(values.clone()) };
        let mut stacked = memory::room(self.size())?;
        for part in &self.parts {
            match &part.rows {
                Rows::All => stacked.extend_from_slice(values),
                Rows::These(rows) => stacked.extend(rows.iter().map(|row| values[*row])),
            }
        }
        Ok(PerRowBuf::Each(stacked))
    }

    /// The stacked batch of samples, `[batch, elements]`.
    ///
    /// # Errors
    /// The tensor's own.
    pub fn stacked<T: Tensor>(&self, x: &T) -> Result<T> {
        let selected = self.parts.iter().map(|part| match &part.rows {
            Rows::All => Ok(None),
            Rows::These(rows) => x.select(rows).map(Some),
        });
        let selected = selected.collect::<Result<Vec<_>>>()?;
        T::concatenate(&selected.iter().map(|part| part.as_ref().unwrap_or(x)).collect::<Vec<_>>())
    }

    /// The stacked batch of `w`, each pass's rows times its weight and `factor`.
    ///
    /// # Errors
    /// The tensor's own.
    pub fn seeds<T: Tensor>(&self, factor: &PerRowBuf, w: &T) -> Result<T> {
        let seed = |part: &Part| {
            let scaled = T::linear_combination(&[(product(factor, &part.weight)?.get(), w)])?;
            match &part.rows {
                Rows::All => Ok(scaled),
                Rows::These(rows) => scaled.select(rows),
            }
        };
        let seeds = self.parts.iter().map(seed).collect::<Result<Vec<_>>>()?;
        T::concatenate(&seeds.iter().collect::<Vec<_>>())
    }

    /// Every pass's own rows of the stacked batch, as a batch with zeros where it does not run.
    fn unstacked<T: Tensor>(&self, stacked: &T) -> Result<Vec<T>> {
        let one = |part: &Part| {
            let own = stacked.narrow(part.range.clone())?;
            let Rows::These(rows) = &part.rows else { return Ok(own) };
            let mut places = memory::filled(self.batch, rows.len())?;
            rows.iter().enumerate().for_each(|(place, row)| places[*row] = place);
            T::concatenate(&[&own, &own.zeros_like(1)?])?.select(&places)
        };
        self.parts.iter().map(one).collect()
    }

    /// `p x + q sum_k w_k u_k` of the stacked outputs u_k; without p, the sum alone.
    ///
    /// # Errors
    /// The tensor's own.
    pub fn combined<T: Tensor>(&self, p: Option<(&PerRowBuf, &T)>, q: &PerRowBuf, stacked: &T) -> Result<T> {
        let outputs = self.unstacked(stacked)?;
        let weights: Vec<PerRowBuf> = self.parts.iter().map(|part| product(q, &part.weight)).collect::<Result<_>>()?;
        let terms = p.iter().map(|(p, x)| (p.get(), *x));
        let terms: Vec<_> = terms.chain(weights.iter().map(PerRowBuf::get).zip(&outputs)).collect();
        T::linear_combination(&terms)
    }

    /// The sum over passes of what the stacked batch has of each sample.
    ///
    /// # Errors
    /// The tensor's own.
    pub fn folded<T: Tensor>(&self, stacked: &T) -> Result<T> {
        let parts = self.unstacked(stacked)?;
        T::linear_combination(&parts.iter().map(|part| (PerRow::All(1.0), part)).collect::<Vec<_>>())
    }
}

/// Row by row, `a` times `b`.
fn product(a: &PerRowBuf, b: &PerRowBuf) -> Result<PerRowBuf> {
    match (a, b) {
        (PerRowBuf::All(a), b) => b.get().map(|b| a * b),
        (PerRowBuf::Each(a), b) => {
            let b = b.get();
            Ok(PerRowBuf::Each(memory::collected(a.iter().enumerate().map(|(row, a)| a * b.at(row)))?))
        }
    }
}
