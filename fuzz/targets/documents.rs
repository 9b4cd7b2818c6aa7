//! Theta and ladder files, model cards, mixtures, training configs, and what `bespoke_theta_solver`
//! is given: refused with a message, or read to something that survives a round trip. The first byte
//! says which.
#![no_main]

use bespoke::card::{Card, Null, Sizes};
use bespoke::document;
use bespoke::inputs::{Column, Inputs};
use bespoke::ladder::Ladder;
use bespoke::model::ModelField;
use bespoke::networks::{Call, CallerNetwork};
use bespoke::networks::{Mixture, MixtureDocument};
use bespoke::path::GaussianPath;
use bespoke::sampler::Plan;
use bespoke::solvers::{NamedSolver, SolverName};
use bespoke::tensor::{Host, PerRow, Register};
use bespoke::theta::Theta;
use bespoke::train::TrainConfig;
use bespoke::velocity::{Condition, Scale, VelocityField};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|input: &[u8]| {
    let Some((kind, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let outcome = match kind % 6 {
        0 => theta(text),
        1 => card(text),
        2 => mixture(text),
        3 => config(text),
        4 => ladder(text),
        _ => solver(text),
    };
    if let Err(error) = outcome {
        assert!(!error.to_string().is_empty());
    }
});

fn theta(text: &str) -> bespoke::Result<()> {
    let theta = Theta::parse(text, "input")?;
    assert_eq!(Theta::parse(&theta.to_json()?, "round trip")?, theta);
    // A table of the largest size takes a while and says nothing more.
    if theta.nfe() <= 64 {
        let plan = Plan::new(theta.tableau());
        assert_eq!(plan.nfe(), theta.nfe());
        assert!(plan.steps() == theta.steps() && plan.self_contained(0));
    }
    Ok(())
}

fn ladder(text: &str) -> bespoke::Result<()> {
    let ladder = Ladder::parse(text, "input")?;
    assert!(ladder.rungs().windows(2).all(|pair| pair[0].nfe() < pair[1].nfe()));
    let most = ladder.rungs().last().map_or(0, Theta::nfe);
    assert_eq!(ladder.best(most)?.nfe(), most);
    Ok(())
}

/// `NAME`, its grid or nothing, nfe and scheduler, each on a line of its own.
fn solver(text: &str) -> bespoke::Result<()> {
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (name, grid, nfe) = (SolverName::find(line())?, line(), line().parse().unwrap_or(8usize));
    let grid = (!grid.is_empty()).then(|| grid.parse()).transpose()?;
    // A large table takes a while and says nothing more.
    let solver = NamedSolver { solver: name, nfe: nfe % 32, grid };
    let theta = solver.theta(&line().parse::<GaussianPath>()?)?;
    assert_eq!(theta.nfe(), solver.nfe);
    Ok(())
}

fn card(text: &str) -> bespoke::Result<()> {
    let card = Card::parse(text, Path::new("folder/card.json"))?;
    let again = serde_json::to_string(&card).unwrap_or_default();
    assert_eq!(Card::parse(&again, Path::new("folder/card.json"))?, card);
    evaluated(card)
}

/// Numbers of a sample, or of a row of an input, that the target makes at most.
const LARGEST: usize = 1 << 12;

/// Two samples go through a network that takes what the card says: each named size is 2, each number 1.
fn evaluated(card: Card) -> bespoke::Result<()> {
    // Files that a card names are not there, or not to be read.
    if card.inputs.iter().any(|input| matches!(input.null, Null::File(_))) {
        return Ok(());
    }
    let sizes: Sizes = card
        .inputs
        .iter()
        .flat_map(|input| input.shape.names())
        .chain(card.shape.names())
        .map(|name| (name.to_owned(), 2))
        .collect();
    let elements: usize = card.shape.resolve(&sizes)?.iter().product();
    let mut columns = Vec::new();
    for input in card.signature().given() {
        let shape = input.shape.resolve(&sizes)?;
        let numbers: usize = shape.iter().product();
        if numbers > LARGEST {
            return Ok(());
        }
        let bytes = input.dtype.encode(1.0)?.repeat(2 * numbers);
        columns.push(Column::new(&input.name, input.dtype, &shape, 2, &bytes)?);
    }
    if elements > LARGEST {
        return Ok(());
    }
    let asked = card.signature().inputs().len();
    let network = CallerNetwork::new(Box::new(move |times, call: &Call<'_, Host<f32>>, output: &mut Host<f32>| {
        assert_eq!(call.inputs.columns().len(), asked);
        assert!(call.inputs.columns().iter().all(|column| column.batch() == times.len()));
        output.data_mut().copy_from_slice(call.x.data());
        Ok(())
    }));
    let field = ModelField::new(card, Box::new(network))?;
    let scales = field.scales().into_iter().map(|name| Scale { name, values: vec![2.0, 1.0] }).collect();
    let condition = Condition { inputs: Inputs::new(columns)?, scales };
    let x = Host::new(vec![1.0; 2 * elements], elements)?;
    let u = field.eval(PerRow::All(0.5), &x, &condition)?;
    assert_eq!((u.batch(), u.elements()), (2, elements));
    Ok(())
}

fn mixture(text: &str) -> bespoke::Result<()> {
    let mixture = Mixture::new(document::parse::<MixtureDocument>(text, "input")?)?;
    assert!(mixture.elements() > 0);
    Ok(())
}

fn config(text: &str) -> bespoke::Result<()> {
    let config: TrainConfig = document::parse(text, "input")?;
    config.settings(2.0, None)?;
    if let Some(field) = &config.field {
        field.validate()?;
    }
    Ok(())
}
