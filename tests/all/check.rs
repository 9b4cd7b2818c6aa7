//! `bespoke check`: every shipped model's reading is found out, and so is a card that is wrong, in ten ways.
//!
//! The data is the models' own: the digits and photographs in `data/`.

use crate::tree::root;
use bespoke::card::Card;
#[cfg(any(feature = "onnx", feature = "torch"))]
use bespoke::card::Direction;
#[cfg(any(feature = "onnx", feature = "torch"))]
use bespoke::check::Judged;
use bespoke::check::{Evidence, Report, Source, Verdict, check};
use bespoke::networks;
use bespoke::npy;
#[cfg(any(feature = "onnx", feature = "torch"))]
use bespoke::scheduler::Output;
use bespoke::scheduler::Scheduler;
use bespoke::tensor::{Compute, Device};
use serde_json::{Value, json};
use std::path::Path;

/// Digits that are looked at.
const COUNT: usize = 32;

/// Digits as the models were trained on, in [-1, 1], and where in their file they are.
fn digits() -> (Vec<f32>, Vec<usize>) {
    let bytes: Vec<u8> = npy::open(&root().join("data/digits-images.npy")).unwrap().into_vec().unwrap();
    let places: Vec<usize> = (0..COUNT).map(|i| i * (bytes.len() / 64 / COUNT)).collect();
    let image = |i: &usize| bytes[i * 64..(i + 1) * 64].iter().map(|byte| f32::from(*byte) / 8.0 - 1.0);
    (places.iter().flat_map(image).collect(), places)
}

/// Patches of photographs, channels first, in [-1, 1].
#[cfg(all(feature = "cli", any(feature = "onnx", feature = "torch")))]
fn photos() -> Vec<f32> {
    let mut patches = Vec::new();
    for name in ["data/photos/china.png", "data/photos/flower.png"] {
        let photo = image::open(root().join(name)).unwrap().to_rgb8();
        for (top, left) in
            (0..photo.height() - 8).step_by(90).flat_map(|y| (0..photo.width() - 8).step_by(90).map(move |x| (y, x)))
        {
            for (channel, y, x) in (0..3).flat_map(|c| (0..8).flat_map(move |y| (0..8).map(move |x| (c, y, x)))) {
                patches.push(f32::from(photo.get_pixel(left + x, top + y).0[channel]) / 127.5 - 1.0);
            }
        }
    }
    patches
}

/// A shipped card, with what `changes` says of its keys, in `folder`.
fn changed(name: &str, changes: &Value, folder: &Path) -> Card {
    let text = std::fs::read_to_string(root().join("models").join(name)).unwrap();
    let mut card: Value = serde_json::from_str(&text).unwrap();
    card["weights"] = json!(root().join("models").join(card["weights"].as_str().unwrap()));
    for (key, value) in changes.as_object().unwrap() {
        match value.as_object().filter(|_| key == "time") {
            Some(parts) => parts.iter().for_each(|(part, value)| card["time"][part] = value.clone()),
            None => card[key] = value.clone(),
        }
    }
    let path = folder.join(name);
    std::fs::write(&path, card.to_string()).unwrap();
    Card::load(&path).unwrap()
}

fn report(card: &Card, data: &[f32], places: &[usize]) -> bespoke::Result<Report> {
    let network = networks::open(card, Device::Cpu, Compute::F32)?;
    check(card, &network, &Evidence { data: Some(data), places, ..Evidence::default() })
}

/// Ten ways in which the card of a network that predicts `output` on `scheduler` may be wrong.
fn wrong_ways(output: &str, scheduler: &str) -> Vec<Value> {
    let outputs = ["velocity", "flow", "epsilon", "x1", "v"].into_iter().filter(|other| *other != output);
    let schedulers = ["fm-ot", "cosine", "vp", "edm"].into_iter().filter(|other| *other != scheduler);
    let mut ways: Vec<Value> = outputs.map(|output| json!({ "output": output })).collect();
    ways.extend(schedulers.map(|name| json!({ "scheduler": { "name": name } })));
    ways.push(json!({ "time": { "direction": "data-to-noise" } }));
    ways.push(json!({ "time": { "scale": 1000 } }));
    ways.push(json!({ "time": { "scale": 2 } }));
    assert_eq!(ways.len(), 10);
    ways
}

