//! `aula trace`: what became of one message, from the stores.

mod find;
mod life;

use std::str::FromStr;

use uuid::Uuid;

use self::life::{Indexed, Life, Reached, State};
use super::exit::Advise as _;
use super::progress::Progress;
use super::{Context, Exit, migrate};
use crate::config::{Config, Deployment};
use crate::message::{ChannelId, Kind, Message, Seq};
use crate::server::backends::{self, Look, Stored};
use crate::server::queue::{DeadLetter, Family, Task};
use crate::server::search::audit::Entry;
use crate::server::store::{ChannelState, Page};

/// Show one message's life: accepted, stored, indexed, delivered and read
///
/// MESSAGE is a message's id, as in frames, logs and search results, or CHANNEL:SEQ.
///
/// CHANNEL:SEQ is looked up at once. By an id a message is found at once if the index of a distributed deployment has it.
/// Otherwise the logs are searched: from the id's own time a few reads for each channel, so seconds for thousands of
/// channels; --channel makes it one. An id of another version than 7 has no time: then all entries are read.
///
/// Dead letters are looked through when the message is not stored, or not in the search index. Bodies are hidden unless
/// asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aula trace 019a9c1e-7c9b-7b6e-8a4e-0d7f6a1c2b3d            by its id
  aula trace CHANNEL:41                                      by its channel and seq
  aula trace 019a9c1e-7c9b-7b6e-8a4e-0d7f6a1c2b3d --channel CHANNEL

Exit codes: 0 it is stored; 1 it is not, or is no longer; 2 wrong arguments.")]
pub struct Args {
    /// Its id, or CHANNEL:SEQ
    #[arg(value_name = "MESSAGE")]
    message: Name,
    /// Search only this channel
    #[arg(long, value_name = "ID")]
    channel: Option<Uuid>,
    /// Show what it says
    #[arg(long)]
    body: bool,
}

#[derive(Debug, Clone, Copy)]
enum Name {
    Id(Uuid),
    Place(ChannelId, Seq),
}

impl FromStr for Name {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let id = |text: &str| text.parse::<Uuid>().ok();
        let found = match text.rsplit_once(':') {
            Some((channel, seq)) => id(channel).zip(seq.parse().ok()).map(|(id, seq)| Self::Place(ChannelId(id), seq)),
            None => id(text).map(Self::Id),
        };
        found.ok_or_else(|| "a message's id is expected, or CHANNEL:SEQ, such as CHANNEL:41".to_owned())
    }
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let config = context.config()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let hint = match config.deployment() {
                Deployment::Embedded => "is this the server's data directory? see --data-dir and `aula config print`",
                Deployment::Distributed => "are these the deployment's servers? see `aula config print`",
            };
            let stored = migrate::with_hint_or(Stored::open(&config).await, hint)?;
            let tracer = Tracer { config: &config, context, stored };
            tracer.run(self).await
        })
    }
}

struct Tracer<'a> {
    config: &'a Config,
    context: &'a Context,
    stored: Stored,
}

