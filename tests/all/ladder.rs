//! Ladders: thetas of one model for several nfe, in one file.

use bespoke::document::Notes;
use bespoke::error::Error;
use bespoke::ladder::Ladder;
use bespoke::theta::{Family, Knots, Theta};
use serde_json::{Value, json};

fn theta(nfe: usize, fingerprint: &str) -> Theta {
    let mut theta = Theta::new(Family::Rk2(Knots::identity(nfe))).expect("a theta");
    let Value::Object(model) = json!({ "fingerprint": fingerprint }) else { unreachable!() };
    theta.model = Notes(model);
    theta
}

#[test]
fn a_ladder_survives_its_file() {
    let ladder = Ladder::new(vec![theta(10, "a"), theta(4, "a"), theta(6, "a")]).expect("a ladder");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ladder.json");
    ladder.save(&path).expect("saved");
    assert_eq!(Ladder::load(&path).expect("loaded"), ladder);
    assert_eq!(ladder.rungs().iter().map(Theta::nfe).collect::<Vec<_>>(), [4, 6, 10]);
}

#[test]
fn a_theta_file_is_a_ladder_of_one_rung() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("theta.json");
    theta(8, "a").save(&path).expect("saved");
    assert_eq!(Ladder::load(&path).expect("loaded").rungs(), [theta(8, "a")]);
}

#[test]
fn the_best_rung_is_the_greatest_that_fits() {
    let ladder = Ladder::new([4, 6, 10].map(|nfe| theta(nfe, "a")).to_vec()).expect("a ladder");
    for (at_most, nfe) in [(4, 4), (5, 4), (6, 6), (9, 6), (10, 10), (1000, 10)] {
        assert_eq!(ladder.best(at_most).expect("a rung").nfe(), nfe, "{at_most}");
    }
    let message = ladder.best(3).expect_err("none fits").to_string();
    assert_eq!(message, "nfe_at_most is 3, expected at least 4, the least nfe of this ladder");
}

#[test]
fn ladders_that_are_none_are_refused() {
    let field = |rungs| match Ladder::new(rungs) {
        Err(Error::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(Vec::new()), "rungs");
    assert_eq!(field(vec![theta(4, "a"), theta(4, "a")]), "rungs[1]");
    assert_eq!(field(vec![theta(4, "a"), theta(6, "b")]), "rungs[1].model.fingerprint");
}

#[test]
fn files_that_are_none_are_refused_by_key() {
    let good = || {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ladder.json");
        Ladder::new(vec![theta(4, "a"), theta(6, "a")]).expect("a ladder").save(&path).expect("saved");
        serde_json::from_str::<Value>(&std::fs::read_to_string(path).expect("read")).expect("JSON")
    };
    let refused = |change: &dyn Fn(&mut Value), key: &str| {
        let mut value = good();
        change(&mut value);
        match Ladder::parse(&value.to_string(), "test") {
            Err(Error::Format { field, .. }) => assert_eq!(field, key),
            other => panic!("{key}: {other:?}"),
        }
    };
    refused(&|v| v["version"] = json!(2), "version");
    refused(&|v| v["format"] = json!("bespoke-stairs"), "rungs");
    refused(&|v| v["more"] = json!(1), "more");
    refused(&|v| v["rungs"] = json!([]), "rungs");
    refused(&|v| v["rungs"][1]["t"][0] = json!(0.5), "rungs[1].t[0]");
    refused(&|v| v["rungs"][1]["version"] = json!(7), "rungs[1].version");
    refused(&|v| v["rungs"][0]["steps"] = json!(9), "rungs[0].t_dot");
    refused(&|v| v["rungs"].as_array_mut().expect("rungs").reverse(), "rungs[1]");
    refused(&|v| v["rungs"][1]["model"]["fingerprint"] = json!("b"), "rungs[1].model.fingerprint");
    assert!(Ladder::parse("", "test").is_err());
    assert!(Ladder::parse("[]", "test").is_err());
}
