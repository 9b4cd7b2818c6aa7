//! Cards of AOTInductor packages, files that are none, and a package that runs, made by hand. Those that PyTorch
//! compiles are made and run in the tests of Python.

use bespoke::card::Card;
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;

/// A folder with `bytes` as a package, and its card.
fn written(bytes: &[u8], changes: Value) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("net.pt2"), bytes).unwrap();
    let mut card = json!({
        "format": "bespoke-model", "version": 1, "weights": "net.pt2", "runtime": "pt2", "shape": [3],
        "output": "velocity", "scheduler": { "name": "fm-ot" }, "classes": 10, "null_class": 9
    });
    card.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let path = folder.path().join("card.json");
    std::fs::write(&path, card.to_string()).unwrap();
    (folder, path)
}

fn refused_card(changes: Value) -> String {
    let (_folder, path) = written(b"", changes);
    Card::load(&path).unwrap_err().to_string()
}

#[test]
fn only_a_package_has_a_product_beside_it() {
    let message = refused_card(json!({ "runtime": "torchscript", "vjp": "net-vjp.pt2" }));
    assert!(message.contains("vjp") && message.contains("pt2"), "{message}");
    let message = refused_card(json!({ "vjp": "net-vjp.pt2", "time": { "shape": "scalar" } }));
    assert!(message.contains("vjp") && message.contains("time.shape"), "{message}");
}

/// How a field is differentiated is no part of what it is: thetas stay those of the model.
#[test]
fn a_product_is_no_part_of_the_fingerprint() {
    let fingerprint = |changes: Value, bytes: &[u8]| {
        let (_folder, path) = written(bytes, changes);
        Card::load(&path).unwrap().fingerprint().unwrap()
    };
    let plain = fingerprint(json!({}), b"weights");
    assert_eq!(fingerprint(json!({ "vjp": "net-vjp.pt2" }), b"weights"), plain);
    assert_ne!(fingerprint(json!({}), b"others"), plain);
    assert_ne!(fingerprint(json!({ "runtime": "torchscript" }), b"weights"), plain);
}

#[cfg(not(feature = "torch"))]
#[test]
fn a_build_without_libtorch_says_so() {
    let (_folder, path) = written(b"", json!({}));
    let message = bespoke::model::open(&path, bespoke::tensor::Device::Cpu).err().unwrap().to_string();
    assert!(message.contains("card.json") && message.contains("feature `torch`"), "{message}");
}

#[cfg(feature = "torch")]
mod with_libtorch {
    use super::*;
    use crate::native;
    use bespoke::model::{self, FieldTask};
    use bespoke::tensor::{Compute, Device, PerRow, Tensor};
    use bespoke::velocity::{Condition, VelocityField};
    use std::process::Command;

    /// What opening says that cannot succeed.
    fn refused(bytes: &[u8], changes: Value) -> String {
        let (_folder, path) = written(bytes, changes);
        let message = model::open(&path, Device::Cpu).err().expect("it is opened").to_string();
        assert!(message.contains("net.pt2"), "{message}");
        message
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let bit = |crc: u32, _: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
    }

    /// A zip archive of these files as they are.
    fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
        let (mut archive, mut directory) = (Vec::new(), Vec::new());
        for (name, data) in files {
            let offset = archive.len() as u32;
            let length = data.len() as u32;
            let mut common = vec![10, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            for number in [crc32(data), length, length] {
                common.extend(number.to_le_bytes());
            }
            common.extend((name.len() as u16).to_le_bytes());
            common.extend([0, 0]);
            archive.extend(*b"PK\x03\x04");
            archive.extend(&common);
            archive.extend(name.as_bytes());
            archive.extend(*data);
            directory.extend(*b"PK\x01\x02\x0a\x00");
            directory.extend(&common);
            directory.extend([0; 10]);
            directory.extend(offset.to_le_bytes());
            directory.extend(name.as_bytes());
        }
        let (start, length) = (archive.len() as u32, directory.len() as u32);
        archive.extend(directory);
        archive.extend(*b"PK\x05\x06\0\0\0\0");
        archive.extend([(files.len() as u16).to_le_bytes(), (files.len() as u16).to_le_bytes()].concat());
        archive.extend([length.to_le_bytes(), start.to_le_bytes()].concat());
        archive.extend([0, 0]);
        archive
    }

    /// The check of an input as a wrapper writes it.
    fn check(index: usize, dtype: &str, conditions: &[&str]) -> String {
        let conditions: String =
            conditions.iter().map(|condition| format!("    if ({condition}) {{\n    }}\n")).collect();
        format!(
            "static void check_input_{index}(\n    int32_t a_expected_dtype = aoti_torch_dtype_{dtype}();\n{conditions}}}\n"
        )
    }

