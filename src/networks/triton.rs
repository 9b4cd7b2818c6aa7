//! A network that a Triton server has, asked over HTTP: the engine that serves is the one that a solver is learned for.
//!
//! The protocol is KServe's second, with Triton's extensions for tensors as bytes and for a model's configuration.

use super::bytes::{decode, encoded, sizes, times};
use super::expected::{Expected, Found, listed};
use super::network::{Call, Network, Opened};
use super::served::Served;
use crate::card::{Card, Input, TimeShape};
use crate::error::{Error, Result};
use crate::inputs::CLASS;
use crate::memory;
use crate::tensor::{Compute, Device, Dtype, Host, PerRow, Register, Tensor};
use crate::threads;
use rayon::prelude::*;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;
use ureq::Agent;
use ureq::http::{Response, Uri};

/// How long the server may take to be reached, to say what a model is, and for each part of an evaluation: to take the
/// request, to begin its answer, and to end it.
const REACHED: Duration = Duration::from_secs(10);
const DESCRIBED: Duration = Duration::from_secs(30);
const ANSWERED: Duration = Duration::from_secs(600);
/// How long to wait before a request that a busy server refused, or whose connection broke, is sent again: what is asked
/// changes nothing there.
const WAITS: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];
/// What an answer may have besides its numbers.
const WORDS: u64 = 1 << 20;
/// Says how many bytes of a message are JSON; its tensors come behind.
const JSON_LENGTH: &str = "Inference-Header-Content-Length";

/// The address of the model that is `served`.
fn address(served: &Served) -> Result<String> {
    let Served { triton, velocity_model, .. } = served;
    let host = triton.strip_prefix("http://").unwrap_or(triton).trim_end_matches('/');
    let has_port = |host: &str| host.parse::<Uri>().is_ok_and(|uri| uri.port_u16().is_some_and(|port| port > 0));
    let odd = host.contains("://") || host.contains(|c: char| c.is_whitespace() || "?#@".contains(c));
    if odd || !has_port(&format!("http://{host}")) {
        let expected = "http://HOST:PORT, where PORT is the server's --http-port, usually 8000; https is not spoken";
        return Err(Error::invalid("triton", triton, expected));
    }
    let (name, version) = velocity_model.split_once(':').map_or((&**velocity_model, None), |(n, v)| (n, Some(v)));
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let counted = version.is_none_or(|version| version.parse::<u64>().is_ok_and(|version| version > 0));
    if name.is_empty() || !name.chars().all(plain) || !counted {
        return Err(Error::invalid("velocity_model", velocity_model, "NAME or NAME:VERSION, as the server has it"));
    }
    let version = version.map(|version| format!("/versions/{version}")).unwrap_or_default();
    Ok(format!("http://{host}/v2/models/{name}{version}"))
}

/// What a served model calls the card's inputs.
struct Names<'a> {
    x: &'a str,
    time: &'a str,
    class: Option<&'a str>,
}

impl<'a> Names<'a> {
    fn of(served: &'a Served) -> Result<Self> {
        let names: Vec<&str> = served.velocity_inputs.split(',').map(str::trim).collect();
        let wrong = || {
            let expected = "two or three different names, of states, times and classes: X,T,CLASS";
            Error::invalid("velocity_inputs", &served.velocity_inputs, expected)
        };
        if names.contains(&"") || names.iter().collect::<HashSet<_>>().len() < names.len() {
            return Err(wrong());
        }
        match names[..] {
            [x, time] => Ok(Self { x, time, class: None }),
            [x, time, class] => Ok(Self { x, time, class: Some(class) }),
            _ => Err(wrong()),
        }
    }

