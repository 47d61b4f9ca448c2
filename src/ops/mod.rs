//! The operator's commands: a file each, with its `Args` and its `run`.
//!
//! `run` takes the [`Context`], writes results through [`output`], and returns how the process should [`exit`]. A new
//! command is a module, a variant of [`Command`] and a line in [`Command::run`].

mod accounts;
pub mod arguments;
pub mod config;
mod confirm;
pub mod dead_letters;
pub mod doctor;
pub mod exit;
pub mod logging;
pub mod migrate;
pub mod moving;
pub mod output;
mod patience;
mod progress;
mod purge_channel;
pub mod queue_stats;
pub mod reindex;
mod runtime;
pub mod serve;
pub mod shell;
mod signals;
pub mod simulate;
mod terminal;
pub mod token;
pub mod trace;
pub mod user;
pub mod verify;
pub mod verify_history;
pub mod worker;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::{Config, LogFormat, Overrides, environment};
use exit::Advise;
pub use exit::{Exit, finish};
use output::{Format, Output};

/// A real-time chat server, its workers, migrations and operator's toolkit
#[derive(Debug, Parser)]
#[command(name = "aula", version, propagate_version = true, arg_required_else_help = true, after_help = exit::EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// The options of every command.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Globals {
    /// Read this file [default: $AULA_CONFIG, or ./aula.yaml if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep everything in this folder, whatever `data_dir` says elsewhere
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Print results and errors only
    #[arg(long, global = true)]
    quiet: bool,
    /// How log lines on stderr are written, whatever `log.format` says elsewhere
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Worker(worker::Args),
    Migrate(migrate::Args),
    QueueStats(queue_stats::Args),
    Reindex(reindex::Args),
    DeadLetters(dead_letters::Args),
    Verify(verify::Args),
    Trace(trace::Args),
    Doctor(doctor::Args),
    PurgeChannel(purge_channel::Args),
    Export(moving::export::Args),
    Import(moving::import::Args),
    Backup(moving::backup::Args),
    Restore(moving::restore::Args),
    VerifyHistory(verify_history::Args),
    User(user::Args),
    Token(token::Args),
    Config(config::Args),
    SimulateClients(Box<simulate::Args>),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
}

impl Command {
    fn run(self, context: &Context) -> anyhow::Result<Exit> {
        match self {
            Self::Serve(args) => args.run(context),
            Self::Worker(args) => args.run(context),
            Self::QueueStats(args) => args.run(context),
            Self::Reindex(args) => args.run(context),
            Self::DeadLetters(args) => args.run(context),
            Self::Verify(args) => args.run(context),
            Self::Trace(args) => args.run(context),
            Self::Doctor(args) => args.run(context),
            Self::PurgeChannel(args) => args.run(context),
            Self::Export(args) => args.run(context),
            Self::Import(args) => args.run(context),
            Self::Backup(args) => args.run(context),
            Self::Restore(args) => args.run(context),
            Self::VerifyHistory(args) => args.run(context),
            Self::Migrate(args) => args.run(context),
            Self::User(args) => args.run(context),
            Self::Token(args) => args.run(context),
            Self::Config(args) => context.run_config(&args),
            Self::SimulateClients(args) => args.run(context),
            Self::Completions(args) => args.run(context),
            Self::Man(args) => args.run(context),
        }
    }
}

impl Cli {
    pub fn run(self) -> anyhow::Result<Exit> {
        self.command.run(&Context::new(self.globals))
    }
}

/// What the global options say.
pub struct Context {
    /// `--config`
    pub config_file: Option<PathBuf>,
    /// The flags that stand above the configuration file and the environment.
    pub overrides: Overrides,
    pub output: Output,
}

impl Context {
    fn new(globals: Globals) -> Self {
        let Globals { config, data_dir, output, quiet, log_format } = globals;
        Self {
            config_file: config,
            overrides: Overrides { data_dir, log_format, ..Overrides::default() },
            output: Output::new(output, quiet),
        }
    }

    /// The configuration in force, for a command; logging has been started with it.
    ///
    /// Errors: what is wrong with it, with [`Exit::Usage`].
    pub fn config(&self) -> anyhow::Result<Config> {
        let config = self.load(&self.overrides)?;
        logging::start(&config.log, logging::Reader::Command);
        Ok(config)
    }

    /// As [`Context::config`], for a process that stays; `flags` adds the command's own flags.
    pub fn service_config(&self, flags: impl FnOnce(&mut Overrides)) -> anyhow::Result<Config> {
        let mut overrides = self.overrides.clone();
        flags(&mut overrides);
        let config = self.load(&overrides)?;
        logging::start(&config.log, logging::Reader::Service);
        Ok(config)
    }

    fn load(&self, overrides: &Overrides) -> anyhow::Result<Config> {
        Config::load(self.config_file.as_deref(), environment(), overrides).exit(Exit::Usage)
    }

    fn run_config(&self, args: &config::Args) -> anyhow::Result<Exit> {
        let input = config::Input {
            file: self.config_file.as_deref(),
            environment: environment().collect(),
            flags: &self.overrides,
            json: self.output.is_json(),
            quiet: self.output.is_quiet(),
        };
        let code = self.output.with_streams(|out, err| config::run(args, input, out, err))?;
        Ok(if code == 0 { Exit::Done } else { Exit::Usage })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use clap::CommandFactory;

    use super::output::tests::Captured;

    use super::*;

    /// Runs `aula --data-dir DATA_DIR WORDS…` in this process: the exit code and what is on stdout.
    pub(crate) fn aula(data_dir: &Path, words: &[&str]) -> anyhow::Result<(Exit, String)> {
        let cli = Cli::try_parse_from(["aula", "--quiet"].iter().chain(words))?;
        let out = Captured::default();
        let mut context = Context::new(cli.globals);
        context.overrides.data_dir = Some(data_dir.to_owned());
        context.output = context.output.captured(&out);
        Ok((cli.command.run(&context)?, out.text()))
    }

    #[test]
    fn completions_and_manual_name_the_commands() {
        for words in [["completions", "zsh"].as_slice(), &["man"]] {
            let (exit, text) = aula(Path::new("unused"), words).unwrap();
            assert_eq!(exit, Exit::Done);
            assert!(text.contains("migrate"), "{text}");
        }
    }

    #[test]
    fn verify_cli() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_on_either_side_of_the_command() {
        for words in
            [["aula", "--output", "json", "migrate", "status"], ["aula", "migrate", "status", "--output", "json"]]
        {
            let cli = Cli::try_parse_from(words).unwrap();
            assert_eq!(cli.globals.output, Format::Json, "{words:?}");
        }
    }

    #[test]
    fn every_command_and_argument_is_explained() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no description", command.get_name());
            for argument in command.get_arguments() {
                let explained = argument.get_help().is_some() || argument.is_positional();
                assert!(explained, "{} {} has no help", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
