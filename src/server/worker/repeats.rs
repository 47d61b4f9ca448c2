//! Which requests may be repeats of something that only the store remembers.

use crate::message::Millis;
use crate::server::queue::Task;

/// How far clocks may be apart, those of clients from those of servers, and the servers' own.
const SKEW: i64 = 60_000;

/// Whether the store must be asked what became of an earlier attempt. The owner itself remembers all attempts that were
/// accepted after `remembers_since`.
///
/// Every owner must come to the same answer about a request: one that a first owner took for new and the next one for a
/// repeat would change the seqs of all that follow. So it must not depend on what an owner happens to remember, but only
/// on what there is: whoever can't be sure looks.
///
/// A first attempt can't be older than its client_id. Version 7 says when that was made (RFC 9562 §5.7); of other
/// versions, and of one that is ahead of the servers' time, nothing is known.
pub(super) fn may_be_stored(task: &Task, redelivered: bool, remembers_since: Millis) -> bool {
    match task {
        Task::Send(send) => {
            redelivered
                || send.retry
                || Millis::of_uuid(send.client_id)
                    .is_none_or(|Millis(made)| made > send.at.0 + SKEW || made - SKEW <= remembers_since.0)
        }
        // Their identities are made for one task alone.
        Task::Create(_) | Task::Change(_) => redelivered,
        Task::Receipts(_) | Task::Index(_) | Task::Search(_) => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use uuid::{NoContext, Timestamp, Uuid};

    use super::*;
    use crate::message::{ChannelId, Kind, Username};
    use crate::server::queue::SendTask;

    const NOW: i64 = 1_700_000_000_000;

    fn send(client_id: Uuid, retry: bool) -> Task {
        Task::Send(SendTask {
            channel: ChannelId(Uuid::nil()),
            id: Uuid::nil(),
            sender: Username::new("ada").unwrap(),
            client_id,
            kind: Kind::Text,
            body: String::new(),
            at: Millis(NOW),
            retry,
        })
    }

    fn made_at(millis: i64) -> Uuid {
        let millis = u64::try_from(millis).unwrap();
        Uuid::new_v7(Timestamp::from_unix(NoContext, millis / 1000, (millis % 1000) as u32 * 1_000_000))
    }

    #[test]
    fn only_a_client_id_that_was_made_since_is_surely_new() {
        let asks = |client_id, since| may_be_stored(&send(client_id, false), false, Millis(since));
        let long_ago = NOW - 10 * SKEW;
        assert!(!asks(made_at(NOW), long_ago));
        assert!(!asks(made_at(NOW - 100_000), NOW - 100_000 - SKEW - 1));
        assert!(asks(made_at(NOW - 100_000), NOW - 100_000 - SKEW), "another owner may have had it");
        assert!(!asks(made_at(NOW + SKEW), long_ago), "a clock that is ahead");
        assert!(asks(made_at(NOW + SKEW + 1), long_ago), "a time that can't be");
        assert!(asks(Uuid::from_u128(4), long_ago) && asks(Uuid::new_v4(), long_ago), "no time");
    }

    #[test]
    fn who_says_that_it_is_a_repeat_is_believed() {
        let new = made_at(NOW);
        assert!(may_be_stored(&send(new, true), false, Millis(0)));
        assert!(may_be_stored(&send(new, false), true, Millis(0)));
    }
}
