//! `aula migrate`: the schemas of the servers, step by step.

mod distributed;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod embedded_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::exit::Advise;
use super::{Context, Exit, arguments};
use crate::config::{Config, Deployment};
use crate::server::migrate::{self as servers, Applied, Kind, Planned, State, Step, Target, label};
use crate::server::sqlite::FILE_NAME;
use crate::server::sqlite::migrate::{self, LockState, MigrateError, Progress};

/// Apply, list or preview the schema's migrations
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Without a subcommand: up.\n\n\
        Exit codes: 0 done, or up to date; 1 failed, or the schema doesn't fit this binary; 2 wrong arguments or \
        configuration; 3 (status and plan) something is pending."
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    up: UpArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Apply what is pending, under a lock: safe while others try the same; after a failure it goes on where it stopped
    Up(UpArgs),
    /// List every version and its state; exits 0 if all are applied, 3 if some are pending, 1 if the schema doesn't fit
    Status(TargetArgs),
    /// Print the exact statements that `up` would run; exits 3 if something is pending, 0 otherwise
    Plan(TargetArgs),
    /// Say who holds the migration lock; on a distributed deployment free it, if its holder is dead
    ///
    /// Exits 1 if it stays held. The lock of an embedded deployment can't be taken from a living process.
    Unlock(UnlockArgs),
}

#[derive(Debug, clap::Args)]
struct UpArgs {
    /// Wait this long for another process's migration to end
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = arguments::duration)]
    wait: Duration,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, Clone, Copy, clap::Args)]
struct TargetArgs {
    /// This server's schema alone
    #[arg(long, value_enum, value_name = "SERVER")]
    target: Option<Target>,
}

#[derive(Debug, Clone, Copy, clap::Args)]
struct UnlockArgs {
    /// Take it from a holder that still renews it, too
    #[arg(long)]
    force: bool,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let config = context.config()?;
        let command = self.command.unwrap_or(Command::Up(self.up));
        let is_distributed = config.deployment() == Deployment::Distributed;
        if let Some(target) = command.target()
            && is_distributed == (target == Target::Sqlite)
        {
            return Err(anyhow::anyhow!("{target} is not part of the deployment that is configured")).exit(Exit::Usage);
        }
        if is_distributed {
            return distributed::run(context, &config, command);
        }
        let database = database(&config);
        match command {
            Command::Up(args) => up(context, &database, args.wait),
            Command::Status(_) => print_status(context, &with_hint(migrate::status(&database))?),
            Command::Plan(_) => print_plan(context, &with_hint(migrate::plan(&database))?),
            Command::Unlock(_) => unlock(context, &database),
        }
    }
}

impl Command {
    fn target(&self) -> Option<Target> {
        match self {
            Self::Up(args) => args.target.target,
            Self::Status(args) | Self::Plan(args) => args.target,
            Self::Unlock(_) => None,
        }
    }
}

pub(super) fn database(config: &Config) -> PathBuf {
    config.data_dir.join(FILE_NAME)
}

fn up(context: &Context, database: &Path, wait: Duration) -> anyhow::Result<Exit> {
    let applied = migrate::up(database, wait, |step| match step {
        Progress::Waiting { holder: Some(holder) } => {
            context.output.note(format_args!("process {} is migrating since {}; waiting", holder.pid, holder.since));
        }
        Progress::Waiting { holder: None } => context.output.note("another process is migrating; waiting"),
        Progress::Applying { version, name } => context.output.note(format_args!("applying {version:04}_{name}")),
        Progress::Applied { .. } => {}
    });
    print_applied(context, &with_hint(applied)?)
}

fn print_applied(context: &Context, applied: &[Applied]) -> anyhow::Result<Exit> {
    if applied.is_empty() && !context.output.is_json() {
        context.output.text("up to date\n")?;
        return Ok(Exit::Done);
    }
    context.output.rows(applied, ["TARGET", "VERSION", "NAME", "TOOK"], |step: &Applied| {
        [step.target.to_string(), version(step.version), step.name.clone(), format!("{} ms", step.took_ms)]
    })?;
    Ok(Exit::Done)
}

fn version(version: Option<u32>) -> String {
    version.map(|version| format!("{version:04}")).unwrap_or_default()
}

