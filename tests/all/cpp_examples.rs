//! The example programs in C++, built with the system's compiler.

use crate::native::{Workshop, ring_card, succeed};
use bespoke::ranks::Ranks;
use bespoke::theta::{Family, Knots, NsTable, Theta};
use bespoke::train::{Loss, Progress, TrainConfig, train_config};
use std::ops::ControlFlow;
use std::process::Command;

fn number_after(line: &str, word: &str) -> f64 {
    let mut words = line.split_whitespace().skip_while(|w| *w != word).skip(1);
    words.next().unwrap().parse().unwrap()
}

#[test]
fn a_theta_in_place_of_an_euler_loop_is_closer_at_the_same_nfe() {
    let workshop = Workshop::new();
    let program = workshop.build("examples/cpp/replace_euler.cpp", &[]);
    let config = TrainConfig {
        model: Some(ring_card(&workshop.path("")).into()),
        steps: vec![4],
        loss: vec![Loss::LogMse.into()],
        iterations: vec![15],
        ..TrainConfig::default()
    };
    let theta = train_config(&config, &Ranks::alone(), &mut |_: &Progress| ControlFlow::Continue(()))
        .unwrap()
        .rungs
        .remove(0)
        .theta;
    let path = workshop.path("theta.json");
    theta.save(&path).unwrap();
    let mut command = Command::new(program);
    command.arg(path);
    let printed = succeed(command);
    let [before, after]: [&str; 2] = printed.lines().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!([number_after(before, "nfe"), number_after(after, "nfe")], [8.0, 8.0]);
    assert!(number_after(after, "rmse") < 0.5 * number_after(before, "rmse"), "{printed}");
}

#[test]
fn requests_of_different_nfe_share_a_batch() {
    let workshop = Workshop::new();
    let program = workshop.build("examples/cpp/continuous_batching.cpp", &[]);
    let rk2 = |steps: usize| Theta::new(Family::Rk2(Knots::identity(2 * steps))).unwrap();
    let table = Theta::new(Family::Ns(NsTable::compile(&rk2(3).tableau()))).unwrap();
    let thetas = [rk2(5), rk2(2), table, Theta::new(Family::Rk1(Knots::identity(3))).unwrap()];
    let mut command = Command::new(program);
    for (i, theta) in thetas.iter().enumerate() {
        let path = workshop.path(&format!("theta-{i}.json"));
        theta.save(&path).unwrap();
        command.arg(path);
    }
    let printed = succeed(command);
    let nfes: Vec<f64> = printed.lines().filter(|l| l.starts_with("request")).map(|l| number_after(l, "nfe")).collect();
    assert_eq!(nfes.len(), 4, "{printed}");
    // The first request takes 10 evaluations; the others are served within them.
    assert!(printed.contains("10 evaluations of the model instead of 23"), "{printed}");
}
