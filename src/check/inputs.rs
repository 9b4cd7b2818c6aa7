//! What a checked network is given besides time and state.

use super::Evidence;
use crate::card::{Card, Input};
use crate::error::{Error, Result};
use crate::inputs::{CLASS, Column, Inputs};
use crate::model::{NullRow, load_nulls};
use crate::samples::Conditions;
use std::ops::Range;

/// Where an input's rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The conditions.
    Conditions,
    /// The input's null, for all samples.
    Null,
    /// Class i mod the number of classes: the data's own is not known.
    ClassesInTurn,
    /// The guidance scale.
    GuidanceScale,
}

/// What the samples are given.
pub struct Giver<'a> {
    conditions: Option<&'a Conditions>,
    places: &'a [usize],
    classes: i64,
    /// Of each input its source, and the row that all samples get where it is one: a number in every place is made up
    /// at some size.
    rows: Vec<(Input, Source, Option<Column>)>,
}

impl<'a> Giver<'a> {
    /// Decides for each input of `card`.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming an input that has neither conditions nor a null.
    pub fn new(card: &Card, evidence: &Evidence<'a>) -> Result<Self> {
        let signature = card.signature();
        let mut rows = Vec::new();
        for (input, null) in signature.inputs().iter().zip(load_nulls(card)?) {
            let (source, row) = if card.guidance.scale_input.as_ref() == Some(&input.name) {
                (Source::GuidanceScale, Some(input.made_up(&input.dtype.encode(evidence.guidance_scale)?)?))
            } else if evidence.conditions.is_some_and(|conditions| conditions.have(&input.name)) {
                (Source::Conditions, None)
            } else {
                match null {
                    NullRow::Number(number) => (Source::Null, Some(input.made_up(&number)?)),
                    NullRow::Row(row) => (Source::Null, Some(row)),
                    NullRow::Keep if input.name == CLASS && card.classes > 0 => (Source::ClassesInTurn, None),
                    NullRow::Keep => return Err(unknown(input)),
                }
            };
            rows.push((input.clone(), source, row));
        }
        Ok(Self { conditions: evidence.conditions, places: evidence.places, classes: card.classes, rows })
    }

    /// Of each input its source.
    pub fn sources(&self) -> Vec<(String, Source)> {
        self.rows.iter().map(|(input, source, _)| (input.name.clone(), *source)).collect()
    }

    /// What the samples `indices` are given, in the network's order.
    pub fn of(&self, indices: Range<usize>) -> Result<Inputs> {
        let places = indices.clone().map(|i| self.places.get(i).copied().unwrap_or(i));
        let given = self.conditions.map(|conditions| conditions.of(places.clone())).transpose()?;
        let column = |(input, source, row): &(Input, Source, Option<Column>)| match (source, row) {
            (_, Some(row)) => row.select(&vec![0; indices.len()]),
            (Source::ClassesInTurn, _) => {
                let classes = places.clone().map(|i| i as i64 % self.classes);
                Column::of_integers(CLASS, &classes.collect::<Vec<_>>())
            }
            _ => given.as_ref().and_then(|given| given.get(&input.name)).cloned().ok_or_else(|| unknown(input)),
        };
        Inputs::new(self.rows.iter().map(column).collect::<Result<_>>()?)
    }
}

fn unknown(input: &Input) -> Error {
    let expected = format!("a file with rows of {} {}: the card has no null for it", input.dtype, input.shape);
    Error::invalid("conditions", format!("without {:?}", input.name), expected)
}
