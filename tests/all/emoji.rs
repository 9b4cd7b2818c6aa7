//! The shipped model of emoji, through libtorch: a transformer that a text asks for.

use crate::tree::root;
use bespoke::dopri5::Tolerance;
use bespoke::evaluate::Ready;
use bespoke::model;
use bespoke::reference::Solver;
use bespoke::samples::{GuidanceScale, Noises};
use bespoke::tensor::{Device, Tensor};
use bespoke::train::{Asked, conditioning};
use bespoke::velocity::VelocityField;
use safetensors::SafeTensors;
use std::path::PathBuf;

const ELEMENTS: usize = 3 * 32 * 32;
const COUNT: usize = 40;

fn path(file: &str) -> PathBuf {
    root().join("models").join(file)
}

fn json(file: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path(file)).unwrap()).unwrap()
}

/// What the emoji are called, by class.
fn called() -> Vec<String> {
    serde_json::from_value(json("emoji-texts.json")).unwrap()
}

/// The texts of a file of conditions, and its bytes.
fn conditions(name: &str) -> (Vec<String>, Vec<u8>) {
    let bytes = std::fs::read(path(&format!("conditions/{name}.safetensors"))).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let texts = serde_json::from_str(&header.metadata().as_ref().unwrap()["texts"]).unwrap();
    (texts, bytes)
}

/// By the classifier that judges, which has seen no sample.
#[test]
fn samples_are_the_emoji_that_were_asked_for() {
    let mut model = model::open(&path("emoji.json"), Device::Cpu).unwrap();
    let scheduler = model.card().gaussian_path().unwrap();
    let ready = Ready::new(&Solver::parse("unipc@12").unwrap(), &scheduler, Tolerance::default()).unwrap();
    let files = [path("conditions/emoji-names.safetensors")];
    let asked = Asked { guidance_scale: Some(GuidanceScale::one(2.5)), conditions: &files, ..Asked::default() };
    let condition = conditioning(&mut model, asked).unwrap().of(0..COUNT).unwrap();
    let field = model.torch_field().unwrap();
    let noise = Noises::Seed { seed: 0, count: COUNT }.read(0..COUNT, ELEMENTS).unwrap();
    let x0 = field.start(&noise, ELEMENTS).unwrap();
    let samples = ready.solve(field, &x0, &condition).unwrap().0.to_f32().unwrap();

    let images = tch::Tensor::from_slice(&samples).reshape([-1, 3, 32, 32]);
    let classifier = tch::CModule::load(path("emoji-classifier.pt")).unwrap();
    let seen = Vec::<i64>::try_from(classifier.forward_ts(&[images]).unwrap().argmax(1, false)).unwrap();
    let (texts, _) = conditions("emoji-names");
    let called = called();
    // Some names are of two emoji.
    let right = seen.iter().zip(&texts).filter(|(seen, text)| called[**seen as usize] == **text).count();
    assert!(right * 100 >= COUNT * 90, "{right} of {COUNT}");
}

#[test]
fn conditions_are_what_the_encoder_makes_of_their_texts() {
    let encoder = tch::CModule::load(path("emoji-encoder.pt")).unwrap();
    let (one, other) = (conditions("emoji-names"), conditions("emoji-names-others"));
    assert!(one.0.iter().all(|text| !other.0.contains(text)), "a text is in both files");
    let called = called();
    for (texts, bytes) in [one, other] {
        assert!(texts.len() > 140 && texts.iter().all(|text| called.contains(text)), "{texts:?}");
        let longest = texts.iter().map(String::len).max().unwrap();
        let number = |c: u8| match c {
            b' ' => 1,
            b'a'..=b'z' => 2 + i64::from(c - b'a'),
            _ => 28 + i64::from(c - b'0'),
        };
        let row =
            |text: &String| text.bytes().map(number).chain(std::iter::repeat(0)).take(longest).collect::<Vec<_>>();
        let characters: Vec<i64> = texts.iter().flat_map(row).collect();
        let characters = tch::Tensor::from_slice(&characters).view([-1, longest as i64]);
        let tokens = Vec::<f32>::try_from(encoder.forward_ts(&[characters]).unwrap().flatten(0, -1)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let stored = file.tensor("text").unwrap();
        assert_eq!(stored.shape(), [texts.len(), longest, 16]);
        let stored = stored.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        let apart = stored.zip(&tokens).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-5, "{apart}");
    }
}

#[test]
fn what_trains_and_what_judges_are_two_networks_and_files_are_small() {
    assert_ne!(json("emoji-layers.json")["weights"], json("emoji-judge.json")["weights"]);
    assert_eq!(json("emoji.json")["features"], "emoji-judge.json");
    let bytes = std::fs::metadata(path("emoji.pt")).unwrap().len();
    assert!(bytes < 6_000_000, "{bytes} bytes");
}
