//! `fisao man`: a manual page for every command.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Command};
use clap_mangen::Man;
use fisao_formats::FormatError;
use fisao_formats::documents::{check_output_folder, write_bytes};
use fisao_runs::Reporter;

#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// Folder for the pages, such as ~/.local/share/man/man1
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes the pages of a whole command line.
pub(crate) fn run(
    arguments: &ManArguments,
    mut root: Command,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let folder = &arguments.folder;
    check_output_folder(folder)?;
    let created = fs::create_dir_all(folder);
    created.map_err(|source| FormatError::Io { action: "create", path: folder.clone(), source })?;
    root.build();
    let mut pages = Vec::new();
    render(&root, &mut pages).context("a manual page cannot be written")?;
    for (name, page) in &pages {
        write_bytes(&folder.join(name), page)?;
    }
    reporter.note(format!("{} pages are in {}", pages.len(), folder.display()));
    Ok(())
}

/// The pages of a command and of those below it, by the names of their files.
fn render(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    let page = Man::new(command.clone());
    let mut text = Vec::new();
    page.render(&mut text)?;
    pages.push((page.get_filename(), text));
    // clap adds a `help` below every command that has others below it.
    let below = command.get_subcommands().filter(|below| below.get_name() != "help");
    below.filter(|below| !below.is_hide_set()).try_for_each(|below| render(below, pages))
}