    fn wrapper(state: &[&str], time: &str, class: Option<&str>) -> String {
        let class = class.map(|dtype| check(2, dtype, &["1 != c_stride[0]"])).unwrap_or_default();
        check(0, "float32", state) + &check(1, time, &["1 != b_stride[0]"]) + &class + "static bool _check_env() {\n}\n"
    }

    const STATE: [&str; 4] = ["a_size[0] < 2", "3 != a_size[1]", "3 != a_stride[0]", "1 != a_stride[1]"];

    /// A package for the processor of this wrapper, whose code is none.
    fn package(model: &str, wrapper: &str, metadata: &Value) -> Vec<u8> {
        package_of(b"no machine code", model, wrapper, metadata)
    }

    fn package_of(code: &[u8], model: &str, wrapper: &str, metadata: &Value) -> Vec<u8> {
        let metadata = metadata.to_string();
        let named = |end: &str| format!("net/data/aotinductor/{model}/c{end}");
        let names = [named(".wrapper_metadata.json"), named(".wrapper.cpp"), named(".wrapper.so")];
        zip(&[
            (&names[0], metadata.as_bytes()),
            (&names[1], wrapper.as_bytes()),
            (&names[2], code),
            ("net/.data/version", b"3\n"),
            ("net/archive_format", b"pt2"),
        ])
    }