    /// What it calls `input` of `card`.
    fn input(&self, card: &Card, input: &'a Input) -> &'a str {
        self.class.filter(|_| is_class(card, input)).unwrap_or(&input.name)
    }
}

/// Whether `input` is what the short form of a card says: its classes.
fn is_class(card: &Card, input: &Input) -> bool {
    card.classes > 0 && input.name == CLASS
}

/// A served network. Any number of threads at a time.
pub struct Triton {
    agent: Agent,
    /// The model's address.
    url: String,
    /// Most rows of a request; `None` where the server sets no bound.
    most: Option<usize>,
    ports: Ports,
}

/// The inputs and outputs of a served model that is what its card says.
struct Ports {
    state: Port,
    time: Port,
    time_shape: TimeShape,
    output: Port,
    /// With the card's names, in its order.
    inputs: Vec<(String, Port)>,
}

/// An input or output as the server has it.
struct Port {
    name: String,
    dtype: Dtype,
    /// Whether a single number a row is of the shape `[batch, 1]`: under batching a tensor has a size besides the batch's.
    column: bool,
}

#[derive(Deserialize)]
struct Metadata {
    inputs: Vec<Said>,
    outputs: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    max_batch_size: usize,
    #[serde(default)]
    input: Vec<ConfiguredInput>,
    #[serde(default)]
    model_transaction_policy: Policy,
}

#[derive(Deserialize)]
struct ConfiguredInput {
    name: String,
    #[serde(default)]
    optional: bool,
}

#[derive(Default, Deserialize)]
struct Policy {
    #[serde(default)]
    decoupled: bool,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

#[derive(Deserialize)]
struct Answer {
    outputs: Vec<Answered>,
}

#[derive(Deserialize)]
struct Answered {
    #[serde(flatten)]
    said: Said,
    parameters: Option<Parameters>,
    /// Numbers as JSON, of a server that has no other form.
    data: Option<IgnoredAny>,
}

#[derive(Deserialize, Serialize)]
struct Parameters {
    binary_data_size: usize,
}

/// A tensor on its way.
struct Sent<'a> {
    port: &'a Port,
    shape: Vec<i64>,
    bytes: Cow<'a, [u8]>,
}

/// The types as the protocol calls them.
fn datatype(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Float64 => "FP64",
        Dtype::Float32 => "FP32",
        Dtype::Float16 => "FP16",
        Dtype::Bfloat16 => "BF16",
        Dtype::Int64 => "INT64",
        Dtype::Int32 => "INT32",
        Dtype::Bool => "BOOL",
    }
}

fn dtype(name: &str) -> Result<Dtype, String> {
    const ALL: [Dtype; 7] =
        [Dtype::Float64, Dtype::Float32, Dtype::Float16, Dtype::Bfloat16, Dtype::Int64, Dtype::Int32, Dtype::Bool];
    ALL.into_iter().find(|dtype| datatype(*dtype) == name).ok_or_else(|| format!("a tensor of {name}"))
}

/// What failed at `url`.
fn failed(url: &str, problem: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::io("ask", Path::new(url), std::io::Error::other(problem))
}

impl Triton {
    /// Finds the model that `served` names, and checks that its inputs and outputs are those of `card`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an address or a name that is none; [`Error::Io`] where the server cannot be asked or
    /// refuses; [`Error::Format`] where the model is not what the card says.
    pub fn open(card: &Card, served: &Served) -> Result<Self> {
        let url = address(served)?;
        let names = Names::of(served)?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // The address is the server's own.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(REACHED))
            .timeout_send_request(Some(ANSWERED))
            .timeout_send_body(Some(ANSWERED))
            .timeout_recv_response(Some(ANSWERED))
            .timeout_recv_body(Some(ANSWERED))
            .build();
        let agent = config.new_agent();
        let config: Config = asked(&agent, &format!("{url}/config"))?;
        let metadata: Metadata = asked(&agent, &url)?;
        let wrong = |(port, problem): (String, String)| Error::format(url.clone(), port, problem);
        if config.model_transaction_policy.decoupled {
            return Err(wrong(("decoupled".into(), "is true, expected one response to each request".into())));
        }
        let ports = Ports::matched(card, (&names, &served.velocity_output), &config, &metadata).map_err(wrong)?;
        let most = (config.max_batch_size > 0).then_some(config.max_batch_size);
        Ok(Self { agent, url, most, ports })
    }
}

