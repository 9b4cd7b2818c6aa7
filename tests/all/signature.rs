//! What a card says that its network takes: inputs, sizes, guidance by passes, time; and conditions as files.

use crate::common::card;
use bespoke::card::Card;
use bespoke::error::Result;
use bespoke::inputs::{Column, Inputs};
use bespoke::model::ModelField;
use bespoke::networks::{Call, CallerNetwork};
use bespoke::samples::{Conditioning, Conditions, Extent, GuidanceScale};
use bespoke::tensor::{Dtype, Host, PerRow, Register};
use bespoke::velocity::{Condition, Scale, VelocityField};
use safetensors::tensor::{Dtype as Stored, TensorView, serialize_to_file};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What a network was asked, call by call.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    times: Vec<f32>,
    shape: Vec<usize>,
    inputs: Vec<String>,
}

type Log = Arc<Mutex<Vec<Asked>>>;

fn floats(column: &Column) -> Vec<f64> {
    match column.dtype() {
        Dtype::Float32 => {
            column.bytes().chunks(4).map(|b| f64::from(f32::from_ne_bytes(b.try_into().unwrap()))).collect()
        }
        Dtype::Int64 => column.integers().unwrap().iter().map(|v| *v as f64).collect(),
        Dtype::Bool => column.bytes().iter().map(|b| f64::from(*b)).collect(),
        other => panic!("{other} is not in these tests"),
    }
}

/// A network whose output is x (1 + time) plus, for each input, its mean over the row times the input's place.
fn network(log: &Log) -> CallerNetwork {
    let log = log.clone();
    CallerNetwork::new(Box::new(move |times, call: &Call<'_, Host<f32>>, output: &mut Host<f32>| -> Result<()> {
        let elements = call.shape.iter().product::<usize>();
        assert_eq!(call.x.elements(), elements);
        for row in 0..times.len() {
            let mut added = 0.0;
            for (place, column) in call.inputs.columns().iter().enumerate() {
                let values = floats(column);
                let own = &values[row * (values.len() / times.len())..][..values.len() / times.len()];
                added += (place + 1) as f64 * own.iter().sum::<f64>() / own.len() as f64;
            }
            for i in 0..elements {
                let x = call.x.row(row)[i];
                output.data_mut()[row * elements + i] = x * (1.0 + times[row]) + added as f32;
            }
        }
        log.lock().unwrap().push(Asked {
            times: times.to_vec(),
            shape: call.shape.to_vec(),
            inputs: call.inputs.columns().iter().map(|column| column.name().to_owned()).collect(),
        });
        Ok(())
    }))
}

fn open(folder: &Path, changes: Value) -> (ModelField<Host<f32>>, Log) {
    let mut keys = json!({ "runtime": "host", "weights": "", "shape": [2], "output": "velocity" });
    keys.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let log = Log::default();
    (ModelField::new(card(folder, keys), Box::new(network(&log))).unwrap(), log)
}

fn column(name: &str, shape: &[usize], values: &[f32]) -> Column {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
    let row: usize = shape.iter().product();
    Column::new(name, Dtype::Float32, shape, values.len() / row, &bytes).unwrap()
}

fn scaled(inputs: Inputs, scales: &[(&str, &[f64])]) -> Condition {
    let scales = scales.iter().map(|(name, values)| Scale { name: (*name).to_owned(), values: values.to_vec() });
    Condition { inputs, scales: scales.collect() }
}

fn states(rows: usize, elements: usize) -> Host<f32> {
    Host::new((0..rows * elements).map(|i| (i as f32 * 0.7).sin()).collect(), elements).unwrap()
}

fn close(found: f32, expected: f64, what: &str) {
    assert!((f64::from(found) - expected).abs() < 2e-6 * (1.0 + expected.abs()), "{what}: {found} is not {expected}");
}