    /// A package that runs, and its card: tests/pt2/network.c with `flags`.
    fn running(flags: &[&str]) -> (TempDir, PathBuf) {
        let folder = TempDir::new().unwrap();
        let (library, source) = (folder.path().join("network.so"), crate::tree::root().join("tests/pt2/network.c"));
        let mut command = Command::new("cc");
        command.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]).args(flags);
        command.arg(source).arg("-o").arg(&library).arg("-lm");
        native::succeed(command);
        let code = std::fs::read(library).unwrap();
        let bytes = package_of(&code, "model", &wrapper(&STATE, "float32", None), &here());
        written(&bytes, json!({ "classes": 0, "null_class": null }))
    }

    /// The velocity at `x`, all at t = .25.
    struct Velocity<'a>(&'a [f32]);

    impl FieldTask for Velocity<'_> {
        type Output = bespoke::Result<Vec<f32>>;

        fn run<F: VelocityField + Sync>(self, field: &F) -> Self::Output {
            let x = field.upload(self.0, 3)?;
            field.eval(PerRow::All(0.25), &x, &Condition::default())?.to_f32()
        }
    }

    #[test]
    fn a_package_runs() {
        let (_folder, path) = running(&[]);
        let x: Vec<f32> = (0..12).map(|i| i as f32 * 0.3).collect();
        let u = model::open(&path, Device::Cpu).unwrap().with(Velocity(&x)).unwrap();
        let expected: Vec<f32> = x.iter().map(|x| 0.75 * x.cos()).collect();
        assert_close_f32(&u, &expected);
    }

    fn assert_close_f32(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} is not {expected:?}");
    }

    #[test]
    fn a_package_that_fails_names_itself_and_what_it_was_given() {
        let (_folder, path) = running(&["-DFAILS"]);
        let error = model::open(&path, Device::Cpu).unwrap().with(Velocity(&[0.0; 6])).unwrap_err();
        assert!(matches!(error, bespoke::Error::Torch(_)), "{error:?}");
        let message = error.to_string();
        for part in ["net.pt2: ", "x float32 [2, 3]", "time float32 [2]", "standard error"] {
            assert!(message.contains(part), "{message:?} does not say {part:?}");
        }
    }

    /// By the program, whose standard error is kept: libtorch writes its stack there.
    #[test]
    fn memory_that_a_package_cannot_have_is_said_in_bytes() {
        let (folder, path) = running(&["-DHUNGRY"]);
        let mut command = assert_cmd::Command::new(crate::tree::program());
        command.args(["sample", "--solver", "euler@1", "--count", "2", "--model"]).arg(path);
        let said = predicates::str::contains(format!("error: cannot allocate {} bytes", 12u64 << 48));
        command.arg("--out").arg(folder.path().join("x.npy")).assert().code(1).stderr(said);
    }

    fn here() -> Value {
        json!({ "AOTI_DEVICE_KEY": "cpu", "AOTI_MACHINE": std::env::consts::ARCH })
    }

    #[test]
    fn what_is_no_package_is_said_of_the_file() {
        let (_folder, path) = written(b"", json!({ "weights": "absent.pt2" }));
        let message = model::open(&path, Device::Cpu).err().unwrap().to_string();
        assert!(message.contains("cannot read") && message.contains("absent.pt2"), "{message}");

        let models = crate::tree::root().join("models");
        let script = std::fs::read(models.join("digits-fm-ot.pt")).unwrap();
        let whole = package("model", &wrapper(&STATE, "float32", Some("int64")), &here());
        for bytes in [&b""[..], b"not a package", b"PK\x03\x04", &script[..script.len() / 2], &whole[..whole.len() - 1]]
        {
            assert!(refused(bytes, json!({})).contains("is no package of AOTInductor"));
        }
        assert!(refused(&script, json!({})).contains("holds no compiled model"));
        let mut flipped = whole.clone();
        let at = flipped.windows(5).position(|bytes| bytes == b"AOTI_").unwrap();
        flipped[at] ^= 1;
        assert!(refused(&flipped, json!({})).contains("is no package of AOTInductor"));
        let message = refused(&whole, json!({}));
        assert!(message.contains("cannot be loaded"), "{message}");
        let (_folder, path) = written(&whole, json!({}));
        let message = model::open_in(&path, Device::Cpu, Compute::Bf16).err().unwrap().to_string();
        assert!(message.contains("f32") && message.contains("compiled"), "{message}");
    }

    #[test]
    fn a_package_that_disagrees_with_its_card_is_refused_by_name() {
        let says = |wrapper: &str, changes: Value, parts: &[&str]| {
            let message = refused(&package("other", wrapper, &here()), changes);
            for part in parts {
                assert!(message.contains(part), "{message:?} does not say {part:?}");
            }
        };
        let good = wrapper(&STATE, "float32", Some("int64"));
        says(&good, json!({ "shape": [4] }), &["x: ", "[any, 3] in the package", "[any, 4] in the card"]);
        says(&good, json!({ "shape": [3, 1] }), &["x: ", "[any, 3, 1] in the card"]);
        says(&good, json!({ "classes": 0, "null_class": null }), &["inputs: ", "3 in the package", "x, time"]);
        says(
            &good,
            json!({ "time": { "dtype": "int64" } }),
            &["time: ", "float32 in the package", "int64 in the card"],
        );
        says(
            &good,
            json!({ "time": { "shape": "column" } }),
            &["time: ", "[any] in the package", "[any, 1] in the card"],
        );
        // By place: time first is the state of the package.
        says(&good, json!({ "order": ["time", "x"] }), &["time: ", "[any, 3] in the package"]);
        says(&wrapper(&STATE, "float32", Some("int32")), json!({}), &["class: ", "int32 in the package", "int64"]);
        says(&wrapper(&STATE, "float32", None), json!({}), &["inputs: ", "2 in the package", "x, time, class"]);
        says(
            &wrapper(&STATE, "int64", Some("int64")),
            json!({}),
            &["time: ", "int64 in the package", "expected a float"],
        );
        let fixed = ["7 != a_size[0]", "3 != a_size[1]"];
        says(&wrapper(&fixed, "float32", Some("int64")), json!({}), &["x: ", "[7, 3]", "dynamic"]);
        let turned = ["a_size[0] < 2", "3 != a_size[1]", "1 != a_stride[0]", "7 != a_stride[1]"];
        says(&wrapper(&turned, "float32", Some("int64")), json!({}), &["x: ", "stride 7 in dimension 1"]);
        says("void run() {}", json!({}), &["says nothing of its inputs", "wrapper.cpp"]);
    }

    #[test]
    fn a_package_for_elsewhere_or_of_several_models_is_refused() {
        let good = wrapper(&STATE, "float32", Some("int64"));
        let cuda = refused(&package("model", &good, &json!({ "AOTI_DEVICE_KEY": "cuda" })), json!({}));
        assert!(cuda.contains("compiled for the device cuda") && cuda.contains("cpu is asked for"), "{cuda}");
        let silent = refused(&package("model", &good, &json!({})), json!({}));
        assert!(silent.contains("does not say what device"), "{silent}");
        let names = ["net/data/aotinductor/a/c.so", "net/data/aotinductor/b/c.so", "net/.data/version"];
        let several = refused(&zip(&[(names[0], b""), (names[1], b""), (names[2], b"3\n")]), json!({}));
        assert!(several.contains("several models (a, b)"), "{several}");
    }

    #[test]
    fn a_broken_product_is_named_itself() {
        let good = wrapper(&STATE, "float32", Some("int64"));
        let (folder, path) = written(&package("model", &good, &here()), json!({ "vjp": "vjp.pt2" }));
        std::fs::write(folder.path().join("vjp.pt2"), b"none").unwrap();
        let message = model::open(&path, Device::Cpu).err().unwrap().to_string();
        // Nothing is loaded before both have been read.
        assert!(message.contains("vjp.pt2: ") && message.contains("is no package"), "{message}");
    }
}