impl Ports {
    /// Those of `metadata` by these `names` and that of its `output`; the one that is not what `card` says, and how.
    fn matched(
        card: &Card,
        (names, output): (&Names<'_>, &str),
        config: &Config,
        metadata: &Metadata,
    ) -> Result<Self, (String, String)> {
        let signature = card.signature();
        let named = signature.inputs().iter().map(|input| (names.input(card, input), input));
        let ours: Vec<&str> = [names.x, names.time].into_iter().chain(named.clone().map(|(name, _)| name)).collect();
        let left_out = |name: &str| config.input.iter().any(|input| input.name == name && input.optional);
        let unknown = |said: &&Said| !ours.contains(&&*said.name) && !left_out(&said.name);
        if let Some(said) = metadata.inputs.iter().find(unknown) {
            let given = ours.join(", ");
            let problem = format!("is an input of the model, but velocity_inputs and the card's inputs are {given}");
            return Err((said.name.clone(), problem));
        }
        let state = found(&metadata.inputs, "input", names.x)?;
        let time = found(&metadata.inputs, "input", names.time)?;
        let mut of_time = card.time;
        // A row of one number has a size of its own where the server batches.
        if of_time.shape == TimeShape::Batch && time.shape.len() == 2 {
            of_time.shape = TimeShape::Column;
        }
        let mut expected_time = Expected::time(names.time, of_time);
        if of_time.shape == TimeShape::Scalar {
            // The server has no tensors without sizes.
            expected_time.shape = vec![Some(1)];
        }
        let mut inputs = Vec::with_capacity(signature.inputs().len());
        for (name, own) in named {
            let said = found(&metadata.inputs, "input", name)?;
            let port = of_input(said, own, is_class(card, own)).map_err(|problem| (name.to_owned(), problem))?;
            inputs.push((own.name.clone(), port));
        }
        let output = found(&metadata.outputs, "output", output)?;
        let checked =
            |said: &Said, expected: &Expected| port(said, expected).map_err(|problem| (expected.name.clone(), problem));
        let rows = |said: &Said| checked(said, &Expected::rows(&said.name, None, &card.shape));
        Ok(Self {
            state: rows(state)?,
            time: checked(time, &expected_time)?,
            time_shape: of_time.shape,
            output: rows(output)?,
            inputs,
        })
    }
}

/// The one of `tensors` that is called `name`.
fn found<'a>(tensors: &'a [Said], kind: &str, name: &str) -> Result<&'a Said, (String, String)> {
    tensors.iter().find(|said| said.name == name).ok_or_else(|| {
        let theirs = listed(tensors.iter().map(|said| said.name.as_str().into()));
        (name.to_owned(), format!("is no {kind} of the model, whose are {theirs}"))
    })
}

/// What `said` is, where it is what is expected; otherwise how it is not.
fn port(said: &Said, expected: &Expected) -> Result<Port, String> {
    let sizes: Vec<Option<usize>> = said.shape.iter().map(|size| usize::try_from(*size).ok()).collect();
    let found = Found { dtype: &dtype(&said.datatype), shape: &sizes, place: "the server's model" };
    let dtype = expected.agreed_dtype(&found)?;
    match expected.shape_problem(&found) {
        Some(problem) => Err(problem),
        None => Ok(Port { name: said.name.clone(), dtype, column: false }),
    }
}

/// The same for an input of the card. Classes may be integers of either size.
fn of_input(said: &Said, own: &Input, is_class: bool) -> Result<Port, String> {
    let mut expected = Expected::rows(&own.name, Some(own.dtype), &own.shape);
    let column = own.shape.sizes().is_empty() && said.shape.len() == 2;
    if column {
        expected.shape.push(Some(1));
    }
    if is_class && said.datatype == datatype(Dtype::Int32) {
        expected.dtype = Some(Dtype::Int32);
    }
    Ok(Port { column, ..port(said, &expected)? })
}

/// What the server answers at `url`.
fn asked<T: DeserializeOwned>(agent: &Agent, url: &str) -> Result<T> {
    let unreached = |e| failed(url, told(e, DESCRIBED));
    let response = agent.get(url).config().timeout_global(Some(DESCRIBED)).build().call().map_err(unreached)?;
    let response = accepted(response).map_err(|problem| failed(url, problem))?;
    let body = response.into_body().with_config().limit(WORDS).read_to_vec().map_err(unreached)?;
    serde_json::from_slice(&body)
        .map_err(|e| failed(url, format!("the answer is none of a Triton server's (is it its HTTP port?): {e}")))
}

/// What is said of an error of the connection, where no wait is longer than `limit`.
fn told(error: ureq::Error, limit: Duration) -> String {
    match error {
        ureq::Error::Timeout(ureq::Timeout::Connect) => format!("{error}: not reached in {} s", REACHED.as_secs()),
        ureq::Error::Timeout(_) => format!("{error}: nothing in {} s", limit.as_secs()),
        ureq::Error::Protocol(_) => format!("{error}: is it the server's HTTP port?"),
        other => other.to_string(),
    }
}

