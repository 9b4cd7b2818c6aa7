//! ONNX models: graphs of the test's own, the shipped ones, files and libraries that are none. ONNX Runtime is found as
//! the library finds it; `make onnxruntime` installs it.

use crate::tree::root;
use bespoke::Error;
use bespoke::inputs::{Column, Inputs};
use bespoke::model::{self, Model};
use bespoke::networks::{Call, Network, Onnx};
use bespoke::noise::{Purpose, normal};
use bespoke::tensor::{Compute, Device, Dtype, Host, PerRow};
use bespoke::velocity::{Condition, VelocityField};
use half::{bf16, f16};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// ONNX's numbers of element types.
const FLOAT: u64 = 1;
const INT32: u64 = 6;
const INT64: u64 = 7;
const BOOL: u64 = 9;
const FLOAT16: u64 = 10;
const DOUBLE: u64 = 11;
const BFLOAT16: u64 = 16;

/// A message of protocol buffers, field by field.
#[derive(Clone, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn message(self, field: u64, value: Message) -> Self {
        self.bytes(field, &value.0)
    }
}

/// `kind` of `inputs`, with the attribute `to` of a cast.
fn node(kind: &str, inputs: &[&str], output: &str, to: Option<u64>) -> Message {
    let node = inputs.iter().fold(Message::default(), |node, input| node.bytes(1, input.as_bytes()));
    let node = node.bytes(2, output.as_bytes()).bytes(4, kind.as_bytes());
    match to {
        Some(to) => node.message(5, Message::default().bytes(1, b"to").number(3, to).number(20, 2)),
        None => node,
    }
}

/// A tensor of a graph; negative sizes are the call's.
fn port(name: &str, element: u64, shape: &[i64]) -> Message {
    let dimension = |size: &i64| match *size {
        size if size < 0 => Message::default().bytes(2, b"batch"),
        size => Message::default().number(1, size as u64),
    };
    let shape = shape.iter().fold(Message::default(), |shape, size| shape.message(1, dimension(size)));
    let tensor = Message::default().number(1, element).message(2, shape);
    Message::default().bytes(1, name.as_bytes()).message(2, Message::default().message(1, tensor))
}

#[derive(Clone)]
struct Graph {
    nodes: Vec<Message>,
    inputs: Vec<Message>,
    outputs: Vec<Message>,
}

impl Graph {
    /// output = x + t + class for samples of three numbers, computed in float32, with x and the output of type `state`
    /// and t of type `time`.
    fn sum(state: u64, time: u64) -> Self {
        let nodes = vec![
            node("Cast", &["x"], "x32", Some(FLOAT)),
            node("Cast", &["t"], "t32", Some(FLOAT)),
            node("Cast", &["class"], "class32", Some(FLOAT)),
            node("Add", &["t32", "class32"], "row", None),
            node("Unsqueeze", &["row", "last"], "column", None),
            node("Add", &["x32", "column"], "sum", None),
            node("Cast", &["sum"], "output", Some(state)),
        ];
        let inputs = vec![port("x", state, &[-1, 3]), port("t", time, &[-1]), port("class", INT64, &[-1])];
        Self { nodes, inputs, outputs: vec![port("output", state, &[-1, 3])] }
    }

    fn bytes(&self) -> Vec<u8> {
        let last = Message::default().number(1, 1).number(2, INT64).number(7, 1).bytes(8, b"last");
        let graph = self.nodes.iter().fold(Message::default(), |graph, node| graph.message(1, node.clone()));
        let graph = graph.bytes(2, b"sum").message(5, last);
        let graph = self.inputs.iter().fold(graph, |graph, input| graph.message(11, input.clone()));
        let graph = self.outputs.iter().fold(graph, |graph, output| graph.message(12, output.clone()));
        let opset = Message::default().bytes(1, b"").number(2, 17);
        Message::default().number(1, 8).message(7, graph).message(8, opset).0
    }
}

