//! The shipped models whose samples are conditioned on a text, or of a size of their own, through the program, the
//! library, C and C++: the same samples; and a batch of mixed texts, sizes and scales is its samples alone.

use crate::native::Workshop;
use crate::tree::{program, root};
use assert_cmd::Command;
use bespoke::evaluate::Ready;
use bespoke::model::{self, FieldTask, Model};
use bespoke::noise::{Purpose, normal};
use bespoke::npy::Samples;
use bespoke::sampler::Plan;
use bespoke::samples::Conditioning;
use bespoke::tensor::{Device, Tensor};
use bespoke::theta::{Family, Knots, NsTable, Theta};
use bespoke::train::{Asked, conditioning};
use bespoke::velocity::VelocityField;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TOLERANCE: f32 = 1e-5;
const SEED: u64 = 5;

fn shipped(name: &str) -> PathBuf {
    root().join("models").join(name)
}

fn files(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| shipped("conditions").join(format!("{name}.safetensors"))).collect()
}

/// Two solvers, of eight and of six evaluations.
fn thetas() -> [Theta; 2] {
    let mut knots = Knots::identity(8);
    knots.s_dot.iter_mut().enumerate().for_each(|(i, s_dot)| *s_dot = 0.2 * (i as f64).cos());
    let six = Theta::new(Family::Rk2(Knots::identity(6))).unwrap();
    [Theta::new(Family::Rk2(knots)).unwrap(), Theta::new(Family::Ns(NsTable::compile(&six.tableau()))).unwrap()]
}

/// Samples `first` and on, `count` of them, of one size; on their own conditions.
struct Solve<'a> {
    theta: &'a Theta,
    conditioning: &'a Conditioning,
    first: usize,
    count: usize,
    elements: usize,
}

impl FieldTask for Solve<'_> {
    type Output = Vec<f32>;

    fn run<F: VelocityField + Sync>(self, field: &F) -> Vec<f32> {
        let indices = self.first..self.first + self.count;
        let noise = normal(SEED, Purpose::Sample, indices.clone(), self.elements).unwrap();
        let ready = Ready::Plan(Arc::new(Plan::new(self.theta.tableau())));
        let condition = self.conditioning.of(indices).unwrap();
        let x0 = field.start(&noise, self.elements).unwrap();
        ready.solve(field, &x0, &condition).unwrap().0.to_f32().unwrap()
    }
}

fn opened(card: &str, conditions: &[PathBuf], scale: &str) -> (Model, Conditioning) {
    let mut model = model::open(&shipped(card), Device::Cpu).unwrap();
    let asked = Asked { guidance_scale: Some(scale.parse().unwrap()), seed: SEED, conditions, ..Asked::default() };
    let conditioning = conditioning(&mut model, asked).unwrap();
    (model, conditioning)
}

/// What `bespoke sample` draws over `conditions`, the samples of each size in order.
fn drawn(card: &str, conditions: &[PathBuf], theta: &Path, scale: &str, sizes: &[(&str, &[usize])]) -> Vec<Vec<f32>> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("samples.npy");
    let mut command = Command::new(program());
    command.arg("sample").arg("--model").arg(shipped(card)).arg("--solver").arg(theta).arg("--out").arg(&out);
    for file in conditions {
        command.arg("--conditions").arg(file);
    }
    let count = (64 * (sizes.len() - 1) + 4).to_string();
    command.args(["--seed", &SEED.to_string(), "--guidance-scale", scale, "--count", &count]).assert().success();
    let read = |(name, shape): &(&str, &[usize])| {
        Samples::open(&folder.path().join(format!("samples-{name}.npy")), shape).unwrap().into_vec().unwrap()
    };
    sizes.iter().map(read).collect()
}

fn close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < TOLERANCE, "{what}: {worst:e}");
    // A wrong text, size or scale is another sample altogether.
    assert!(expected.iter().any(|v| v.abs() > 0.1), "{what}: nothing was drawn");
}

const TEXTS: [&str; 2] = ["digits-text-9", "digits-text-others-11"];
const CARD: &str = "digits-text-onnx.json";

