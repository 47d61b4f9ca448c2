use std::collections::{BTreeSet, HashMap};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::channel::{Channel, Effects, Loaded, Waiting};
use super::settling::Settling;
use super::window::Window;
use super::{Backoff, Stages, Stopped, WorkerOptions, flush};
use crate::message::{ChannelId, Millis, Username};
use crate::server::queue::{Consumer, Delivery, Tag, Task};
use crate::server::store::{ChannelState, Earlier};

/// Tasks taken from the lane at once.
const BATCH: usize = 256;

/// Owns a lane's channels until `stop`, then finishes what it has begun.
pub(super) async fn run(
    consumer: Box<dyn Consumer>,
    stages: &Stages,
    options: &WorkerOptions,
    stop: &CancellationToken,
) -> Result<(), Stopped> {
    let mut owner = Owner {
        consumer,
        stages,
        options,
        channels: HashMap::new(),
        window: Window::new(options.dedup_window, Millis::now()),
        under_way: FuturesUnordered::new(),
        flushes: FuturesUnordered::new(),
        settling: Settling::new(options.prefetch),
        clock: 0,
    };
    let outcome = owner.work(stop).await;
    // What is being stored may be, and nobody else would say so, or have it indexed: of some tasks there is no row.
    while let Some(flushed) = owner.flushes.next().await {
        if let flush::Outcome::Stored { batch, .. } = flushed {
            owner.settling.add(flush::to_index(&batch), Vec::new());
        }
    }
    let (ranges, _redelivered) = owner.settling.take();
    if !ranges.is_empty() {
        flush::index(stages, ranges).await;
    }
    outcome
}

struct Owner<'s> {
    consumer: Box<dyn Consumer>,
    stages: &'s Stages,
    options: &'s WorkerOptions,
    channels: HashMap<ChannelId, Channel>,
    window: Window,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
    flushes: FuturesUnordered<BoxFuture<'static, flush::Outcome>>,
    settling: Settling,
    clock: u64,
}

/// What the outside answered.
enum Done {
    Loaded(ChannelId, Option<ChannelState>),
    Found(ChannelId, Vec<((Username, Uuid), Option<Earlier>)>),
    Settled(Vec<Tag>),
}