#[test]
fn a_chain_of_two_scales_is_its_formula_row_by_row() {
    let folder = tempfile::tempdir().unwrap();
    let (field, log) = open(
        folder.path(),
        json!({
            "inputs": [
                { "name": "image", "dtype": "float32", "shape": [3], "null": 0.25 },
                { "name": "text", "dtype": "float32", "shape": [], "null": -1 },
                { "name": "mask", "dtype": "bool", "shape": [2] }
            ],
            "guidance": {
                "passes": [{ "without": ["image", "text"] }, { "without": ["text"], "scale": "image_scale" },
                           { "scale": "text_scale" }],
                "interval": [0.2, 0.8]
            }
        }),
    );
    let image = [0.3f32, 0.6, 0.9, -0.5, 0.1, 0.2, 1.0, 1.5, -1.0, 0.0, 0.2, 0.4];
    let (text, mask) = ([0.5f32, 2.0, -0.4, 1.0], [1u8, 0, 1, 1, 0, 0, 0, 1]);
    let inputs = Inputs::new(vec![
        Column::new("mask", Dtype::Bool, &[2], 4, &mask).unwrap(),
        column("text", &[], &text),
        column("image", &[3], &image),
    ])
    .unwrap();
    let (image_scale, text_scale) = ([1.5, 1.5, 1.0, 2.0], [7.5, 3.0, 1.0, 0.0]);
    let condition = scaled(inputs, &[("text_scale", &text_scale), ("image_scale", &image_scale)]);
    // Row 1 lies outside the interval, row 2 has both scales off.
    let times = [0.5, 0.9, 0.4, 0.2];
    let x = states(4, 2);
    let u = field.eval(PerRow::Each(&times), &x, &condition).unwrap();
    for row in 0..4 {
        let of_image: f64 = image[3 * row..3 * row + 3].iter().map(|v| f64::from(*v)).sum::<f64>() / 3.0;
        let of_mask = f64::from(mask[2 * row] + mask[2 * row + 1]) / 2.0;
        let inside = (0.2..=0.8).contains(&times[row]);
        let (s1, s2) = if inside { (image_scale[row], text_scale[row]) } else { (1.0, 1.0) };
        for i in 0..2 {
            let pass = |image: f64, text: f64| {
                f64::from(x.row(row)[i]) * (1.0 + times[row]) + image + 2.0 * text + 3.0 * of_mask
            };
            let (u0, u1, u2) = (pass(0.25, -1.0), pass(of_image, -1.0), pass(of_image, f64::from(text[row])));
            close(u.row(row)[i], u0 + s1 * (u1 - u0) + s2 * (u2 - u1), &format!("row {row}"));
        }
    }
    // The last pass runs for all, the second where text_scale differs from image_scale, the first where image_scale
    // is not 1: in each, every row has its own time.
    let asked = log.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].times, [0.5, 0.9, 0.4, 0.2, 0.5, 0.2, 0.5, 0.2]);
    assert_eq!(asked[0].inputs, ["image", "text", "mask"], "in the card's order");
}

#[test]
fn a_scale_that_is_an_input_is_one_pass() {
    let folder = tempfile::tempdir().unwrap();
    let (field, log) = open(
        folder.path(),
        json!({
            "inputs": [{ "name": "pooled", "dtype": "float32", "shape": [1] },
                       { "name": "guidance", "dtype": "float32", "shape": [] }],
            "guidance": { "scale_input": "guidance" }
        }),
    );
    let inputs = Inputs::new(vec![column("pooled", &[1], &[0.5, 0.25])]).unwrap();
    let x = states(2, 2);
    let u = field.eval(PerRow::All(0.5), &x, &scaled(inputs.clone(), &[("guidance_scale", &[3.5, 1.0])])).unwrap();
    close(u.row(0)[1], f64::from(x.row(0)[1]) * 1.5 + 0.5 + 2.0 * 3.5, "row 0");
    close(u.row(1)[0], f64::from(x.row(1)[0]) * 1.5 + 0.25 + 2.0, "row 1");
    assert_eq!(log.lock().unwrap()[0].times.len(), 2);
    let condition = scaled(inputs.clone(), &[("guidance_scale", &[3.5, 1.0])]);
    assert_eq!(field.passes(PerRow::All(0.5), 2, &condition).unwrap(), 2);
    let absent = field.eval(PerRow::All(0.5), &x, &Condition::new(inputs)).unwrap_err().to_string();
    assert!(absent.starts_with("guidance_scale is absent"), "{absent}");
}