/// The answer, where it is no refusal, whose words are the problem.
fn accepted(mut response: Response<ureq::Body>) -> Result<Response<ureq::Body>, String> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let words = response.body_mut().with_config().limit(WORDS).read_to_vec().unwrap_or_default();
    let said = serde_json::from_slice::<Refusal>(&words).map(|refusal| format!(": {}", plain(&refusal.error)));
    Err(format!("the server answered {status}{}", said.unwrap_or_default()))
}

/// A server's words on one line, without what moves a terminal's cursor.
fn plain(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Whether what failed so may succeed when it is asked again.
fn passes(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(_) | ureq::Error::ConnectionFailed)
}

impl Triton {
    /// The output for the rows of `call` from `first` on that `output` has room for.
    fn rows(&self, call: &Call<'_, Host<f32>>, first: usize, output: &mut [f32]) -> Result<()> {
        let count = output.len() / call.x.elements();
        let shape = sizes(count, call.shape)?;
        let url = format!("{}/infer", self.url);
        let (json, sent) = self.request(call, first, count, &shape)?;
        let length = sent.iter().map(|sent| sent.bytes.len()).sum::<usize>();
        let mut body = memory::room(json.len().saturating_add(length))?;
        body.extend(&json);
        sent.iter().for_each(|sent| body.extend(sent.bytes.iter()));
        let wanted = memory::numbers(output.len(), self.ports.output.dtype.size())?;
        let mut waits = WAITS.iter();
        let (json, bytes) = loop {
            match (self.answer(&url, json.len(), &body, wanted), waits.next()) {
                (Err((problem, true)), Some(wait)) => {
                    tracing::info!("{url}: {problem}: asked again in {wait:?}");
                    std::thread::sleep(*wait);
                }
                (answer, _) => break answer.map_err(|(problem, _)| failed(&url, problem))?,
            }
        };
        let numbers = self.numbers(&bytes, json, &shape, wanted).map_err(|problem| failed(&url, problem))?;
        decode(numbers, self.ports.output.dtype, output);
        Ok(())
    }

