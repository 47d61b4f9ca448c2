//! One channel of an export, piece by piece: compared with what is stored, and what is missing added.

use std::sync::Arc;

use super::super::record::{Header, ListedMember};
use super::reader::Piece;
use super::report::Fate;
use crate::message::{Message, Seq, Username};
use crate::ops::patience::patiently;
use crate::server::backends::Stored;
use crate::server::queue::IndexRange;
use crate::server::search::SearchError;
use crate::server::store::{ChannelBatch, ChannelState, Member, NewChannel, Page, StoreError};

/// A channel between two of its pieces.
pub struct Going {
    was_there: bool,
    /// The head of the stored log before the import: up to there it is compared, above it is added.
    stored: Seq,
    /// Up to here entries were purged from the store: they are neither compared nor added.
    hidden: Seq,
    /// Members come and go with the first entry that is new.
    members_are_due: bool,
    departed: Vec<Username>,
    /// A watermark is lower than in the export.
    marks_are_due: bool,
    pub entries_added: u64,
    /// `Some`: nothing more is done to it.
    left_alone: Option<String>,
}

/// Works on pieces.
pub struct Channels<'a> {
    pub stored: &'a Stored,
    /// Not in a dry run.
    pub writes: bool,
}

impl Going {
    fn left_alone(why: impl Into<String>) -> Self {
        Self {
            was_there: true,
            stored: 0,
            hidden: 0,
            members_are_due: false,
            departed: Vec::new(),
            marks_are_due: false,
            entries_added: 0,
            left_alone: Some(why.into()),
        }
    }

    /// After the last piece.
    pub fn fate(self) -> Fate {
        match (self.left_alone, self.was_there) {
            (Some(why), _) => Fate::LeftAlone(why),
            (None, false) => Fate::Added,
            (None, true) if self.entries_added > 0 || self.marks_are_due => Fate::Completed,
            (None, true) => Fate::Unchanged,
        }
    }
}

impl Channels<'_> {
    /// The piece's entries are stored and indexed when this returns, or known to be; with the last piece, all of the
    /// channel. `going` is what the piece before returned. May be repeated with any piece.
    pub async fn piece(&self, piece: Piece, going: Option<Going>) -> anyhow::Result<Going> {
        let going = match going {
            Some(going) => going,
            None => self.look(&piece.header).await?,
        };
        if going.left_alone.is_some() {
            return Ok(going);
        }
        Ok(self.take(piece, going).await?)
    }

    /// What is there, before anything is changed.
    async fn look(&self, header: &Header) -> Result<Going, StoreError> {
        if header.purged_seq > 0 {
            return Ok(Going::left_alone(format!(
                "its beginning, up to seq {}, was purged: such a channel can't be imported",
                header.purged_seq
            )));
        }
        let extent = patiently(async || self.stored.purge.extent(header.id).await).await?;
        let Some(state) = patiently(async || self.stored.store.channel(header.id).await).await? else {
            return Ok(Going {
                was_there: false,
                stored: 0,
                hidden: 0,
                members_are_due: true,
                departed: Vec::new(),
                marks_are_due: true,
                entries_added: 0,
                left_alone: None,
            });
        };
        if (state.kind, &state.name) != (header.kind, &header.name) {
            return Ok(Going::left_alone("a channel of another kind or name has its id"));
        }
        let members_differ = members_differ(header, &state);
        if state.last_seq == header.last_seq && members_differ {
            return Ok(Going::left_alone("it has other members"));
        }
        let is_behind = state.last_seq < header.last_seq;
        let has_departed = |name: &&Username| header.members.iter().all(|member| member.username != **name);
        let departed = state.members.keys().filter(|name| is_behind && has_departed(name)).cloned().collect();
        Ok(Going {
            was_there: true,
            stored: state.last_seq,
            hidden: extent.map_or(0, |extent| extent.purged_seq),
            members_are_due: is_behind && members_differ,
            departed,
            marks_are_due: marks_are_lower(&state, header),
            entries_added: 0,
            left_alone: None,
        })
    }

    async fn take(&self, piece: Piece, mut going: Going) -> Result<Going, StoreError> {
        let Piece { header, entries, is_first, is_last } = piece;
        let (known, fresh) = entries.split_at(entries.partition_point(|entry| entry.seq <= going.stored));
        let known = &known[known.partition_point(|entry| entry.seq <= going.hidden)..];
        if let Some(seq) = self.first_difference(known).await? {
            going.left_alone = Some(format!("it has another entry with seq {seq}"));
            return Ok(going);
        }
        going.entries_added += fresh.len() as u64;
        if !self.writes {
            return Ok(going);
        }
        let makes_channel = is_first && !going.was_there;
        if makes_channel || !fresh.is_empty() || (is_last && going.marks_are_due) {
            let batch = Arc::new(batch(&header, fresh.to_vec(), makes_channel, is_last, &going));
            match patiently(async || self.stored.store.append(Arc::clone(&batch)).await).await {
                Ok(()) => {}
                Err(StoreError::Conflict(_)) => {
                    going.left_alone = Some("it is written to by others, or has one of the sends elsewhere".to_owned());
                    return Ok(going);
                }
                Err(error) => return Err(error),
            }
            if makes_channel || !fresh.is_empty() {
                going.members_are_due = false;
            }
        }
        crate::crash_point!("import_appended");
        // Those that were there already, too: whoever was killed may have stored them and not indexed them.
        self.index(known, fresh).await?;
        Ok(going)
    }

    /// The first of these entries that is not what is stored.
    async fn first_difference(&self, entries: &[Arc<Message>]) -> Result<Option<Seq>, StoreError> {
        let Some(first) = entries.first() else { return Ok(None) };
        let (id, page) = (first.channel, Page::After(first.seq - 1));
        let stored = patiently(async || self.stored.store.messages(id, page, entries.len()).await).await?;
        let mut stored = stored.into_iter().peekable();
        for entry in entries {
            if stored.next().as_ref() != Some(entry.as_ref()) {
                return Ok(Some(entry.seq));
            }
        }
        Ok(None)
    }

    async fn index(&self, known: &[Arc<Message>], fresh: &[Arc<Message>]) -> Result<(), StoreError> {
        let both = || known.iter().chain(fresh);
        let (Some(first), Some(last)) = (both().next(), both().last()) else { return Ok(()) };
        let range = IndexRange { channel: first.channel, first: first.seq, last: last.seq };
        let unavailable = |error: SearchError| StoreError::Unavailable(error.to_string());
        let index = &self.stored.index;
        if patiently(async || index.index_stored(vec![range]).await).await.map_err(unavailable)? {
            return Ok(());
        }
        let messages: Vec<Message> = both().map(|entry| entry.as_ref().clone()).collect();
        for page in messages.chunks(index.page().max(1)) {
            patiently(async || index.index(page.to_vec()).await).await.map_err(unavailable)?;
        }
        Ok(())
    }
}

