//! What a card says that the inputs and outputs of its network are, against what the network's file says of them.

use crate::card::{Shape, Size, Time, TimeDtype, TimeShape};
use crate::tensor::Dtype;
use std::borrow::Cow;

/// What the card says that an input or output is.
pub(super) struct Expected {
    pub name: String,
    /// `None`: any float, which the numbers are converted to.
    pub dtype: Option<Dtype>,
    /// The batch's size first, where there is one; `None` for what is the call's.
    pub shape: Vec<Option<usize>>,
}

/// What a file says that an input or output is.
pub(super) struct Found<'a> {
    /// The type of its numbers; what it is, where it is none that this library has.
    pub dtype: &'a Result<Dtype, String>,
    /// Its sizes, `None` where they are the call's.
    pub shape: &'a [Option<usize>],
    /// Where this is said: the graph.
    pub place: &'static str,
}

impl Expected {
    /// Rows of `shape`, one a sample.
    pub fn rows(name: &str, dtype: Option<Dtype>, shape: &Shape) -> Self {
        let size = |size: &Size| if let Size::Number(n) = size { Some(*n) } else { None };
        Self {
            name: name.to_owned(),
            dtype,
            shape: std::iter::once(None).chain(shape.sizes().iter().map(size)).collect(),
        }
    }

    /// What `time` says of the time.
    pub fn time(name: &str, time: Time) -> Self {
        let shape = match time.shape {
            TimeShape::Batch => vec![None],
            TimeShape::Column => vec![None, Some(1)],
            TimeShape::Scalar => Vec::new(),
        };
        Self { name: name.to_owned(), dtype: (time.dtype == TimeDtype::Int64).then_some(Dtype::Int64), shape }
    }

    /// The type of what was found, where it is one that is asked for; otherwise how it is not.
    pub fn agreed_dtype(&self, found: &Found<'_>) -> Result<Dtype, String> {
        let place = found.place;
        let dtype = found.dtype.clone().map_err(|found| {
            let asked = self.dtype.map_or("a tensor of floats".into(), |dtype| format!("a tensor of {dtype}"));
            format!("is {found} in {place}, expected {asked}")
        })?;
        let float = [Dtype::Float64, Dtype::Float32, Dtype::Float16, Dtype::Bfloat16].contains(&dtype);
        match self.dtype {
            Some(asked) if asked != dtype => Err(format!("is of {dtype} in {place}, but of {asked} in the card")),
            None if !float => Err(format!("is of {dtype} in {place}, expected a float")),
            _ => Ok(dtype),
        }
    }

    /// How the shape that was found is not what is asked for, if it is not.
    pub fn shape_problem(&self, found: &Found<'_>) -> Option<String> {
        let shown = |size: Option<usize>| size.map_or("any".into(), |n| n.to_string());
        let of = |sizes: &[Option<usize>]| sizes.iter().map(|size| shown(*size)).collect::<Vec<_>>().join(", ");
        let shapes = || {
            format!("is of shape [{}] in {}, but of [{}] in the card", of(found.shape), found.place, of(&self.shape))
        };
        let pairs = || found.shape.iter().zip(&self.shape);
        if found.shape.len() != self.shape.len() || pairs().any(|(a, b)| a.zip(*b).is_some_and(|(a, b)| a != b)) {
            return Some(shapes());
        }
        let fixed = pairs().any(|(found, asked)| found.is_some() && asked.is_none());
        fixed.then(|| format!("{}: a size is fixed that is any; export the model with a dynamic one", shapes()))
    }
}

/// Names, one after another.
pub(super) fn listed<'a>(names: impl Iterator<Item = Cow<'a, str>>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
