//! The letters of pictures, which have no reader's fonts.

use bespoke::{Error, Result};
use plotters::style::{FontStyle, register_font};
use std::sync::OnceLock;

/// What plotters is to call them.
pub const FAMILY: &str = "sans-serif";

/// Makes them known to plotters.
pub fn register() -> Result<()> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let font = include_bytes!("../../assets/DejaVuSans-subset.ttf");
    let good = REGISTERED.get_or_init(|| register_font(FAMILY, FontStyle::Normal, font).is_ok());
    if *good { Ok(()) } else { Err(Error::State("the font of the plots cannot be read".into())) }
}