#[test]
fn a_null_of_a_file_is_that_row() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = std::fs::File::create(folder.path().join("null.npy")).unwrap();
    let mut writer = {
        use npyz::WriterBuilder;
        npyz::WriteOptions::new().default_dtype().shape(&[2]).writer(&mut file).begin_nd().unwrap()
    };
    writer.extend([0.5f32, 1.5]).unwrap();
    writer.finish().unwrap();
    let inputs = json!([{ "name": "text", "dtype": "float32", "shape": ["tokens"], "null": "null.npy" }]);
    let (field, _) = open(folder.path(), json!({ "inputs": inputs }));
    let condition = |shape: &[usize], values: &[f32]| {
        scaled(Inputs::new(vec![column("text", shape, values)]).unwrap(), &[("guidance_scale", &[2.0])])
    };
    let x = states(1, 2);
    let u = field.eval(PerRow::All(0.0), &x, &condition(&[2], &[3.0, 5.0])).unwrap();
    close(u.row(0)[0], f64::from(x.row(0)[0]) + 1.0 + 2.0 * (4.0 - 1.0), "guided");
    let other = field.eval(PerRow::All(0.0), &x, &condition(&[3], &[3.0, 5.0, 1.0])).unwrap_err().to_string();
    assert!(other.contains("inputs.text.shape is [3]"), "{other}");
    // The file is part of what the model is.
    let before = field.card().fingerprint().unwrap();
    std::fs::write(folder.path().join("null.npy"), b"something else").unwrap();
    let again = Card::load(field.card().path()).unwrap();
    assert_ne!(again.fingerprint().unwrap(), before);
    let message = |card: Card| ModelField::new(card, Box::new(network(&Log::default()))).err().unwrap().to_string();
    assert!(message(again.clone()).contains("null.npy"), "no .npy file");
    std::fs::remove_file(folder.path().join("null.npy")).unwrap();
    let missing = message(again);
    assert!(missing.contains("null.npy: inputs.text.null: cannot be read"), "{missing}");
}

#[test]
fn named_sizes_are_the_samples_own_and_agree_within_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut field, log) = open(
        folder.path(),
        json!({
            "shape": ["frames", 2],
            "inputs": [{ "name": "cond", "dtype": "float32", "shape": ["frames", 3] },
                       { "name": "tokens", "dtype": "int64", "shape": ["length"] }]
        }),
    );
    let condition = |frames: usize, rows: usize, length: usize| {
        let tokens: Vec<u8> = (0..rows * length).flat_map(|i| (i as i64).to_ne_bytes()).collect();
        Condition::new(
            Inputs::new(vec![
                column("cond", &[frames, 3], &vec![0.5; rows * frames * 3]),
                Column::new("tokens", Dtype::Int64, &[length], rows, &tokens).unwrap(),
            ])
            .unwrap(),
        )
    };
    for (frames, length) in [(4, 7), (9, 1)] {
        field.eval(PerRow::All(0.3), &states(2, 2 * frames), &condition(frames, 2, length)).unwrap();
        assert_eq!(log.lock().unwrap().last().unwrap().shape, [frames, 2]);
    }
    let message = field.eval(PerRow::All(0.3), &states(2, 10), &condition(4, 2, 7)).unwrap_err().to_string();
    assert!(message.contains("elements of a sample is 10"), "{message}");
    assert_eq!(field.elements(), 0, "not known before a run says its sizes");
    let before = field.card().fingerprint().unwrap();
    field.set_sizes(&[("frames".to_owned(), 4)].into());
    assert_eq!((field.elements(), field.card().sample_shape().unwrap()), (8, vec![4, 2]));
    assert_eq!(field.card().fingerprint().unwrap(), before, "it is the same model");
    let message = field.eval(PerRow::All(0.3), &states(2, 18), &condition(9, 2, 7)).unwrap_err().to_string();
    assert!(message.contains("inputs.cond.shape"), "{message}");
}

/// Where a network's inputs lay in memory, call by call.
fn whereabouts(seen: &Arc<Mutex<Vec<usize>>>) -> CallerNetwork {
    let seen = seen.clone();
    CallerNetwork::new(Box::new(move |_, call: &Call<'_, Host<f32>>, output: &mut Host<f32>| -> Result<()> {
        seen.lock().unwrap().push(call.inputs.columns()[0].bytes().as_ptr() as usize);
        output.data_mut().iter_mut().zip(call.x.data()).for_each(|(out, x)| *out = *x);
        Ok(())
    }))
}

