//! What each sample of a run is conditioned on.

use super::conditions::Conditions;
use crate::error::{Error, Result};
use crate::inputs::{CLASS, Column, Inputs};
use crate::velocity::{Condition, GUIDANCE_SCALE, Scale};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

/// How noises become samples: which class, inputs and guidance each index gets. The default is none of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditioning {
    /// Number of classes; 0 for none.
    pub classes: i64,
    /// One class for all; `None`: sample i gets class i mod classes.
    pub class: Option<i64>,
    /// Guidance of all samples.
    pub guidance_scale: GuidanceScale,
    /// Inputs: sample i gets row i mod C.
    pub conditions: Option<Arc<Conditions>>,
}

impl Conditioning {
    /// No condition.
    pub const NONE: Self = Self { classes: 0, class: None, guidance_scale: GuidanceScale::OFF, conditions: None };

    /// The condition of the samples `indices`.
    ///
    /// # Errors
    /// [`crate::Error::Memory`].
    pub fn of(&self, indices: Range<usize>) -> Result<Condition> {
        let count = indices.len();
        let mut columns = Vec::new();
        if self.classes > 0 {
            let class = |i: usize| self.class.unwrap_or(i as i64 % self.classes);
            columns.push(Column::of_integers(CLASS, &indices.clone().map(class).collect::<Vec<_>>())?);
        }
        if let Some(conditions) = &self.conditions {
            columns.extend(conditions.of(indices)?.columns().iter().cloned());
        }
        let scale = |(name, value): (&str, f64)| Scale { name: name.to_owned(), values: vec![value; count] };
        Ok(Condition { inputs: Inputs::new(columns)?, scales: self.guidance_scale.named().map(scale).collect() })
    }
}

/// One number for each scale of guidance; a scale that is not named is 1, off.
///
/// As text and in documents a number is the scale `guidance_scale`; several are `text=7.5,image=1.5`, or an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(from = "Written", into = "Written")]
pub struct GuidanceScale(BTreeMap<String, f64>);

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum Written {
    One(f64),
    Named(BTreeMap<String, f64>),
}

impl From<Written> for GuidanceScale {
    fn from(written: Written) -> Self {
        match written {
            Written::One(scale) => GuidanceScale::one(scale),
            Written::Named(scales) => Self(scales),
        }
    }
}

impl From<GuidanceScale> for Written {
    fn from(scales: GuidanceScale) -> Self {
        match scales.plain() {
            Some(scale) => Written::One(scale),
            None => Written::Named(scales.0),
        }
    }
}

impl GuidanceScale {
    /// No guidance.
    pub const OFF: Self = Self(BTreeMap::new());

    /// The plain scale.
    pub fn one(scale: f64) -> Self {
        Self(BTreeMap::from([(GUIDANCE_SCALE.to_owned(), scale)]))
    }

    /// The plain scale, 1 where there is none; `None` where another one is named.
    pub fn plain(&self) -> Option<f64> {
        match self.0.iter().collect::<Vec<_>>().as_slice() {
            [] => Some(1.0),
            [(name, scale)] if name.as_str() == GUIDANCE_SCALE => Some(**scale),
            _ => None,
        }
    }

    /// The scales, by name.
    pub fn named(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, scale)| (name.as_str(), *scale))
    }
}

impl FromStr for GuidanceScale {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Ok(scale) = text.parse() {
            return Ok(Self::one(scale));
        }
        let one = |part: &str| {
            let (name, scale) = part.split_once('=')?;
            Some((name.trim().to_owned(), scale.trim().parse::<f64>().ok()?))
        };
        let scales = text.split(',').map(one).collect::<Option<BTreeMap<_, _>>>();
        let expected = "a number, or NAME=NUMBER,NAME=NUMBER";
        scales.map(Self).ok_or_else(|| Error::invalid(GUIDANCE_SCALE, format!("{text:?}"), expected))
    }
}

impl std::fmt::Display for GuidanceScale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.plain() {
            Some(scale) => write!(f, "{scale}"),
            None => f.write_str(&self.named().map(|(n, s)| format!("{n}={s}")).collect::<Vec<_>>().join(",")),
        }
    }
}
