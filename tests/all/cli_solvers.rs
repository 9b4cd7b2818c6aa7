//! Solvers by name, compiled, joined and converted, as users of the command line see them.

use crate::tree::{program, root};
use assert_cmd::Command;
use bespoke::path::GaussianPath;
use bespoke::reference::Solver;
use bespoke::scheduler::Scheduler;
use bespoke::solvers::SolverName;
use bespoke::theta::{Family, Theta};
use bespoke::train::{Parameters, Structure, start_on_path};
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn bespoke(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments);
    command
}

fn card() -> String {
    root().join("models/digits-mixture.json").to_str().unwrap().to_owned()
}

/// A folder and the names of files in it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.0.path()).unwrap().count()
    }

    /// Compiles `solver` for the mixture.
    fn compile(&self, solver: &str, name: &str) -> String {
        let out = self.name(name);
        bespoke(&["compile", solver, "--model", &card(), "--out", &out]).assert().success();
        out
    }
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The rows of `bespoke eval` on the mixture, with more `arguments`.
fn evaluate(folder: &Folder, solvers: &[&str], arguments: &[&str]) -> Vec<Value> {
    let out = folder.name("eval.json");
    let mut command = bespoke(&["eval", "--model", &card(), "--count", "20", "--json", &out]);
    command.args(solvers.iter().flat_map(|solver| ["--solver", solver]));
    command.args(arguments).assert().success();
    let mut rows = read_json(Path::new(&out))["results"].as_array().unwrap().clone();
    // All but the time is the same each time.
    rows.iter_mut().for_each(|row| assert!(row.as_object_mut().unwrap().remove("seconds").is_some()));
    rows
}

fn rmse(row: &Value) -> f64 {
    row["rmse"].as_f64().unwrap()
}

#[test]
fn solvers_are_listed_with_what_they_allow() {
    let text = String::from_utf8(bespoke(&["solvers"]).output().unwrap().stdout).unwrap();
    let json = bespoke(&["solvers", "--json"]).output().unwrap().stdout;
    let list: Vec<Value> = serde_json::from_slice(&json).unwrap();
    assert_eq!(list.len(), SolverName::ALL.len());
    assert_eq!(text.lines().count(), list.len() + 1);
    let path = GaussianPath::new(Scheduler::FmOt, 1.0).unwrap();
    for (entry, line) in list.iter().zip(text.lines().skip(1)) {
        let name = entry["name"].as_str().unwrap();
        for key in ["name", "grid", "description", "source"] {
            assert!(line.contains(entry[key].as_str().unwrap()), "{line}: {key}");
        }
        let [least, step] = ["least", "step"].map(|key| entry["nfe"][key].as_u64().unwrap());
        // What is said to be allowed is, and nothing else.
        for nfe in 1..=24 {
            let allowed = nfe >= least && (nfe - least) % step == 0;
            let solver = Solver::parse(&format!("{name}@{nfe}"));
            assert_eq!(solver.is_ok(), allowed, "{name}@{nfe}");
            if let Ok(solver) = solver {
                assert_eq!(solver.tableau(&path).unwrap().unwrap().nfe() as u64, nfe);
            }
        }
        let most = entry["nfe"]["most"].as_u64().unwrap();
        assert!(Solver::parse(&format!("{name}@{most}")).is_ok());
        assert!(Solver::parse(&format!("{name}@{}", most + step)).is_err());
    }
}

#[test]
fn the_documents_table_is_the_list() {
    let document = std::fs::read_to_string(root().join("docs/solvers.md")).unwrap();
    let rows: Vec<String> = SolverName::ALL
        .iter()
        .map(|s| format!("| `{}` | {} | {} | {} | {} | {} |", s.name, s.order, s.nfe, s.grid, s.description, s.source))
        .collect();
    let found: Vec<&str> =
        document.lines().skip_while(|line| !rows.contains(&(*line).to_owned())).take(rows.len()).collect();
    assert_eq!(found, rows, "the table of docs/solvers.md should be\n{}\n", rows.join("\n"));
}