/// A folder with a model of `bytes` and its card.
fn written(bytes: &[u8], changes: Value) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("model.onnx"), bytes).unwrap();
    let mut card = json!({
        "format": "bespoke-model", "version": 1, "weights": "model.onnx", "runtime": "onnx", "shape": [3],
        "output": "velocity", "scheduler": { "name": "fm-ot" }, "classes": 10, "null_class": 9
    });
    card.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let path = folder.path().join("card.json");
    std::fs::write(&path, card.to_string()).unwrap();
    (folder, path)
}

fn opened(path: &Path) -> Model {
    model::open(path, Device::Cpu).unwrap()
}

/// What opening says that cannot succeed.
fn refused(bytes: &[u8], changes: Value) -> String {
    let (_folder, path) = written(bytes, changes);
    model::open(&path, Device::Cpu).err().expect("it is opened").to_string()
}

fn shipped(name: &str) -> PathBuf {
    root().join("models").join(name)
}

fn velocity(model: &Model, time: PerRow<'_>, x: &[f32], condition: &Condition) -> Vec<f32> {
    let field = model.host_field().unwrap();
    field.eval(time, &field.upload(x, field.elements()).unwrap(), condition).unwrap().data().to_vec()
}

#[test]
fn a_graph_computes_with_its_types_what_it_says() {
    let x = [0.3f32, -1.7, 2.6, 10.1, 0.0, -0.2];
    let times = [0.3f64, 0.71];
    let rounded = |state: u64, value: f32| match state {
        FLOAT16 => f16::from_f32(value).to_f32(),
        BFLOAT16 => bf16::from_f32(value).to_f32(),
        _ => value,
    };
    for state in [FLOAT, DOUBLE, FLOAT16, BFLOAT16] {
        for time in [FLOAT, DOUBLE, FLOAT16, BFLOAT16] {
            let (_folder, path) = written(&Graph::sum(state, time).bytes(), json!({}));
            let condition = crate::common::condition(&[4, 8], &[]);
            let found = velocity(&opened(&path), PerRow::Each(&times), &x, &condition);
            for (i, found) in found.iter().enumerate() {
                let t = rounded(time, times[i / 3] as f32);
                let expected = rounded(state, rounded(state, x[i]) + (t + [4.0, 8.0][i / 3]));
                assert_eq!(*found, expected, "x of type {state}, t of {time}: number {i}");
            }
        }
    }
}

#[test]
fn guidance_stacks_passes_and_empty_batches_are_empty() {
    let (_folder, path) = written(&Graph::sum(FLOAT, FLOAT).bytes(), json!({}));
    let model = opened(&path);
    let x = [0.5f32, 0.25, -0.5, 1.0, 2.0, 3.0];
    let found = velocity(&model, PerRow::All(0.5), &x, &crate::common::condition(&[2, 5], &[1.0, 3.0]));
    // The null class is 9: x + t + 9 + w (class - 9).
    let class = [2.0, 9.0 + 3.0 * (5.0 - 9.0)];
    let expected: Vec<f32> = x.iter().enumerate().map(|(i, x)| x + 0.5 + class[i / 3]).collect();
    assert_eq!(found, expected);
    assert!(!model.host_field().unwrap().differentiable());
    let call = Call {
        time: PerRow::All(0.5),
        x: &Host::zeros(0, 3).unwrap(),
        shape: &[3],
        inputs: &Condition::default().inputs,
    };
    let network = Onnx::load(model.card(), Device::Cpu, Compute::F32).unwrap();
    assert!(network.forward(&call).unwrap().data().is_empty());
}