#[test]
fn a_mixed_batch_is_its_samples_alone() {
    let folder = tempfile::tempdir().unwrap();
    let wide: [(&str, &[usize]); 2] = [("width-8", &[3, 8, 8]), ("width-12", &[3, 8, 12])];
    let text: [(&str, &[usize]); 2] = [("tokens-9", &[1, 8, 8]), ("tokens-11", &[1, 8, 8])];
    let cases = [
        (CARD, files(&TEXTS), text),
        ("photos-wide-onnx.json", files(&["photos-wide-8", "photos-wide-others-12"]), wide),
    ];
    for (card, conditions, sizes) in cases {
        let (model, own) = opened(card, &conditions, "1..4");
        for (k, theta) in thetas().iter().enumerate() {
            let path = folder.path().join("theta.json");
            theta.save(&path).unwrap();
            let together = drawn(card, &conditions, &path, "1..4", &sizes);
            for (size, (_, shape)) in sizes.iter().enumerate() {
                let elements: usize = shape.iter().product();
                for row in 0..4 {
                    let solve = Solve { theta, conditioning: &own, first: 64 * size + row, count: 1, elements };
                    let alone = model.with(solve);
                    close(
                        &together[size][row * elements..][..elements],
                        &alone,
                        &format!("{card}, {k}, {size}, {row}"),
                    );
                }
            }
        }
    }
}

/// The requests of some samples, as the programs in C and C++ read them, and their samples by `bespoke sample`.
struct Requests {
    /// Of each its number of tokens, its line, and its sample by each theta.
    each: Vec<(usize, String, Vec<Vec<f32>>)>,
}

const SCALES: [&str; 3] = ["1", "2.5", "4"];

fn requests(thetas: &[PathBuf]) -> Requests {
    let (_, own) = opened(CARD, &files(&TEXTS), "1");
    let sizes: [(&str, &[usize]); 2] = [("tokens-9", &[1, 8, 8]), ("tokens-11", &[1, 8, 8])];
    let of_scale = |scale: &str| -> Vec<Vec<Vec<f32>>> {
        thetas.iter().map(|theta| drawn(CARD, &files(&TEXTS), theta, scale, &sizes)).collect()
    };
    let drawn: Vec<_> = SCALES.iter().map(|scale| of_scale(scale)).collect();
    let one = |k: usize| {
        let (size, row, scale) = (k % 2, k / 2, k % 3);
        let index = 64 * size + row;
        let inputs = own.of(index..index + 1).unwrap().inputs;
        let text: &[f32] = bytemuck::cast_slice(inputs.get("text").unwrap().bytes());
        let noise = normal(SEED, Purpose::Sample, index..index + 1, 64).unwrap();
        let numbers: Vec<String> = text.iter().chain(&noise).map(f32::to_string).collect();
        let tokens = text.len() / 8;
        let samples = drawn[scale].iter().map(|by| by[size][64 * row..][..64].to_vec()).collect();
        (tokens, format!("{tokens} {} {}\n", SCALES[scale], numbers.join(" ")), samples)
    };
    Requests { each: (0..8).map(one).collect() }
}

/// The lines of numbers that `program` writes for requests on its standard input.
fn answers(program: &Path, arguments: &[PathBuf], requests: &str) -> Vec<Vec<f32>> {
    let output = Command::new(program).args(arguments).write_stdin(requests).assert().success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    text.lines().map(|line| line.split_whitespace().map(|v| v.parse().unwrap()).collect()).collect()
}