    /// What the server answers to a `body` of which `json` bytes are words, with the count of those of the answer;
    /// otherwise what failed, and whether it is worth another try.
    fn answer(
        &self,
        url: &str,
        json: usize,
        body: &[u8],
        wanted: usize,
    ) -> Result<(Option<usize>, Vec<u8>), (String, bool)> {
        let failed = |error: ureq::Error| {
            let again = passes(&error);
            (told(error, ANSWERED), again)
        };
        let request = self.agent.post(url).header("Content-Type", "application/octet-stream");
        let response = request.header(JSON_LENGTH, json.to_string()).send(body).map_err(failed)?;
        let busy = matches!(response.status().as_u16(), 429 | 502 | 503 | 504);
        let response = accepted(response).map_err(|problem| (problem, busy))?;
        let json = response.headers().get(JSON_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let limit = (wanted as u64).saturating_add(WORDS);
        let bytes = response.into_body().into_with_config().limit(limit).read_to_vec().map_err(failed)?;
        Ok((json, bytes))
    }

    /// A request for these rows: what says it, and the tensors behind.
    fn request<'a>(
        &'a self,
        call: &'a Call<'_, Host<f32>>,
        first: usize,
        count: usize,
        shape: &[i64],
    ) -> Result<(Vec<u8>, Vec<Sent<'a>>)> {
        let elements = call.x.elements();
        let state = &call.x.data()[first * elements..(first + count) * elements];
        let time = match call.time {
            PerRow::All(time) => PerRow::All(time),
            PerRow::Each(times) => PerRow::Each(&times[first..first + count]),
        };
        let (bytes, mut time_shape) = times(time, count, self.ports.time.dtype, self.ports.time_shape)?;
        if self.ports.time_shape == TimeShape::Scalar {
            time_shape = vec![1];
        }
        let mut sent = vec![
            Sent { port: &self.ports.state, shape: shape.to_vec(), bytes: encoded(state, self.ports.state.dtype)? },
            Sent { port: &self.ports.time, shape: time_shape, bytes: bytes.into() },
        ];
        for (name, port) in &self.ports.inputs {
            let column = call.inputs.get(name).ok_or_else(|| Error::invalid(&**name, "absent", "there"))?;
            let of_row = column.bytes().len() / column.batch().max(1);
            let bytes = &column.bytes()[first * of_row..(first + count) * of_row];
            let bytes = match (column.dtype(), port.dtype) {
                (Dtype::Int64, Dtype::Int32) => narrowed(name, bytes)?.into(),
                _ => bytes.into(),
            };
            let mut shape = sizes(count, column.shape())?;
            shape.extend(port.column.then_some(1));
            sent.push(Sent { port, shape, bytes });
        }
        let described = |sent: &Sent<'_>| {
            json!({ "name": sent.port.name, "shape": sent.shape, "datatype": datatype(sent.port.dtype),
                "parameters": Parameters { binary_data_size: sent.bytes.len() } })
        };
        let request = json!({ "inputs": sent.iter().map(described).collect::<Vec<_>>(),
            "outputs": [{ "name": self.ports.output.name, "parameters": { "binary_data": true } }] });
        Ok((request.to_string().into_bytes(), sent))
    }

    /// The bytes of the output in an answer, of which `json` are words; otherwise what is wrong with it.
    fn numbers<'a>(
        &self,
        answer: &'a [u8],
        json: Option<usize>,
        shape: &[i64],
        wanted: usize,
    ) -> Result<&'a [u8], String> {
        let (words, tensors) = answer.split_at_checked(json.unwrap_or(answer.len())).ok_or("the answer ended early")?;
        let answer: Answer =
            serde_json::from_slice(words).map_err(|e| format!("the answer is none of a Triton server's: {e}"))?;
        let [output] = answer.outputs.as_slice() else {
            return Err(format!(
                "the answer has {} outputs, expected {}",
                answer.outputs.len(),
                self.ports.output.name
            ));
        };
        let Said { name, datatype: found, shape: sizes } = &output.said;
        let asked = datatype(self.ports.output.dtype);
        if (name, found.as_str(), sizes.as_slice()) != (&self.ports.output.name, asked, shape) {
            let expected = format!("{} of {asked} {shape:?}", self.ports.output.name);
            return Err(format!("the answer is {name} of {found} {sizes:?}, expected {expected}"));
        }
        match &output.parameters {
            Some(parameters) if parameters.binary_data_size == wanted && tensors.len() == wanted => Ok(tensors),
            None if output.data.is_some() => {
                Err("the server answers numbers as JSON, expected tensors as bytes".into())
            }
            None => Err("the answer does not say the bytes of its output (binary_data_size)".into()),
            Some(_) => Err(format!("the answer's output has {} bytes, expected {wanted}", tensors.len())),
        }
    }
}

/// The 64-bit integers of `bytes` in 32.
fn narrowed(name: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut narrow = memory::room(bytes.len() / 2)?;
    for number in bytes.as_chunks().0 {
        let number = i64::from_ne_bytes(*number);
        let number = i32::try_from(number)
            .map_err(|_| Error::invalid(name, number, "an integer of 32 bits: the server's model takes no larger"))?;
        narrow.extend(number.to_ne_bytes());
    }
    Ok(narrow)
}

impl Network for Triton {
    type Tensor = Host<f32>;

    fn upload(&self, values: &[f32], elements: usize) -> Result<Host<f32>> {
        Host::new(memory::copied(values)?, elements)
    }

    /// As many requests side by side as this process has threads, none larger than the server takes.
    fn forward(&self, call: &Call<'_, Host<f32>>) -> Result<Host<f32>> {
        let batch = call.x.batch();
        let mut output = call.x.zeros_like(batch)?;
        let most = self.most.unwrap_or(batch).clamp(1, batch.max(1));
        let numbers = memory::numbers(most, call.x.elements())?.max(1);
        threads::shared(|| {
            let parts = output.data_mut().par_chunks_mut(numbers).enumerate();
            parts.try_for_each(|(index, part)| self.rows(call, index * most, part))
        })?;
        Ok(output)
    }
}

/// Opens the network that `card` describes and `served` names.
///
/// # Errors
/// As [`Triton::open`]; [`Error::Invalid`] for a device or a `compute` that is not the server's to choose.
pub(super) fn open(card: &Card, served: &Served, device: Device, compute: Compute) -> Result<Opened> {
    if device != Device::Cpu {
        return Err(Error::invalid("device", device, "cpu: the server says where its model runs"));
    }
    if compute != Compute::F32 {
        return Err(Error::invalid("dtype", compute, "f32: the server's model has the types that it was made with"));
    }
    Ok(Opened::Host(Box::new(Triton::open(card, served)?)))
}
