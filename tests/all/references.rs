//! What users write for a solver, read the same everywhere.

use crate::native::{Workshop, succeed};
use bespoke::Error;
use bespoke::ladder::Ladder;
use bespoke::reference::{Reference, Solver};
use bespoke::theta::{Family, Knots, Theta};
use std::path::Path;
use std::process::Command;

fn theta(steps: usize) -> Theta {
    Theta::new(Family::Rk2(Knots::identity(2 * steps))).unwrap()
}

fn ladder() -> Ladder {
    Ladder::new(vec![theta(2), theta(3), theta(5)]).unwrap()
}

fn nfe(text: &str) -> usize {
    let Solver::Theta(name, theta) = Solver::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")) else {
        panic!("{text} is no theta")
    };
    assert_eq!(name.text, text);
    theta.nfe()
}

#[test]
fn references_are_taken_apart() {
    let files = ["theta", "a,b@4", "euler@4", "a@8", "a", "c:d", "gt"];
    let parse = |text| Reference::parse(text, |name| files.contains(&name));
    let file = |name, nfe_at_most| Reference::File { name, nfe_at_most };
    let published = |name, nfe, grid| Reference::Published { name, nfe, grid };
    for (text, expected) in [
        ("gt", Reference::GroundTruth),
        ("theta", file("theta", None)),
        ("theta@8", file("theta", Some(8))),
        ("a,b@4", file("a,b@4", None)),
        ("a,b@4@6", file("a,b@4", Some(6))),
        ("c:d@6", file("c:d", Some(6))),
        // A file goes before a solver, and the longer name before the shorter.
        ("euler@4", file("euler@4", None)),
        ("euler@5", published("euler", Some(5), None)),
        ("a@8", file("a@8", None)),
        ("a@08", file("a", Some(8))),
        ("dpm++2m@10:logsnr", published("dpm++2m", Some(10), Some("logsnr"))),
        ("euler@3:0,0.2,0.5,1", published("euler", Some(3), Some("0,0.2,0.5,1"))),
        ("midpoint", published("midpoint", None, None)),
        ("midpoint:cosine", published("midpoint", None, Some("cosine"))),
    ] {
        assert_eq!(parse(text).unwrap_or_else(|e| panic!("{text}: {e}")), expected, "{text}");
    }
    for text in
        ["", "@8", "theta@", "theta@x", "theta@-1", "theta@8:uniform", "nonesuch", "nonesuch@8", "euler@", "euler@1e3"]
    {
        assert!(matches!(parse(text), Err(Error::Invalid { .. })), "{text}");
    }
    // What a stranger may send is not given back whole.
    let long = "x".repeat(1 << 20);
    assert!(parse(&long).unwrap_err().to_string().len() < 1000);
}

#[test]
fn files_of_any_name_are_solvers() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in
        ["two words.json", "a,b.json", "a@b.json", "c:d.json", "-dash.json", "gt", "midpoint@4", "ends@6", "ünï.json"]
    {
        ladder().save(Path::new(&path(name))).unwrap();
        assert_eq!(nfe(&path(name)), 10, "{name}");
        assert_eq!(nfe(&format!("{}@9", path(name))), 6, "{name}");
        assert_eq!(nfe(&format!("{}@4", path(name))), 4, "{name}");
    }
    let three = Solver::parse(&format!("{}@three", path("gt"))).unwrap_err().to_string();
    assert!(three.contains("nfe is \"three\""), "{three}");
    let below = Solver::parse(&format!("{}@3", path("gt"))).unwrap_err().to_string();
    assert!(below.contains("at least 4"), "{below}");
    // What is not there is said to be a missing file, where it can only be one.
    for missing in [path("none.json"), format!("{}@8", path("none.json")), "none.json@8".into(), "none".into()] {
        assert!(matches!(Solver::parse(&missing), Err(Error::Io { .. })), "{missing}");
    }
    assert!(matches!(Solver::parse("none@8"), Err(Error::Invalid { .. })));
    assert!(Solver::parse(folder.path().to_str().unwrap()).is_err());
}

#[test]
fn several_are_one_reference() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a,b@c.json");
    ladder().save(&path).unwrap();
    let path = path.to_str().unwrap();
    let names = |text: &str| Solver::parse_several(text).unwrap().iter().map(Solver::name).collect::<Vec<_>>();
    assert_eq!(names("midpoint@4,8, 10"), ["midpoint@4", "midpoint@8", "midpoint@10"]);
    assert_eq!(names("dpm++2m@6,7:uniform"), ["dpm++2m@6:uniform", "dpm++2m@7:uniform"]);
    assert_eq!(names("euler@2:0,0.5,1"), ["euler@2:0,0.5,1"]);
    assert_eq!(names(path), [path]);
    assert_eq!(names(&format!("{path}@4,10")), [format!("{path}@4"), format!("{path}@10")]);
    assert!(Solver::parse_several("midpoint@4,5").is_err());
}

#[cfg(feature = "cli")]
#[test]
fn the_program_takes_them_all() {
    use crate::tree::{program, root};
    let folder = tempfile::tempdir().unwrap();
    for name in ["two words,@:.json", "-dash.json"] {
        ladder().save(&folder.path().join(name)).unwrap();
    }
    let show = |arguments: &[&str]| {
        let mut command = assert_cmd::Command::new(program());
        let output = command.current_dir(folder.path()).arg("show").args(arguments).assert().success();
        String::from_utf8(output.get_output().stdout.clone()).unwrap()
    };
    assert!(show(&["two words,@:.json@7"]).contains("nfe     6"));
    assert!(show(&["./-dash.json@4"]).contains("nfe     4"));
    assert!(show(&["--", "-dash.json@5"]).contains("nfe     4"));
    let card = root().join("models/digits-mixture.json");
    let mut command = assert_cmd::Command::new(program());
    command.current_dir(folder.path()).args(["eval", "--count", "3", "--quiet", "--model"]).arg(card);
    command.args(["--solver=-dash.json@8", "--solver", "two words,@:.json@4,9", "--solver", "dpm++3m@8", "--json"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows: Vec<f64> = found["results"].as_array().unwrap().iter().map(|row| row["nfe"].as_f64().unwrap()).collect();
    assert_eq!(rows, [6.0, 4.0, 6.0, 8.0]);
    // Of these, dpm++3m alone lowers its last orders at so few evaluations.
    let notes = found["notes"].as_array().unwrap();
    assert!(notes.len() == 1 && notes[0].as_str().unwrap().starts_with("dpm++3m@8 lowers"), "{notes:?}");
}

#[test]
fn c_and_cpp_read_them_likewise() {
    let workshop = Workshop::new();
    succeed(Command::new(workshop.build("tests/cpp/reference.cpp", &[])));
}
