//! What each sample of a run is conditioned on.

use super::conditions::Conditions;
use crate::error::{Error, Result};
use crate::inputs::{CLASS, Column, Inputs};
use crate::memory;
use crate::noise::{self, Purpose};
use crate::velocity::{Condition, GUIDANCE_SCALE, Scale};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

/// How noises become samples: which class, inputs and guidance each index gets. The default is none of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditioning {
    /// Number of classes; 0 for none.
    pub classes: i64,
    /// One class for all; `None`: sample i gets the class of its conditions, or class i mod classes.
    pub class: Option<i64>,
    /// Guidance of all samples, or the range from which each sample's is drawn.
    pub guidance_scale: GuidanceScale,
    /// Seed of what is drawn.
    pub seed: u64,
    /// Inputs: sample i gets row i mod C.
    pub conditions: Option<Arc<Conditions>>,
}

impl Conditioning {
    /// No condition.
    pub const NONE: Self =
        Self { classes: 0, class: None, guidance_scale: GuidanceScale::OFF, seed: 0, conditions: None };

    /// The condition of the samples `indices`, which are of one size.
    ///
    /// # Errors
    /// [`crate::Error::Memory`]; [`crate::Error::Invalid`] for samples of several sizes.
    pub fn of(&self, indices: impl ExactSizeIterator<Item = usize> + Clone) -> Result<Condition> {
        let scales = self.guidance_scale.of(indices.clone(), self.seed)?;
        let mut columns = Vec::new();
        let said = self.conditions.as_ref().is_some_and(|conditions| conditions.have(CLASS));
        if self.classes > 0 && !said {
            let class = |i: usize| self.class.unwrap_or(i as i64 % self.classes);
            columns.push(Column::of_integers(CLASS, &indices.clone().map(class).collect::<Vec<_>>())?);
        }
        if let Some(conditions) = &self.conditions {
            columns.extend(conditions.of(indices)?.columns().iter().cloned());
        }
        Ok(Condition { inputs: Inputs::new(columns)?, scales })
    }
}

/// A guidance scale: one number for all samples, or a range from which each sample's is drawn evenly.
///
/// As text a range is `1..7.5`, in documents `[1, 7.5]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(try_from = "WrittenExtent", into = "WrittenExtent")]
pub struct Extent {
    from: f64,
    to: f64,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected a number or a range [from, to]")]
enum WrittenExtent {
    One(f64),
    Range([f64; 2]),
}

impl TryFrom<WrittenExtent> for Extent {
    type Error = Error;

    fn try_from(written: WrittenExtent) -> Result<Self> {
        match written {
            WrittenExtent::One(scale) => Ok(Extent::one(scale)),
            WrittenExtent::Range([from, to]) => Extent::range(from, to),
        }
    }
}

impl From<Extent> for WrittenExtent {
    fn from(extent: Extent) -> Self {
        match extent.number() {
            Some(scale) => WrittenExtent::One(scale),
            None => WrittenExtent::Range([extent.from, extent.to]),
        }
    }
}

impl Extent {
    /// The same for all samples.
    pub fn one(scale: f64) -> Self {
        Self { from: scale, to: scale }
    }

    /// Each sample its own, from `from` to `to`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where these are not finite and in order.
    pub fn range(from: f64, to: f64) -> Result<Self> {
        if from < to && from.is_finite() && to.is_finite() {
            return Ok(Self { from, to });
        }
        Err(Error::invalid(GUIDANCE_SCALE, format!("{from}..{to}"), "a range from a number to a greater one"))
    }

    /// The number, where it is one for all samples.
    pub fn number(&self) -> Option<f64> {
        // Also of a NaN, which is refused where it is used.
        (self.from.to_bits() == self.to.to_bits()).then_some(self.from)
    }
}

impl FromStr for Extent {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |part: &str| {
            let expected = "a number, or a range of two as in 1..7.5";
            part.trim().parse().map_err(|_| Error::invalid(GUIDANCE_SCALE, format!("{text:?}"), expected))
        };
        match text.split_once("..") {
            None => number(text).map(Extent::one),
            Some((from, to)) => Extent::range(number(from)?, number(to)?),
        }
    }
}

