//! `aula migrate` where the schemas are those of servers.

use std::time::Duration;

use serde::Serialize;

use super::super::exit::Advise as _;
use super::super::{Context, Exit};
use super::{Command, print_applied, print_plan, print_status};
use crate::config::Config;
use crate::server::migrate::{Holder, MigrateError, Migrator, Progress, TARGETS, Unlocked, label};

pub(super) fn run(context: &Context, config: &Config, command: Command) -> anyhow::Result<Exit> {
    // Two threads: the lock is renewed whatever the command is busy with.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let targets = match (command.target(), &command) {
            (Some(target), _) => vec![target],
            // The lock is Cassandra's: the others may be down.
            (None, Command::Unlock(_)) => Vec::new(),
            (None, _) => TARGETS.to_vec(),
        };
        let migrator = with_hint(Migrator::connect(config, &targets).await)?;
        match command {
            Command::Up(args) => up(context, &migrator, args.wait).await,
            Command::Status(_) => print_status(context, &with_hint(migrator.status().await)?),
            Command::Plan(_) => print_plan(context, &with_hint(migrator.plan().await)?),
            Command::Unlock(args) => unlock(context, &migrator, args.force).await,
        }
    })
}

async fn up(context: &Context, migrator: &Migrator, wait: Duration) -> anyhow::Result<Exit> {
    // Told by the task that prints, because the output belongs to one thread.
    let (tell, mut told) = tokio::sync::mpsc::channel::<Progress>(64);
    let applied = {
        let tell = &mut move |progress| {
            // Remarks that come faster than they can be printed are left out.
            if tell.try_send(progress).is_err() {
                tracing::debug!("a remark was left out");
            }
        };
        let mut work = std::pin::pin!(migrator.up(wait, tell));
        loop {
            tokio::select! {
                biased;
                Some(progress) = told.recv() => note(context, &progress),
                applied = &mut work => break applied,
            }
        }
    };
    while let Some(progress) = told.recv().await {
        note(context, &progress);
    }
    print_applied(context, &with_hint(applied)?)
}

fn note(context: &Context, progress: &Progress) {
    match progress {
        Progress::Waiting { holder: Some(holder) } => {
            context.output.note(format_args!("{holder} is migrating; waiting"));
        }
        Progress::Waiting { holder: None } => context.output.note("another process is migrating; waiting"),
        Progress::Applying { target, version, name } => {
            context.output.note(format_args!("applying {target} {}", label(*version, name)));
        }
        Progress::Note { target, text } => context.output.note(format_args!("{target}: {text}")),
        Progress::Applied(_) => {}
    }
}

#[derive(Serialize)]
struct LockReport {
    /// Whether somebody holds it now.
    held: bool,
    /// Whether it was taken away from the holder.
    removed: bool,
    holder: Option<Holder>,
}

async fn unlock(context: &Context, migrator: &Migrator, force: bool) -> anyhow::Result<Exit> {
    let (held, removed, holder) = match with_hint(migrator.unlock(force).await)? {
        Unlocked::Free => (false, false, None),
        Unlocked::Removed(holder) => (false, true, Some(holder)),
        Unlocked::Refused(holder) => (true, false, Some(holder)),
        Unlocked::Changed(holder) => (holder.is_some(), false, holder),
    };
    let text = || match &holder {
        None => "the lock is free".to_owned(),
        Some(holder) if removed => format!("the lock was taken from {holder}"),
        Some(holder) => format!(
            "the lock is held by {holder}, which renews it; it frees itself {} s after its holder is gone\n\
             --force takes it away: make sure before that the process is dead",
            holder.expires_in_s
        ),
    };
    context.output.value(&LockReport { held, removed, holder: holder.clone() }, text)?;
    Ok(if held { Exit::Failed } else { Exit::Done })
}

pub(super) fn with_hint<T>(outcome: Result<T, MigrateError>) -> anyhow::Result<T> {
    match outcome {
        Err(error) => match (error.hint(), &error) {
            (_, MigrateError::Configuration { .. }) => Err(error).exit(Exit::Usage),
            (Some(hint), _) => Err(error).hint(hint),
            (None, _) => Err(error.into()),
        },
        Ok(value) => Ok(value),
    }
}