#[test]
fn inputs_are_bound_and_stacked_once_a_solve() {
    let folder = tempfile::tempdir().unwrap();
    let keys = json!({ "runtime": "host", "weights": "", "shape": ["n"], "output": "velocity",
                       "inputs": [{ "name": "text", "dtype": "float32", "shape": [2], "null": 0 }],
                       "guidance": { "passes": [{ "without": ["text"] }, { "scale": "guidance_scale" }],
                                     "interval": [0, 0.5] } });
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut field = ModelField::new(card(folder.path(), keys), Box::new(whereabouts(&seen))).unwrap();
    let inputs = Inputs::new(vec![column("text", &[2], &[0.5, 1.0, 1.5, 2.0])]).unwrap();
    let own = inputs.columns()[0].bytes().as_ptr() as usize;
    let condition = scaled(inputs, &[("guidance_scale", &[2.0, 3.0])]);
    let at = |field: &ModelField<Host<f32>>, t: f64, elements: usize, condition: &Condition| {
        field.eval(PerRow::All(t), &states(2, elements), condition).map(|_| *seen.lock().unwrap().last().unwrap())
    };
    let stacked = at(&field, 0.0, 4, &condition).unwrap();
    assert_ne!(stacked, own);
    assert_eq!(at(&field, 0.3, 4, &condition).unwrap(), stacked, "stacked once");
    assert_eq!(at(&field, 0.7, 4, &condition).unwrap(), own, "outside the interval as they are");
    assert_eq!(at(&field, 0.5, 4, &condition.clone()).unwrap(), stacked, "a clone has the same inputs");
    // One row inside, one outside: another stack.
    field.eval(PerRow::Each(&[0.2, 0.8]), &states(2, 4), &condition).unwrap();
    assert_ne!(*seen.lock().unwrap().last().unwrap(), stacked);
    // What was bound is held against the batch: another size of samples, other scales, another field.
    field.eval(PerRow::All(0.3), &states(2, 6), &condition).unwrap();
    let message = at(&field, 0.3, 4, &condition.clone().guided(vec![2.0])).unwrap_err().to_string();
    assert!(message.contains("guidance_scale is 1 numbers"), "{message}");
    let message = field.eval(PerRow::All(0.3), &states(3, 4), &condition).unwrap_err().to_string();
    assert!(message.contains("inputs.text is 2 rows, expected 3"), "{message}");
    field.set_sizes(&[("n".to_owned(), 4)].into());
    let message = field.eval(PerRow::All(0.3), &states(2, 6), &condition).unwrap_err().to_string();
    assert!(message.contains("elements of a sample is 6"), "{message}");
    let other = json!({ "inputs": [{ "name": "text", "dtype": "float32", "shape": [3], "null": 0 }] });
    let (other, _) = open(folder.path(), other);
    let message = other.eval(PerRow::All(0.3), &states(2, 2), &condition).unwrap_err().to_string();
    assert!(message.contains("inputs.text.shape is [2]"), "{message}");
}

