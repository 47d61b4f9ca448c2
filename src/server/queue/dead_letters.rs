//! Tasks that were set aside: to be looked through, put back, or thrown away.
//!
//! To put one back is harmless, even twice: it may be in its lane again and still among the dead letters when a process
//! dies between the two steps. A send, a new channel and a change of members are recognised by their client_id in the
//! log, which is looked up because what was put back counts as delivered before. Watermarks are only ever raised, and
//! entries that are indexed twice are indexed once.

use async_trait::async_trait;
use bytes::Bytes;

use super::{Family, Lane, QueueError, Task};
use crate::message::Millis;

/// A task that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it in its deployment, at each look, until it leaves; a task that dies again has another one.
    pub id: String,
    /// Where it died.
    pub lane: Lane,
    pub payload: Bytes,
    pub reason: String,
    /// How many times it has died.
    pub deaths: u32,
    /// When it was last put into its lane.
    pub enqueued_at: Option<Millis>,
    pub first_died_at: Option<Millis>,
    pub died_at: Option<Millis>,
}

/// The dead letters of a deployment.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// The families that have any; of the others nothing is set aside.
    fn families(&self) -> &'static [Family] {
        &[Family::DbTasks, Family::IndexTasks]
    }

    /// Begins to look through those that are there now, in the order in which they came. What is put back and dies again
    /// is not seen. What is neither put back nor removed stays: in its place if the walk is ended, and if it is dropped or
    /// killed perhaps behind the others.
    ///
    /// One at a time: of two walks through a family at once, neither need see all, and the order may change.
    async fn walk(&self, family: Family) -> Result<Box<dyn Walk>, QueueError>;
}

/// One look through the dead letters of a family.
#[async_trait]
pub trait Walk: Send {
    /// The next one, which the other calls are about from now on; `None` at the end.
    async fn next(&mut self) -> Result<Option<DeadLetter>, QueueError>;

    /// Puts it at the end of its lane, marked as a repetition, under the present number of shards; when it is safe there
    /// it leaves the dead letters. A crash in between leaves it in both.
    ///
    /// Errors: [`QueueError::Overloaded`] if the lane is full, [`QueueError::Unavailable`]; it is still here then, and
    /// may be in its lane as well.
    async fn put_back(&mut self) -> Result<(), QueueError>;

    /// Throws it away; for good when [`end`](Self::end) has resolved.
    async fn remove(&mut self) -> Result<(), QueueError>;

    /// How many this walk does not reach: a backend may bound how many it looks at in one go.
    fn beyond(&self) -> u64;

    /// Resolves when all that was done is durable and the next walk sees the rest.
    async fn end(self: Box<Self>) -> Result<(), QueueError>;
}

/// The lane that a letter goes back to.
pub(super) fn lane_of(letter: &DeadLetter, shards: u16) -> Lane {
    let shard = match letter.lane.family {
        Family::DbTasks => {
            let key = Task::decode(&letter.payload).ok().and_then(|task| task.partition_key());
            // What can't be read here may be read there, or dies again.
            key.map_or_else(|| if letter.lane.shard < shards { letter.lane.shard } else { 0 }, |key| key.shard(shards))
        }
        Family::IndexTasks | Family::SearchTasks => 0,
    };
    Lane { shard, ..letter.lane }
}

/// The payload as it goes back. A send says that it is a repetition, also to workers that don't see by the queue that it
/// was put back.
pub(super) fn repeated(payload: &Bytes) -> Bytes {
    let Ok(Task::Send(mut send)) = Task::decode(payload) else { return payload.clone() };
    send.retry = true;
    Task::Send(send).encode().unwrap_or_else(|_too_large| payload.clone())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::message::{ChannelId, Kind, Username};
    use crate::server::queue::SendTask;

    fn letter(payload: Bytes, shard: u16) -> DeadLetter {
        let lane = Lane { family: Family::DbTasks, shard };
        let reason = String::new();
        DeadLetter {
            id: "1".into(),
            lane,
            payload,
            reason,
            deaths: 1,
            enqueued_at: None,
            first_died_at: None,
            died_at: None,
        }
    }

    fn send() -> SendTask {
        SendTask {
            channel: ChannelId::new_group(),
            id: Uuid::now_v7(),
            sender: Username::new("ada").unwrap(),
            client_id: Uuid::new_v4(),
            kind: Kind::Text,
            body: "hello".into(),
            at: Millis(1),
            retry: false,
        }
    }

    #[test]
    fn a_letter_goes_where_its_channel_is_now() {
        let send = send();
        let payload = Task::Send(send.clone()).encode().unwrap();
        for shards in [1, 2, 7] {
            assert_eq!(lane_of(&letter(payload.clone(), 5), shards).shard, send.channel.shard(shards));
        }
    }

    #[test]
    fn what_is_no_task_goes_back_to_its_lane_or_to_the_first() {
        let letter = letter(Bytes::from_static(b"garbage"), 5);
        assert_eq!((lane_of(&letter, 6).shard, lane_of(&letter, 5).shard), (5, 0));
        assert_eq!(repeated(&letter.payload), letter.payload);
    }

    #[test]
    fn a_send_goes_back_as_a_repetition_and_otherwise_as_it_was() {
        let send = send();
        let back = Task::decode(&repeated(&Task::Send(send.clone()).encode().unwrap())).unwrap();
        assert_eq!(back, Task::Send(SendTask { retry: true, ..send }));
    }
}