/// The names, the shapes of time and the named sizes of a card, as exporters of diffusion models write them.
#[test]
fn names_times_and_named_sizes_are_those_of_the_card() {
    let nodes = |time: &str| {
        vec![
            node("Cast", &["timestep"], "t32", Some(FLOAT)),
            node("Cast", &["keep"], "kept", Some(FLOAT)),
            node("Add", &["sample", "kept"], "both", None),
            node("Add", &["both", time], "eps", None),
            node("Neg", &["eps"], "rest", None),
        ]
    };
    let graph = |time: &str, element: u64, shape: &[i64]| Graph {
        nodes: nodes(time),
        inputs: vec![port("sample", FLOAT, &[-1, -1]), port("timestep", element, shape), port("keep", BOOL, &[-1, -1])],
        outputs: vec![port("rest", FLOAT, &[-1, -1]), port("eps", FLOAT, &[-1, -1])],
    };
    let card = |dtype: &str, shape: &str| {
        json!({
            "shape": ["frames"], "classes": 0, "null_class": null,
            "names": { "x": "sample", "time": "timestep", "output": "eps" },
            "time": { "scale": 10.0, "dtype": dtype, "shape": shape },
            "inputs": [{ "name": "keep", "dtype": "bool", "shape": ["frames"] }]
        })
    };
    let cases = [
        (graph("t32", FLOAT, &[-1, 1]), card("float32", "column"), 2.6f32),
        (graph("t32", INT64, &[-1, 1]), card("int64", "column"), 3.0),
        (graph("t32", INT64, &[]), card("int64", "scalar"), 3.0),
        (graph("t32", DOUBLE, &[]), card("float32", "scalar"), 2.6),
    ];
    for (graph, card, time) in cases {
        let (_folder, path) = written(&graph.bytes(), card.clone());
        let model = opened(&path);
        for frames in [1usize, 4] {
            let keep: Vec<u8> = (0..2 * frames).map(|i| (i % 3 == 0).into()).collect();
            let column = Column::new("keep", Dtype::Bool, &[frames], 2, &keep).unwrap();
            let condition = Condition { inputs: Inputs::new(vec![column]).unwrap(), ..Condition::default() };
            let x: Vec<f32> = (0..2 * frames).map(|i| i as f32 * 0.25).collect();
            let network = Onnx::load(model.card(), Device::Cpu, Compute::F32).unwrap();
            let state = Host::new(x.clone(), frames).unwrap();
            let at = |time: PerRow<'_>| {
                let call = Call { time, x: &state, shape: &[frames], inputs: &condition.inputs };
                network.forward(&call).map(|output| output.data().to_vec())
            };
            let found = at(PerRow::All(f64::from(time))).unwrap();
            let expected: Vec<f32> = x.iter().zip(&keep).map(|(x, keep)| x + f32::from(*keep) + time).collect();
            assert_eq!(found, expected, "{card}");
            let scalar = card["time"]["shape"] == "scalar";
            let unequal = at(PerRow::Each(&[1.0, 2.0]));
            assert_eq!(unequal.is_err(), scalar, "{card}");
            if let Err(error) = unequal {
                assert!(error.to_string().contains("time.shape scalar"), "{error}");
            }
        }
    }
}

