//! A model's signature in C's terms, in memory that stays where it is.

use super::dlpack::DLDataType;
use crate::card::{Card, Shape, Size};
use std::ffi::{CString, c_char};
use std::ptr::null;

/// One input of a model's network. What it points to is the model's.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_input_properties {
    /// Its name, UTF-8.
    pub name: *const c_char,
    /// The type of its numbers.
    pub dtype: DLDataType,
    /// Length of `shape`; 0 for one number a sample.
    pub ndim: u32,
    /// Shape of one row; -1 for a size that has a name.
    pub shape: *const i64,
    /// Names of the sizes of `shape`; NULL for a number.
    pub shape_names: *const *const c_char,
}

/// Sizes and the names of those that have one.
pub(super) struct Sizes {
    pub sizes: Vec<i64>,
    pub pointers: Vec<*const c_char>,
    /// What `pointers` points to.
    _names: Vec<CString>,
}

/// All that `bespoke_model_properties` points to.
pub(super) struct Described {
    pub shape: Sizes,
    pub inputs: Vec<bespoke_input_properties>,
    pub scale_pointers: Vec<*const c_char>,
    /// What `inputs` and `scale_pointers` point to.
    _shapes: Vec<Sizes>,
    _names: Vec<CString>,
}

// SAFETY: all pointers are to memory of the value itself, which nobody writes once it is made.
unsafe impl Send for Described {}
// SAFETY: as above.
unsafe impl Sync for Described {}

/// Names of cards hold no NUL: they are checked, or come from JSON keys that are refused with one.
fn owned(name: &str) -> CString {
    CString::new(name).unwrap_or_default()
}

impl Sizes {
    fn new(shape: &Shape) -> Self {
        let (mut sizes, mut names, mut named) = (Vec::new(), Vec::new(), Vec::new());
        for size in shape.sizes() {
            match size {
                Size::Number(n) => sizes.push(*n as i64),
                Size::Name(name) => {
                    sizes.push(-1);
                    names.push(owned(name));
                }
            }
            named.push(matches!(size, Size::Name(_)));
        }
        let mut rest = names.iter();
        let pointers =
            named.iter().map(|named| if *named { rest.next().map_or(null(), |n| n.as_ptr()) } else { null() });
        Self { sizes, pointers: pointers.collect(), _names: names }
    }
}

impl Described {
    pub(super) fn new(card: &Card, scales: &[String]) -> Self {
        let signature = card.signature();
        let shapes: Vec<Sizes> = signature.inputs().iter().map(|input| Sizes::new(&input.shape)).collect();
        let inputs: Vec<CString> = signature.inputs().iter().map(|input| owned(&input.name)).collect();
        let scales: Vec<CString> = scales.iter().map(|scale| owned(scale)).collect();
        let properties = signature.inputs().iter().zip(&shapes).zip(&inputs).map(|((input, shape), name)| {
            bespoke_input_properties {
                name: name.as_ptr(),
                dtype: input.dtype.dlpack(),
                ndim: shape.sizes.len() as u32,
                shape: shape.sizes.as_ptr(),
                shape_names: shape.pointers.as_ptr(),
            }
        });
        Self {
            shape: Sizes::new(&card.shape),
            inputs: properties.collect(),
            scale_pointers: scales.iter().map(|scale| scale.as_ptr()).collect(),
            _shapes: shapes,
            _names: inputs.into_iter().chain(scales).collect(),
        }
    }
}
