//! What a network takes besides time and state, and of which sizes.

use crate::error::{Error, Result};
use crate::inputs::{CLASS, Column, Inputs};
use crate::memory;
use crate::tensor::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A size in a shape: a number, or a name. Equal names are equal sizes within one sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum Size {
    /// The same for every sample.
    Number(usize),
    /// May differ from sample to sample.
    Name(String),
}

impl TryFrom<Value> for Size {
    type Error = String;

    fn try_from(value: Value) -> std::result::Result<Self, String> {
        match &value {
            Value::String(name) => Ok(Size::Name(name.clone())),
            _ => {
                let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
                number.map(Size::Number).ok_or_else(|| format!("is {value}, expected a positive size or a name"))
            }
        }
    }
}

impl From<Size> for Value {
    fn from(size: Size) -> Self {
        match size {
            Size::Number(n) => n.into(),
            Size::Name(name) => name.into(),
        }
    }
}

/// What named sizes are, for the samples of one batch.
pub type Sizes = BTreeMap<String, usize>;

/// Numbers of a sample, or of one row of an input, at most.
const MOST: usize = 1 << 31;
/// What a named size is where a sample, or a row, is made up.
const MADE_UP_SIZE: usize = 8;
/// What [`fits`] asks for.
const FITTING: &str = "positive sizes whose product is below 2^31";

/// Whether memory can be thought of that holds a sample, or a row, of these sizes.
fn fits(mut sizes: impl Iterator<Item = usize>) -> bool {
    sizes.try_fold(1usize, |product, n| product.checked_mul(n)).is_some_and(|n| (1..MOST).contains(&n))
}

/// A shape of numbers and names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(Vec<Size>);

