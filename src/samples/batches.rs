//! Which samples share a batch: those of one size.

use super::chunk;
use super::conditioning::Conditioning;
use crate::card::{Card, Sizes};
use std::ops::Range;

/// Samples that share a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Which samples, in increasing order.
    pub indices: Vec<usize>,
    /// Numbers of each.
    pub elements: usize,
    /// Which of the run's sizes they have.
    pub size: usize,
}

impl Batch {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether it has no samples.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Which samples, in increasing order.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = usize> + Clone {
        self.indices.iter().copied()
    }
}

impl Conditioning {
    /// The samples `indices` in batches of at most `most` and [`chunk`], size after size; `usual` is the numbers of
    /// a sample where the conditions do not say.
    pub fn batches(&self, indices: Range<usize>, usual: usize, most: usize) -> Vec<Batch> {
        let mut batches = Vec::new();
        for size in 0..self.sizes() {
            let elements = self.elements(size, usual);
            let own: Vec<usize> = indices.clone().filter(|i| self.size_of(*i) == size).collect();
            let parts = own.chunks(most.min(chunk(elements)).max(1));
            batches.extend(parts.map(|part| Batch { indices: part.to_vec(), elements, size }));
        }
        batches
    }

    /// Number of different sizes of samples, at least 1.
    pub fn sizes(&self) -> usize {
        self.conditions.as_ref().map_or(1, |conditions| conditions.groups())
    }

    /// Which of the sizes sample `index` has.
    pub fn size_of(&self, index: usize) -> usize {
        self.conditions.as_ref().map_or(0, |conditions| conditions.group_of(index))
    }

    /// The card of samples of the size `size`.
    pub fn card(&self, card: &Card, size: usize) -> Card {
        match &self.conditions {
            Some(conditions) => card.with_sizes(conditions.sizes(size)),
            None => card.clone(),
        }
    }

    /// What the conditions say of the named sizes of samples, as opposed to those of inputs, where that is the same for
    /// all.
    pub fn sample_sizes(&self, card: &Card) -> Option<Sizes> {
        let Some(conditions) = &self.conditions else { return Some(Sizes::new()) };
        let of = |size: usize| {
            let known = conditions.sizes(size);
            let named = card.shape.names().filter_map(|name| known.get_key_value(name));
            named.map(|(name, n)| (name.clone(), *n)).collect::<Sizes>()
        };
        let first = of(0);
        (1..self.sizes()).all(|size| of(size) == first).then_some(first)
    }

    /// Numbers of a sample of the size `size`; `usual` where the conditions do not say.
    pub fn elements(&self, size: usize, usual: usize) -> usize {
        self.conditions.as_ref().and_then(|conditions| conditions.elements(size)).unwrap_or(usual)
    }
}
