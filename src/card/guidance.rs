//! What a card says of guidance.

use super::signature::{Null, Signature};
use crate::tensor::Dtype;
use serde::{Deserialize, Serialize};

/// The card's key `guidance`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guidance {
    /// The chain u = u_0 + sum_k s_k (u_k - u_(k-1)), from the pass that sees least. Empty: two passes, without
    /// all inputs that have a `null`, then with all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passes: Vec<GuidancePass>,
    /// Solver times [a, b], both included, outside which the last pass alone is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// The input that is given the guidance scale itself; there is one pass then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_input: Option<String>,
}

/// One pass of a chain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuidancePass {
    /// The inputs that it is given the nulls of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// Name of its scale s_k; the first pass has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<String>,
}

impl Guidance {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with it in a card of this signature, if anything is: the key and the problem.
    pub(super) fn problem(&self, signature: &Signature) -> Option<(String, String)> {
        if let Some([a, b]) = self.interval.filter(|[a, b]| !(0.0 <= *a && a <= b && *b <= 1.0)) {
            let expected = "two times in order, of the solver's, 0 (noise) to 1 (data)";
            return Some(("guidance.interval".into(), format!("is [{a}, {b}], expected {expected}")));
        }
        if let Some(name) = &self.scale_input {
            return self.scale_input_problem(name, signature);
        }
        for (k, pass) in self.passes.iter().enumerate() {
            let key = |part: &str| format!("guidance.passes[{k}].{part}");
            let first = k == 0;
            if pass.scale.is_some() == first {
                let problem = if first { "is there, but the first pass has none" } else { "is missing" };
                return Some((key("scale"), problem.into()));
            }
            if let Some(scale) = pass.scale.as_ref().filter(|scale| scale.is_empty() || scale.contains('\0')) {
                return Some((key("scale"), format!("is {scale:?}, expected a name")));
            }
            if pass.scale.is_some() && self.passes[..k].iter().any(|other| other.scale == pass.scale) {
                return Some((key("scale"), "is that of another pass".into()));
            }
            for name in &pass.without {
                match signature.get(name).map(|input| &input.null) {
                    None => return Some((key("without"), format!("names {name:?}, which is no input"))),
                    Some(Null::Keep(_)) => {
                        return Some((key("without"), format!("names {name:?}, an input without a null")));
                    }
                    Some(Null::Number(_) | Null::File(_)) => {}
                }
            }
        }
        match self.passes.last() {
            Some(last) if !last.without.is_empty() => {
                let problem = format!("is {:?}, but the last pass sees all inputs", last.without);
                Some((format!("guidance.passes[{}].without", self.passes.len() - 1), problem))
            }
            _ => None,
        }
    }

    fn scale_input_problem(&self, name: &str, signature: &Signature) -> Option<(String, String)> {
        let key = "guidance.scale_input".to_owned();
        if !self.passes.is_empty() || self.interval.is_some() {
            return Some((key, "is there beside passes or interval: with it there is one pass".into()));
        }
        match signature.get(name) {
            None => Some((key, format!("is {name:?}, which is no input"))),
            Some(input) if input.shape.rank() != 0 => {
                Some((key, format!("is {name:?}, of shape {}, expected []", input.shape)))
            }
            Some(input) if matches!(input.dtype, Dtype::Bool | Dtype::Int32 | Dtype::Int64) => {
                Some((key, format!("is {name:?}, of dtype {}, expected a float", input.dtype)))
            }
            Some(_) => None,
        }
    }
}
