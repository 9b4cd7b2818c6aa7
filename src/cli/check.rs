//! `bespoke check`

use super::say::say;
use super::{ServedArgs, arrays, device_name};
use bespoke::card::Card;
use bespoke::check::{Evidence, Judged, LEVELS, Report, Source, Verdict, check};
use bespoke::samples::{Conditions, chunk};
use bespoke::tensor::Compute;
use bespoke::{Error, Result, networks};
use std::path::{Path, PathBuf};

/// Find out whether a card reads its network rightly.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  bespoke check models/digits-fm-ot.json --data digits.npy\n\n\
    Runs the network at both ends of the solve: the signature must agree and the output be finite. With data it is\n\
    read in every way (output, direction, scale, scheduler) at several levels of noise; the right reading has the\n\
    least denoising error. The exit code is 1 where the card's is not the best by a clear margin.")]
pub struct CheckArgs {
    /// Model card (JSON).
    #[arg(value_name = "CARD")]
    card: PathBuf,
    /// Data that the network was trained on: an .npy array [count, shape...] of f32 or f64 in the card's
    /// data_range, or of bytes, whose 0 to 255 are then that range.
    #[arg(long, value_name = "DATA.npy")]
    data: Option<PathBuf>,
    /// What the data is conditioned on (safetensors, [C, ...] for each input, `class` among them): sample i has row
    /// i mod C. Without it inputs get their null. May be given several times.
    #[arg(long, value_name = "FILE")]
    conditions: Vec<PathBuf>,
    /// What a network is given that takes the guidance scale as an input.
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    guidance_scale: f64,
    /// Samples of the data that are used, spread over the file.
    #[arg(long, value_name = "C", default_value_t = 256)]
    count: usize,
    /// Show every reading, not only the best.
    #[arg(long)]
    all: bool,
    /// cpu, cuda, cuda:INDEX, and for ONNX tensorrt or tensorrt:INDEX.
    #[arg(long, default_value = "cpu", value_name = "D", value_parser = device_name)]
    device: String,
    #[command(flatten)]
    served: ServedArgs,
}

/// Readings that are shown.
const SHOWN: usize = 8;

pub fn run(args: CheckArgs) -> Result<()> {
    if args.count == 0 {
        return Err(Error::invalid("count", 0, "at least 1"));
    }
    let mut card = Card::load(&args.card)?;
    let device = args.device.parse()?;
    let network = match args.served.place()? {
        Some(served) => networks::open_served(&card, &served, device, Compute::F32)?,
        None => networks::open(&card, device, Compute::F32)?,
    };
    let conditions = match args.conditions.as_slice() {
        [] => None,
        files => Some(Conditions::read(files, &card)?),
    };
    if let Some(conditions) = &conditions {
        if conditions.groups() > 1 {
            return Err(Error::invalid("conditions", "of several sizes", "of one size: those of the data"));
        }
        card = card.with_sizes(conditions.sizes(0));
    }
    let data = args.data.as_ref().map(|path| Spread::read(path, &mut card, args.count)).transpose()?;
    if data.is_none() && card.sample_shape().is_err() {
        let expected = "numbers: --data, or --conditions whose inputs or metadata say its sizes";
        return Err(Error::invalid("shape", &card.shape, expected));
    }
    let evidence = Evidence {
        data: data.as_ref().map(|data| data.values.as_slice()),
        places: data.as_ref().map_or(&[], |data| &data.places),
        conditions: conditions.as_ref(),
        guidance_scale: args.guidance_scale,
    };
    let report = check(&card, &network, &evidence)?;
    say_all(&card, &report, args.all)?;
    judge(&card, &report)
}

/// Samples from all of a file, and which of its samples they are.
struct Spread {
    values: Vec<f32>,
    places: Vec<usize>,
}