/// What a graph says of itself is held against the card, name by name.
#[test]
fn a_graph_that_disagrees_with_its_card_is_refused_by_name() {
    let good = Graph::sum(FLOAT, FLOAT);
    let with_input = |index: usize, input: Message| {
        let mut graph = good.clone();
        graph.inputs[index] = input;
        graph.bytes()
    };
    let says = |bytes: &[u8], changes: Value, parts: &[&str]| {
        let message = refused(bytes, changes);
        for part in ["model.onnx"].iter().chain(parts) {
            assert!(message.contains(part), "{message:?} does not say {part:?}");
        }
    };
    says(&good.bytes(), json!({ "classes": 0, "null_class": null }), &["class", "an input of the graph", "x, t"]);
    says(&good.bytes(), json!({ "shape": [4] }), &["x: ", "[any, 3] in the graph", "[any, 4] in the card"]);
    says(&good.bytes(), json!({ "shape": [3, 1] }), &["x: ", "[any, 3, 1] in the card"]);
    says(&with_input(0, port("x", FLOAT, &[7, 3])), json!({}), &["x: ", "[7, 3]", "[any, 3] in the card", "dynamic"]);
    says(&with_input(0, port("x", INT64, &[-1, 3])), json!({}), &["x: ", "int64", "expected a float"]);
    says(&with_input(1, port("t", FLOAT, &[-1, 1])), json!({}), &["t: ", "[any, 1] in the graph"]);
    let scalar = json!({ "time": { "shape": "scalar" } });
    says(&good.bytes(), scalar, &["t: ", "[any] in the graph", "[] in the card"]);
    says(&good.bytes(), json!({ "time": { "dtype": "int64" } }), &["t: ", "float32 in the graph", "int64 in the card"]);
    says(&good.bytes(), json!({ "names": { "x": "sample" } }), &["x: ", "sample, t, class"]);
    says(&good.bytes(), json!({ "names": { "output": "eps" } }), &["eps: ", "outputs of the graph are output"]);
    let more = json!({ "inputs": [{ "name": "mask", "dtype": "bool", "shape": ["frames"] }] });
    says(&good.bytes(), more, &["mask: ", "an input of the card", "x, t, class"]);
    says(
        &with_input(2, port("class", INT32, &[-1])),
        json!({}),
        &["class: ", "int32 in the graph", "int64 in the card"],
    );
    says(&with_input(0, port("x", 8, &[-1, 3])), json!({}), &["x: ", "element type 8"]);

    let mut graph = good.clone();
    graph.outputs.push(port("row", FLOAT, &[-1]));
    says(&graph.bytes(), json!({}), &["outputs: ", "output, row", "names.output"]);
    graph.outputs = vec![port("row", FLOAT, &[-1])];
    says(&graph.bytes(), json!({}), &["row: ", "[any] in the graph", "[any, 3] in the card"]);

    let mut graph = Graph::sum(FLOAT, FLOAT);
    graph.nodes[1] = node("Cast", &["class"], "t32", Some(FLOAT));
    graph.inputs.remove(1);
    says(&graph.bytes(), json!({}), &["t: ", "those of the graph are x, class"]);

    let (_folder, path) = written(&good.bytes(), json!({}));
    let message = model::open_in(&path, Device::Cpu, Compute::Bf16).err().unwrap().to_string();
    assert!(message.contains("f32") && message.contains("exported"), "{message}");
}

/// Sizes that a graph leaves open are those of the run, and the runtime's word on them is an error, not a defect.
#[test]
fn an_output_of_another_size_is_an_error_of_the_run() {
    // Of the three columns those whose number is true: as many as two classes are not 0.
    let axis = Message::default().bytes(1, b"axis").number(3, 1).number(20, 2);
    let mut graph = Graph::sum(FLOAT, FLOAT);
    graph.nodes[6] = node("Cast", &["class"], "chosen", Some(BOOL));
    graph.nodes.push(node("Compress", &["sum", "chosen"], "output", None).message(5, axis));
    let (_folder, path) = written(&graph.bytes(), json!({}));
    let model = opened(&path);
    let field = model.host_field().unwrap();
    let x = field.upload(&[0.0; 6], field.elements()).unwrap();
    let error = field.eval(PerRow::All(0.5), &x, &crate::common::condition(&[1, 2], &[])).unwrap_err();
    assert!(matches!(&error, Error::Onnx(message) if message.contains("shape")), "{error}");
}

#[test]
fn what_is_no_model_is_said_of_the_file() {
    let good = Graph::sum(FLOAT, FLOAT).bytes();
    let model = std::fs::read(shipped("digits-fm-ot.onnx")).unwrap();
    let card: Value =
        serde_json::from_str(&std::fs::read_to_string(shipped("digits-fm-ot-onnx.json")).unwrap()).unwrap();
    let like = json!({ "shape": card["shape"], "classes": card["classes"], "null_class": card["null_class"] });
    for length in [1, 100, model.len() / 2, model.len() - 1] {
        let message = refused(&model[..length], like.clone());
        assert!(message.contains("model.onnx"), "{length}: {message}");
    }
    for bytes in [&b""[..], b"not a model", &[0xff; 300], &good[..good.len() / 2], b"PK\x03\x04torchscript"] {
        let message = refused(bytes, json!({}));
        assert!(message.contains("model.onnx"), "{message}");
    }
    let mut graph = Graph::sum(FLOAT, FLOAT);
    graph.nodes[3] = node("Summarise", &["t32", "class32"], "row", None);
    let message = refused(&graph.bytes(), json!({}));
    assert!(message.contains("ONNX Runtime") && message.contains("Summarise"), "{message}");
    graph.nodes[3] = node("Add", &["sum", "class32"], "row", None);
    assert!(refused(&graph.bytes(), json!({})).contains("model.onnx"), "a circle");

    let (folder, path) = written(&good, json!({ "weights": "missing.onnx" }));
    let message = model::open(&path, Device::Cpu).err().unwrap();
    assert!(matches!(&message, Error::Io { .. }) && message.to_string().contains("missing.onnx"), "{message}");
    drop(folder);
}