impl Owner<'_> {
    async fn work(&mut self, stop: &CancellationToken) -> Result<(), Stopped> {
        while !stop.is_cancelled() {
            let touched = tokio::select! {
                Some(done) = self.under_way.next() => self.done(done),
                Some(outcome) = self.flushes.next() => BTreeSet::from([self.flushed(outcome)?]),
                deliveries = self.consumer.next_batch(BATCH) => self.accept(deliveries?).await?,
                () = self.settling.due() => {
                    self.settle();
                    continue;
                }
                () = stop.cancelled() => break,
            };
            self.go_on(touched).await;
        }
        let unkept = self.consumer.take_the_unkept();
        let touched = self.accept(unkept).await?;
        self.go_on(touched).await;
        loop {
            self.settle();
            let touched = tokio::select! {
                Some(done) = self.under_way.next() => self.done(done),
                Some(outcome) = self.flushes.next() => BTreeSet::from([self.flushed(outcome)?]),
                else => return Ok(()),
            };
            self.go_on(touched).await;
        }
    }

    /// Puts each task in its channel's line.
    async fn accept(&mut self, deliveries: Vec<Delivery>) -> Result<BTreeSet<ChannelId>, Stopped> {
        let mut touched = BTreeSet::new();
        for Delivery { tag, payload, redelivered, unconfirmed } in deliveries {
            let task = Task::decode(&payload).map_err(|error| error.to_string());
            let keyed = task.and_then(|task| Ok((task.partition_key().ok_or("a task of another queue")?, task)));
            let (id, task) = match keyed {
                Ok(keyed) => keyed,
                Err(reason) => {
                    tracing::error!(reason, tag, "a task can't be worked on and goes to the dead letters");
                    metrics::counter!("aula_dead_letters_total").increment(1);
                    unconfirmed.into_iter().for_each(|mut task| task.refuse(reason.clone()));
                    self.consumer.dead_letter(tag, &reason).await?;
                    continue;
                }
            };
            let channel = self.channels.entry(id).or_insert_with(|| Channel::new(id));
            channel.waiting.push_back(Waiting { tag, task, redelivered, unconfirmed });
            touched.insert(id);
        }
        Ok(touched)
    }

    /// The channel that goes on.
    fn flushed(&mut self, outcome: flush::Outcome) -> Result<ChannelId, Stopped> {
        match outcome {
            flush::Outcome::Stored { batch, tags } => {
                self.settling.add(flush::to_index(&batch), tags);
                if let Some(channel) = self.channels.get_mut(&batch.channel) {
                    channel.flushed(&batch);
                }
                Ok(batch.channel)
            }
            flush::Outcome::NotYet { mut flush, mut backoff, why } => {
                let id = flush.batch.channel;
                // Nobody is left to wait for what may last: those who ask again are told when it is stored.
                flush.unconfirmed.iter_mut().for_each(|task| task.refuse(why.clone()));
                if let Some(channel) = self.channels.get_mut(&id) {
                    channel.refuse_unconfirmed(&why);
                }
                let stages = self.stages.clone();
                self.flushes.push(Box::pin(async move {
                    backoff.pause().await;
                    flush::run(stages, flush, backoff).await
                }));
                Ok(id)
            }
            flush::Outcome::Conflict(conflict) => Err(Stopped::Conflict(conflict)),
        }
    }

    fn done(&mut self, done: Done) -> BTreeSet<ChannelId> {
        let id = match done {
            Done::Loaded(id, state) => {
                if let Some(channel) = self.channels.get_mut(&id) {
                    channel.set_loaded(state);
                }
                id
            }
            Done::Found(id, found) => {
                if let Some(channel) = self.channels.get_mut(&id) {
                    channel.set_found(found);
                }
                id
            }
            Done::Settled(tags) => {
                self.consumer.acknowledge(&tags);
                return BTreeSet::new();
            }
        };
        BTreeSet::from([id])
    }

    /// Lets the touched channels go as far as they can, and starts what they wait for.
    async fn go_on(&mut self, touched: BTreeSet<ChannelId>) {
        let mut effects = Effects::default();
        self.clock += 1;
        for id in &touched {
            let Some(channel) = self.channels.get_mut(id) else { continue };
            channel.last_used = self.clock;
            if matches!(channel.loaded, Loaded::NotYet) {
                channel.loaded = Loaded::Loading;
                self.under_way.push(Box::pin(load(self.stages.clone(), *id)));
            }
            // Only then: loading may complete what a process that died had begun to note.
            if !channel.looking && matches!(channel.loaded, Loaded::Absent | Loaded::Present(_)) {
                let sends = channel.to_look_up(&self.window);
                if !sends.is_empty() {
                    channel.looking = true;
                    self.under_way.push(Box::pin(find(self.stages.clone(), *id, sends)));
                }
            }
            channel.advance(&mut self.window, self.options, &mut effects);
        }
        flush::confirm(effects.confirmed);
        // Live delivery of what the queue has kept: it waits for no disk.
        flush::publish(self.stages, effects.events).await;
        if !effects.settled.is_empty() || !effects.to_index.is_empty() {
            self.settling.add(effects.to_index, effects.settled);
        }
        for id in touched {
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            if let Some(flush) = channel.next_flush(self.options) {
                let stages = self.stages.clone();
                self.flushes.push(Box::pin(flush::run(stages, flush, Backoff::new())));
            }
        }
        self.forget_idle_channels();
    }

    /// Acknowledges what is done but for its indexing, when that has been asked for.
    fn settle(&mut self) {
        let (ranges, tags) = self.settling.take();
        if ranges.is_empty() {
            self.consumer.acknowledge(&tags);
            return;
        }
        let stages = self.stages.clone();
        self.under_way.push(Box::pin(async move {
            flush::index(&stages, ranges).await;
            Done::Settled(tags)
        }));
    }

    /// Halves the cache when it is full.
    fn forget_idle_channels(&mut self) {
        if self.channels.len() <= self.options.cached_channels {
            return;
        }
        let mut last_used: Vec<u64> = self.channels.values().map(|channel| channel.last_used).collect();
        let middle = last_used.len() / 2;
        let (_, median, _) = last_used.select_nth_unstable(middle);
        let median = *median;
        self.channels.retain(|_, channel| channel.last_used >= median || !channel.is_idle());
    }
}

async fn load(stages: Stages, id: ChannelId) -> Done {
    let mut backoff = Backoff::new();
    loop {
        match stages.store.channel(id).await {
            Ok(state) => return Done::Loaded(id, state),
            Err(error) => {
                tracing::warn!(%error, channel = %id, "a channel can't be read yet");
                backoff.pause().await;
            }
        }
    }
}

async fn find(stages: Stages, id: ChannelId, sends: Vec<(Username, Uuid)>) -> Done {
    let mut backoff = Backoff::new();
    loop {
        match stages.store.find_sends(id, sends.clone()).await {
            Ok(seqs) => return Done::Found(id, sends.into_iter().zip(seqs).collect()),
            Err(error) => {
                tracing::warn!(%error, channel = %id, "sends can't be looked up yet");
                backoff.pause().await;
            }
        }
    }
}
