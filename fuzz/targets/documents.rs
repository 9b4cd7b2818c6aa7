//! Theta files, model cards, mixtures and training configs: refused with a message, or read to
//! something that survives a round trip. The first byte says which.
#![no_main]

use bespoke::document;
use bespoke::fields::{Mixture, MixtureDocument};
use bespoke::model::Card;
use bespoke::sampler::Plan;
use bespoke::theta::Theta;
use bespoke::train::TrainConfig;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|input: &[u8]| {
    let Some((kind, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let outcome = match kind % 4 {
        0 => theta(text),
        1 => card(text),
        2 => mixture(text),
        _ => config(text),
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
        assert!(plan.tableau().steps() == theta.steps() && plan.self_contained(0));
    }
    Ok(())
}

fn card(text: &str) -> bespoke::Result<()> {
    let card = Card::parse(text, Path::new("folder/card.json"))?;
    let again = serde_json::to_string(&card).unwrap_or_default();
    assert_eq!(Card::parse(&again, Path::new("folder/card.json"))?, card);
    assert!(card.elements() > 0);
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
