//! What every [`SearchIndex`] must do, whatever is behind it. A new backend implements [`Backend`] and adds one line
//! at the end of the list.

mod elasticsearch;
mod facets;
mod forgetting;
mod matching;
mod membership;
mod paging;
mod rebuilding;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::rebuild::Rebuild;
use super::{Query, SearchError, SearchIndex};
use crate::message::{ChannelId, ChannelKind, Kind, Message, Millis, Role, Seq, Username};
use crate::server::store::{ChannelBatch, Member, NewChannel, Page, Purge, Store};
use crate::wire::frame::{Hit, SearchPage};

/// An index under test, with the store whose messages it holds.
#[async_trait]
pub trait Backend: Send + Sync + Sized + 'static {
    /// An empty one that gives up after `timeout` and counts up to `total_cap`.
    async fn fresh(timeout: Duration, total_cap: u64) -> Self;

    fn store(&self) -> Arc<dyn Store>;

    fn index(&self) -> Arc<dyn SearchIndex>;

    fn rebuild(&self) -> Arc<dyn Rebuild>;

    fn purge(&self) -> Arc<dyn Purge>;

    /// Makes what was indexed findable, where that takes its time.
    async fn settle(&self);
}

/// One `#[tokio::test]` for each sentence of the contract.
macro_rules! contract_of {
    ($module:ident, $backend:ty) => {
        contract_of!(@ $module, $backend, [
            matching: all_words_must_be_there,
            matching: phrases_and_endings,
            matching: case_and_accents_make_no_difference,
            matching: matches_are_marked_and_the_rest_is_escaped,
            matching: nobody_can_forge_a_mark,
            matching: only_texts_are_found,
            matching: indexing_again_changes_nothing,
            matching: only_what_was_indexed_is_found,
            matching: filters_narrow_it,
            matching: no_query_is_an_expression,
            matching: no_text_breaks_it,
            matching: a_query_without_a_word_is_invalid,
            membership: only_the_searchers_channels_are_searched,
            membership: a_removed_member_finds_nothing,
            membership: a_channel_of_others_is_refused,
            membership: no_query_leaves_ones_channels,
            membership: somebody_in_a_thousand_channels_can_search,
            paging: the_newest_come_first,
            paging: pages_have_no_repeats_and_no_holes,
            paging: pages_end_where_they_must,
            paging: the_total_is_counted_up_to_its_cap,
            paging: a_foreign_cursor_is_invalid,
            paging: a_search_that_takes_too_long_is_given_up,
            facets: matches_are_counted_by_channel_and_by_sender,
            facets: the_ten_largest_are_named,
            facets: only_ones_own_channels_are_counted,
            facets: counts_do_not_depend_on_the_page,
            forgetting: what_is_purged_is_found_no_more,
            rebuilding: a_new_index_has_all_that_is_stored,
            rebuilding: what_is_sent_meanwhile_is_in_both,
            rebuilding: the_former_index_can_be_used_again,
            rebuilding: it_can_be_given_up,
            rebuilding: what_the_index_lacks_can_be_put_into_it,
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
        }
    };
}

contract_of!(on_fts5, super::sqlite::Sqlite);
contract_of!(on_elasticsearch, super::elasticsearch::OnElasticsearch);

/// The backend with shorthands.
struct Fixture<B>(B);

impl<B: Backend> Fixture<B> {
    async fn new() -> Self {
        Self(B::fresh(Duration::from_secs(30), 1000).await)
    }

    /// A group of these; the first is its owner.
    async fn channel(&self, members: &[&str]) -> ChannelId {
        let channel = ChannelId::new_group();
        let member = Member { role: Role::Member, joined_seq: 1, delivered: 0, read: 0 };
        let batch = ChannelBatch {
            create: Some(NewChannel { kind: ChannelKind::Group, name: None }),
            members: members.iter().map(|name| (user(name), member.clone())).collect(),
            ..batch(channel, vec![message(channel, 1, members[0], Kind::System, "{\"created\":{}}")])
        };
        self.0.store().append(Arc::new(batch)).await.unwrap();
        channel
    }

    /// Stores texts of `sender` without indexing them.
    async fn store(&self, channel: ChannelId, sender: &str, bodies: &[&str]) -> Vec<Message> {
        let head = self.0.store().channel(channel).await.unwrap().unwrap().last_seq;
        let messages: Vec<Message> =
            (head + 1..).zip(bodies).map(|(seq, body)| message(channel, seq, sender, Kind::Text, body)).collect();
        let entries = messages.iter().cloned();
        self.0.store().append(Arc::new(batch(channel, entries.collect()))).await.unwrap();
        messages
    }

    async fn say(&self, channel: ChannelId, sender: &str, bodies: &[&str]) -> Vec<Message> {
        let messages = self.store(channel, sender, bodies).await;
        self.index(messages.clone()).await;
        messages
    }

    async fn index(&self, messages: Vec<Message>) {
        self.0.index().index(messages).await.unwrap();
        self.0.settle().await;
    }

    async fn search(&self, searcher: &str, query: Query) -> Result<SearchPage, SearchError> {
        self.0.index().search(&user(searcher), query).await
    }

    /// The bodies of all that is found, sorted.
    async fn find(&self, searcher: &str, text: &str) -> Vec<String> {
        let page = self.search(searcher, query(text)).await.unwrap();
        assert_eq!(page.total, page.hits.len() as u64, "{text}");
        let mut bodies: Vec<String> = page.hits.into_iter().map(|hit| hit.body).collect();
        bodies.sort();
        bodies
    }
}

pub(super) fn query(text: &str) -> Query {
    Query {
        text: text.into(),
        channel: None,
        from: None,
        before: None,
        after: None,
        limit: 1000,
        cursor: None,
        facets: false,
    }
}

fn batch(channel: ChannelId, entries: Vec<Message>) -> ChannelBatch {
    ChannelBatch {
        channel,
        create: None,
        entries: entries.into_iter().map(Arc::new).collect(),
        members: Vec::new(),
        departed: Vec::new(),
        delivered_by_all: 0,
        read_by_all: 0,
        refused: Vec::new(),
    }
}

fn user(name: &str) -> Username {
    Username::new(name).unwrap()
}

/// Sent `seq` seconds after the epoch.
fn message(channel: ChannelId, seq: Seq, sender: &str, kind: Kind, body: &str) -> Message {
    Message {
        channel,
        seq,
        id: Uuid::now_v7(),
        sender: user(sender),
        client_id: Uuid::new_v4(),
        kind,
        body: body.to_owned(),
        at: Millis(seq as i64 * 1000),
    }
}