#[test]
fn time_is_given_as_the_card_says() {
    let folder = tempfile::tempdir().unwrap();
    let (field, log) = open(
        folder.path(),
        json!({ "time": { "direction": "data-to-noise", "scale": 1000, "offset": -1, "dtype": "int64" } }),
    );
    field.eval(PerRow::Each(&[0.0, 0.2504, 0.9]), &states(3, 2), &Condition::default()).unwrap();
    assert_eq!(log.lock().unwrap()[0].times, [999.0, 749.0, 99.0]);
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = json!([{ "name": "a", "dtype": "float32", "shape": ["n"], "null": 0 },
                        { "name": "b", "dtype": "int64", "shape": ["n", 2] }]);
    let (field, log) = open(folder.path(), json!({ "inputs": inputs }));
    let a = |rows: usize, n: usize| column("a", &[n], &vec![1.0; rows * n]);
    let b = |rows: usize, n: usize| Column::new("b", Dtype::Int64, &[n, 2], rows, &vec![0; rows * n * 16]).unwrap();
    let x = states(2, 2);
    for (columns, scales, says) in [
        (vec![a(2, 3)], vec![], "inputs.b is absent, expected int64 [n, 2]"),
        (vec![a(2, 3), b(2, 3), column("c", &[1], &[0.0, 0.0])], vec![], "inputs.c is there"),
        (vec![a(2, 3), b(2, 4)], vec![], "inputs.b.shape is [4, 2], expected [n, 2] with n = 3"),
        (vec![a(2, 3), column("b", &[3, 2], &[0.0; 12])], vec![], "inputs.b.dtype is float32, expected int64"),
        (vec![a(3, 3), b(3, 3)], vec![], "inputs.a is 3 rows, expected 2"),
        (vec![column("a", &[3, 1], &[0.0; 6]), b(2, 3)], vec![], "inputs.a.shape is [3, 1]"),
        (vec![a(2, 3), b(2, 3)], vec![("style", [2.0, 2.0])], "style is 2, expected absent: the model's scales are"),
        (vec![a(2, 3), b(2, 3)], vec![("guidance_scale", [2.0, f64::INFINITY])], "guidance_scale is inf"),
    ] {
        let scales: Vec<(&str, &[f64])> = scales.iter().map(|(name, values)| (*name, &values[..])).collect();
        let condition = scaled(Inputs::new(columns).unwrap(), &scales);
        let message = field.eval(PerRow::All(0.5), &x, &condition).unwrap_err().to_string();
        assert!(message.contains(says), "{message:?} does not say {says:?}");
    }
    assert!(log.lock().unwrap().is_empty(), "nothing was run");
    assert!(Inputs::new(vec![a(2, 1), a(2, 1)]).unwrap_err().to_string().contains("inputs.a is there twice"));
    assert!(
        Column::new("a", Dtype::Float32, &[usize::MAX, 2], 1, &[0; 8]).unwrap_err().to_string().contains("inputs.a")
    );
    assert!(Column::new("a", Dtype::Bool, &[], 2, &[0, 2]).unwrap_err().to_string().contains("boolean of 2"));
}

#[test]
fn a_malformed_signature_is_refused_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let input = |changes: Value| {
        let mut input = json!({ "name": "a", "dtype": "int64", "shape": [2] });
        input.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        input
    };
    let many: Vec<Value> = (0..3).map(|_| json!(1usize << 40)).collect();
    for (changes, key) in [
        (json!({ "shape": [] }), "shape"),
        (json!({ "shape": ["", 2] }), "shape"),
        (json!({ "shape": ["3", 2] }), "shape"),
        (json!({ "shape": many }), "shape"),
        (json!({ "inputs": [input(json!({})), input(json!({}))] }), "inputs.a.name"),
        (json!({ "inputs": [input(json!({ "name": "" }))] }), "inputs.name"),
        (json!({ "inputs": [input(json!({ "name": "x" }))] }), "inputs.name"),
        (json!({ "inputs": [input(json!({ "shape": [0] }))] }), "inputs.a.shape"),
        (json!({ "inputs": [input(json!({ "dtype": "complex64" }))] }), "inputs[0].dtype"),
        (json!({ "inputs": [input(json!({ "null": 0.5 }))] }), "inputs.a.null"),
        (json!({ "inputs": [input(json!({ "null": [0] }))] }), "null: expected a number, \"keep\" or the name of"),
        (json!({ "inputs": [input(json!({ "extra": 1 }))] }), "inputs[0].extra"),
        (json!({ "classes": 3, "inputs": [input(json!({ "name": "class" }))] }), "inputs.class.name"),
        (json!({ "guidance": { "passes": [{}, {}] } }), "guidance.passes[1].scale"),
        (json!({ "guidance": { "passes": [{ "scale": "s" }] } }), "guidance.passes[0].scale"),
        (json!({ "guidance": { "passes": [{ "without": ["b"] }, { "scale": "s" }] } }), "guidance.passes[0].without"),
        (
            json!({ "inputs": [input(json!({}))],
                    "guidance": { "passes": [{ "without": ["a"] }, { "scale": "s" }] } }),
            "guidance.passes[0].without",
        ),
        (
            json!({ "inputs": [input(json!({ "null": 0 }))],
                    "guidance": { "passes": [{}, { "without": ["a"], "scale": "s" }] } }),
            "guidance.passes[1].without",
        ),
        (json!({ "guidance": { "interval": [0.8, 0.2] } }), "guidance.interval"),
        // Times as a network counts them would turn guidance off without a word.
        (json!({ "guidance": { "interval": [200, 800] } }), "guidance.interval"),
        (json!({ "guidance": { "scale_input": "a" } }), "guidance.scale_input"),
        (
            json!({ "inputs": [input(json!({ "shape": [] }))], "guidance": { "scale_input": "a" } }),
            "guidance.scale_input",
        ),
        (json!({ "order": ["x", "x"] }), "order"),
        (json!({ "time": { "dtype": "float16" } }), "time.dtype"),
    ] {
        let mut keys = json!({ "format": "bespoke-model", "version": 1, "runtime": "host", "shape": [2],
                               "scheduler": { "name": "fm-ot" }, "output": "velocity" });
        keys.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let message = Card::parse(&keys.to_string(), &folder.path().join("card.json")).unwrap_err().to_string();
        assert!(message.contains(key), "{message:?} does not name {key:?}");
    }
}

