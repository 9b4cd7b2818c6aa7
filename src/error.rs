//! The one error type of the library.

use std::path::{Path, PathBuf};

/// `Result` with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Every message names the field or file, its value and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value the caller gave is not acceptable.
    #[error("{field} is {value}, expected {expected}")]
    Invalid {
        /// Name of the argument or document key, dotted where nested.
        field: String,
        /// The value as given.
        value: String,
        /// What would have been accepted.
        expected: String,
    },
    /// A document is not what its format asks for.
    #[error("{document}: {}{problem}", of_field(field))]
    Format {
        /// File path, or what the document is.
        document: String,
        /// Path of the key inside the document, `.` for its whole.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The operating system refused to read or write.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `read`, `write`, `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own words.
        source: std::io::Error,
    },
    /// This build, device or model cannot do what was asked.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The velocity field gave NaN or infinity.
    #[error("the velocity of evaluation {evaluation} (t = {t}) holds a NaN or an infinity")]
    NonFinite {
        /// Index of the evaluation, from 0.
        evaluation: usize,
        /// Its solver time, in [0, 1].
        t: f64,
    },
    /// A vector-Jacobian product of the velocity field gave NaN or infinity.
    #[error("a vector-Jacobian product of the velocity holds a NaN or an infinity")]
    NonFiniteProduct,
    /// A callback of the host asked to stop with a non-zero answer.
    #[error("the {callback} callback answered {code}{detail}")]
    Callback {
        /// Which callback.
        callback: &'static str,
        /// Its answer.
        code: i32,
        /// What failed inside it, where that is known: `: ...`, or nothing.
        detail: String,
    },
    /// A call came in an order the object does not allow.
    #[error("{0}")]
    State(String),
    /// The numerics failed: a step size underflowed, a matrix had no factor.
    #[error("{0}")]
    Numeric(String),
    /// Memory could not be had.
    #[error("cannot allocate {}", amount(*bytes))]
    Memory {
        /// How much was asked for; 0 where that is not known.
        bytes: usize,
    },
    /// ONNX Runtime reported an error.
    #[error("ONNX Runtime: {0}")]
    Onnx(String),
    /// libtorch reported an error.
    #[error("libtorch: {0}")]
    Torch(String),
}

impl Error {
    /// An [`Error::Invalid`] from anything that can be shown.
    pub fn invalid(field: impl Into<String>, value: impl ToString, expected: impl Into<String>) -> Self {
        Error::Invalid {
            field: short(field.into(), 200),
            value: short(value.to_string(), 200),
            expected: expected.into(),
        }
    }

    /// An [`Error::Io`] about `path`.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Error::Io { action, path: path.to_owned(), source }
    }

    /// An [`Error::Format`] about `field` of `document`.
    pub fn format(document: impl Into<String>, field: impl Into<String>, problem: impl ToString) -> Self {
        Error::Format {
            document: document.into(),
            field: short(field.into(), 200),
            problem: short(problem.to_string(), 600),
        }
    }
}

/// What stands before a problem of this field: nothing where it is of the whole document.
fn of_field(field: &str) -> String {
    if field == "." { String::new() } else { format!("{field}: ") }
}

/// At most about `longest` bytes of `text`: it is cut where a hostile file would make a message of megabytes.
fn short(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        text.truncate((0..=longest).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default());
        text.push_str(" ...");
    }
    text
}

/// So many bytes, in words.
fn amount(bytes: usize) -> String {
    if bytes == 0 { "memory".into() } else { format!("{bytes} bytes") }
}
