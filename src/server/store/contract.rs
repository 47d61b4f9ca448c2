//! What every [`Store`] must do, whatever is behind it. A new backend implements [`Backend`] and adds one line at
//! the end of this file.

mod appends;
mod cassandra;
mod model;
mod purging;
mod reads;
mod renamed;
mod scans;
mod sqlite;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    ChannelBatch, ChannelState, Cursor, Earlier, Member, NewChannel, Page, Part, Purge, Refused, Scan, Scanned, Store,
    StoreError,
};
use crate::message::{ChannelId, ChannelKind, Kind, Message, Millis, Role, Seq, Username};

/// A store under test.
#[async_trait]
pub trait Backend: Send + Sync + Sized + 'static {
    /// Whether a batch is refused that brings a (sender, client_id) of another stored entry. A store that would have to
    /// read for that leaves it to the owner.
    const SEES_REPEATED_SENDS: bool;

    /// Random runs that are compared with the model.
    const CASES: u32;

    /// An empty one.
    async fn fresh() -> Self;

    fn store(&self) -> Arc<dyn Store>;

    /// May find channels of others, too.
    fn scan(&self) -> Arc<dyn Scan>;

    fn purge(&self) -> Arc<dyn Purge>;

    /// As the next process finds it after `kill -9` of this one.
    async fn after_kill(self) -> Self;
}

/// One `#[tokio::test]` for each sentence of the contract, and the comparison with the model.
macro_rules! contract_of {
    ($module:ident, $backend:ty) => {
        contract_of!(@ $module, $backend, [
            appends: a_batch_makes_a_channel,
            appends: storing_again_changes_nothing,
            appends: a_batch_may_begin_before_the_head,
            appends: a_conflict_changes_nothing,
            appends: a_conflict_leaves_the_batches_beside_it_alone,
            appends: watermarks_never_go_back,
            appends: a_batch_without_entries_raises_watermarks,
            appends: members_come_go_and_come_back,
            appends: a_late_write_brings_nobody_back,
            appends: what_was_stored_survives_a_kill,
            appends: channels_are_stored_side_by_side,
            appends: refusals_are_found_again,
            reads: an_unknown_channel_is_nothing,
            reads: any_text_comes_back_as_it_was,
            reads: pages_end_where_the_log_ends,
            reads: sends_are_found_in_the_order_asked,
            reads: lists_begin_with_the_most_recently_active,
            reads: lists_name_the_first_members,
            reads: users_are_counted_in_the_order_asked,
            reads: a_channel_is_read_as_one_picture,
            purging: a_purge_removes_the_beginning,
            purging: a_purge_goes_no_further_than_the_log,
            purging: a_purge_can_be_cut_off,
            purging: pages_go_on_behind_what_was_purged,
            purging: a_channel_goes_on_after_a_purge,
            purging: a_purged_send_is_still_known,
            purging: a_late_write_brings_nothing_back,
            purging: lists_say_where_a_log_begins,
            purging: records_are_kept,
            scans: every_channel_is_found_once,
            scans: a_scan_goes_on_behind_its_cursor,
            scans: a_scan_minds_no_channels_that_come_meanwhile,
        ]);
    };
    (@ $module:ident, $backend:ty, [$($part:ident: $test:ident),* $(,)?]) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$part::$test::<$backend>().await;
                }
            )*

            #[test]
            fn it_does_what_the_model_does() {
                super::model::compare::<$backend>();
            }
        }
    };
}

contract_of!(on_sqlite, super::sqlite::Sqlite);
contract_of!(on_cassandra, super::cassandra::OnCassandra);

fn user(name: &str) -> Username {
    Username::new(name).unwrap()
}

/// A text message; its sender decides its client_id with the seq, so that no two are alike.
fn text(channel: ChannelId, seq: Seq, sender: &str) -> Arc<Message> {
    Arc::new(Message {
        channel,
        seq,
        id: Uuid::new_v4(),
        sender: user(sender),
        client_id: Uuid::new_v4(),
        kind: Kind::Text,
        body: format!("entry {seq} of {sender}"),
        at: Millis(1_000 + (seq % 1_000) as i64),
    })
}

fn member(joined_seq: Seq, delivered: Seq, read: Seq) -> Member {
    Member { role: Role::Member, joined_seq, delivered, read }
}

/// A batch that only adds `entries`.
fn entries(channel: ChannelId, entries: Vec<Arc<Message>>) -> ChannelBatch {
    ChannelBatch {
        channel,
        create: None,
        entries,
        members: Vec::new(),
        departed: Vec::new(),
        delivered_by_all: 0,
        read_by_all: 0,
        refused: Vec::new(),
    }
}

/// A batch that makes a group of ada (its owner) and bob, with one entry.
fn creation(channel: ChannelId) -> ChannelBatch {
    ChannelBatch {
        create: Some(NewChannel { kind: ChannelKind::Group, name: Some("Engines".into()) }),
        members: vec![(user("ada"), Member { role: Role::Owner, ..member(1, 0, 0) }), (user("bob"), member(1, 0, 0))],
        ..entries(channel, vec![text(channel, 1, "ada")])
    }
}

async fn append(store: &dyn Store, batch: &ChannelBatch) -> Result<(), StoreError> {
    store.append(Arc::new(batch.clone())).await
}

/// A new group with `head` entries.
async fn group(store: &dyn Store, head: Seq) -> (ChannelId, Vec<Message>) {
    let channel = ChannelId::new_group();
    let first = creation(channel);
    append(store, &first).await.unwrap();
    let rest = entries(channel, (2..=head).map(|seq| text(channel, seq, "ada")).collect());
    append(store, &rest).await.unwrap();
    let log = first.entries.iter().chain(&rest.entries).map(|entry| entry.as_ref().clone()).collect();
    (channel, log)
}

async fn log(store: &dyn Store, channel: ChannelId) -> Vec<Message> {
    store.messages(channel, Page::After(0), 10_000).await.unwrap()
}

/// All that can be read of a channel and of these users.
#[derive(Debug, Clone, PartialEq)]
struct Picture {
    state: Option<ChannelState>,
    log: Vec<Message>,
    lists: BTreeMap<Username, Vec<super::Membership>>,
    roles: BTreeMap<Username, Option<(ChannelKind, Role)>>,
}

async fn picture(store: &dyn Store, channel: ChannelId) -> Picture {
    let (mut lists, mut roles) = (BTreeMap::new(), BTreeMap::new());
    for name in ["ada", "bob", "cyd"] {
        lists.insert(user(name), store.channels_of(&user(name), 0, 1000).await.unwrap());
        roles.insert(user(name), store.role(channel, &user(name)).await.unwrap());
    }
    Picture { state: store.channel(channel).await.unwrap(), log: log(store, channel).await, lists, roles }
}
