use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::message::{ChannelId, Username};

/// A join that is not stored by then will hardly be: it no longer counts.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Joins that were let through and may not be stored yet. They count against `channels.max_per_user` like the stored
/// ones: otherwise many requests at once would all see the same count.
#[derive(Default)]
pub struct Joining {
    users: Mutex<HashMap<Username, HashMap<ChannelId, Join>>>,
}

struct Join {
    since: Instant,
    stored: Option<Instant>,
}

impl Joining {
    /// Lets `users` join `channel`, or names the one who is in too many. `counts` are their stored channels, read
    /// after `counted`.
    pub fn admit<'u>(
        &self,
        channel: ChannelId,
        users: &'u [Username],
        counts: &[usize],
        counted: Instant,
        most: usize,
    ) -> Result<(), &'u Username> {
        let mut all = self.users.lock();
        for (user, count) in users.iter().zip(counts) {
            let Some(joins) = all.get_mut(user) else {
                if *count >= most {
                    return Err(user);
                }
                continue;
            };
            joins.retain(|_, join| join.since.elapsed() < FORGOTTEN_AFTER);
            // What was stored before the count began is in the count.
            let uncounted = joins
                .iter()
                .filter(|(id, join)| **id != channel && join.stored.is_none_or(|stored| stored >= counted))
                .count();
            if count + uncounted >= most {
                return Err(user);
            }
        }
        // Nobody's entry outlives its joins.
        all.retain(|_, joins| !joins.is_empty());
        for user in users {
            let join = Join { since: Instant::now(), stored: None };
            all.entry(user.clone()).or_default().insert(channel, join);
        }
        Ok(())
    }

    /// The joins are stored now.
    pub fn stored(&self, channel: ChannelId, users: &[Username]) {
        let mut all = self.users.lock();
        for user in users {
            if let Some(join) = all.get_mut(user).and_then(|joins| joins.get_mut(&channel)) {
                join.stored = Some(Instant::now());
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn requests_at_once_can_not_all_take_the_last_place() {
        let joining = Joining::default();
        let ada = [Username::new("ada").unwrap()];
        let [first, second] = [1, 2].map(|n| ChannelId(uuid::Uuid::from_u128(n)));
        let counted = Instant::now();
        assert_eq!(joining.admit(first, &ada, &[4], counted, 5), Ok(()));
        assert_eq!(joining.admit(second, &ada, &[4], counted, 5), Err(&ada[0]));
        // Asked for again, it is the same place.
        assert_eq!(joining.admit(first, &ada, &[4], counted, 5), Ok(()));
        joining.stored(first, &ada);
        assert_eq!(joining.admit(second, &ada, &[4], counted, 5), Err(&ada[0]), "it may be missing in that count");
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(joining.admit(second, &ada, &[4], Instant::now(), 5), Ok(()), "somebody left meanwhile");
    }
}