/// Every byte of a model changed in turn: it is refused or it runs, and this process lives.
#[test]
fn changed_bytes_are_refused_or_run() {
    let good = Graph::sum(FLOAT, FLOAT).bytes();
    let (_folder, path) = written(&good, json!({}));
    let weights = path.with_file_name("model.onnx");
    let mut refused = 0;
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x15;
        std::fs::write(&weights, &bytes).unwrap();
        match model::open(&path, Device::Cpu) {
            Err(_) => refused += 1,
            Ok(model) => {
                let field = model.host_field().unwrap();
                let _ = field.eval(
                    PerRow::All(0.5),
                    &field.upload(&[0.0; 3], 3).unwrap(),
                    &crate::common::condition(&[1], &[]),
                );
            }
        }
    }
    assert!(refused > good.len() / 2, "{refused} of {}", good.len());
}

#[test]
fn a_model_serves_many_threads_and_each_gets_its_own() {
    let model = opened(&shipped("digits-fm-ot-onnx.json"));
    let x = normal(3, Purpose::Sample, 0..8 * 16, 64).unwrap();
    let part = |thread: usize| {
        let times: Vec<f64> = (0..16).map(|row| (row + thread) as f64 / 24.0).collect();
        let classes: Vec<i64> = (0..16).map(|row| (row + thread as i64) % 10).collect();
        let condition = crate::common::condition(&classes, &[]);
        velocity(&model, PerRow::Each(&times), &x[thread * 1024..][..1024], &condition)
    };
    let alone: Vec<Vec<f32>> = (0..8).map(part).collect();
    std::thread::scope(|scope| {
        for (thread, alone) in alone.iter().enumerate() {
            let part = &part;
            scope.spawn(move || (0..30).for_each(|_| assert!(part(thread) == *alone, "thread {thread}")));
        }
    });
}

/// What is bound for a condition stays with it, for the model that bound it, whichever thread asks.
#[test]
fn one_condition_serves_threads_and_models_at_a_time() {
    let sum = Graph::sum(FLOAT, FLOAT);
    let mut difference = sum.clone();
    difference.nodes[5] = node("Sub", &["x32", "column"], "sum", None);
    let [sum, difference] = [sum, difference].map(|graph| written(&graph.bytes(), json!({})));
    let models = [opened(&sum.1), opened(&difference.1)];
    let condition = crate::common::condition(&[2, 5], &[]);
    let x = [0.5f32, 0.25, -0.5, 1.0, 2.0, 3.0];
    let check = |model: &Model, sign: f32, t: f32| {
        let expected: Vec<f32> = x.iter().enumerate().map(|(i, x)| x + sign * (t + [2.0, 5.0][i / 3])).collect();
        assert_eq!(velocity(model, PerRow::All(t.into()), &x, &condition), expected);
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (model, sign) = (&models[thread % 2], [1.0, -1.0][thread % 2]);
            let check = &check;
            scope.spawn(move || (0..50).for_each(|i| check(model, sign, i as f32 / 64.0)));
        }
    });
    drop(models);
    check(&opened(&sum.1), 1.0, 0.5);
}

