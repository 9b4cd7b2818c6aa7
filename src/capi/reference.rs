//! What users write for a solver, taken apart for a host that keeps its own solvers under names of its own.

use super::guard::{guard, text};
use super::status::bespoke_status;
use super::structs::{self, sized_struct};
use crate::error::{Error, Result};
use crate::reference::Reference;
use std::ffi::c_char;

/// A published solver.
pub const BESPOKE_REFERENCE_PUBLISHED: u32 = 0;
/// One of the names that the caller gave.
pub const BESPOKE_REFERENCE_FILE: u32 = 1;
/// The adaptive ground truth, `gt`.
pub const BESPOKE_REFERENCE_GROUND_TRUTH: u32 = 2;

/// What `bespoke_reference_parse` finds.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_reference {
    /// sizeof(bespoke_reference), set by the caller.
    pub struct_size: u32,
    /// BESPOKE_REFERENCE_PUBLISHED, BESPOKE_REFERENCE_FILE or BESPOKE_REFERENCE_GROUND_TRUTH.
    pub kind: u32,
    /// Of a file, its index among the caller's names; else 0.
    pub file: u32,
    /// Evaluations of a published solver; of a file the most that are wanted, as `bespoke_ladder_theta`
    /// takes them. 0 where the text says none.
    pub nfe: u32,
    /// Of a published solver the length of its name, with which the text begins; else 0.
    pub name_length: u32,
    /// Where in the text the grid of a published solver begins; 0 for the solver's own grid.
    pub grid_begin: u32,
}

sized_struct!(bespoke_reference { kind, file, nfe, name_length, grid_begin });

/// Reads a solver as users write it, the same everywhere: `NAME@NFE` and `NAME@NFE:GRID` of a published
/// solver, `FILE` and `FILE@NFE` (at most so many evaluations) of a theta or ladder, `gt`. The files are the
/// `count` names in `files`; they go before published solvers of the same name. The NFE of a published solver
/// may be left out, for a host that is told it elsewhere. `reference->struct_size` must be set.
///
/// # Safety
/// `text` is NULL or NUL-terminated. `reference` is NULL or begins with its size, and that many bytes of it can be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_reference_parse(
    text: *const c_char,
    files: *const *const c_char,
    count: u32,
    reference: *mut bespoke_reference,
) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let names = names(files, count)?;
        structs::write("reference", reference, &parse(self::text("text", text)?, &names)?)
    })
}

/// # Safety
/// `files` points to `count` texts, or is NULL where there are none.
unsafe fn names<'a>(files: *const *const c_char, count: u32) -> Result<Vec<&'a str>> {
    if count > 0 && files.is_null() {
        return Err(Error::invalid("files", "NULL", format!("{count} names")));
    }
    // SAFETY: by this function's contract.
    (0..count as usize).map(|i| unsafe { text(&format!("files[{i}]"), *files.add(i)) }).collect()
}

fn parse(text: &str, files: &[&str]) -> Result<bespoke_reference> {
    let mut found = bespoke_reference {
        struct_size: 0,
        kind: BESPOKE_REFERENCE_GROUND_TRUTH,
        file: 0,
        nfe: 0,
        name_length: 0,
        grid_begin: 0,
    };
    let count = |nfe: Option<usize>| match nfe.map(u32::try_from) {
        None => Ok(0),
        Some(Ok(nfe)) if nfe > 0 => Ok(nfe),
        Some(_) => Err(Error::invalid("nfe", nfe.unwrap_or_default(), format!("1 to {}", u32::MAX))),
    };
    match Reference::parse(text, |name| files.contains(&name))? {
        Reference::GroundTruth => {}
        Reference::File { name, nfe_at_most } => {
            found.kind = BESPOKE_REFERENCE_FILE;
            // There are at most as many names as a `u32` counts.
            found.file = files.iter().position(|file| *file == name).unwrap_or_default() as u32;
            found.nfe = count(nfe_at_most)?;
        }
        Reference::Published { name, nfe, grid } => {
            found.kind = BESPOKE_REFERENCE_PUBLISHED;
            found.nfe = count(nfe)?;
            found.name_length = offset(name.len())?;
            // A grid is what stands last.
            found.grid_begin = offset(grid.map_or(0, |grid| text.len() - grid.len()))?;
        }
    }
    Ok(found)
}

fn offset(bytes: usize) -> Result<u32> {
    bytes.try_into().map_err(|_| Error::invalid("text", format!("{bytes} bytes"), "a solver's name"))
}
