//! `bespoke completions`, `bespoke man`: made from the definitions of the command line.

use bespoke::{Error, Result};
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::PathBuf;

/// Print a completion script for a shell.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  bespoke completions bash > ~/.local/share/bash-completion/completions/bespoke")]
pub struct CompletionsArgs {
    /// Which shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Write a man page for the program and one for each command.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  bespoke man ~/.local/share/man/man1")]
pub struct ManArgs {
    /// An existing folder.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

pub fn completions(args: CompletionsArgs) -> Result<()> {
    let mut command = super::Cli::command();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "bespoke", &mut script);
    super::say::text(&script)
}

pub fn man(args: ManArgs) -> Result<()> {
    clap_mangen::generate_to(super::Cli::command(), &args.folder).map_err(|e| Error::io("write", &args.folder, e))
}