fn print_status(context: &Context, steps: &[Step]) -> anyhow::Result<Exit> {
    context.output.rows(steps, ["TARGET", "VERSION", "NAME", "STATE", "APPLIED", "CHECKSUM"], |step: &Step| {
        let at = match step.state {
            State::Applied { at } => at.to_string(),
            _ => String::new(),
        };
        let checksum = step.checksum.get(..12).unwrap_or(&step.checksum).to_owned();
        let (target, version) = (step.target.to_string(), version(step.version));
        [target, version, step.name.clone(), step.state.word().to_owned(), at, checksum]
    })?;
    let mut exit = Exit::Done;
    for step in steps {
        match &step.state {
            State::Applied { .. } | State::InForce | State::Newer { kind: Kind::Expand } => {}
            State::Differs { differences, up_repairs } => {
                for difference in differences {
                    context.output.note(format_args!("{} {}: {difference}", step.target, step.name));
                }
                exit = worse(exit, if *up_repairs { Exit::Partly } else { Exit::Failed });
            }
            State::Pending | State::Absent => exit = worse(exit, Exit::Partly),
            State::Changed | State::Missing | State::Newer { kind: Kind::Contract } => exit = worse(exit, Exit::Failed),
        }
    }
    Ok(exit)
}

fn worse(so_far: Exit, exit: Exit) -> Exit {
    if so_far == Exit::Failed || exit == Exit::Done { so_far } else { exit }
}

fn print_plan(context: &Context, steps: &[Planned]) -> anyhow::Result<Exit> {
    if context.output.is_json() {
        context.output.json(steps)?;
    } else if steps.is_empty() {
        context.output.note("up to date");
    } else {
        context.output.text(&script(steps))?;
    }
    Ok(if steps.iter().any(|step| step.is_pending) { Exit::Partly } else { Exit::Done })
}

/// The steps as they run, each with its name above it, in the language of its server.
fn script(steps: &[Planned]) -> String {
    let part = |step: &Planned| {
        let name = label(step.version, &step.name);
        let lines = |end: &str| step.statements.iter().map(|text| format!("{text}{end}\n")).collect::<String>();
        match step.target {
            Target::Sqlite | Target::Cassandra => {
                let record = step.record.iter().map(|text| format!("{text};\n")).collect::<String>();
                format!("-- {} {name}\n{}{record}", step.target, lines(";"))
            }
            Target::Elasticsearch | Target::Rabbitmq => {
                let begin =
                    step.begin.iter().map(|text| format!("# first, in Cassandra: {text};\n")).collect::<String>();
                let record = step.record.iter().map(|text| format!("# then, in Cassandra: {text};\n"));
                format!("# {} {name}\n{begin}{}{}", step.target, lines(""), record.collect::<String>())
            }
        }
    };
    steps.iter().map(part).collect::<Vec<_>>().join("\n")
}

#[derive(Serialize)]
struct LockReport {
    held: bool,
    holder: Option<migrate::Holder>,
}

fn unlock(context: &Context, database: &Path) -> anyhow::Result<Exit> {
    let (report, text) = match with_hint(migrate::lock_state(database))? {
        LockState::Free => (
            LockReport { held: false, holder: None },
            "the lock is free: the operating system releases it when its holder ends, however that happens".to_owned(),
        ),
        LockState::Held(holder) => {
            let who = match holder {
                Some(holder) => format!("process {}, which is migrating since {}", holder.pid, holder.since),
                None => "a process that has only just taken it".to_owned(),
            };
            let text = format!(
                "the lock is held by {who}\nit can't be taken away: it is released when that process ends, however \
                 that happens"
            );
            (LockReport { held: true, holder }, text)
        }
    };
    let exit = if report.held { Exit::Failed } else { Exit::Done };
    context.output.value(&report, || text)?;
    Ok(exit)
}

pub(super) fn with_hint<T>(outcome: Result<T, MigrateError>) -> anyhow::Result<T> {
    match outcome {
        Err(error) => match error.hint() {
            Some(hint) => Err(error).hint(hint),
            None => Err(error.into()),
        },
        Ok(value) => Ok(value),
    }
}

/// [`with_hint`] for what failed because of a migration, among other things.
pub(super) fn with_hint_if_any<T>(outcome: anyhow::Result<T>) -> anyhow::Result<T> {
    match outcome {
        Ok(value) => Ok(value),
        Err(error) => match error.downcast::<MigrateError>() {
            Ok(error) => with_hint(Err(error)),
            Err(other) => match other.downcast::<servers::MigrateError>() {
                Ok(error) => distributed::with_hint(Err(error)),
                Err(other) => Err(other),
            },
        },
    }
}

/// As [`with_hint_if_any`], with another hint where there is no migration to blame.
pub(super) fn with_hint_or<T>(outcome: anyhow::Result<T>, otherwise: &str) -> anyhow::Result<T> {
    match outcome {
        Err(error) if error.is::<MigrateError>() || error.is::<servers::MigrateError>() => with_hint_if_any(Err(error)),
        other => other.hint(otherwise),
    }
}