pub type Stack = Vec<(&'static str, Stored, Vec<usize>, Vec<u8>)>;

pub fn stored(path: &Path, tensors: &Stack, metadata: &[(&str, &str)]) -> PathBuf {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    serialize_to_file(views, &Some(metadata), path).unwrap();
    path.to_owned()
}

pub fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// `classes` is a short form of one input: files may say it, or leave it to the samples' order.
#[test]
fn classes_are_those_of_the_conditions_or_in_turn() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = json!([{ "name": "a", "dtype": "float32", "shape": [], "null": 0 }]);
    let (field, _) = open(folder.path(), json!({ "shape": [1], "inputs": inputs, "classes": 3 }));
    let a = || ("a", Stored::F32, vec![2], f32s(&[1.0, 2.0]));
    let class = |classes: [i64; 2]| ("class", Stored::I64, vec![2], classes.map(i64::to_le_bytes).concat());
    let file = |name: &str, tensors: &[_]| stored(&folder.path().join(name), &tensors.to_vec(), &[]);
    let said = file("said.safetensors", &[a(), class([2, 0])]);
    let left = file("left.safetensors", &[a()]);
    for (path, expected) in [(&said, [2, 0, 2, 0]), (&left, [0, 1, 2, 0])] {
        let conditions = Conditions::read(std::slice::from_ref(path), field.card()).unwrap();
        assert_eq!(conditions.have("class"), path == &said);
        let conditions = Some(std::sync::Arc::new(conditions));
        let conditioning = Conditioning { classes: 3, conditions, ..Conditioning::default() };
        let condition = conditioning.of(0..4).unwrap();
        assert_eq!(condition.inputs.get("class").unwrap().integers().unwrap(), expected);
        assert_eq!(condition.inputs.columns().len(), 2);
    }
    let message = Conditions::read(&[said, left.clone()], field.card()).unwrap_err().to_string();
    assert!(message.contains("left.safetensors") && message.contains("in all or in none"), "{message}");
    let beyond = file("beyond.safetensors", &[a(), class([0, 3])]);
    let message = Conditions::read(&[beyond], field.card()).unwrap_err().to_string();
    assert!(message.contains("class: is 3, expected 0 to 2"), "{message}");
}

