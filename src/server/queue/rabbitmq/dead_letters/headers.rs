//! What a message's headers tell of its deaths. A worker that sets a task aside writes `reason`, `lane`, `died-at-ms`,
//! `first-died-at-ms` and `deaths`; a task that is put back carries the last two through its lane. Of one that the broker
//! sets aside by itself, `x-death` tells.

use lapin::types::{AMQPValue, FieldTable};

use crate::message::Millis;

pub(super) const REASON: &str = "reason";
pub(super) const LANE: &str = "lane";
const DEATHS: &str = "deaths";
const DIED_AT: &str = "died-at-ms";
const FIRST_DIED_AT: &str = "first-died-at-ms";
pub(super) const ENQUEUED_AT: &str = "enqueued-at-ms";

/// How many times a task that is in its lane has died before.
pub(in crate::server::queue::rabbitmq) fn deaths_before(headers: &FieldTable) -> u32 {
    number(headers, DEATHS).and_then(|deaths| u32::try_from(deaths).ok()).unwrap_or(0)
}

/// Notes that it dies now, once more.
pub(in crate::server::queue::rabbitmq) fn died(headers: &mut FieldTable, now: Millis) {
    let deaths = i64::from(deaths_before(headers)) + 1;
    headers.insert(DEATHS.into(), AMQPValue::LongLongInt(deaths));
    headers.insert(DIED_AT.into(), AMQPValue::LongLongInt(now.0));
    if !headers.contains_key(FIRST_DIED_AT) {
        headers.insert(FIRST_DIED_AT.into(), AMQPValue::LongLongInt(now.0));
    }
}

/// What goes through the lane with a task that is put back.
pub(super) fn carried(deaths: u32, first_died_at: Option<Millis>) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert(DEATHS.into(), AMQPValue::LongLongInt(i64::from(deaths)));
    if let Some(Millis(at)) = first_died_at {
        headers.insert(FIRST_DIED_AT.into(), AMQPValue::LongLongInt(at));
    }
    headers
}

/// What a dead letter tells of its deaths.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deaths {
    pub count: u32,
    pub first: Option<Millis>,
    pub last: Option<Millis>,
    pub reason: String,
    /// The name of the queue.
    pub queue: Option<String>,
}

pub(super) fn deaths(headers: &FieldTable) -> Deaths {
    let first = number(headers, FIRST_DIED_AT).map(Millis);
    if let Some(reason) = text(headers, REASON) {
        let last = number(headers, DIED_AT).map(Millis);
        // One of an older release says no number.
        let count = deaths_before(headers).max(1);
        return Deaths { count, first: first.or(last), last, reason, queue: text(headers, LANE) };
    }
    let last = x_death(headers).map(|seconds| Millis(seconds.saturating_mul(1000)));
    let reason = match text(headers, "x-first-death-reason").as_deref() {
        Some("delivery_limit") => {
            "set aside by RabbitMQ (delivery_limit): its workers ended, time after time, with it in their hands"
                .to_owned()
        }
        Some(other) => format!("set aside by RabbitMQ ({other})"),
        None => "nothing says why".to_owned(),
    };
    let queue = text(headers, "x-first-death-queue");
    Deaths { count: deaths_before(headers) + 1, first: first.or(last), last, reason, queue }
}

/// When the broker last set it aside, in Unix seconds.
fn x_death(headers: &FieldTable) -> Option<i64> {
    let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else { return None };
    let AMQPValue::FieldTable(last) = deaths.as_slice().first()? else { return None };
    match last.inner().get("time")? {
        AMQPValue::Timestamp(seconds) => i64::try_from(*seconds).ok(),
        _ => None,
    }
}

pub(super) fn number(headers: &FieldTable, name: &str) -> Option<i64> {
    match headers.inner().get(name)? {
        AMQPValue::LongLongInt(number) => Some(*number),
        // As the management interface writes them.
        AMQPValue::LongInt(number) => Some(i64::from(*number)),
        _ => None,
    }
}

fn text(headers: &FieldTable, name: &str) -> Option<String> {
    match headers.inner().get(name)? {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_are_counted_through_the_lane() {
        let mut headers = FieldTable::default();
        headers.insert(REASON.into(), AMQPValue::LongString("no good".into()));
        died(&mut headers, Millis(1_000));
        let once = deaths(&headers);
        assert_eq!((once.count, once.first, once.last), (1, Some(Millis(1_000)), Some(Millis(1_000))));
        let mut again = carried(once.count, once.first);
        assert_eq!(deaths_before(&again), 1);
        again.insert(REASON.into(), AMQPValue::LongString("no good".into()));
        died(&mut again, Millis(5_000));
        let twice = deaths(&again);
        assert_eq!((twice.count, twice.first, twice.last), (2, Some(Millis(1_000)), Some(Millis(5_000))));
        assert_eq!(twice.reason, "no good");
    }

    #[test]
    fn what_the_broker_sets_aside_counts_as_well() {
        let mut headers = carried(2, Some(Millis(7)));
        headers.insert("x-first-death-reason".into(), AMQPValue::LongString("delivery_limit".into()));
        headers.insert("x-first-death-queue".into(), AMQPValue::LongString("db_tasks.1".into()));
        let deaths = deaths(&headers);
        assert_eq!((deaths.count, deaths.first, deaths.queue.as_deref()), (3, Some(Millis(7)), Some("db_tasks.1")));
        assert!(deaths.reason.contains("delivery_limit"), "{}", deaths.reason);
    }
}