impl std::fmt::Display for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.number() {
            Some(scale) => write!(f, "{scale}"),
            None => write!(f, "{}..{}", self.from, self.to),
        }
    }
}

/// A number or a range for each scale of guidance; a scale that is not named is 1, off.
///
/// As text and in documents one alone is the scale `guidance_scale`; several are `text=7.5,image=1..1.5`, or an
/// object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(from = "Written", into = "Written")]
pub struct GuidanceScale(BTreeMap<String, Extent>);

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected a number, a range [from, to] or one of them for each scale's name")]
enum Written {
    One(Extent),
    Named(BTreeMap<String, Extent>),
}

impl From<Written> for GuidanceScale {
    fn from(written: Written) -> Self {
        match written {
            Written::One(scale) => GuidanceScale::plainly(scale),
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

    /// The plain scale, the same for all samples.
    pub fn one(scale: f64) -> Self {
        Self::plainly(Extent::one(scale))
    }

    fn plainly(scale: Extent) -> Self {
        Self(BTreeMap::from([(GUIDANCE_SCALE.to_owned(), scale)]))
    }

    /// The plain scale, 1 where there is none; `None` where another one is named.
    pub fn plain(&self) -> Option<Extent> {
        match self.0.iter().collect::<Vec<_>>().as_slice() {
            [] => Some(Extent::one(1.0)),
            [(name, scale)] if name.as_str() == GUIDANCE_SCALE => Some(**scale),
            _ => None,
        }
    }

    /// The scales, by name.
    pub fn named(&self) -> impl Iterator<Item = (&str, Extent)> {
        self.0.iter().map(|(name, scale)| (name.as_str(), *scale))
    }

    /// The scales of the samples `indices`: what is drawn depends on the seed and a sample's index alone.
    fn of(&self, indices: impl ExactSizeIterator<Item = usize>, seed: u64) -> Result<Vec<Scale>> {
        let mut scales = Vec::new();
        for (name, extent) in self.named() {
            scales.push((extent, Scale { name: name.to_owned(), values: memory::room(indices.len())? }));
        }
        for index in indices {
            let mut rng = noise::generator(seed, Purpose::Guidance, index as u64);
            for (extent, scale) in &mut scales {
                let drawn = || extent.from + (extent.to - extent.from) * rng.random::<f64>();
                scale.values.push(extent.number().unwrap_or_else(drawn));
            }
        }
        Ok(scales.into_iter().map(|(_, scale)| scale).collect())
    }
}

impl FromStr for GuidanceScale {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if !text.contains('=') {
            let expected = "a number, a range A..B, or NAME=NUMBER,NAME=A..B";
            let whole = |error| match error {
                Error::Invalid { value, .. } if !text.contains("..") => Error::invalid(GUIDANCE_SCALE, value, expected),
                other => other,
            };
            return text.parse().map(Self::plainly).map_err(whole);
        }
        let one = |part: &str| {
            let expected = "a number, or NAME=NUMBER,NAME=A..B";
            let named =
                part.split_once('=').ok_or_else(|| Error::invalid(GUIDANCE_SCALE, format!("{text:?}"), expected));
            let (name, scale) = named?;
            match name.trim() {
                "" => Err(Error::invalid(GUIDANCE_SCALE, format!("{text:?}"), expected)),
                name => Ok((name.to_owned(), scale.parse()?)),
            }
        };
        let mut scales = BTreeMap::new();
        for part in text.split(',') {
            let (name, scale) = one(part)?;
            if scales.contains_key(&name) {
                return Err(Error::invalid(GUIDANCE_SCALE, format!("{name} twice"), "each scale once"));
            }
            scales.insert(name, scale);
        }
        Ok(Self(scales))
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
