//! What each sample of a run is conditioned on.

use crate::error::Result;
use crate::velocity::Condition;
use std::ops::Range;

/// How noises become samples: which class and guidance each index gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditioning {
    /// Number of classes; 0 for none.
    pub classes: i64,
    /// One class for all; `None`: sample i gets class i mod classes.
    pub class: Option<i64>,
    /// Guidance of all samples; 1 is off.
    pub guidance_scale: f64,
}

impl Conditioning {
    /// The condition of the samples `indices`.
    ///
    /// # Errors
    /// [`crate::Error::Memory`].
    pub fn of(&self, indices: Range<usize>) -> Result<Condition> {
        let count = indices.len();
        let class = |i: usize| self.class.unwrap_or(i as i64 % self.classes);
        let classes: Vec<i64> = if self.classes > 0 { indices.map(class).collect() } else { Vec::new() };
        let scales = if self.guidance_scale == 1.0 { Vec::new() } else { vec![self.guidance_scale; count] };
        Ok(Condition::of_classes(&classes)?.guided(scales))
    }
}