#[test]
fn sample_i_takes_condition_i_over_all_files_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = json!([{ "name": "text", "dtype": "float32", "shape": ["tokens"], "null": 0 }]);
    let (field, log) = open(folder.path(), json!({ "shape": ["frames", 1], "inputs": inputs }));
    let file = |name: &str, rows: usize, from: f32| {
        let values: Vec<f32> = (0..rows * 2).map(|i| from + (i / 2) as f32).collect();
        let tensors = vec![("text", Stored::F32, vec![rows, 2], f32s(&values))];
        stored(&folder.path().join(name), &tensors, &[("frames", "2"), ("note", "anything")])
    };
    let files = [file("b.safetensors", 3, 10.0), file("a.safetensors", 2, 20.0)];
    let conditions = Conditions::read(&files, field.card()).unwrap();
    assert_eq!((conditions.count(), conditions.sizes(0)["frames"], conditions.sizes(0)["tokens"]), (5, 2, 2));
    let other = Conditions::read(&[files[1].clone(), files[0].clone()], field.card()).unwrap();
    assert_ne!(conditions.digest(), other.digest(), "the order counts");
    let conditioning = Conditioning {
        guidance_scale: GuidanceScale::one(3.0),
        conditions: Some(Arc::new(conditions)),
        ..Conditioning::default()
    };
    let x = states(4, 2);
    let u = field.eval(PerRow::All(0.0), &x, &conditioning.of(2..6).unwrap()).unwrap();
    for (row, text) in [12.0, 20.0, 21.0, 10.0].into_iter().enumerate() {
        close(u.row(row)[0], f64::from(x.row(row)[0]) + 3.0 * text, "guided by 3 from 0");
    }
    assert_eq!(log.lock().unwrap()[0].times.len(), 8);
}

#[test]
fn a_broken_file_of_conditions_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let inputs =
        json!([{ "name": "a", "dtype": "float32", "shape": [2] }, { "name": "b", "dtype": "int64", "shape": [] }]);
    let (field, _) = open(folder.path(), json!({ "shape": ["frames", 2], "inputs": inputs }));
    let a = |rows: usize| ("a", Stored::F32, vec![rows, 2], f32s(&vec![0.5; rows * 2]));
    let b = |rows: usize| ("b", Stored::I64, vec![rows], vec![0; rows * 8]);
    let deep = vec![1; 100];
    for (tensors, metadata, says) in [
        (vec![a(2)], "2", "inputs.b: is absent"),
        (vec![a(2), b(3)], "2", "rows"),
        (vec![a(0), b(0)], "2", "no rows"),
        (vec![a(2), ("b", Stored::F64, vec![2], vec![0; 16])], "2", "inputs.b.dtype: is float64"),
        (vec![a(2), ("b", Stored::U8, vec![2], vec![0; 2])], "2", "b: is U8"),
        (vec![a(2), ("b", Stored::I64, vec![], vec![0; 8])], "2", "b: is a single number"),
        (vec![("a", Stored::F32, deep, f32s(&[1.0])), b(1)], "2", "inputs.a.shape"),
        (vec![a(2), b(2), ("c", Stored::F32, vec![2], vec![0; 8])], "2", "inputs.c: is there"),
        (
            vec![("a", Stored::F32, vec![2, 2], f32s(&[1.0, f32::INFINITY, 2.0, f32::NAN])), b(2)],
            "2",
            "a: has a NaN in row 1",
        ),
        (vec![a(2), b(2)], "none", "frames: is \"none\""),
        (vec![a(2), b(2)], "0", "frames: is \"0\""),
        // Of more numbers than memory holds, or 64 bits count.
        (vec![a(2), b(2)], "4294967296", "shape [frames, 2]: is [4294967296, 2], expected positive sizes"),
        (vec![a(2), b(2)], "9223372036854775808", "shape [frames, 2]: is [9223372036854775808, 2], expected"),
    ] {
        let path = stored(&folder.path().join("c.safetensors"), &tensors, &[("frames", metadata)]);
        let message = Conditions::read(std::slice::from_ref(&path), field.card()).unwrap_err().to_string();
        assert!(message.contains(says) && message.contains("c.safetensors"), "{message:?} does not say {says:?}");
    }
    let path = stored(&folder.path().join("c.safetensors"), &vec![a(2), b(2)], &[("frames", "2")]);
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 4, 8, 20, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let message = Conditions::read(std::slice::from_ref(&path), field.card()).unwrap_err().to_string();
        assert!(message.contains("c.safetensors"), "{message}");
    }
    let other = stored(&folder.path().join("d.safetensors"), &vec![a(2), b(2)], &[("frames", "3")]);
    std::fs::write(&path, &whole).unwrap();
    // Files of another size are another group.
    let both = Conditions::read(&[path.clone(), other.clone(), path], field.card()).unwrap();
    assert_eq!((both.count(), both.groups()), (6, 2));
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(|i| both.group_of(i)), [0, 0, 1, 1, 0, 0, 0]);
    assert_eq!([0, 1].map(|group| (both.sizes(group)["frames"], both.elements(group))), [(2, Some(4)), (3, Some(6))]);
    assert_eq!(both.of([4, 1].into_iter()).unwrap().columns()[0].batch(), 2);
    assert!(both.of(1..3).unwrap_err().to_string().contains("several sizes"));
    // What noise of one size may say of all, no noise can say of some.
    let unsaid = stored(&folder.path().join("e.safetensors"), &vec![a(2), b(2)], &[]);
    assert!(Conditions::read(&[unsaid.clone(), unsaid.clone()], field.card()).is_ok());
    for files in [[unsaid.clone(), other.clone()], [other, unsaid]] {
        let message = Conditions::read(&files, field.card()).unwrap_err().to_string();
        assert!(message.contains("e.safetensors: frames: is a size that neither"), "{message}");
    }
}