impl Spread {
    /// At most `count` samples of the file at `path`, evenly apart: files are often sorted. The card learns named
    /// sizes of theirs.
    fn read(path: &Path, card: &mut Card, count: usize) -> Result<Self> {
        let (samples, sizes) = arrays::samples(path, card)?;
        *card = card.with_sizes(&sizes);
        let elements: usize = card.sample_shape()?.iter().product();
        let every = samples.count().div_ceil(count).max(1);
        let mut spread = Spread { values: Vec::new(), places: Vec::new() };
        let mut at = 0;
        samples.for_each(card.data_range, chunk(elements), |part| {
            for sample in part.chunks(elements) {
                if at % every == 0 {
                    spread.values.extend_from_slice(sample);
                    spread.places.push(at);
                }
                at += 1;
            }
            Ok(())
        })?;
        Ok(spread)
    }
}

fn say_all(card: &Card, report: &Report, all: bool) -> Result<()> {
    say!("signature agrees: x {:?}, {}", card.sample_shape()?, said_inputs(report))?;
    let [noise, data] = report.ends;
    say!("output is finite at both ends: noise (the network's time {noise}) and data ({data})")?;
    if report.readings.is_empty() {
        return say!("without --data nothing says which reading of the output is right");
    }
    say!("")?;
    say!("denoising error by sigma / alpha, as a share of that of guessing the mean; * is the card's")?;
    let levels: Vec<String> = LEVELS.iter().map(|level| format!("{level:>8}")).collect();
    let shown = |i: usize, reading: &Judged| all || i < SHOWN || reading.own;
    let rows = || report.readings.iter().enumerate().filter(|(i, reading)| shown(*i, reading));
    let names: Vec<String> = rows().map(|(_, reading)| reading.to_string()).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    say!("  {:width$} {}  {:>8}", "reading", levels.join(" "), "mean")?;
    for ((_, reading), name) in rows().zip(&names) {
        let errors: Vec<String> = reading.errors.iter().map(|error| format!("{:>8}", short(*error))).collect();
        let mark = if reading.own { '*' } else { ' ' };
        say!("{mark} {name:width$} {}  {:>8}", errors.join(" "), short(reading.score))?;
    }
    say!("")
}

/// A number in eight places.
fn short(number: f64) -> String {
    if number < 1000.0 { format!("{number:.4}") } else { format!("{number:.1e}") }
}

fn said_inputs(report: &Report) -> String {
    let said = |(name, source): &(String, Source)| match source {
        Source::Conditions => format!("{name} of the conditions"),
        Source::Null => format!("{name} its null"),
        Source::ClassesInTurn => format!("{name} in turn, as --conditions do not say the data's own"),
        Source::GuidanceScale => format!("{name} the guidance scale"),
    };
    match report.inputs.as_slice() {
        [] => "no inputs".to_owned(),
        inputs => inputs.iter().map(said).collect::<Vec<_>>().join(", "),
    }
}

/// The sentence, which is an error where the card's reading is not the best.
fn judge(card: &Card, report: &Report) -> Result<()> {
    let (Some(verdict), Some(best)) = (report.verdict, report.readings.first()) else { return Ok(()) };
    let own = report.readings.iter().find(|reading| reading.own).unwrap_or(best);
    let wrong = |field: String, problem: String| Err(Error::format(card.path().display().to_string(), field, problem));
    match verdict {
        Verdict::Right(margin) if margin.is_finite() => {
            say!(
                "this network looks like {own}, as the card says; the next reading's error is {margin:.2} times as large"
            )
        }
        Verdict::Right(_) => say!("this network looks like {own}, as the card says"),
        Verdict::Unclear(rival) => {
            let rival = &report.readings[rival];
            let problem = format!("this network may be {own}, as the card says, or {rival}: more data may tell");
            wrong(rival.differs_in(own).join(", "), problem)
        }
        Verdict::Wrong => {
            wrong(best.differs_in(own).join(", "), format!("this network looks like {best}; the card says {own}"))
        }
        Verdict::Alike(rival) => {
            let rival = &report.readings[rival];
            let problem = format!(
                "no reading explains this network on this data so well that it stands out (the best are {best}, and \
                {rival}; the card says {own}): are data, data_range and conditions those it was trained on?"
            );
            wrong("output".to_owned(), problem)
        }
        Verdict::Unexplained => {
            let problem = format!(
                "no reading explains this network on this data (the best, {best}, is no better \
                than guessing the mean): are data, data_range and conditions those it was trained on?"
            );
            wrong("output".to_owned(), problem)
        }
    }
}
