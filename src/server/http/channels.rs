//! Channels over HTTP: lists, pages of history, and search, for those who have no socket open.

use std::sync::Arc;

use axum::extract::{FromRef, Path, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::extract::ApiQuery;
use super::problem::{Problem, ProblemBody};
use super::{Bearer, NO_STORE};
use crate::message::{ChannelId, Message, Millis, Username};
use crate::server::auth::Auth;
use crate::server::gateway::{Gateway, MAX_PAGE, history_page, search_limit};
use crate::server::search::{Query, SearchError};
use crate::server::store::{Page, StoreError};
use crate::wire::ErrorCode;
use crate::wire::frame::{ChannelSummary, SearchPage};

pub fn router<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Auth: FromRef<S>,
    Arc<Gateway>: FromRef<S>,
{
    Router::new()
        .route("/api/v1/channels", get(list_channels))
        .route("/api/v1/channels/{id}/messages", get(list_messages))
        .route("/api/v1/search", get(search))
}

type NoStore<T> = ([(axum::http::HeaderName, &'static str); 1], Json<T>);

#[derive(Deserialize, IntoParams)]
pub struct ChannelsQuery {
    /// How many to skip.
    #[serde(default)]
    offset: usize,
    /// 1 to 100; 50 if left out.
    limit: Option<u32>,
}

#[derive(Serialize, ToSchema)]
pub struct Channels {
    /// Most recently active first; each as in the socket's `welcome`, without messages.
    #[schema(value_type = Vec<Object>)]
    channels: Vec<ChannelSummary>,
    more: bool,
}

#[utoipa::path(get, path = "/api/v1/channels", tag = "channels", params(ChannelsQuery), security(("bearer" = [])),
    responses(
        (status = 200, description = "The user's channels", body = Channels),
        (status = 401, description = "`unauthorized`", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn list_channels(
    State(gateway): State<Arc<Gateway>>,
    Bearer(identity): Bearer,
    ApiQuery(query): ApiQuery<ChannelsQuery>,
) -> Result<NoStore<Channels>, Problem> {
    let (_page, limit) = history_page(None, None, query.limit).map_err(invalid)?;
    let mut channels = gateway.channels(&identity.username, query.offset, limit + 1).await?;
    let more = channels.len() > limit;
    channels.truncate(limit);
    Ok((NO_STORE, Json(Channels { channels, more })))
}

#[derive(Deserialize, IntoParams)]
pub struct HistoryQuery {
    /// Only entries with a lower seq: the newest of them.
    before: Option<u64>,
    /// Only entries with a higher seq: the oldest of them.
    after: Option<u64>,
    /// 1 to 100; 50 if left out.
    limit: Option<u32>,
}

#[derive(Serialize, ToSchema)]
pub struct History {
    #[schema(value_type = Uuid)]
    channel: ChannelId,
    /// Ascending by seq, each as in the socket's `message`.
    #[schema(value_type = Vec<Object>)]
    messages: Vec<Message>,
    /// Whether there is more in the direction asked for.
    more: bool,
}

#[utoipa::path(get, path = "/api/v1/channels/{id}/messages", tag = "channels",
    params(("id" = Uuid, Path, description = "The channel"), HistoryQuery), security(("bearer" = [])), responses(
        (status = 200, description = "A page of stored entries", body = History),
        (status = 400, description = "`invalid`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`not_a_member`: or there is no such channel", body = ProblemBody,
            content_type = "application/problem+json"),
))]
pub async fn list_messages(
    State(gateway): State<Arc<Gateway>>,
    Bearer(identity): Bearer,
    Path(id): Path<String>,
    ApiQuery(query): ApiQuery<HistoryQuery>,
) -> Result<NoStore<History>, Problem> {
    let id = Uuid::parse_str(&id).map_err(|_malformed| invalid("a channel's id is a uuid"))?;
    let channel = ChannelId(id);
    if gateway.store().role(channel, &identity.username).await?.is_none() {
        return Err(not_a_member());
    }
    let (page, limit) = history_page(query.before, query.after, query.limit).map_err(invalid)?;
    let mut messages = gateway.store().messages(channel, page, limit + 1).await?;
    // Removed meanwhile, its user must not see what came after.
    if gateway.store().role(channel, &identity.username).await?.is_none() {
        return Err(not_a_member());
    }
    let more = messages.len() > limit;
    match page {
        Page::After(_) => messages.truncate(limit),
        Page::Before(_) => drop(messages.drain(..usize::from(more))),
    }
    Ok((NO_STORE, Json(History { channel, messages, more })))
}

#[derive(Deserialize, IntoParams)]
pub struct SearchQuery {
    /// Words that must all be there; `"…"` for a phrase, a trailing `*` for any ending.
    q: String,
    /// Only in this channel.
    channel: Option<Uuid>,
    /// Only from this user.
    #[param(value_type = Option<String>)]
    from: Option<Username>,
    /// Only sent before this moment (RFC 3339).
    #[param(value_type = Option<String>)]
    before: Option<Millis>,
    /// Only sent after this moment (RFC 3339).
    #[param(value_type = Option<String>)]
    after: Option<Millis>,
    /// At least 1, at most as configured; 20 if left out.
    limit: Option<u32>,
    /// From the page before.
    cursor: Option<String>,
    /// Also count the matches by channel and by sender.
    #[serde(default)]
    facets: bool,
}

#[utoipa::path(get, path = "/api/v1/search", tag = "channels", params(SearchQuery), security(("bearer" = [])),
    responses(
        (status = 200, description = "Hits, newest first, as in the socket's `search_results`", body = Object),
        (status = 400, description = "`invalid`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`not_a_member`, or `forbidden`: search is switched off", body = ProblemBody,
            content_type = "application/problem+json"),
))]
pub async fn search(
    State(gateway): State<Arc<Gateway>>,
    Bearer(identity): Bearer,
    ApiQuery(query): ApiQuery<SearchQuery>,
) -> Result<NoStore<SearchPage>, Problem> {
    if !gateway.config().features.search {
        return Err(Problem::new(ErrorCode::Forbidden, "search is switched off on this server"));
    }
    let limit = search_limit(query.limit, gateway.config().search.max_results).map_err(invalid)?;
    let query = Query {
        text: query.q,
        channel: query.channel.map(ChannelId),
        from: query.from,
        before: query.before,
        after: query.after,
        limit,
        cursor: query.cursor,
        facets: query.facets,
    };
    Ok((NO_STORE, Json(gateway.search().search(&identity.username, query).await?)))
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::Invalid, detail)
}

fn not_a_member() -> Problem {
    Problem::new(ErrorCode::NotAMember, "not a member of this channel, or there is no such channel")
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "a request could not be served");
        Self::new(ErrorCode::Unavailable, "the store can't be read now")
    }
}

impl From<SearchError> for Problem {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Invalid(message) => invalid(message),
            SearchError::NotAMember => not_a_member(),
            SearchError::TooSlow => Self::new(ErrorCode::Unavailable, error.to_string()),
            SearchError::Unavailable(_) => {
                tracing::warn!(%error, "a search failed");
                Self::new(ErrorCode::Unavailable, "search is not available now")
            }
        }
    }
}

const _: () = assert!(MAX_PAGE == 100, "the descriptions above say 100");
