//! Numbers that JSON has no name for. Serde's writer makes `null` of a NaN or an infinity, so whatever is to be
//! written is walked through first.

use serde::ser::{self, Error as _, Serialize, Serializer};
use std::fmt::Display;

/// The first number of a value that is NaN or infinite, or why it cannot be written at all.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Where it is, `.` for the whole, and what.
    #[error("{path}: {value}")]
    NotFinite {
        /// Keys and places, as in `results[3].rmse`.
        path: String,
        /// The number.
        value: f64,
    },
    /// The value's own.
    #[error("{0}")]
    Other(String),
}

impl ser::Error for Problem {
    fn custom<T: Display>(problem: T) -> Self {
        Problem::Other(problem.to_string())
    }
}

impl Problem {
    /// The same, seen from what has `segment` before it.
    fn below(self, segment: &str) -> Self {
        match self {
            Problem::NotFinite { path, value } if path.is_empty() || path.starts_with('[') => {
                Problem::NotFinite { path: format!("{segment}{path}"), value }
            }
            Problem::NotFinite { path, value } => Problem::NotFinite { path: format!("{segment}.{path}"), value },
            other => other,
        }
    }

    /// The same, seen from outside the variant, if it is in one.
    fn within(self, variant: Option<&str>) -> Self {
        match variant {
            Some(variant) => self.below(variant),
            None => self,
        }
    }
}

/// Walks through `value`.
///
/// # Errors
/// [`Problem`].
pub fn check<T: Serialize + ?Sized>(value: &T) -> Result<(), Problem> {
    value.serialize(Finder)
}

/// A serializer that writes nothing.
struct Finder;

/// The parts of a sequence, and how many there were; the name of its variant, where it is one's.
struct Parts(usize, Option<&'static str>);

/// The entries of a map or a struct, and the last key; the name of its variant, where it is one's.
struct Entries(String, Option<&'static str>);

fn number(value: f64) -> Result<(), Problem> {
    if value.is_finite() { Ok(()) } else { Err(Problem::NotFinite { path: String::new(), value }) }
}

macro_rules! nothing_to_find {
    ($($name:ident($kind:ty)),* $(,)?) => {
        $(fn $name(self, _: $kind) -> Result<(), Problem> {
            Ok(())
        })*
    };
}

impl Serializer for Finder {
    type Ok = ();
    type Error = Problem;
    type SerializeSeq = Parts;
    type SerializeTuple = Parts;
    type SerializeTupleStruct = Parts;
    type SerializeTupleVariant = Parts;
    type SerializeMap = Entries;
    type SerializeStruct = Entries;
    type SerializeStructVariant = Entries;

    nothing_to_find!(
        serialize_bool(bool),
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_u8(u8),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_char(char),
        serialize_str(&str),
        serialize_bytes(&[u8]),
        serialize_unit_struct(&'static str),
    );

    fn serialize_f32(self, value: f32) -> Result<(), Problem> {
        number(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Problem> {
        number(value)
    }

    fn serialize_none(self) -> Result<(), Problem> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Problem> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Problem> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Problem> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Problem> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Problem> {
        value.serialize(self).map_err(|problem| problem.below(variant))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts, Problem> {
        Ok(Parts(0, None))
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts, Problem> {
        Ok(Parts(0, None))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts, Problem> {
        Ok(Parts(0, None))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts, Problem> {
        Ok(Parts(0, Some(variant)))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Entries, Problem> {
        Ok(Entries(String::new(), None))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Entries, Problem> {
        Ok(Entries(String::new(), None))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Entries, Problem> {
        Ok(Entries(String::new(), Some(variant)))
    }
}

impl Parts {
    fn next<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        check(value).map_err(|problem| problem.below(&format!("[{}]", self.0)).within(self.1))?;
        self.0 += 1;
        Ok(())
    }
}

macro_rules! parts {
    ($($kind:ident::$next:ident),* $(,)?) => {
        $(impl ser::$kind for Parts {
            type Ok = ();
            type Error = Problem;

            fn $next<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
                self.next(value)
            }

            fn end(self) -> Result<(), Problem> {
                Ok(())
            }
        })*
    };
}

parts!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
);

macro_rules! fields {
    ($($kind:ident),*) => {
        $(impl ser::$kind for Entries {
            type Ok = ();
            type Error = Problem;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Problem> {
                check(value).map_err(|problem| problem.below(key).within(self.1))
            }

            fn end(self) -> Result<(), Problem> {
                Ok(())
            }
        })*
    };
}

fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Entries {
    type Ok = ();
    type Error = Problem;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Problem> {
        self.0 = match serde_json::to_value(key).map_err(Problem::custom)? {
            serde_json::Value::String(key) => key,
            other => other.to_string(),
        };
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        check(value).map_err(|problem| problem.below(&self.0))
    }

    fn end(self) -> Result<(), Problem> {
        Ok(())
    }
}
