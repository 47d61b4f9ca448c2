use super::{Gateway, Refusal, Session};
use crate::message::Seq;
use crate::server::store::{Page, StoreError};
use crate::wire::frame::Reply;
use crate::wire::request::History;
use crate::wire::{ErrorCode, Frame};

/// Entries in a page, at most.
pub const MAX_PAGE: u32 = 100;
/// Entries in a page when the client doesn't say.
const DEFAULT_PAGE: u32 = 50;

/// What a client's `before`, `after` and `limit` ask for; `Err` says what is wrong with them.
pub fn history_page(
    before: Option<Seq>,
    after: Option<Seq>,
    limit: Option<u32>,
) -> Result<(Page, usize), &'static str> {
    let limit = limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err("limit is 1 to 100");
    }
    let page = match (before, after) {
        (Some(_), Some(_)) => return Err("give before or after, not both"),
        (Some(before), None) => Page::Before(before),
        (None, Some(after)) => Page::After(after),
        (None, None) => Page::Before(Seq::MAX),
    };
    Ok((page, limit as usize))
}

impl Gateway {
    pub(super) async fn history(
        &self,
        session: &Session,
        reference: Option<u64>,
        history: History,
    ) -> Result<Option<Frame>, Refusal> {
        let room = session.room(history.channel).ok_or_else(Refusal::not_a_member)?;
        let (page, limit) = history_page(history.before, history.after, history.limit)
            .map_err(|wrong| Refusal::new(ErrorCode::Invalid, wrong))?;
        let (messages, more) = self.page(&room, page, limit).await?;
        // Removed while it was read, it may hold what came after (promise P11). Where another process writes the
        // log, the store may know of that before this one does.
        let is_ahead = messages.last().is_some_and(|last| last.seq > room.last_seq());
        let user = session.username();
        if is_ahead && self.store.role(history.channel, user).await?.is_none() {
            return Err(Refusal::not_a_member());
        }
        if session.room(history.channel).is_none() {
            return Err(Refusal::not_a_member());
        }
        let (messages, more) = (Some(messages), Some(more));
        Ok(Some(Frame::Ok(Reply { reference, channel: Some(history.channel), messages, more, ..Reply::default() })))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "a request could not be served");
        Self::new(ErrorCode::Unavailable, "the store can't be read now").retry(std::time::Duration::from_secs(1))
    }
}
