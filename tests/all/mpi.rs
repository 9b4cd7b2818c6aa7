//! Training and evaluation by several processes: `mpirun -n N` of the program comes to what one comes to.

use crate::tree::{program, root};
use bespoke::train::Parameters;
use bespoke::{ladder::Ladder, theta::Theta};
use serde_json::Value;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No run here takes as long, even on a busy machine: one that does hangs.
const LONGEST: Duration = Duration::from_secs(600);

fn card() -> PathBuf {
    root().join("models/digits-mixture.json")
}

struct Workshop(TempDir);

impl Workshop {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `bespoke` with `arguments` by so many ranks, in this folder.
    fn ranks(&self, ranks: usize, arguments: &[&str]) -> Command {
        let mut command = Command::new("mpirun");
        // More ranks than cores, as any user, and none bound to a core that another one has.
        command.args(["--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "-n", &ranks.to_string()]);
        command.arg(program()).args(arguments).arg("--model").arg(card());
        // Whoever started the tests may have had it ignored, as a shell has of what runs behind it.
        // SAFETY: a call that may be made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                Ok(())
            });
        }
        command.env("RAYON_NUM_THREADS", "1").env("OMP_NUM_THREADS", "1").current_dir(self.0.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn succeed(&self, ranks: usize, arguments: &[&str]) -> Output {
        let output = finish(self.ranks(ranks, arguments).spawn().unwrap());
        assert!(output.status.success(), "{ranks} ranks: {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).unwrap()).unwrap()
    }

    fn thetas(&self, name: &str) -> Vec<Theta> {
        Ladder::load(&self.path(name)).unwrap().rungs().to_vec()
    }

    fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = names.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The same training by 1, 2 and 3 ranks.
    fn compare(&self, arguments: &[&str]) {
        self.train(arguments);
        for ranks in 2..=3 {
            self.same("1.json", &format!("{ranks}.json"));
        }
    }

    fn train(&self, arguments: &[&str]) {
        for ranks in 1..=3 {
            let out = format!("{ranks}.json");
            self.succeed(ranks, &[&["train", "--quiet", "--out", &out], arguments].concat());
        }
    }

    /// The numbers within 1e-5, and all that is counted exactly.
    fn same(&self, a: &str, b: &str) {
        self.within(1e-5, a, b);
    }

    fn within(&self, most: f64, a: &str, b: &str) {
        let (a, b) = (self.thetas(a), self.thetas(b));
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(&b) {
            let numbers = |theta| Parameters::from_theta(theta).values;
            let (values, others) = (numbers(a), numbers(b));
            assert_eq!(values.len(), others.len());
            let apart = values.iter().zip(&others).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(apart < most, "{apart:e}");
            for key in ["evaluations", "ground_truth_evaluations", "iterations", "stopped"] {
                assert_eq!(a.training.0.get(key), b.training.0.get(key), "{key}");
            }
        }
    }
}

/// What a run comes to; one that hangs is killed, and the test with it.
fn finish(mut child: Child) -> Output {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > LONGEST {
            child.kill().unwrap();
            panic!("still running: {}", String::from_utf8_lossy(&child.wait_with_output().unwrap().stderr));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.wait_with_output().unwrap()
}

/// Process ids of the ranks that `child`, an mpirun, has started, in order.
fn ranks_of(child: &Child, count: usize) -> Vec<i32> {
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(&children).unwrap_or_default();
        let mut found: Vec<i32> = text.split_whitespace().map(|id| id.parse().unwrap()).collect();
        if found.len() == count {
            found.sort_unstable();
            return found;
        }
        assert!(begun.elapsed() < LONGEST, "{found:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Three batches of ground truth, the last of them short, so that ranks have unequal parts.
const SIZE: [&str; 8] = ["--pool", "570", "--batch", "91", "--validation", "301", "--iterations", "8"];

#[test]
fn gauss_newton_comes_to_the_same_theta() {
    let options = ["--family", "rk2", "--steps", "4", "--loss", "log-mse", "--optimizer", "gauss-newton"];
    Workshop::new().compare(&[&options[..], &SIZE].concat());
}

#[test]
fn forward_passes_alone_come_to_a_theta_of_the_same_error() {
    let few = ["--pool", "130", "--batch", "11", "--validation", "61", "--iterations", "6"];
    let rk2 = ["--family", "rk2", "--steps", "3", "--optimizer", "forward-gauss-newton"];
    // As it is learned where nothing is said: half-way, two that differ by little may be on the way to different thetas.
    let ns = ["--family", "ns", "--nfe", "4"];
    for options in [&[&rk2[..], &few].concat(), &ns[..]] {
        let workshop = Workshop::new();
        workshop.train(options);
        // A velocity rounds otherwise in a batch of another size, and a difference divides that by some 3e-4: numbers that
        // the error hardly depends on end elsewhere.
        for ranks in 2..=3 {
            workshop.within(0.1, "1.json", &format!("{ranks}.json"));
        }
        let solvers = ["--solver", "1.json", "--solver", "2.json", "--solver", "3.json"];
        workshop.succeed(1, &[&["eval", "--quiet", "--count", "100", "--json", "eval.json"], &solvers[..]].concat());
        let results = workshop.json("eval.json");
        let rmse = |i: usize| results["results"][i]["rmse"].as_f64().unwrap();
        for i in 1..3 {
            assert!((rmse(i) / rmse(0) - 1.0).abs() < 0.01, "{results}");
        }
    }
}

#[test]
fn adam_on_the_bound_comes_to_the_same_theta() {
    let options = ["--family", "rk1", "--steps", "4", "--loss", "rmse-bound", "--optimizer", "adam"];
    Workshop::new().compare(&[&options[..], &SIZE].concat());
}

#[test]
fn a_ladder_of_tables_comes_to_the_same_thetas() {
    // Published starts, some of which are not finite, and a theta that is trained first. By gradients: differences of
    // velocities make more of how one rounds than these numbers are compared by.
    let options = ["--family", "ns", "--nfe", "4,6", "--init", "published", "--init", "rk2", "--loss", "rmse"];
    let by_gradients = ["--optimizer", "gauss-newton"];
    Workshop::new().compare(&[&options[..], &by_gradients, &SIZE].concat());
}

#[test]
fn fresh_noises_a_budget_and_fewer_samples_than_ranks_come_to_the_same_theta() {
    let options = ["--family", "rk1", "--steps", "3", "--loss", "rmse-bound,rmse", "--optimizer", "adam", "--resolve"];
    let few = ["--batch", "2", "--validation", "1", "--iterations", "6", "--budget", "20000"];
    Workshop::new().compare(&[&options[..], &few].concat());
}

#[test]
fn only_the_first_rank_prints_and_writes() {
    let workshop = Workshop::new();
    let options = ["train", "--out", "t.json", "--log", "t.jsonl", "--pool-file", "pool.safetensors", "--json"];
    let output = workshop.succeed(2, &[&options[..], &SIZE].concat());
    assert_eq!(workshop.files(), ["pool.safetensors", "t.json", "t.json.checkpoint", "t.jsonl"]);
    let log = std::fs::read_to_string(workshop.path("t.jsonl")).unwrap();
    let iterations: Vec<u64> =
        log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["iteration"].as_u64().unwrap()).collect();
    assert_eq!(iterations, (0..=8).collect::<Vec<_>>());
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains("\"done\"")).count(), 1);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    // What it has written serves any number of ranks.
    let again = ["train", "--out", "u.json", "--pool-file", "pool.safetensors", "--quiet"];
    workshop.succeed(3, &[&again[..], &SIZE].concat());
    workshop.same("t.json", "u.json");
}

#[test]
fn a_dense_pool_on_disk_serves_any_number_of_ranks() {
    let workshop = Workshop::new();
    let options = ["train", "--loss", "rmse-bound", "--steps", "3", "--pool-file", "pool.safetensors", "--quiet"];
    for (ranks, out) in [(3, "written.json"), (1, "alone.json"), (2, "read.json")] {
        workshop.succeed(ranks, &[&options[..], &SIZE, &["--out", out]].concat());
    }
    workshop.same("written.json", "alone.json");
    workshop.same("written.json", "read.json");
}

/// A run that would take minutes, at every iteration of which a checkpoint is written.
const LONG: [&str; 10] =
    ["--pool", "570", "--batch", "400", "--validation", "20", "--iterations", "100000", "--validate-every", "1"];

fn begin(workshop: &Workshop, ranks: usize, arguments: &[&str]) -> (Child, Vec<i32>) {
    let child = workshop.ranks(ranks, &[&["train", "--quiet", "--out", "t.json"], arguments].concat()).spawn().unwrap();
    let ids = ranks_of(&child, ranks);
    let begun = Instant::now();
    while !workshop.path("t.json.checkpoint").exists() {
        assert!(begun.elapsed() < LONGEST);
        std::thread::sleep(Duration::from_millis(50));
    }
    (child, ids)
}

/// Whether it is there, and not but waited for.
fn is_running(id: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

fn signal(id: i32, signal: i32) {
    // SAFETY: to a process that this test started.
    assert_eq!(unsafe { libc::kill(id, signal) }, 0);
}

#[test]
fn a_rank_that_is_killed_ends_all_and_the_run_goes_on_to_the_same_theta() {
    let workshop = Workshop::new();
    let (child, ids) = begin(&workshop, 2, &LONG);
    std::thread::sleep(Duration::from_millis(500));
    signal(ids[1], libc::SIGKILL);
    let output = finish(child);
    assert!(!output.status.success());
    assert!(!workshop.path("t.json").exists());
    let begun = Instant::now();
    while ids.iter().any(|id| is_running(*id)) {
        assert!(begun.elapsed() < LONGEST);
        std::thread::sleep(Duration::from_millis(50));
    }

    // The same for a run that is short enough to be compared with a whole one.
    let options = ["train", "--quiet", "--family", "rk2", "--steps", "3", "--validate-every", "1"];
    workshop.succeed(2, &[&options[..], &SIZE, &["--out", "whole.json"]].concat());
    let arguments = [&options[..], &SIZE, &["--out", "killed.json", "--resume"]].concat();
    let child = workshop.ranks(2, &arguments).spawn().unwrap();
    let ids = ranks_of(&child, 2);
    while !workshop.path("killed.json.checkpoint").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(ids[0], libc::SIGKILL);
    finish(child);
    workshop.succeed(2, &arguments);
    workshop.same("whole.json", "killed.json");
}

#[test]
fn a_ground_truth_that_was_cut_short_is_gone_on_with_by_any_number_of_ranks() {
    let workshop = Workshop::new();
    let options = ["train", "--quiet", "--loss", "rmse-bound", "--steps", "3", "--iterations", "4", "--batch", "40"];
    let size = ["--pool", "3000", "--validation", "600", "--resume"];
    workshop.succeed(1, &[&options[..], &size, &["--out", "whole.json"]].concat());
    let arguments = [&options[..], &size, &["--out", "killed.json"]].concat();
    let child = workshop.ranks(2, &arguments).spawn().unwrap();
    let ids = ranks_of(&child, 2);
    let parts = workshop.path("killed.json.checkpoint.parts");
    let begun = Instant::now();
    while !parts.join("train-1.safetensors").exists() {
        assert!(begun.elapsed() < LONGEST);
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(ids[1], libc::SIGKILL);
    finish(child);
    assert!(parts.exists() && !parts.join("train-11.safetensors").exists(), "killed too late");
    workshop.succeed(3, &arguments);
    workshop.same("whole.json", "killed.json");
    assert!(!parts.exists());
}

#[test]
fn an_interrupt_of_any_rank_stops_all_with_the_best_theta() {
    for rank in 0..2 {
        let workshop = Workshop::new();
        let (child, ids) = begin(&workshop, 2, &LONG);
        signal(ids[rank], libc::SIGINT);
        let output = finish(child);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(workshop.json("t.json")["training"]["stopped"], true);
    }
}

#[test]
fn bad_usage_and_failures_end_all_ranks_with_one_message() {
    let workshop = Workshop::new();
    for (arguments, code, words) in [
        (&["--batch", "0"][..], 2, "error: batch is 0, expected 1 to"),
        (&["--pool", "5"], 2, "error: pool is 5"),
        (&["--log", "absent/run.jsonl"], 1, "error: cannot write absent/run.jsonl"),
        (&["--init", "absent.json", "--steps", "3"], 1, "error: cannot read absent.json"),
    ] {
        let output = finish(workshop.ranks(2, &[&["train", "--out", "t.json"], arguments].concat()).spawn().unwrap());
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert!(message.contains(words), "{message}");
        // The other rank has the same to say, and is ended before it does, but on a very busy machine.
        let first = message.lines().filter(|line| line.starts_with("error: ") && !line.contains("(rank "));
        assert_eq!(first.count(), 1, "{message}");
        assert!(!workshop.path("t.json").exists());
    }
}

#[test]
fn a_failure_of_one_rank_alone_is_said_by_it_and_ends_all() {
    let workshop = Workshop::new();
    // The second rank has another model card in its folder, and no such one as it is asked for.
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "--allow-run-as-root", "--bind-to", "none"]).current_dir(workshop.0.path());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = program();
    let good = card();
    for (rank, model) in [good.as_path(), Path::new("absent.json")].into_iter().enumerate() {
        command.args(if rank == 0 { &["-n", "1"][..] } else { &[":", "-n", "1"] });
        command.arg(program).args(["train", "--out", "t.json", "--model"]).arg(model).args(SIZE);
    }
    let output = finish(command.spawn().unwrap());
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("error: cannot read absent.json"), "{message}");
    assert!(message.contains("(rank 1 of 2)"), "{message}");
    assert!(!workshop.path("t.json").exists());
}

#[test]
fn evaluations_agree() {
    let workshop = Workshop::new();
    let features = serde_json::json!({ "format": "bespoke-features", "version": 1, "runtime": "pixels" });
    std::fs::write(workshop.path("pixels.json"), features.to_string()).unwrap();
    let solvers = ["--solver", "midpoint@6", "--solver", "dpm++2m@5", "--solver", "gt"];
    let judge = ["eval", "--count", "620", "--frechet", "--features", "pixels.json"];
    for ranks in 1..=3 {
        let files = ["--json".to_owned(), format!("{ranks}.json"), "--png".to_owned(), format!("{ranks}.png")];
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let output = workshop.succeed(ranks, &[&judge, &solvers[..], &files].concat());
        let table = String::from_utf8(output.stdout).unwrap();
        assert_eq!(table.matches("midpoint@6").count(), 1, "{table}");
    }
    let one = workshop.json("1.json");
    for ranks in 2..=3 {
        let several = workshop.json(&format!("{ranks}.json"));
        assert_eq!(several["count"], 620);
        assert_eq!(several["ground_truth"]["evaluations"], one["ground_truth"]["evaluations"]);
        let rows = |document: &Value| document["results"].as_array().unwrap().clone();
        assert_eq!(rows(&several).len(), 3);
        for (several, one) in rows(&several).iter().zip(rows(&one)) {
            for key in ["rmse", "psnr", "nfe", "passes"] {
                let (a, b) = (several[key].as_f64().unwrap(), one[key].as_f64().unwrap());
                assert!((a - b).abs() <= 1e-9 * b.abs(), "{key}: {a} and {b}");
            }
            for key in ["frechet", "precision", "recall"] {
                let of = |row: &Value| row["to_ground_truth"][key].as_f64().unwrap();
                assert!((of(several) - of(&one)).abs() <= 1e-6, "{key}: {several} and {one}");
            }
        }
        assert_eq!(
            std::fs::read(workshop.path("1.png")).unwrap(),
            std::fs::read(workshop.path(&format!("{ranks}.png"))).unwrap()
        );
    }
}
