//! `bespoke completions`, `bespoke man`: made from the definitions of the command line.

use bespoke::{Error, Result, output};
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::{Path, PathBuf};

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
    let mut command = super::Cli::command().disable_help_subcommand(true);
    command.build();
    pages(&command, &args.folder)
}

/// The page of `command`, and those of the commands below it.
fn pages(command: &clap::Command, folder: &Path) -> Result<()> {
    let page = clap_mangen::Man::new(command.clone());
    let path = folder.join(page.get_filename());
    let mut text = Vec::new();
    page.render(&mut text).map_err(|e| Error::io("write", &path, e))?;
    output::write_bytes(&path, &text)?;
    command.get_subcommands().filter(|below| !below.is_hide_set()).try_for_each(|below| pages(below, folder))
}