fn batch(
    header: &Header,
    entries: Vec<Arc<Message>>,
    makes_channel: bool,
    is_last: bool,
    going: &Going,
) -> ChannelBatch {
    let has_news = makes_channel || !entries.is_empty();
    let comes = has_news && going.members_are_due;
    let mut members = Vec::new();
    if comes || is_last {
        // Watermarks rise with the last piece: nobody has read what isn't there.
        let shown = |listed: &ListedMember| match is_last {
            true => listed.member(),
            false => Member { delivered: 0, read: 0, ..listed.member() },
        };
        members = header.members.iter().map(|listed| (listed.username.clone(), shown(listed))).collect();
    }
    ChannelBatch {
        channel: header.id,
        create: makes_channel.then(|| NewChannel { kind: header.kind, name: header.name.clone() }),
        entries,
        members,
        departed: if comes { going.departed.clone() } else { Vec::new() },
        delivered_by_all: if is_last { header.delivered_by_all } else { 0 },
        read_by_all: if is_last { header.read_by_all } else { 0 },
        refused: Vec::new(),
    }
}

fn members_differ(header: &Header, state: &ChannelState) -> bool {
    let is_same = |listed: &ListedMember| {
        let stored = state.members.get(&listed.username);
        stored.is_some_and(|stored| (stored.role, stored.joined_seq) == (listed.role, listed.joined_seq))
    };
    state.members.len() != header.members.len() || !header.members.iter().all(is_same)
}

fn marks_are_lower(state: &ChannelState, header: &Header) -> bool {
    let is_lower = |listed: &ListedMember| {
        let same = state.members.get(&listed.username).filter(|stored| stored.joined_seq == listed.joined_seq);
        same.is_some_and(|stored| stored.delivered < listed.delivered || stored.read < listed.read)
    };
    // Above its head a channel has gone on, and has watermarks of its own.
    state.delivered_by_all < header.delivered_by_all
        || state.read_by_all < header.read_by_all
        || header.members.iter().any(is_lower)
}