impl Shape {
    /// A shape of numbers alone.
    pub fn fixed(sizes: &[usize]) -> Self {
        Self(sizes.iter().map(|n| Size::Number(*n)).collect())
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Its sizes, in order.
    pub fn sizes(&self) -> &[Size] {
        &self.0
    }

    /// The names in it, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|size| match size {
            Size::Name(name) => Some(name.as_str()),
            Size::Number(_) => None,
        })
    }

    /// Its numbers, where it has no names.
    pub fn numbers(&self) -> Option<Vec<usize>> {
        let number = |size: &Size| if let Size::Number(n) = size { Some(*n) } else { None };
        self.0.iter().map(number).collect()
    }

    /// Its numbers, with `sizes` for its names: positive, with a product below 2^31.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the size that is not among them, or the shape that is too large.
    pub fn resolve(&self, sizes: &Sizes) -> Result<Vec<usize>> {
        let number = |size: &Size| match size {
            Size::Number(n) => Ok(*n),
            Size::Name(name) => sizes.get(name).copied().ok_or_else(|| {
                let expected = "a size: that of an input, of conditions or of given noise";
                Error::invalid(format!("size {name:?}"), "not known", expected)
            }),
        };
        let numbers = self.0.iter().map(number).collect::<Result<Vec<usize>>>()?;
        if !fits(numbers.iter().copied()) {
            return Err(Error::invalid(format!("shape {self}"), format!("{numbers:?}"), FITTING));
        }
        Ok(numbers)
    }

    /// Its numbers where a sample, or a row, is made up: 8 for every name.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the shape that is too large then.
    pub fn made_up(&self) -> Result<Vec<usize>> {
        self.resolve(&self.names().map(|name| (name.to_owned(), MADE_UP_SIZE)).collect())
    }

    /// The same with numbers for those of its names that are among `sizes`.
    pub fn with(&self, sizes: &Sizes) -> Self {
        let number = |size: &Size| match size {
            Size::Name(name) => sizes.get(name).map_or_else(|| size.clone(), |n| Size::Number(*n)),
            Size::Number(_) => size.clone(),
        };
        Self(self.0.iter().map(number).collect())
    }

    /// Takes the sizes of `found`, the shape that `what` has, into `sizes`.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `what`, where it is of another rank or size.
    pub fn learn(&self, what: &str, found: &[usize], sizes: &mut Sizes) -> Result<()> {
        let wrong = |expected: String| Err(Error::invalid(format!("{what}.shape"), format!("{found:?}"), expected));
        if found.len() != self.0.len() {
            return wrong(format!("{self} for each sample"));
        }
        for (size, found) in self.0.iter().zip(found) {
            match size {
                Size::Number(n) if n != found => return wrong(format!("{self} for each sample")),
                Size::Number(_) => {}
                Size::Name(name) => {
                    let known = *sizes.entry(name.clone()).or_insert(*found);
                    if known != *found {
                        return wrong(format!("{self} with {name} = {known}, as elsewhere in the sample"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Finds the one size that is not known yet from the `elements` of a sample.
    ///
    /// # Errors
    /// [`Error::Invalid`] where no size makes as many.
    pub fn learn_elements(&self, elements: usize, sizes: &mut Sizes) -> Result<()> {
        let mut unknown: Vec<&str> = self.names().filter(|name| !sizes.contains_key(*name)).collect();
        unknown.dedup();
        if let [name] = unknown.as_slice()
            && self.names().filter(|other| other == name).count() == 1
        {
            let with = |n: usize| {
                let mut sizes = sizes.clone();
                sizes.insert((*name).to_owned(), n);
                self.resolve(&sizes).ok().map(|shape| shape.iter().product::<usize>())
            };
            if let Some(others) = with(1).filter(|others| *others > 0 && elements.is_multiple_of(*others)) {
                sizes.insert((*name).to_owned(), elements / others);
            }
        }
        let shape = self.resolve(sizes)?;
        if shape.iter().product::<usize>() != elements {
            return Err(Error::invalid("elements of a sample", elements, format!("those of {self}, here {shape:?}")));
        }
        Ok(())
    }

    /// What is wrong with it in a card, if anything is.
    fn problem(&self, empty: bool) -> Option<String> {
        if self.0.is_empty() && !empty {
            return Some(format!("is [], expected {FITTING}"));
        }
        if self.names().any(|name| name.is_empty() || name.contains('\0') || name.parse::<f64>().is_ok()) {
            return Some(format!("is {self}, expected names that are neither empty nor numbers"));
        }
        let numbers = self.0.iter().map(|size| if let Size::Number(n) = size { *n } else { 1 });
        (!fits(numbers)).then(|| format!("is {self}, expected {FITTING}"))
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = |size: &Size| match size {
            Size::Number(n) => n.to_string(),
            Size::Name(name) => name.clone(),
        };
        write!(f, "[{}]", self.0.iter().map(part).collect::<Vec<_>>().join(", "))
    }
}

/// What an unconditional pass gets in place of an input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number, \"keep\" or the name of an .npy file")]
pub enum Null {
    /// This number in every place.
    Number(f64),
    /// `"keep"`: the input itself.
    Keep(Keep),
    /// One row, an .npy file beside the card.
    File(PathBuf),
}

/// The word `keep`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// As the conditional pass has it.
    Keep,
}

impl Default for Null {
    fn default() -> Self {
        Null::Keep(Keep::Keep)
    }
}

impl Null {
    fn is_keep(&self) -> bool {
        matches!(self, Null::Keep(_))
    }
}

/// One input of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// What it is called, in conditions and by networks that take inputs by name.
    pub name: String,
    /// The type of its numbers: the library hands them on as they are.
    pub dtype: Dtype,
    /// Shape of one row; `[]` for one number a sample.
    pub shape: Shape,
    /// What an unconditional pass gets.
    #[serde(default, skip_serializing_if = "Null::is_keep")]
    pub null: Null,
}

impl Input {
    /// A made-up row: the numbers whose bytes are `pattern`, over and over, in as many places as there are where every
    /// named size is 8.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the shape that is too large; [`Error::Memory`].
    pub fn made_up(&self, pattern: &[u8]) -> Result<Column> {
        let shape = self.shape.made_up()?;
        let length = shape.iter().try_fold(self.dtype.size(), |bytes, n| memory::numbers(bytes, *n))?;
        Column::new(&self.name, self.dtype, &shape, 1, &memory::cycled(pattern, length)?)
    }
}

/// All inputs of a network, in the order in which it takes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signature {
    inputs: Vec<Input>,
    /// Number of classes, where there are: they stand for the input `class`.
    classes: Option<(i64, Option<i64>)>,
    /// The input that is given the guidance scale; callers do not give it.
    scale_input: Option<String>,
}

impl Signature {
    /// The inputs of a card: its `inputs`, after `class` where it has `classes`.
    pub(super) fn new(inputs: &[Input], classes: Option<(i64, Option<i64>)>, scale_input: Option<String>) -> Self {
        let class = classes.map(|(_, null)| Input {
            name: CLASS.to_owned(),
            dtype: Dtype::Int64,
            shape: Shape(Vec::new()),
            null: null.map_or_else(Null::default, |null| Null::Number(null as f64)),
        });
        Self { inputs: class.into_iter().chain(inputs.iter().cloned()).collect(), classes, scale_input }
    }

    /// The inputs, in order.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The inputs that a caller gives.
    pub fn given(&self) -> impl Iterator<Item = &Input> {
        self.inputs.iter().filter(|input| Some(&input.name) != self.scale_input.as_ref())
    }

    /// The input called `name`.
    pub fn get(&self, name: &str) -> Option<&Input> {
        self.inputs.iter().find(|input| input.name == name)
    }

    /// What is wrong with it in a card, if anything is: the key and the problem.
    pub(super) fn problem(&self) -> Option<(String, String)> {
        for (i, input) in self.inputs.iter().enumerate() {
            let key = |part: &str| format!("inputs.{}.{part}", input.name);
            if input.name.is_empty() || input.name.contains('\0') {
                return Some(("inputs.name".into(), format!("is {:?}, expected a name", input.name)));
            }
            if self.inputs[..i].iter().any(|other| other.name == input.name) {
                return Some((key("name"), "is there twice".into()));
            }
            if let Some(problem) = input.shape.problem(true) {
                return Some((key("shape"), problem));
            }
            if let Null::Number(null) = input.null
                && input.dtype.encode(null).is_err()
            {
                return Some((key("null"), format!("is {null}, expected a number that {} holds", input.dtype)));
            }
        }
        None
    }

    /// The columns of `given` in the network's order, checked, and the sizes that they have.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the input that is missing, not known, of another dtype, shape or number of rows.
    pub fn bind(&self, batch: usize, given: &Inputs) -> Result<(Vec<Column>, Sizes)> {
        if let Some(column) = given.columns().iter().find(|column| !self.given().any(|own| own.name == column.name())) {
            return Err(self.unknown(column));
        }
        let mut sizes = Sizes::new();
        let mut columns = Vec::with_capacity(self.inputs.len());
        for input in self.given() {
            let Some(column) = given.get(&input.name) else { return Err(self.missing(input, batch)) };
            self.check(input, column, batch, &mut sizes)?;
            columns.push(column.clone());
        }
        Ok((columns, sizes))
    }

    fn unknown(&self, column: &Column) -> Error {
        match column.integers().and_then(<[i64]>::first) {
            Some(class) if column.name() == CLASS => Error::invalid(CLASS, class, "none: the model has no classes"),
            _ => {
                let known: Vec<&str> = self.given().map(|input| input.name.as_str()).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let expected = format!("absent: the model's inputs are {known}");
                Error::invalid(format!("inputs.{}", column.name()), "there", expected)
            }
        }
    }

    fn missing(&self, input: &Input, batch: usize) -> Error {
        if input.name == CLASS && self.classes.is_some() {
            return Error::invalid(CLASS, "0 classes", format!("{batch}, one a sample"));
        }
        let expected = format!("{} {}, one row a sample", input.dtype, input.shape);
        Error::invalid(format!("inputs.{}", input.name), "absent", expected)
    }

    fn check(&self, input: &Input, column: &Column, batch: usize, sizes: &mut Sizes) -> Result<()> {
        if let (CLASS, Some((classes, null)), Some(values)) = (input.name.as_str(), self.classes, column.integers()) {
            if values.len() != batch {
                let expected = format!("{batch}, one a sample");
                return Err(Error::invalid(CLASS, format!("{} classes", values.len()), expected));
            }
            let known = |c: i64| (0..classes).contains(&c) || Some(c) == null;
            if let Some(class) = values.iter().find(|c| !known(**c)) {
                return Err(Error::invalid(CLASS, class, format!("0 to {}", classes - 1)));
            }
        }
        let what = format!("inputs.{}", input.name);
        if column.dtype() != input.dtype {
            return Err(Error::invalid(format!("{what}.dtype"), column.dtype(), input.dtype.name()));
        }
        if column.batch() != batch {
            return Err(Error::invalid(what, format!("{} rows", column.batch()), format!("{batch}, one a sample")));
        }
        input.shape.learn(&what, column.shape(), sizes)
    }
}

/// What is wrong with a card's `shape`, if anything is.
pub(super) fn shape_problem(shape: &Shape) -> Option<String> {
    shape.problem(false)
}