/// Checks the shipped card `name`, and ten that are wrong.
#[cfg(any(feature = "onnx", feature = "torch"))]
fn is_found_out(name: &str, output: &str, scheduler: &str, data: &[f32], places: &[usize]) {
    let sized = |card: Card| card.with_sizes(&[("width".to_owned(), 8)].into());
    let folder = tempfile::tempdir().unwrap();
    let kind: Output = output.parse().unwrap();
    let right = |best: &Judged| {
        let time = &best.card.time;
        best.card.output == kind
            && best.card.scheduler.name() == scheduler
            && (time.direction, time.scale, time.offset) == (Direction::NoiseToData, 1.0, 0.0)
    };
    let shipped = report(&sized(changed(name, &json!({}), folder.path())), data, places).unwrap();
    let best = &shipped.readings[0];
    assert!(right(best) && best.own, "{name}: {best}");
    assert!(matches!(shipped.verdict, Some(Verdict::Right(margin)) if margin > 1.1), "{name}: {:?}", shipped.verdict);
    assert!(best.errors.windows(2).all(|pair| pair[0] > pair[1]), "{name}: less noise, less error: {:?}", best.errors);
    for way in wrong_ways(output, scheduler) {
        let found = report(&sized(changed(name, &way, folder.path())), data, places).unwrap();
        assert_eq!(found.verdict, Some(Verdict::Wrong), "{name} with {way}: {}", found.readings[0]);
        assert!(right(&found.readings[0]), "{name} with {way}: {}", found.readings[0]);
        assert_eq!(found.readings.iter().filter(|reading| reading.own).count(), 1, "{name} with {way}");
    }
}

#[test]
#[cfg(feature = "onnx")]
fn the_reading_of_an_onnx_model_is_found_out() {
    let (data, places) = digits();
    is_found_out("digits-fm-ot-onnx.json", "velocity", "fm-ot", &data, &places);
    // Its text is the null, of some length.
    is_found_out("digits-text-onnx.json", "velocity", "fm-ot", &data, &places);
}

#[test]
#[cfg(all(feature = "onnx", feature = "cli"))]
fn the_reading_of_a_model_of_photographs_is_found_out() {
    is_found_out("photos-fm-ot-onnx.json", "velocity", "fm-ot", &photos(), &[]);
    is_found_out("photos-wide-onnx.json", "velocity", "fm-ot", &photos(), &[]);
}

#[test]
#[cfg(feature = "torch")]
fn the_readings_of_torchscript_models_are_found_out() {
    let (data, places) = digits();
    for (name, output, scheduler) in [
        ("digits-fm-ot.json", "velocity", "fm-ot"),
        ("digits-cosine.json", "v", "cosine"),
        ("digits-vp.json", "epsilon", "vp"),
        ("digits-text.json", "velocity", "fm-ot"),
    ] {
        is_found_out(name, output, scheduler, &data, &places);
    }
    for name in ["photos-fm-ot.json", "photos-wide.json"] {
        is_found_out(name, "velocity", "fm-ot", &photos(), &[]);
    }
}

#[test]
fn a_mixture_has_one_reading_and_says_which() {
    let (folder, (data, places)) = (tempfile::tempdir().unwrap(), digits());
    let name = "digits-mixture.json";
    // Whatever the scheduler: a mixture has the exact velocity of any.
    for scheduler in [Scheduler::FmOt, Scheduler::Cosine, Scheduler::VP] {
        let changes = json!({ "scheduler": scheduler, "time": { "end": 0.999 } });
        let found = report(&changed(name, &changes, folder.path()), &data, &places).unwrap();
        assert!(matches!(found.verdict, Some(Verdict::Right(_))), "{}: {:?}", scheduler.name(), found.verdict);
        assert_eq!(found.inputs, [("class".to_owned(), Source::Null)]);
    }
    // Every other way of reading it is refused, with the right one.
    let ways = wrong_ways("velocity", "fm-ot").into_iter().filter(|way| way.get("scheduler").is_none());
    let more = [json!({ "time": { "offset": -1 } }), json!({ "time": { "dtype": "int64" } }), json!({ "shape": [8] })];
    let mut refused = 0;
    for way in ways.chain(more) {
        let error = report(&changed(name, &way, folder.path()), &data, &places).unwrap_err().to_string();
        let names =
            if way.get("shape").is_some() { "64 numbers" } else { "gives the velocity at t, noise to data, scale 1" };
        assert!(error.contains(names), "{way}: {error}");
        refused += 1;
    }
    assert_eq!(refused, 10);
}

