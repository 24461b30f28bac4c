//! `completions` and `man`: made from the same definitions as the help.

use std::path::PathBuf;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    filesystem::durable,
    report::json,
};
use serde_json::json;

use crate::{args::Arguments, context::Context};

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lifeboat completions bash > /etc/bash_completion.d/lifeboat")]
pub(crate) struct Completions {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lifeboat man --out /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Write a page for each command into this folder, instead of the first one to standard output
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

pub(crate) fn completions(arguments: &Completions, context: &Context<'_>) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "lifeboat", &mut text);
    say(context, &text);
    Ok(())
}

pub(crate) fn man(arguments: &Man, context: &Context<'_>) -> Result<()> {
    let mut command = Arguments::command();
    command.build();
    let Some(folder) = &arguments.out else {
        say(context, &page(command)?);
        return Ok(());
    };
    std::fs::create_dir_all(folder).map_err(|e| {
        Error::new(ErrorKind::Failed, format!("could not create {}", folder.display())).with_source(e)
    })?;
    let mut pages = vec![("lifeboat".to_owned(), command)];
    let mut written = 0_u64;
    while let Some((name, command)) = pages.pop() {
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        pages.extend(below.map(|below| (format!("{name}-{}", below.get_name()), below.clone())));
        durable::write_atomic(&folder.join(format!("{name}.1")), &page(command)?, 0o644)?;
        written += 1;
    }
    context.output.note(&format!("wrote {written} pages to {}", folder.display()));
    context.output.message(&json::message("summary", json!({ "text": null, "pages": written })));
    Ok(())
}

fn page(command: Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(command).render(&mut page);
    rendered.map_err(|e| Error::new(ErrorKind::Failed, "could not make a page").with_source(e))?;
    Ok(page)
}

fn say(context: &Context<'_>, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    context.output.say(text.trim_end());
    context.output.message(&json::message("summary", json!({ "text": text, "pages": 1 })));
}