#[test]
fn a_device_that_the_library_has_no_provider_for_is_said() {
    for (device, provider) in
        [(Device::Cuda(0), "CUDAExecutionProvider"), (Device::TensorRt(1), "TensorrtExecutionProvider")]
    {
        // A library that has the provider says what it lacks in words of its own.
        match model::open(&shipped("digits-fm-ot-onnx.json"), device) {
            Err(Error::Unsupported(message)) => {
                assert!(message.contains(&device.to_string()), "{message}");
                assert!(message.contains(provider) || message.contains("ONNX Runtime"), "{message}");
            }
            Err(error) => panic!("{error}"),
            Ok(_) => println!("{device}: this machine has it"),
        }
    }
    assert_eq!("tensorrt:1".parse::<Device>().unwrap(), Device::TensorRt(1));
    assert_eq!(Device::TensorRt(0).to_string().parse::<Device>().unwrap(), Device::TensorRt(0));
    for wrong in ["tensorrt:", "cpu:0", "cuda:1024", "onnx"] {
        assert!(wrong.parse::<Device>().is_err(), "{wrong}");
    }
}

/// What the exported files were made from gives the same velocities.
#[cfg(feature = "torch")]
#[test]
fn shipped_models_agree_with_their_torchscript() {
    use bespoke::tensor::Tensor;
    for (name, elements, classes) in [("digits-fm-ot", 64, 10), ("photos-fm-ot", 192, 0)] {
        let onnx = opened(&shipped(&format!("{name}-onnx.json")));
        let torch = opened(&shipped(&format!("{name}.json")));
        let torch = torch.torch_field().unwrap();
        for batch in [1usize, 7, 64] {
            let x = normal(5, Purpose::Sample, 0..batch, elements).unwrap();
            let times: Vec<f64> = (0..batch).map(|row| row as f64 / batch as f64).collect();
            let ids: Vec<i64> = (0..if classes > 0 { batch as i64 } else { 0 }).map(|row| row % classes).collect();
            let scales = if classes > 0 { vec![2.0; batch] } else { Vec::new() };
            let condition = crate::common::condition(&ids, &scales);
            let found = velocity(&onnx, PerRow::Each(&times), &x, &condition);
            let x = torch.upload(&x, torch.elements()).unwrap();
            let expected = torch.eval(PerRow::Each(&times), &x, &condition).unwrap().to_f32().unwrap();
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // Guidance by 2 takes three times the difference of one pass.
            let tolerance = if classes > 0 { 3e-5 } else { 1e-5 };
            println!("{name}, batch {batch}: {worst:e}");
            assert!(worst < tolerance, "{name}, batch {batch}: {worst:e}");
        }
    }
}

#[cfg(feature = "cli")]
mod program {
    use super::*;
    use crate::signature::{f32s, stored};
    use crate::tree::program;
    use assert_cmd::Command;
    use predicates::prelude::*;
    use predicates::str::contains;

    fn sample(program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_remove("BESPOKE_ONNXRUNTIME").arg("sample").arg("--model").arg(shipped("digits-fm-ot-onnx.json"));
        command.args(["--solver", "euler@2", "--count", "3"]);
        command
    }

    #[test]
    fn a_solver_is_learned_and_used_without_gradients() {
        let folder = TempDir::new().unwrap();
        let theta = folder.path().join("theta.json");
        let mut train = Command::new(program());
        train.arg("train").arg("--model").arg(shipped("digits-fm-ot-onnx.json")).arg("--out").arg(&theta);
        train.args(["--steps", "2", "--loss", "rmse-bound", "--iterations", "15", "--pool", "40"]);
        train.args(["--batch", "20", "--validation", "30"]);
        train.assert().success();
        let document: Value = serde_json::from_str(&std::fs::read_to_string(&theta).unwrap()).unwrap();
        let rmse = |of: &Value| of["rmse"].as_f64().unwrap();
        let training = &document["training"];
        assert!(rmse(&training["validation"]) < rmse(&training["start"]), "{training}");
        let out = folder.path().join("samples.npy");
        sample(program()).arg("--solver").arg(&theta).arg("--out").arg(&out).assert().code(2);
        let mut command = Command::new(program());
        command.arg("sample").arg("--model").arg(shipped("digits-fm-ot-onnx.json")).arg("--solver").arg(&theta);
        command.args(["--count", "3", "--out"]).arg(&out).assert().success();
        assert!(std::fs::metadata(&out).unwrap().len() > 3 * 64 * 4);
    }