#[test]
fn scales_are_read_as_a_number_or_by_name() {
    let read = |text: &str| text.parse::<GuidanceScale>();
    assert_eq!(read("2.5").unwrap(), GuidanceScale::one(2.5));
    let two = read("text=7.5, image=1.5").unwrap();
    assert_eq!(two.named().collect::<Vec<_>>(), [("image", Extent::one(1.5)), ("text", Extent::one(7.5))]);
    assert_eq!(read(&two.to_string()).unwrap(), two);
    for json in ["2.5", r#"{"image":1.5,"text":7.5}"#] {
        let scales: GuidanceScale = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&scales).unwrap(), json);
    }
    assert!(read("text").unwrap_err().to_string().starts_with("guidance_scale is \"text\""));
    // Ranges.
    let range = read("1..7.5").unwrap();
    assert_eq!(range.plain(), Some(Extent::range(1.0, 7.5).unwrap()));
    assert_eq!((range.to_string(), serde_json::to_string(&range).unwrap()), ("1..7.5".into(), "[1.0,7.5]".into()));
    let mixed = read("text=-1..7.5,image=1.5").unwrap();
    assert_eq!(mixed.to_string(), "image=1.5,text=-1..7.5");
    for scales in [&range, &mixed] {
        assert_eq!(read(&scales.to_string()).unwrap(), *scales);
        assert_eq!(serde_json::from_value::<GuidanceScale>(json!(scales)).unwrap(), *scales);
    }
    for wrong in
        ["2..1", "1..1", "1..", "..2", "1..inf", "1..2..3", "text=3..1", "text=1..x", "a=1,b", "text=2,text=5", "=2"]
    {
        let message = read(wrong).unwrap_err().to_string();
        assert!(message.starts_with("guidance_scale is"), "{wrong}: {message}");
    }
    for wrong in ["[2, 1]", "[1]", "[1, 2, 3]", r#"{"text": [3, 1]}"#, r#""1..2""#] {
        assert!(serde_json::from_str::<GuidanceScale>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_scale_of_a_range_is_drawn_for_each_sample() {
    let conditioning =
        |seed| Conditioning { guidance_scale: "text=1..4,image=2".parse().unwrap(), seed, ..Conditioning::default() };
    let drawn = |seed, indices| conditioning(seed).of(indices).unwrap();
    let all = drawn(3, 0..1000);
    let text = all.scale("text").unwrap();
    assert!(all.scale("image").unwrap().iter().all(|scale| *scale == 2.0));
    assert!(text.iter().all(|scale| (1.0..4.0).contains(scale)));
    // Evenly: mean and variance of a uniform distribution.
    let mean = text.iter().sum::<f64>() / 1000.0;
    let variance = text.iter().map(|scale| (scale - mean).powi(2)).sum::<f64>() / 1000.0;
    assert!((mean - 2.5).abs() < 0.1 && (variance - 0.75).abs() < 0.07, "{mean} {variance}");
    // By seed and index alone.
    assert_eq!(drawn(3, 500..503).scale("text").unwrap(), &text[500..503]);
    assert_ne!(drawn(4, 0..3).scale("text").unwrap(), &text[..3]);
}