#[test]
fn a_callback_in_c_and_an_engine_in_cpp_draw_what_the_program_draws() {
    let workshop = Workshop::new();
    let saved = |(k, theta): (usize, &Theta)| {
        let path = workshop.path(&format!("theta-{k}.json"));
        theta.save(&path).unwrap();
        path
    };
    let thetas: Vec<PathBuf> = thetas().iter().enumerate().map(saved).collect();
    let asked = requests(&thetas);

    let callback = workshop.build("tests/c/text.c", &[]);
    for tokens in [9, 11] {
        let own: Vec<_> = asked.each.iter().filter(|(length, ..)| *length == tokens).collect();
        let lines: String = own.iter().map(|(_, line, _)| line.as_str()).collect();
        for (k, theta) in thetas.iter().enumerate() {
            let found = answers(&callback, &[shipped(CARD), theta.clone()], &lines);
            assert_eq!(found.len(), 4);
            for (found, (_, _, samples)) in found.iter().zip(&own) {
                close(found, &samples[k], &format!("C, {tokens} tokens, theta {k}"));
            }
        }
    }

    let engine = workshop.build("examples/cpp/conditioned_batching.cpp", &[]);
    let lines: String = asked.each.iter().map(|(_, line, _)| line.as_str()).collect();
    let arguments = [&[shipped(CARD)], &thetas[..]].concat();
    let found = answers(&engine, &arguments, &lines);
    assert_eq!(found.len(), asked.each.len());
    for (k, (found, (_, _, samples))) in found.iter().zip(&asked.each).enumerate() {
        close(found, &samples[k % 2], &format!("C++, request {k}"));
    }
    // One that ends early, and one of no length, are said.
    for (wrong, says) in [("9 1 0.5", "ends early"), ("0 1", "out of range"), ("-3 1", "out of range")] {
        let output = Command::new(&engine).args(&arguments).write_stdin(wrong).assert().failure();
        let said = String::from_utf8(output.get_output().stderr.clone()).unwrap();
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn given_noise_says_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let (noise, conditions) = (folder.path().join("noise.npy"), folder.path().join("photo.safetensors"));
    let written = |shape: &[usize]| {
        let mut file = std::fs::File::create(&noise).unwrap();
        let mut array = bespoke::npy::begin(&mut file, 2, shape).unwrap();
        array.extend(normal(1, Purpose::Sample, 0..2, shape.iter().product()).unwrap()).unwrap();
        array.finish().unwrap();
    };
    // No width in the file of conditions.
    let photo: Vec<u8> = [0i64, 1].iter().flat_map(|v| v.to_le_bytes()).collect();
    crate::signature::stored(&conditions, &vec![("photo", safetensors::Dtype::I64, vec![2], photo)], &[]);
    let run = |command: &str, more: &[&str]| {
        let mut made = Command::new(program());
        made.arg(command).arg("--model").arg(shipped("photos-wide-onnx.json")).arg("--conditions").arg(&conditions);
        made.args(["--solver", "euler@3"]).args(more).current_dir(folder.path());
        made
    };
    for shape in [&[3, 8, 5][..], &[3 * 8 * 11]] {
        written(shape);
        run("sample", &["--noise", "noise.npy", "--out", "x.npy"]).assert().success();
        let width = if shape.len() == 3 { 5 } else { 11 };
        assert_eq!(Samples::open(&folder.path().join("x.npy"), &[3, 8, width]).unwrap().count(), 2);
        run("eval", &["--noise", "noise.npy", "--json", "eval.json"]).assert().success();
    }
    let refused = |more: &[&str], says: &str| {
        let output = run("sample", more).args(["--out", "x.npy"]).assert().failure();
        let said = String::from_utf8(output.get_output().stderr.clone()).unwrap();
        assert!(said.contains(says), "{said:?} does not say {says:?}");
    };
    written(&[3, 7, 5]);
    refused(&["--noise", "noise.npy"], "[3, 8, width]");
    refused(&["--count", "2"], "\"width\"");
}

/// Texts of several lengths, samples of one size.
#[test]
fn given_noise_serves_texts_of_several_lengths() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = std::fs::File::create(folder.path().join("noise.npy")).unwrap();
    let mut array = bespoke::npy::begin(&mut file, 66, &[1, 8, 8]).unwrap();
    array.extend(normal(SEED, Purpose::Sample, 0..66, 64).unwrap()).unwrap();
    array.finish().unwrap();
    let run = |command: &str, more: &[&str]| {
        let mut made = Command::new(program());
        made.arg(command).arg("--model").arg(shipped(CARD)).args(["--solver", "midpoint@4"]);
        files(&TEXTS).iter().for_each(|file| {
            made.arg("--conditions").arg(file);
        });
        made.args(more).current_dir(folder.path()).assert().success();
    };
    let (seed, read) = (SEED.to_string(), |name: &str| std::fs::read(folder.path().join(name)).unwrap());
    run("sample", &["--noise", "noise.npy", "--out", "given.npy"]);
    run("sample", &["--seed", &seed, "--count", "66", "--out", "seeded.npy"]);
    for (length, count) in [(9, 64), (11, 2)] {
        let given = read(&format!("given-tokens-{length}.npy"));
        assert_eq!(given, read(&format!("seeded-tokens-{length}.npy")));
        let path = folder.path().join(format!("given-tokens-{length}.npy"));
        assert_eq!(Samples::open(&path, &[1, 8, 8]).unwrap().count(), count);
    }
    run("eval", &["--noise", "noise.npy", "--json", "given.json"]);
    run("eval", &["--seed", &seed, "--count", "66", "--json", "seeded.json"]);
    let rmse = |name: &str| {
        let found: serde_json::Value = serde_json::from_slice(&read(name)).unwrap();
        found["results"][0]["rmse"].as_f64().unwrap()
    };
    assert_eq!(rmse("given.json"), rmse("seeded.json"));
}