#[test]
fn a_compiled_solver_is_the_solver() {
    let folder = Folder::new();
    for solver in ["dpm++2m@6", "unipc@5:logsnr", "edm@7", "rk4@8"] {
        let theta = folder.compile(solver, "theta.json");
        let document = read_json(Path::new(&theta));
        assert_eq!((&document["family"], &document["training"]["solver"]), (&json!("ns"), &json!(solver)));
        assert_eq!(document["model"]["name"], "digits-mixture");
        let rows = evaluate(&folder, &[solver, &theta], &[]);
        assert_eq!(rows[0]["nfe"], rows[1]["nfe"]);
        assert!((rmse(&rows[0]) - rmse(&rows[1])).abs() < 1e-5 * rmse(&rows[0]), "{rows:?}");
    }
    // By the scheduler's name it is the same table, without a fingerprint.
    let by_model = Theta::load(Path::new(&folder.compile("unipc3@8", "by-model.json"))).unwrap();
    let out = folder.name("by-name.json");
    bespoke(&["compile", "unipc3@8", "--scheduler", "fm-ot", "--out", &out]).assert().success();
    let by_name = Theta::load(Path::new(&out)).unwrap();
    assert_eq!(by_model.family, by_name.family);
    assert!(by_model.model.0.contains_key("fingerprint") && !by_name.model.0.contains_key("fingerprint"));
    // Constants and the end count, wherever they are said.
    let family = |arguments: &[&str]| {
        let out = folder.name("vp.json");
        bespoke(&["compile", "ddim@6", "--out", &out]).args(arguments).assert().success();
        Theta::load(Path::new(&out)).unwrap().family
    };
    let ended = family(&["--scheduler", "vp", "--end", "0.99"]);
    assert_eq!(ended, family(&["--scheduler", r#"{"name": "vp", "end": 0.99}"#]));
    assert_ne!(ended, family(&["--scheduler", "vp"]));
    assert_ne!(ended, family(&["--scheduler", r#"{"name": "vp", "beta_max": 15}"#, "--end", "0.99"]));
    assert_ne!(ended, family(&["--scheduler", "vp", "--end", "0.99", "--path", "cosine"]));
    // A theta compiles to its own table, with its notes.
    let (knots, table) = (folder.name("knots.json"), folder.name("table.json"));
    let convert = ["convert", "--from", "fm-ot", "--to", "cosine", "--steps", "3", "--family", "rk2", "--out", &knots];
    bespoke(&convert).assert().success();
    bespoke(&["compile", &knots, "--out", &table]).assert().success();
    let (knots, table) = (Theta::load(Path::new(&knots)).unwrap(), Theta::load(Path::new(&table)).unwrap());
    assert_eq!((knots.nfe(), &knots.model, &knots.training), (table.nfe(), &table.model, &table.training));
    assert!(matches!(table.family, Family::Ns(_)));
}

#[test]
fn a_ladder_serves_the_greatest_nfe_that_fits() {
    let folder = Folder::new();
    let thetas =
        ["midpoint@8", "midpoint@4", "dpm++2m@6"].map(|solver| folder.compile(solver, &format!("{solver}.json")));
    let ladder = folder.name("ladder.json");
    bespoke(&["ladder"]).args(&thetas).args(["--out", &ladder]).assert().success().stderr(contains("nfe 4, 6, 8"));
    let rungs: Vec<String> = [4, 5, 7, 100].iter().map(|nfe| format!("{ladder}@{nfe}")).collect();
    let solvers: Vec<&str> = rungs.iter().chain([&ladder]).map(String::as_str).collect();
    let rows = evaluate(&folder, &solvers, &[]);
    let named = evaluate(&folder, &["midpoint@4", "dpm++2m@6", "midpoint@8"], &[]);
    let nfe: Vec<f64> = rows.iter().map(|row| row["nfe"].as_f64().unwrap()).collect();
    assert_eq!(nfe, [4.0, 4.0, 6.0, 8.0, 8.0]);
    for (row, expected) in [(1, 0), (2, 1), (3, 2), (4, 2)] {
        assert!((rmse(&rows[row]) - rmse(&named[expected])).abs() < 1e-5 * rmse(&named[expected]));
    }
    assert_eq!(rows[2]["solver"], format!("{ladder}@7"));
    bespoke(&["show", &ladder]).assert().success().stdout(contains("nfe").and(contains("rmse")));
    bespoke(&["show", &format!("{ladder}@7")]).assert().success().stdout(contains("nfe     6"));
    // Ladders join too, and a rung compiles.
    let (more, longer) = (folder.compile("heun@10", "heun.json"), folder.name("longer.json"));
    bespoke(&["ladder", &ladder, &more, "--out", &longer]).assert().success().stderr(contains("nfe 4, 6, 8, 10"));
    bespoke(&["compile", &format!("{ladder}@6"), "--out", &folder.name("rung.json")]).assert().success();
    assert_eq!(Theta::load(&folder.path("rung.json")).unwrap(), Theta::load(Path::new(&thetas[2])).unwrap());
}

#[test]
fn thetas_that_make_no_ladder_are_refused_by_file() {
    let folder = Folder::new();
    let (a, b) = (folder.compile("euler@4", "a.json"), folder.compile("euler@6", "b.json"));
    let mut document = read_json(Path::new(&b));
    document["model"]["fingerprint"] = json!("sha256:of-another");
    document["model"]["name"] = json!("the-other");
    std::fs::write(&b, document.to_string()).unwrap();
    let out = folder.name("ladder.json");
    let refused = |thetas: [&str; 2]| {
        let command = bespoke(&["ladder", "--out", &out]).args(thetas).assert().code(2).stdout("");
        assert!(!Path::new(&out).exists());
        command
    };
    let named = contains("a.json").and(contains("b.json")).and(contains("the-other")).and(contains("digits-mixture"));
    refused([&a, &b]).stderr(named);
    let again = folder.compile("heun@4", "again.json");
    refused([&a, &again]).stderr(contains("again.json is a theta of nfe 4").and(contains("a.json")));
    bespoke(&["ladder", "--out", &out]).assert().code(2);
    bespoke(&["ladder", &folder.name("absent.json"), "--out", &out]).assert().code(1).stderr(contains("absent.json"));
}

#[test]
fn published_solvers_sample_on_any_path() {
    let folder = Folder::new();
    let solvers = ["midpoint@200", "dpm++2m@200"];
    for arguments in [
        &["--path", "fm-ot"][..],
        &["--path", "cosine"],
        &["--path", "vp"],
        &["--path", "edm"],
        &["--sigma0", "3"],
        &["--path", "cosine", "--sigma0", "2"],
    ] {
        let rows = evaluate(&folder, &solvers, arguments);
        // Midpoint in EDM's time has to integrate sigma from 80 down: its error is the largest.
        let bound = if arguments.contains(&"edm") { 0.06 } else { 0.01 };
        assert!(rows.iter().all(|row| rmse(row) < bound), "{arguments:?}: {rows:?}");
    }
    // At few evaluations the path shows; a theta has its own and does not change; the own path is the default.
    let theta = folder.compile("midpoint@6", "theta.json");
    let solvers = ["midpoint@6", "midpoint@6:quadratic", &theta];
    let own = evaluate(&folder, &solvers, &[]);
    assert_eq!(own, evaluate(&folder, &solvers, &["--path", "fm-ot"]));
    let vp = evaluate(&folder, &solvers, &["--path", "vp"]);
    assert!((rmse(&own[0]) - rmse(&vp[0])).abs() > 0.01 * rmse(&own[0]));
    assert_eq!(own[2], vp[2]);
    // The path is part of a compiled table, and `sample` takes the same options.
    let out = folder.name("on-vp.json");
    bespoke(&["compile", "midpoint@6", "--model", &card(), "--path", "vp", "--out", &out]).assert().success();
    assert_eq!(read_json(Path::new(&out))["training"]["path"], "vp");
    let sample = |name: &str, solver: &str, arguments: &[&str]| {
        let out = folder.name(name);
        bespoke(&["sample", "--model", &card(), "--solver", solver, "--count", "3", "--out", &out])
            .args(arguments)
            .assert()
            .success();
        npyz::NpyFile::new(std::fs::File::open(out).unwrap()).unwrap().into_vec::<f32>().unwrap()
    };
    let (by_option, by_table) = (sample("a.npy", "midpoint@6", &["--path", "vp"]), sample("b.npy", &out, &[]));
    let greatest = by_option.iter().zip(&by_table).fold(0.0f32, |greatest, (a, b)| greatest.max((a - b).abs()));
    assert!(greatest < 1e-4, "{greatest}");
    assert_ne!(by_option, sample("c.npy", "midpoint@6", &[]));
}

#[test]
fn a_conversion_is_the_base_solver_on_the_other_path() {
    let folder = Folder::new();
    for (family, solver) in [("rk1", "euler@6"), ("rk2", "midpoint@12")] {
        for to in ["cosine", "vp"] {
            let out = folder.name("theta.json");
            let convert = ["convert", "--from", "fm-ot", "--to", to, "--steps", "6", "--family", family, "--out", &out];
            bespoke(&convert).assert().success().stderr(contains("6 steps"));
            let rows = evaluate(&folder, &[solver, &out], &["--path", to]);
            assert!((rmse(&rows[0]) - rmse(&rows[1])).abs() < 1e-4 * rmse(&rows[0]), "{to}: {rows:?}");
        }
    }
    // From a path to itself there is nothing to convert; sigma0 is.
    let out = folder.name("theta.json");
    let same = ["convert", "--from", "vp", "--to", "vp", "--steps", "2", "--family", "rk1", "--out", &out];
    bespoke(&same).assert().success();
    assert_eq!(read_json(Path::new(&out))["t"], json!([0.0, 0.5, 1.0]));
    bespoke(&same).args(["--sigma0", "4"]).assert().success();
    assert_ne!(read_json(Path::new(&out))["t"][1], json!(0.5));
}

#[test]
fn training_starts_from_the_base_solver_on_the_path() {
    let own = GaussianPath::new(Scheduler::FmOt, 1.0).unwrap();
    let other = own.on_named(Some("cosine"), Some(2.0)).unwrap();
    for (structure, solver) in
        [(Structure::Rk1(5), "euler@5"), (Structure::Rk2(4), "midpoint@8"), (Structure::Ns(6), "euler@6")]
    {
        let identity = Parameters::identity(structure);
        let start = start_on_path(structure, &own).unwrap();
        assert_eq!(start.structure, structure);
        let far = start.values.iter().zip(&identity.values).fold(0.0f64, |far, (a, b)| far.max((a - b).abs()));
        assert!(start.values.len() == identity.values.len() && far < 1e-12, "{structure:?}: {far}");
        let start = start_on_path(structure, &other).unwrap().theta().unwrap();
        let expected = Solver::parse(solver).unwrap().theta(&other).unwrap();
        let compiled = |theta: &Theta| bespoke::theta::NsTable::compile(&theta.tableau());
        let (start, expected) = (compiled(&start), compiled(&expected));
        let numbers = |table: &bespoke::theta::NsTable| [&table.t[..], &table.a[..], &table.b.concat()[..]].concat();
        let pairs: Vec<(f64, f64)> = numbers(&start).into_iter().zip(numbers(&expected)).collect();
        assert!(pairs.iter().all(|(a, b)| (a - b).abs() < 1e-9 * (1.0 + b.abs())), "{structure:?}: {pairs:?}");
    }
}

#[test]
fn bad_usage_is_2_names_what_is_wrong_and_writes_nothing() {
    let folder = Folder::new();
    let (out, card) = (folder.name("out.json"), card());
    let refused = |arguments: &[&str], text: &str| {
        bespoke(arguments).args(["--out", &out]).assert().code(2).stdout("").stderr(contains(text));
    };
    refused(&["compile", "rk4@10", "--scheduler", "fm-ot"], "8 or 12");
    refused(&["compile", "nonesuch@4", "--scheduler", "fm-ot"], "midpoint");
    refused(&["compile", "euler@4"], "--scheduler");
    refused(&["compile", "euler@4", "--model", &card, "--scheduler", "fm-ot"], "cannot be used with");
    refused(&["compile", "gt", "--model", &card], "the ground truth adapts");
    refused(&["compile", "euler@4", "--scheduler", "vpp"], "fm-ot, cosine, vp or edm");
    refused(&["compile", "euler@4", "--scheduler", r#"{"name": "vp", "sigma_min": 1}"#], "sigma_min");
    refused(&["compile", "euler@4", "--scheduler", "vp", "--end", "1.5"], "end is 1.5");
    refused(&["compile", "euler@4", "--scheduler", "vp", "--path", "vpp"], "path is");
    refused(&["compile", "euler@4", "--scheduler", "vp", "--sigma0", "0"], "sigma0 is 0");
    refused(&["compile", "midpoint@1002", "--scheduler", "vp"], "1002");
    refused(&["convert", "--from", "vp", "--to", "fm", "--steps", "2", "--family", "rk1"], "fm-ot");
    refused(&["convert", "--from", "vp", "--to", "fm-ot", "--steps", "0", "--family", "rk1"], "steps is 0");
    refused(&["convert", "--from", "vp", "--to", "fm-ot", "--steps", "1001", "--family", "rk1"], "steps is 1001");
    refused(&["convert", "--from", "vp", "--to", "fm-ot", "--steps", "2", "--family", "ns"], "rk1");
    refused(&["sample", "--model", &card, "--solver", "euler@2", "--path", "vpp"], "path is \"vpp\"");
    refused(&["sample", "--model", &card, "--solver", "euler@2", "--sigma0", "nan"], "sigma0 is NaN");
    assert_eq!(folder.files(), 0);

    let theta = folder.compile("euler@4", "theta.json");
    refused(&["compile", &theta, "--scheduler", "vp"], "scheduler is there");
    refused(&["compile", &theta, "--path", "vp"], "path is there");
    let fails = |arguments: &[&str], code: i32, text: &str| {
        bespoke(arguments).assert().code(code).stdout("").stderr(contains(text));
    };
    fails(&["compile", &format!("{theta}@3"), "--out", &out], 2, "nfe_at_most is 3, expected at least 4");
    fails(&["compile", &format!("{theta}@three"), "--out", &out], 2, "nfe is \"three\"");
    fails(&["compile", &folder.name("absent.json@8"), "--out", &out], 1, "absent.json");
    fails(&["compile", "euler@4", "--model", &folder.name("absent.json"), "--out", &out], 1, "absent.json");
    fails(&["compile", "euler@4", "--scheduler", "vp", "--out", &folder.name("no/such/folder.json")], 1, "no/such");
    fails(&["show", "midpoint@4"], 2, "a theta or ladder file");
    assert_eq!(folder.files(), 1);
}

#[test]
fn every_command_explains_itself() {
    for command in ["solvers", "compile", "ladder", "convert"] {
        bespoke(&[command, "--help"]).assert().success().stdout(contains("Example").and(contains("Usage:")));
    }
    for command in ["sample", "eval"] {
        bespoke(&[command, "--help"]).assert().success().stdout(contains("bespoke solvers").and(contains("--path")));
    }
}

/// Training on another path starts from the base solver of that path (BES Thm 2.3).
#[test]
fn training_starts_on_the_path_that_was_asked_for() {
    let folder = TempDir::new().unwrap();
    let theta = folder.path().join("theta.json");
    let train = |arguments: &[&str]| {
        let mut command = bespoke(&["train", "--model", &card()]);
        command.arg("--out").arg(&theta);
        command.args(["--steps", "4", "--iterations", "2", "--pool", "60", "--batch", "40", "--validation", "40"]);
        command.args(arguments);
        command
    };
    let start = |arguments: &[&str]| {
        train(arguments).assert().success();
        let document: Value = serde_json::from_str(&std::fs::read_to_string(&theta).unwrap()).unwrap();
        document["training"]["start"]["rmse"].as_f64().unwrap()
    };
    let own = start(&[]);
    assert_eq!(start(&["--path", "fm-ot"]), own);
    assert_ne!(start(&["--path", "cosine"]), own);
    assert_ne!(start(&["--sigma0", "3"]), own);
    train(&["--path", "nonesuch"]).assert().code(2).stderr(contains("nonesuch"));
    train(&["--path", "vp", "--init", theta.to_str().unwrap()]).assert().code(2).stderr(contains("init"));
}
