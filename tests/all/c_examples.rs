//! The example programs in C, built with the system's compiler.

use crate::native::{Workshop, ring_card, succeed};
#[cfg(feature = "torch")]
use crate::tree::root;
use bespoke::theta::{Family, Knots, NsTable, Theta};
use std::process::Command;

/// (family, nfe, rmse) of a line of `sample_analytic`.
fn parse(line: &str) -> (&str, usize, f64) {
    let words: Vec<&str> = line.split_whitespace().collect();
    (words[0], words[2].parse().unwrap(), words[4].parse().unwrap())
}

#[test]
fn a_theta_trained_from_c_beats_midpoint_on_a_field_written_in_c() {
    let workshop = Workshop::new();
    let train = workshop.build("examples/c/train_digits.c", &[]);
    let sample = workshop.build("examples/c/sample_analytic.c", &[]);
    let [learned, midpoint, table] = ["learned.json", "midpoint.json", "table.json"].map(|name| workshop.path(name));
    let card = ring_card(workshop.path("").as_path());

    let mut command = Command::new(train);
    command.arg(card).arg(&learned).arg("20");
    let printed = succeed(command);
    assert!(printed.contains("iteration 20/20"), "{printed}");
    assert!(printed.contains("rk2 with 5 steps, 10 evaluations"), "{printed}");

    let identity = Theta::new(Family::Rk2(Knots::identity(10))).unwrap();
    identity.save(&midpoint).unwrap();
    // The same solver as a table: every evaluation of it builds on the ones before.
    Theta::new(Family::Ns(NsTable::compile(&identity.tableau()))).unwrap().save(&table).unwrap();
    let mut command = Command::new(sample);
    command.args([&learned, &midpoint, &table]);
    let printed = succeed(command);
    let lines: Vec<_> = printed.lines().map(parse).collect();
    let [(_, _, learned), (_, _, midpoint), (_, _, table)] = lines[..] else { panic!("{printed}") };
    assert_eq!([lines[0].0, lines[1].0, lines[2].0], ["rk2", "rk2", "ns"]);
    assert!(lines.iter().all(|line| line.1 == 10), "{printed}");
    assert!(learned < 0.7 * midpoint, "{printed}");
    assert!((table - midpoint).abs() <= 1e-4 * midpoint, "{printed}");
}

#[test]
fn a_host_applies_the_scalars_itself() {
    let workshop = Workshop::new();
    let mut command = Command::new(workshop.build("examples/c/fused_update.c", &[]));
    let bent = |intervals: usize| {
        let mut knots = Knots::identity(intervals);
        knots.s_dot.iter_mut().enumerate().for_each(|(i, s_dot)| *s_dot = 0.3 * (i as f64).cos());
        knots
    };
    let rk2 = Theta::new(Family::Rk2(bent(6))).unwrap();
    let table = Theta::new(Family::Ns(NsTable::compile(&rk2.tableau()))).unwrap();
    for (i, theta) in [rk2, table, Theta::new(Family::Rk1(bent(4))).unwrap()].iter().enumerate() {
        let path = workshop.path(&format!("{i}.json"));
        theta.save(&path).unwrap();
        command.arg(path);
    }
    assert_eq!(succeed(command).lines().count(), 3);
}

#[cfg(feature = "torch")]
#[test]
fn a_theta_is_trained_from_c_on_the_digits() {
    let workshop = Workshop::new();
    let train = workshop.build("examples/c/train_digits.c", &[]);
    let out = workshop.path("theta.json");
    let mut command = Command::new(train);
    command.arg(root().join("models/digits-fm-ot.json")).arg(&out).arg("2");
    let printed = succeed(command);
    assert!(printed.contains("iteration 2/2"), "{printed}");
    let theta = Theta::load(&out).unwrap();
    assert_eq!((theta.family_name(), theta.steps()), ("rk2", 5));
    assert!(theta.model.0.contains_key("fingerprint"));
}