impl Tracer<'_> {
    async fn run(&self, args: Args) -> anyhow::Result<Exit> {
        let place = match args.message {
            Name::Place(channel, seq) => Some((channel, seq)),
            Name::Id(id) => {
                let mut progress = Progress::new(self.context.output.is_quiet());
                find::find(&self.stored, id, args.channel.map(ChannelId), &mut progress).await?
            }
        };
        let Some((channel, seq)) = place else { return self.not_stored(args.message).await };
        let Some(state) = self.stored.audit.picture(channel).await? else { return self.not_stored(args.message).await };
        let page = self.stored.store.messages(channel, Page::After(seq.saturating_sub(1)), 1).await?;
        let found = page.into_iter().find(|message| message.seq == seq);
        let found = found.filter(|message| !matches!(args.message, Name::Id(id) if id != message.id));
        let Some(message) = found else { return self.gone(channel, seq).await };
        let life = self.life(message, state, args.body).await?;
        self.context.output.value(&life, || life.text())?;
        Ok(Exit::Done)
    }

    async fn life(&self, message: Message, state: ChannelState, with_body: bool) -> anyhow::Result<Life> {
        let seq = message.seq;
        let index = self.indexed(&message).await;
        let dead_letters = match index {
            Indexed::Missing { .. } => self.dead_letters(|letter| is_about(letter, &message)).await,
            _ => Vec::new(),
        };
        let members = state.members.iter().map(|(user, member)| Reached {
            user: user.clone(),
            joined_seq: member.joined_seq,
            state: match () {
                () if member.joined_seq > seq => State::JoinedLater,
                () if member.read >= seq => State::Read,
                () if member.delivered >= seq => State::Delivered,
                () => State::NotDelivered,
            },
        });
        Ok(Life {
            id: message.id,
            channel: message.channel,
            channel_name: state.name.clone(),
            seq,
            kind: message.kind,
            sender: message.sender,
            client_id: message.client_id,
            accepted_at: message.at,
            bytes: message.body.len(),
            body: with_body.then_some(message.body),
            stored: format!("{}, {}", self.stored.place, self.stored.audit.whereabouts(seq)),
            last_seq: state.last_seq,
            index,
            delivered_to_all: state.delivered_by_all >= seq,
            read_by_all: state.read_by_all >= seq,
            members: members.collect(),
            dead_letters,
        })
    }

    async fn indexed(&self, message: &Message) -> Indexed {
        if message.kind != Kind::Text {
            return Indexed::NotMeantToBe;
        }
        let entry = Entry { channel: message.channel, seq: message.seq, id: message.id };
        let asked = async {
            let index = self.stored.rebuild.indexes().await?.live;
            Ok::<_, crate::server::search::SearchError>((index, self.stored.index_audit.missing(vec![entry]).await?))
        };
        match asked.await {
            Ok((index, missing)) if missing.is_empty() => Indexed::Present { index },
            Ok((index, _)) => Indexed::Missing { index, waiting: self.waiting(Family::IndexTasks).await },
            Err(error) => Indexed::Unknown { why: error.to_string() },
        }
    }

    /// Tasks of a family that are not done; `None` if that can't be told.
    async fn waiting(&self, family: Family) -> Option<u64> {
        let lanes = self.queues().await?.queue.stats().await;
        let lanes = lanes.inspect_err(|error| tracing::warn!(%error, "the queues can't be read")).ok()?;
        Some(lanes.iter().filter(|lane| lane.queue == family.as_str()).map(|lane| lane.depth).sum())
    }

    async fn queues(&self) -> Option<Look> {
        match backends::look_at_queue(self.config).await {
            Ok(look) => Some(look),
            Err(error) => {
                self.context.output.note(format!("the queues can't be looked at: {error:#}"));
                None
            }
        }
    }

    /// Those that are about it, in words.
    async fn dead_letters(&self, is_it: impl Fn(&DeadLetter) -> bool) -> Vec<String> {
        let Some(look) = self.queues().await else { return Vec::new() };
        let mut found = Vec::new();
        let walked = async {
            for family in look.dead_letters.families() {
                let mut walk = look.dead_letters.walk(*family).await?;
                while let Some(letter) = walk.next().await? {
                    if is_it(&letter) {
                        found.push(format!("{} in {}: {}", letter.id, letter.lane, letter.reason));
                    }
                }
                if walk.beyond() > 0 {
                    self.context.output.note(format!("{} dead letters of {family} were not looked at", walk.beyond()));
                }
                walk.end().await?;
            }
            Ok::<_, crate::server::queue::QueueError>(())
        };
        if let Err(error) = walked.await {
            self.context.output.note(format!("the dead letters can't be looked through: {error}"));
        }
        found
    }

    /// It is in no log.
    async fn not_stored(&self, name: Name) -> anyhow::Result<Exit> {
        let dead = self
            .dead_letters(|letter| match (Task::decode(&letter.payload), name) {
                (Ok(Task::Send(task)), Name::Id(id)) => task.id == id,
                (Ok(Task::Create(task)), Name::Id(id)) => task.id == id,
                (Ok(Task::Change(task)), Name::Id(id)) => task.id == id,
                _ => false,
            })
            .await;
        let missing = anyhow::anyhow!("it is in no log of {}", self.stored.place);
        if let Some(letter) = dead.first() {
            let id = letter.split(' ').next().unwrap_or_default();
            return Err(anyhow::anyhow!("{missing}: it is a dead letter, {letter}"))
                .hint(format!("`aula dead-letters show {id}`; `aula dead-letters retry {id}` puts it back"));
        }
        let hint = match self.waiting(Family::DbTasks).await {
            Some(0) | None => "it was refused, or purged, or is of another deployment; it is no dead letter".to_owned(),
            Some(waiting) => {
                format!("{waiting} tasks wait in db_tasks, which can't be looked into: look again when they are done")
            }
        };
        Err(missing).hint(hint)
    }

    /// The channel is there, and not the entry.
    async fn gone(&self, channel: ChannelId, seq: Seq) -> anyhow::Result<Exit> {
        let extent = self.stored.audit.extent(channel).await?;
        let (purged, last) = extent.map_or((0, 0), |extent| (extent.purged_seq, extent.last_seq));
        let error = anyhow::anyhow!("channel {channel} has no entry {seq}");
        if seq <= purged {
            return Err(error).hint(format!("it was purged, with all entries up to {purged}"));
        }
        if seq > last {
            return Err(error).hint(format!("its last is {last}"));
        }
        Err(error).hint(format!("it should have: `aula verify --channel {channel}`"))
    }
}

/// Whether it is the task by which the entry would have been indexed.
fn is_about(letter: &DeadLetter, message: &Message) -> bool {
    match Task::decode(&letter.payload) {
        Ok(Task::Index(task)) => task
            .ranges
            .iter()
            .any(|range| range.channel == message.channel && range.first <= message.seq && message.seq <= range.last),
        Ok(Task::Send(task)) => task.id == message.id,
        _ => false,
    }
}
