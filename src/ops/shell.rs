//! `aula completions` and `aula man`: what a package installs beside the binary.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory;

use super::{Cli, Context, Exit};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    shell: clap_complete::Shell,
}

impl CompletionsArgs {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "aula", &mut script);
        context.output.text(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}

/// Print the manual page
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Write a page for each command into this existing folder instead
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl ManArgs {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        if let Some(folder) = self.dir {
            clap_mangen::generate_to(Cli::command(), &folder)
                .with_context(|| format!("can't write manual pages into {}", folder.display()))?;
            return Ok(Exit::Done);
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        context.output.text(&String::from_utf8_lossy(&page))?;
        Ok(Exit::Done)
    }
}