#[test]
fn data_of_another_model_is_not_explained() {
    let folder = tempfile::tempdir().unwrap();
    let card = changed("digits-mixture.json", &json!({}), folder.path());
    // Bright noise: no denoiser of digits makes it.
    let noise = bespoke::noise::normal(3, bespoke::noise::Purpose::Sample, 0..64, 64).unwrap();
    let data: Vec<f32> = noise.iter().map(|v| 0.2 * v).collect();
    let found = report(&card, &data, &[]).unwrap();
    assert_eq!(found.verdict, Some(Verdict::Unexplained), "{}", found.readings[0]);
    for (data, names) in [(vec![0.5; 128], "the same sample"), (vec![0.1; 65], "65 numbers"), (vec![], "0 numbers")] {
        let error = report(&card, &data, &[]).unwrap_err().to_string();
        assert!(error.contains("data") && error.contains(names), "{error}");
    }
}

/// The program on a card; its exit code, what it printed, and what it complained of.
#[cfg(all(feature = "cli", feature = "onnx"))]
fn program(card: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let output = assert_cmd::Command::new(crate::tree::program()).arg("check").arg(card).args(more).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
#[cfg(all(feature = "cli", feature = "onnx"))]
fn the_program_says_it_in_a_sentence_and_by_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = digits();
    let file = folder.path().join("digits.npy");
    let mut bytes = Vec::new();
    let mut writer = npy::begin(&mut bytes, data.len() / 64, &[1, 8, 8]).unwrap();
    writer.extend(data).unwrap();
    writer.finish().unwrap();
    std::fs::write(&file, bytes).unwrap();
    let file = file.to_str().unwrap();
    let name = "digits-fm-ot-onnx.json";

    let right = changed(name, &json!({}), folder.path());
    let (code, out, err) = program(right.path(), &["--data", file]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("looks like velocity, noise-to-data, scale 1, fm-ot, as the card says"), "{out}");
    let own = out.lines().find(|line| line.starts_with('*')).unwrap();
    assert!(own.contains("velocity, noise-to-data, scale 1, fm-ot"), "{out}");
    let (code, all, _) = program(right.path(), &["--data", file, "--all", "--count", "16"]);
    assert!(code == Some(0) && all.lines().count() > 100, "{all}");

    let (code, out, _) = program(right.path(), &[]);
    assert!(code == Some(0) && out.contains("signature agrees") && out.contains("finite at both ends"), "{out}");
    assert!(out.contains("without --data"), "{out}");

    let wrong = json!({ "output": "epsilon", "time": { "direction": "data-to-noise" } });
    let wrong = changed(name, &wrong, folder.path());
    let (code, out, err) = program(wrong.path(), &["--data", file]);
    assert_eq!(code, Some(1), "{out}{err}");
    let sentence = "output, time.direction: this network looks like velocity, noise-to-data, scale 1, fm-ot; \
                    the card says epsilon, data-to-noise, scale 1, fm-ot";
    assert!(err.contains(sentence), "{err}");
    assert!(out.lines().any(|line| line.starts_with("* epsilon, data-to-noise")), "{out}");

    // A shape that the network does not have, data of another shape, and no samples.
    let other = changed(name, &json!({ "shape": [1, 4, 16] }), folder.path());
    let (code, _, err) = program(other.path(), &["--data", file]);
    assert!(code == Some(1) && err.contains("[any, 1, 8, 8]") && err.contains("[any, 1, 4, 16]"), "{err}");
    let patches = root().join("models/photos-fm-ot-onnx.json");
    let (code, _, err) = program(&patches, &["--data", file]);
    assert!(code == Some(1) && err.contains("[3, 8, 8]") && err.contains("digits.npy"), "{err}");
    // The size of its samples is the data's.
    let wide = root().join("models/photos-wide-onnx.json");
    let (code, _, err) = program(&wide, &[]);
    assert!(code == Some(2) && err.contains("shape is [3, 8, width], expected numbers: --data, or"), "{err}");
    let piece = folder.path().join("piece.npy");
    let mut writer_of = std::fs::File::create(&piece).unwrap();
    let mut writer = npy::begin(&mut writer_of, 20, &[3, 8, 8]).unwrap();
    writer.extend(photos().into_iter().take(20 * 192)).unwrap();
    writer.finish().unwrap();
    let (code, out, err) = program(&wide, &["--data", piece.to_str().unwrap()]);
    assert!(code == Some(0) && out.contains("x [3, 8, 8], photo its null"), "{out}{err}");
    let (code, _, err) = program(right.path(), &["--data", file, "--count", "0"]);
    assert!(code == Some(2) && err.contains("count"), "{err}");
}
