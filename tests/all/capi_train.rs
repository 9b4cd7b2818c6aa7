//! Training on the host's own field, from C.
#![allow(irrefutable_let_patterns)] // without libtorch there is one kind of model

use crate::native::{Workshop, ring_card, succeed};
use bespoke::model::{self, CallerField, Model};
use bespoke::networks::Call;
use bespoke::samples::Conditioning;
use bespoke::tensor::{Device, Host, PerRow};
use bespoke::theta::Theta;
use bespoke::train::loss::bound_loss;
use bespoke::train::{Parameters, Pool, PoolOptions, Structure};
use bespoke::velocity::Condition;
use bespoke::velocity::VelocityField;
use half::f16;
use std::path::Path;
use std::process::Command;

/// (best rmse, forward, backward) of a run of `train_field.c`.
fn train(program: &Path, card: &str, rest: &str, mode: &str, out: &Path) -> (f64, u64, u64) {
    let mut command = Command::new(program);
    command.args([card, rest, mode]).arg(out);
    let printed = succeed(command);
    let mut words = printed.split_whitespace();
    let rmse = words.next().unwrap().parse().unwrap();
    let [forward, backward] = [(); 2].map(|()| words.next().unwrap().parse().unwrap());
    (rmse, forward, backward)
}

#[test]
fn a_callback_that_can_only_evaluate_is_trained_as_well_as_the_card() {
    let workshop = Workshop::new();
    let program = workshop.build("tests/c/train_field.c", &[]);
    let card = ring_card(&workshop.path(""));
    for family in ["\"family\": \"rk2\", \"steps\": 4", "\"family\": \"rk1\", \"steps\": 6"] {
        let rest =
            format!("{family}, \"loss\": \"rmse-bound\", \"iterations\": 150, \"pool\": 200, \"validation\": 200");
        let out = workshop.path("theta.json");
        let (by_adjoint, _, backward) = train(&program, &card, &rest, "card", &out);
        assert!(backward > 0);
        let (by_differences, forward, backward) = train(&program, &card, &rest, "forward", &out);
        assert_eq!(backward, 0);
        assert!(forward > 0);
        let notes = Theta::load(&out).unwrap().model;
        assert_eq!((&notes.0["name"], &notes.0["shape"]), (&"ring".into(), &serde_json::json!([2])));
        let start = Theta::load(&out).unwrap().training.0["start"]["rmse"].as_f64().unwrap();
        assert!(by_adjoint < 0.9 * start, "{by_adjoint} {start}");
        assert!(by_differences < 1.05 * by_adjoint, "{by_differences} {by_adjoint}");
    }
}

#[cfg(feature = "torch")]
#[test]
#[ignore = "minutes: the figure of docs/abi.md"]
fn forward_only_training_on_the_digits_is_within_five_percent() {
    let workshop = Workshop::new();
    let program = workshop.build("tests/c/train_field.c", &[]);
    let card = crate::tree::root().join("models/digits-fm-ot.json");
    let rest = "\"family\": \"rk2\", \"steps\": 5, \"loss\": \"rmse-bound\"";
    let out = workshop.path("theta.json");
    let by_adjoint = train(&program, card.to_str().unwrap(), rest, "card", &out);
    let by_differences = train(&program, card.to_str().unwrap(), rest, "forward", &out);
    println!("(rmse, forward, backward): autograd {by_adjoint:?}, differences {by_differences:?}");
    assert!(by_differences.0 < 1.05 * by_adjoint.0);
}

/// The ring's field without its vector-Jacobian product, rounded where `round` says.
fn forward_only<'a>(model: &'a Model, accuracy: f64, round: impl Fn(f32) -> f32 + 'a) -> CallerField<'a> {
    let field = model.host_field().expect("a mixture is computed in host memory");
    CallerField {
        shape: vec![2],
        accuracy,
        evaluate: Box::new(move |times, call: &Call<'_, Host<f32>>, u: &mut Host<f32>| {
            let times: Vec<f64> = times.iter().map(|t| f64::from(*t)).collect();
            let condition = Condition::new(call.inputs.clone());
            let exact = field.eval(PerRow::Each(&times), call.x, &condition)?;
            u.data_mut().iter_mut().zip(exact.data()).for_each(|(u, exact)| *u = round(*exact));
            Ok(())
        }),
        pull_back: None,
    }
}

fn pool<F: VelocityField<Tensor = Host<f32>>>(field: &F) -> Pool<Host<f32>> {
    let conditioning = Conditioning::default();
    let options = PoolOptions {
        purpose: bespoke::noise::Purpose::Train,
        seed: 3,
        indices: 0..128,
        chunk: 128,
        tolerance: Default::default(),
        dense: true,
    };
    Pool::solve(field, &conditioning, &options).unwrap()
}

#[test]
fn differences_give_the_adjoints_gradient() {
    let folder = tempfile::tempdir().unwrap();
    let model = model::open(Path::new(&ring_card(folder.path())), Device::Cpu).unwrap();
    let field = model.host_field().expect("a mixture is computed in host memory");
    let pool = pool(field);
    let rows: Vec<usize> = (0..pool.size()).collect();
    for structure in [Structure::Rk1(5), Structure::Rk2(4)] {
        let mut parameters = Parameters::identity(structure);
        // Away from the identity every scalar matters.
        parameters.values.iter_mut().enumerate().for_each(|(i, v)| *v += 0.05 * ((i * i) as f64).sin());
        let exact = bound_loss(&parameters, 1.0, field, &pool, &rows).unwrap();
        let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
        let half = |v: f32| f16::from_f32(v).to_f32();
        let accuracies = [(f64::from(f32::EPSILON), false, 1e-3), (f16::EPSILON.to_f64(), true, 0.05)];
        for (accuracy, rounded, tolerance) in accuracies {
            let given = forward_only(&model, accuracy, move |v| if rounded { half(v) } else { v });
            let found = bound_loss(&parameters, 1.0, &given, &pool, &rows).unwrap();
            let off: Vec<f64> = found.gradient.iter().zip(&exact.gradient).map(|(a, b)| a - b).collect();
            let error = norm(&off) / norm(&exact.gradient);
            assert!(error < tolerance, "{structure:?}, accuracy {accuracy:e}: {error:e}");
        }
    }
}

#[test]
fn a_config_that_is_not_utf8_is_shown_where_it_is_not() {
    use bespoke::capi::*;
    use std::ffi::{CStr, CString};
    let long = format!("{{\"family\": \"rk2\", \"steps\": 5, \"seed\": 3, {}\"model\": \"caf", " ".repeat(50));
    for (before, shown) in [
        (
            "{\"model\": \"caf",
            "config_json is \"{\\\"model\\\": \\\"caf\\xe9.json\\\"}\", expected UTF-8, as it is up to byte 14",
        ),
        (&long, "\\\"model\\\": \\\"caf\\xe9.json\\\"}\", expected UTF-8, as it is up to byte "),
    ] {
        let config = CString::new([before.as_bytes(), b"\xe9.json\"}"].concat()).unwrap();
        let mut theta = std::ptr::null_mut();
        // SAFETY: as the header asks.
        let (status, message) = unsafe {
            let status = bespoke_train(config.as_ptr(), std::ptr::null(), &mut theta);
            (status, CStr::from_ptr(bespoke_last_error_message()).to_str().unwrap().to_owned())
        };
        assert_eq!(status, BESPOKE_ERROR_INVALID);
        assert!(theta.is_null() && message.contains(shown), "{message}: not {shown}");
        assert!(message.len() < 300, "{message}");
    }
}