    /// u = sin x + text + t, of samples of any number of frames.
    fn of_any_size() -> Graph {
        let nodes = vec![
            node("Sin", &["x"], "waves", None),
            node("Add", &["waves", "text"], "both", None),
            node("Unsqueeze", &["t", "last"], "column", None),
            node("Add", &["both", "column"], "output", None),
        ];
        let inputs = vec![port("x", FLOAT, &[-1, -1]), port("t", FLOAT, &[-1]), port("text", FLOAT, &[-1, -1])];
        Graph { nodes, inputs, outputs: vec![port("output", FLOAT, &[-1, -1])] }
    }

    #[test]
    fn every_command_takes_conditions_of_several_sizes() {
        let inputs = json!([{ "name": "text", "dtype": "float32", "shape": ["frames"] }]);
        let card = json!({ "shape": ["frames"], "classes": 0, "null_class": null, "inputs": inputs });
        let (folder, model) = written(&of_any_size().bytes(), card);
        let at = |name: &str| folder.path().join(name);
        let conditions = |name: &str, rows: usize, frames: usize| {
            let values: Vec<f32> = (0..rows * frames).map(|i| (i as f32 * 0.9).cos()).collect();
            let tensors = vec![("text", safetensors::Dtype::F32, vec![rows, frames], f32s(&values))];
            stored(&at(name), &tensors, &[])
        };
        let files = [conditions("short.safetensors", 3, 4), conditions("long.safetensors", 2, 6)];
        let command = |name: &str, files: &[PathBuf]| {
            let mut command = Command::new(program());
            command.arg(name).arg("--model").arg(&model);
            for file in files {
                command.arg("--conditions").arg(file);
            }
            command
        };
        let array = |name: &str| -> Vec<f32> { bespoke::npy::open(&at(name)).unwrap().into_vec().unwrap() };
        let both = |name: &str| command(name, &files);
        both("train")
            .args(["--nfe", "4", "--pool", "50", "--batch", "20", "--validation", "20", "--iterations", "4"])
            .arg("--out")
            .arg(at("theta.json"))
            .arg("--pool-file")
            .arg(at("pool.safetensors"))
            .assert()
            .success();
        let theta: Value = serde_json::from_slice(&std::fs::read(at("theta.json")).unwrap()).unwrap();
        assert_eq!(theta["model"]["shape"], json!(["frames"]));
        let rmse = |of: &Value| of["rmse"].as_f64().unwrap();
        assert!(rmse(&theta["training"]["validation"]) < rmse(&theta["training"]["start"]), "{theta}");

        // Samples 0, 1, 2, 5, 6, 7 are short, 3, 4, 8 long: each as a run of its own size has it.
        let solver = |mut command: Command| {
            command.args(["--solver", "rk4@8", "--seed", "3"]);
            command
        };
        solver(both("sample")).args(["--count", "9", "--out"]).arg(at("x.npy")).assert().success();
        let (short, long) = (array("x-frames-4.npy"), array("x-frames-6.npy"));
        assert_eq!((short.len(), long.len(), at("x.npy").exists()), (6 * 4, 3 * 6, false));
        let same = |file: &PathBuf| [file.clone(), file.clone()];
        solver(command("sample", &same(&files[0]))).args(["--count", "3", "--out"]).arg(at("a.npy")).assert().success();
        assert_eq!(array("a.npy"), short[..3 * 4]);

        let json = at("eval.json");
        both("eval")
            .arg("--solver")
            .arg(at("theta.json"))
            .args(["--solver", "midpoint@4", "--count", "20", "--seed", "9"])
            .arg("--json")
            .arg(&json)
            .assert()
            .success();
        let found: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
        assert!(rmse(&found["results"][0]) < rmse(&found["results"][1]), "{found}");
        both("report")
            .arg("--solver")
            .arg(at("theta.json"))
            .args(["--count", "10", "--sample", "3", "--quiet", "--out"])
            .arg(at("page.html"))
            .assert()
            .success();
        assert!(std::fs::read_to_string(at("page.html")).unwrap().contains("each of shape [frames]"));

        // What goes with one size alone.
        solver(both("sample")).args(["--out", "-"]).assert().code(2).stderr(contains("several sizes"));
        let given = |mut command: Command| {
            command.arg("--noise").arg(at("a.npy"));
            command
        };
        let refused = given(both("sample")).args(["--solver", "rk4@8", "--out", "y.npy"]).assert().code(2);
        refused.stderr(contains("noise").and(contains("several sizes")));
        let mut frechet = both("eval");
        frechet.args(["--solver", "rk4@8", "--frechet"]).assert().code(2).stderr(contains("several sizes"));
    }

