//! JSON documents, read strictly and written whole. All JSON that the library writes is made here: a NaN or an
//! infinity, which JSON has no name for, is an error that says where it stands.

mod finite;

use crate::error::{Error, Result};
use crate::output;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use std::io::Read;
use std::path::Path;

/// No document of ours comes near this size, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// Reads a whole document of type `T` from `path`.
///
/// # Errors
/// [`Error::Io`], or [`Error::Format`] naming the key at fault.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse(&read_text(path)?, &path.display().to_string())
}

/// Reads the text of a document.
///
/// # Errors
/// [`Error::Io`], or [`Error::Format`] where it is too large for one or not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Error::io("read", path, e))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    check_size(bytes.len(), &name)?;
    String::from_utf8(bytes).map_err(|e| Error::format(&name, ".", format!("is not UTF-8: {e}")))
}

fn check_size(bytes: usize, name: &str) -> Result<()> {
    if bytes as u64 > MAX_BYTES {
        return Err(Error::format(name, ".", format!("is larger than {MAX_BYTES} bytes")));
    }
    Ok(())
}

/// Parses a whole document of type `T`; `name` is what messages call it.
///
/// # Errors
/// [`Error::Format`] naming the key at fault.
pub fn parse<T: DeserializeOwned>(text: &str, name: &str) -> Result<T> {
    check_size(text.len(), name)?;
    let text = without_mark(text);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|e| {
        let problem = not_finite(text, e.inner()).unwrap_or_else(|| e.inner().to_string());
        Error::format(name, e.path().to_string(), problem)
    })?;
    deserializer.end().map_err(|e| Error::format(name, ".", e))?;
    Ok(value)
}

/// `text` without the byte-order mark that some editors begin a file with.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// How other programs write what JSON has no number for, the longer names first.
const NOT_FINITE: [&str; 6] = ["-Infinity", "Infinity", "-inf", "inf", "NaN", "nan"];

/// What there is to say of a NaN or an infinity of `text`, if it is one that `error` is about.
fn not_finite(text: &str, error: &serde_json::Error) -> Option<String> {
    if !error.is_syntax() {
        return None;
    }
    let line = text.lines().nth(error.line().checked_sub(1)?)?;
    // The error stands on the word, or behind its sign.
    let begins =
        |at: usize| NOT_FINITE.into_iter().find(|word| line.get(at..).is_some_and(|rest| rest.starts_with(word)));
    let word = (error.column().saturating_sub(3)..=error.column()).find_map(begins)?;
    Some(format!("is {word}, expected a finite number (line {}, column {})", error.line(), error.column()))
}

/// Checks what a document says that it is: its format, and the format's version.
///
/// # Errors
/// [`Error::Format`] where it is not `expected`; `name` is what the message calls the document.
pub fn check_format(name: &str, found: (&str, u64), expected: (&str, u64)) -> Result<()> {
    if found.0 != expected.0 {
        return Err(Error::format(name, "format", format!("is {:?}, expected {:?}", found.0, expected.0)));
    }
    if found.1 != expected.1 {
        return Err(Error::format(name, "version", format!("is {}, expected {}", found.1, expected.1)));
    }
    Ok(())
}

/// Writes `document` to `path` as indented JSON.
///
/// # Errors
/// As [`output::write_with`].
pub fn write<T: Serialize>(path: &Path, document: &T) -> Result<()> {
    output::write_bytes(path, text(document, &path.display().to_string())?.as_bytes())
}

/// `document` as indented JSON; `name` is what messages call it.
///
/// # Errors
/// [`Error::Format`] where JSON cannot hold it: it names the number that is not finite.
pub fn text<T: Serialize>(document: &T, name: &str) -> Result<String> {
    check_finite(document, name)?;
    let mut text = serde_json::to_string_pretty(document).map_err(|e| Error::format(name, ".", e))?;
    text.push('\n');
    Ok(text)
}

/// `document` as JSON on one line, without its end; `name` is what messages call it.
///
/// # Errors
/// As [`text`].
pub fn line<T: Serialize>(document: &T, name: &str) -> Result<String> {
    check_finite(document, name)?;
    serde_json::to_string(document).map_err(|e| Error::format(name, ".", e))
}

/// `part` as a part of a document; `name` is what messages call that.
///
/// # Errors
/// As [`text`].
pub fn value<T: Serialize>(part: &T, name: &str) -> Result<Value> {
    check_finite(part, name)?;
    serde_json::to_value(part).map_err(|e| Error::format(name, ".", e))
}

fn check_finite<T: Serialize>(document: &T, name: &str) -> Result<()> {
    finite::check(document).map_err(|problem| match problem {
        finite::Problem::NotFinite { path, value } => {
            let path = if path.is_empty() { ".".to_owned() } else { path };
            Error::format(name, path, format!("is {value}, which JSON has no number for"))
        }
        finite::Problem::Other(problem) => Error::format(name, ".", problem),
    })
}

/// Serializes a number that may not be there yet: `null` for NaN.
///
/// # Errors
/// The serializer's own.
pub fn or_null<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_nan() { serializer.serialize_none() } else { serializer.serialize_f64(*value) }
}

/// Serde of a number that may be NaN or infinite, which JSON has no numbers for.
pub mod any_number {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged, expecting = "expected a number, \"NaN\", \"inf\" or \"-inf\"")]
    enum Written {
        Finite(f64),
        Other(String),
    }

    /// A number, or `"NaN"`, `"inf"`, `"-inf"`.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() { serializer.serialize_f64(*value) } else { serializer.serialize_str(&value.to_string()) }
    }

    /// What [`serialize`] wrote.
    ///
    /// # Errors
    /// The deserializer's own.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Finite(value) => Ok(value),
            Written::Other(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

/// A JSON object of the writer's own making, kept as it is; duplicate keys are refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Notes(pub Map<String, Value>);

impl Notes {
    /// The text at `key`, where there is one.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Notes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Strict.deserialize(deserializer)? {
            Value::Object(map) => Ok(Notes(map)),
            other => Err(D::Error::custom(format!("expected an object, found {other}"))),
        }
    }
}

/// Builds a [`Value`] like serde_json does, but refuses duplicate keys.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Strict)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Strict)?;
            if object.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("duplicate field `{key}`")));
            }
        }
        Ok(Value::Object(object))
    }
}
