//! Where a network is that a server has.

use crate::error::{Error, Result};

/// Where a network is served, and what it is called there: what the parameters of a model of the Triton backend that has
/// a served network are (docs/triton.md).
#[derive(Clone, Debug)]
pub struct Served {
    /// The server's address over HTTP: `HOST:PORT`, with `http://` before it or without.
    pub triton: String,
    /// The model there: `NAME`, or `NAME:VERSION`.
    pub velocity_model: String,
    /// What it calls states, times and classes: `X,T` or `X,T,CLASS`. The card's other inputs have the same names there.
    pub velocity_inputs: String,
    /// What it calls its output.
    pub velocity_output: String,
}

impl Served {
    /// The place that is given, if one is, in the backend's names where none are.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a server without a model, and for anything else without a server.
    pub fn given(
        triton: Option<&str>,
        model: Option<&str>,
        inputs: Option<&str>,
        output: Option<&str>,
    ) -> Result<Option<Self>> {
        let Some(triton) = triton else {
            let others = [("velocity_model", model), ("velocity_inputs", inputs), ("velocity_output", output)];
            return match others.into_iter().find_map(|(key, value)| value.map(|value| (key, value))) {
                Some((key, value)) => Err(Error::invalid(key, value, "absent without triton, the address of a server")),
                None => Ok(None),
            };
        };
        let model =
            model.ok_or_else(|| Error::invalid("velocity_model", "absent", "the name of the model on triton"))?;
        Ok(Some(Self {
            triton: triton.into(),
            velocity_model: model.into(),
            velocity_inputs: inputs.unwrap_or("X,T,CLASS").into(),
            velocity_output: output.unwrap_or("U").into(),
        }))
    }
}
