//! Walks through the store, side by side, until all are at their end.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::checkpoint::{Checkpoint, Desk};
use crate::ops::progress::Progress;
use crate::server::search::SearchError;
use crate::server::search::rebuild::{Filled, Walk};
use crate::server::worker::Backoff;

/// Between two pictures of the progress.
const LOOK: Duration = Duration::from_millis(200);
/// Between two checkpoints.
const SAVE: Duration = Duration::from_secs(1);
/// How long a step is tried again while a server is not there.
const PATIENCE: Duration = Duration::from_secs(60);

/// How they go.
pub struct Pace {
    /// Side by side.
    pub walkers: usize,
    /// Each step is followed by a pause as long as itself: others write to the same file.
    pub leaves_room: bool,
}

/// Takes each walk of the checkpoint to its end, with `step`; `desk` keeps the checkpoint. Whether all are at their end:
/// not when `stop` came first.
pub async fn walk<F, S>(
    checkpoint: Checkpoint,
    step: S,
    pace: Pace,
    desk: Option<&Desk>,
    progress: &mut Progress,
    stop: &CancellationToken,
) -> anyhow::Result<(Checkpoint, bool)>
where
    S: Fn(Walk) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Filled, SearchError>> + Send + 'static,
{
    let waiting: VecDeque<usize> =
        checkpoint.walks.iter().enumerate().filter_map(|(index, walk)| walk.map(|_| index)).collect();
    let waiting = Arc::new(Mutex::new(waiting));
    let checkpoint = Arc::new(Mutex::new(checkpoint));
    let mut walkers = JoinSet::new();
    for _ in 0..pace.walkers.max(1) {
        let (waiting, checkpoint, step, stop) =
            (Arc::clone(&waiting), Arc::clone(&checkpoint), step.clone(), stop.clone());
        walkers.spawn(async move {
            loop {
                let Some(index) = waiting.lock().pop_front() else { return Ok(()) };
                to_its_end(index, &checkpoint, &step, pace.leaves_room, &stop).await?;
                if stop.is_cancelled() {
                    return Ok(());
                }
            }
        });
    }
    let mut look = tokio::time::interval(LOOK);
    let mut saved = Instant::now();
    let mut failed = None;
    loop {
        let now = tokio::select! {
            ended = walkers.join_next() => match ended {
                None => break,
                Some(ended) => {
                    let ended: Result<(), SearchError> = ended.context("a walk through the store has panicked")?;
                    if let Err(error) = ended {
                        failed = Some(error);
                        stop.cancel();
                    }
                    continue;
                }
            },
            _ = look.tick() => checkpoint.lock().clone(),
        };
        progress.show(now.fraction(), now.entries, "entries");
        if let Some(desk) = desk.filter(|_| saved.elapsed() >= SAVE) {
            desk.write(&now).context("the checkpoint can't be written")?;
            saved = Instant::now();
        }
    }
    let end = checkpoint.lock().clone();
    if let Some(desk) = desk {
        desk.write(&end).context("the checkpoint can't be written")?;
    }
    match failed {
        Some(error) => Err(error.into()),
        None => {
            let is_whole = end.walks.iter().all(Option::is_none);
            Ok((end, is_whole))
        }
    }
}

async fn to_its_end<F>(
    index: usize,
    checkpoint: &Mutex<Checkpoint>,
    step: &(impl Fn(Walk) -> F + Sync),
    leaves_room: bool,
    stop: &CancellationToken,
) -> Result<(), SearchError>
where
    F: Future<Output = Result<Filled, SearchError>> + Send,
{
    let (mut backoff, mut give_up) = (Backoff::new(), None);
    while !stop.is_cancelled() {
        let Some(walk) = checkpoint.lock().walks.get(index).copied().flatten() else { return Ok(()) };
        let began = Instant::now();
        match step(walk).await {
            Ok(Filled { rest, entries, rejected }) => {
                (backoff, give_up) = (Backoff::new(), None);
                let mut checkpoint = checkpoint.lock();
                checkpoint.entries += entries;
                checkpoint.reject(rejected);
                if let Some(walk) = checkpoint.walks.get_mut(index) {
                    *walk = rest;
                }
                drop(checkpoint);
                crate::crash_point!("reindex_step");
            }
            Err(error @ SearchError::Unavailable(_)) => {
                let give_up = *give_up.get_or_insert_with(|| began + PATIENCE);
                if Instant::now() >= give_up {
                    return Err(error);
                }
                tracing::warn!(%error, "a step is tried again");
                backoff.pause().await;
            }
            Err(error) => return Err(error),
        }
        if leaves_room {
            tokio::time::sleep(began.elapsed()).await;
        }
    }
    Ok(())
}
