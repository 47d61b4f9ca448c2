//! `aula dead-letters`: the tasks that were set aside.

mod act;
mod filter;
mod list;
mod plan;
mod view;

use std::num::NonZeroU32;

use self::act::Act;
use self::filter::Filter;
use super::exit::Advise as _;
use super::{Context, Exit, queue_stats};
use crate::server::queue::DeadLetters;

/// List, inspect, put back or throw away the tasks that could not be worked on
///
/// A task that can't be read, or that ends its worker again and again, is set aside with the reason, so that those behind
/// it go on. What people wrote is not shown unless --bodies asks for it.
///
/// A walk through them changes nothing: what is not put back or purged stays where it is, also when the command is
/// killed. On RabbitMQ a walk passes the oldest 16,000 of a queue, and one command at a time should be at work: of two,
/// neither need see all.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  aula dead-letters list --since 2h                what died in the last two hours
  aula dead-letters show 4711                      one of them, in full but for its body
  aula dead-letters retry --reason version --dry-run
  aula dead-letters retry --queue db_tasks --yes   put it back, 100 a second
  aula dead-letters purge 4711 4712 --yes          throw two away

Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 something was left out or is left to do: the output says what.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List them, the oldest first
    #[command(after_help = "Examples:
  aula dead-letters list
  aula --output json dead-letters list --queue index_tasks --reason malformed")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// Show their fields, with what people wrote
        #[arg(long)]
        bodies: bool,
    },
    /// Show one with all that is known of it
    #[command(after_help = "Examples:
  aula dead-letters show 4711
  aula dead-letters show 4711 --bodies")]
    Show {
        /// As `list` names it
        id: String,
        /// With what people wrote
        #[arg(long)]
        bodies: bool,
    },
    /// Put them back at the end of their lanes
    ///
    /// One leaves the dead letters when it is safe in its lane. If the command dies between the two it is in both, which
    /// is harmless: a message is recognised by its client_id, and is in its channel once. It comes after what was queued
    /// since, so an old message may get a late place. One that has died --most-attempts times is left out, unless
    /// --again is given: most probably it would die again.
    #[command(after_help = "Examples:
  aula dead-letters retry --dry-run
  aula dead-letters retry --queue db_tasks --reason \"payload version\" --rate 20 --yes
  aula dead-letters retry 4711 --again --yes")]
    Retry {
        #[command(flatten)]
        chosen: Chosen,
        /// At most so many a second
        #[arg(long, value_name = "N", default_value = "100")]
        rate: NonZeroU32,
        /// Leave out those that have died so many times
        #[arg(long, value_name = "N", default_value = "3")]
        most_attempts: NonZeroU32,
        /// Those as well
        #[arg(long)]
        again: bool,
    },
    /// Throw them away, for good
    ///
    /// The messages in them are lost: `show --bodies` tells what they are.
    #[command(after_help = "Examples:
  aula dead-letters purge --reason malformed --dry-run
  aula dead-letters purge --before 30d --queue index_tasks --yes")]
    Purge {
        #[command(flatten)]
        chosen: Chosen,
        /// Needed to throw away all there are
        #[arg(long)]
        all: bool,
    },
}

/// Which ones, and whether.
#[derive(Debug, clap::Args)]
struct Chosen {
    /// These alone, as `list` names them
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Don't ask
    #[arg(long)]
    yes: bool,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        if let Command::Purge { chosen, all: false } = &self.command
            && chosen.ids.is_empty()
            && chosen.filter.is_everything()
        {
            return Err(anyhow::anyhow!("this would throw all dead letters away"))
                .hint("choose some by ID, --queue, --reason, --since or --before; or give --all")
                .exit(Exit::Usage);
        }
        let config = context.config()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let look = queue_stats::look(&config).await?;
            let letters: &dyn DeadLetters = &*look.dead_letters;
            match self.command {
                Command::List { filter, limit, bodies } => {
                    list::list(context, letters, &filter, limit as usize, bodies).await
                }
                Command::Show { id, bodies } => list::show(context, letters, id, bodies).await,
                Command::Retry { chosen, rate, most_attempts, again } => {
                    let most_attempts = (!again).then_some(most_attempts);
                    act::run(context, letters, chosen, Act::Retry { rate, most_attempts }).await
                }
                Command::Purge { chosen, .. } => act::run(context, letters, chosen, Act::Purge).await,
            }
        })
    }
}
