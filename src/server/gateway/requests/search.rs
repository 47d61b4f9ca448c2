use std::time::Duration;

use super::{Gateway, Refusal, Session};
use crate::server::search::{Query, SearchError};
use crate::wire::frame::SearchResults;
use crate::wire::request::Search;
use crate::wire::{ErrorCode, Frame};

/// Hits in a page when the client doesn't say.
const DEFAULT_HITS: usize = 20;

/// The size of a page that a client's `limit` asks for; `Err` says what is wrong with it.
pub fn search_limit(asked: Option<u32>, most: usize) -> Result<usize, String> {
    let limit = asked.map_or(DEFAULT_HITS.min(most), |limit| limit as usize);
    if (1..=most).contains(&limit) { Ok(limit) } else { Err(format!("limit is 1 to {most}")) }
}

impl Gateway {
    pub(super) async fn search_for(
        &self,
        session: &Session,
        reference: Option<u64>,
        search: Search,
    ) -> Result<Option<Frame>, Refusal> {
        let Search { query, channel, from, before, after, limit, cursor, facets } = search;
        if !self.config.features.search {
            return Err(Refusal::new(ErrorCode::Forbidden, "search is switched off on this server"));
        }
        if channel.is_some_and(|channel| session.room(channel).is_none()) {
            return Err(Refusal::not_a_member());
        }
        let limit = search_limit(limit, self.config.search.max_results)
            .map_err(|wrong| Refusal::new(ErrorCode::Invalid, wrong))?;
        let query = Query { text: query, channel, from, before, after, limit, cursor, facets };
        let page = self.search.search(session.username(), query).await?;
        Ok(Some(Frame::SearchResults(SearchResults { reference, page })))
    }
}

impl From<SearchError> for Refusal {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Invalid(message) => Self::new(ErrorCode::Invalid, message),
            SearchError::NotAMember => Self::not_a_member(),
            SearchError::TooSlow => Self::new(ErrorCode::Unavailable, error.to_string()),
            SearchError::Unavailable(_) => {
                tracing::warn!(%error, "a search failed");
                Self::new(ErrorCode::Unavailable, "search is not available now").retry(Duration::from_secs(1))
            }
        }
    }
}