    /// `libraries` with the one that is at hand: what `cc` makes of a library that says it is of `version`.
    fn library_of(folder: &Path, version: &str) -> PathBuf {
        let (source, library) = (folder.join("old.c"), folder.join("old.so"));
        let code = format!(
            "static const void *api(unsigned version) {{ (void)version; return 0; }}\n\
             static const char *version(void) {{ return \"{version}\"; }}\n\
             static const struct {{ const void *(*api)(unsigned); const char *(*version)(void); }} base = {{ api, version }};\n\
             const void *OrtGetApiBase(void) {{ return &base; }}\n"
        );
        std::fs::write(&source, code).unwrap();
        let made =
            std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
        assert!(made.unwrap().success());
        library
    }

    #[test]
    fn a_library_that_is_missing_foreign_or_too_old_is_named() {
        let folder = TempDir::new().unwrap();
        let out = folder.path().join("x.npy");
        let fails = |library: &Path, problem: &str| {
            let mut command = sample(program());
            command.env("BESPOKE_ONNXRUNTIME", library).arg("--out").arg(&out);
            let named = contains("BESPOKE_ONNXRUNTIME").and(contains(library.display().to_string()));
            command.assert().code(1).stderr(named.and(contains(problem)).and(contains("panicked").not()));
        };
        fails(&folder.path().join("none.so"), "No such file");
        let text = folder.path().join("text.so");
        std::fs::write(&text, "no library").unwrap();
        fails(&text, "file too short");
        fails(&library_of(folder.path(), "1.9.0"), "is version 1.9.0, expected 1.17 or later");
        let foreign = folder.path().join("foreign.so");
        let made =
            std::process::Command::new("cc").args(["-shared", "-x", "c", "/dev/null", "-o"]).arg(&foreign).status();
        assert!(made.unwrap().success());
        fails(&foreign, "no OrtGetApiBase");
    }

    /// A program elsewhere finds no build tree, but what lies beside it.
    #[test]
    fn a_library_beside_the_program_is_found() {
        let folder = TempDir::new().unwrap();
        let moved = folder.path().join("bespoke");
        std::fs::copy(program(), &moved).unwrap();
        let out = folder.path().join("x.npy");
        let beside = library_of(folder.path(), "1.3.0");
        std::fs::rename(&beside, folder.path().join("libonnxruntime.so.1.3.0")).unwrap();
        // What is too old there is said, whether or not the system has another.
        let tried = sample(&moved).arg("--out").arg(&out).assert();
        let stderr = String::from_utf8_lossy(&tried.get_output().stderr).into_owned();
        if !tried.get_output().status.success() {
            assert!(stderr.contains("libonnxruntime.so.1.3.0: is version 1.3.0"), "{stderr}");
            assert!(stderr.contains("set BESPOKE_ONNXRUNTIME") && stderr.contains("libonnxruntime.so: "), "{stderr}");
        }
        let Some(own) = in_venv() else { return };
        std::os::unix::fs::symlink(own, folder.path().join("libonnxruntime.so.1.99.0")).unwrap();
        sample(&moved).arg("--out").arg(&out).assert().success();
    }

    /// The library that make installs, where it did.
    fn in_venv() -> Option<PathBuf> {
        let lib = root().join(".venv/lib");
        let capi = |python: std::fs::DirEntry| python.path().join("site-packages/onnxruntime/capi");
        let files = std::fs::read_dir(lib).ok()?.flatten().filter_map(|python| std::fs::read_dir(capi(python)).ok());
        let is_library = |path: &PathBuf| path.to_string_lossy().contains("libonnxruntime.so");
        files.flatten().flatten().map(|file| file.path()).find(is_library)
    }
}
