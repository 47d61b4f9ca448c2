//! Sign-up, log-in, refresh, log-out, and looking users up.

use axum::Router;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, response::IntoResponse};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::extract::{ApiJson, ApiQuery, Client};
use super::problem::ProblemBody;
use super::{Bearer, NO_STORE, Problem};
use crate::message::{Millis, Username};
use crate::server::auth::password::Password;
use crate::server::auth::{Auth, AuthError, Grant, UserQuery};
use crate::wire::ErrorCode;

const DEFAULT_USERS: u32 = 50;
const MAX_USERS: u32 = 100;

/// The routes of accounts, complete with `/api/v1`. Clients' addresses are known if the server is made with
/// `into_make_service_with_connect_info::<SocketAddr>()`.
pub fn router<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Auth: FromRef<S>,
{
    Router::new()
        .route("/api/v1/users", post(sign_up).get(list_users))
        .route("/api/v1/sessions", post(log_in))
        .route("/api/v1/sessions/refresh", post(refresh))
        .route("/api/v1/sessions/current", delete(log_out))
        .route("/api/v1/me", get(me))
}

/// A username and a password.
#[derive(Deserialize, ToSchema)]
pub struct Credentials {
    /// 1 to 32 of a-z, 0-9, `_`, `.` and `-`, beginning with a letter or a digit.
    #[schema(example = "ada")]
    username: String,
    #[schema(value_type = String, format = Password)]
    password: Password,
}

#[derive(Deserialize, ToSchema)]
pub struct Refresh {
    refresh_token: String,
}

#[derive(Serialize, ToSchema)]
pub struct Tokens {
    /// For `Authorization: Bearer`, and for `auth` on the socket.
    access_token: String,
    /// Good once, for `POST /api/v1/sessions/refresh`.
    refresh_token: String,
    /// How long the access token is good, in seconds.
    expires_in: u64,
    #[schema(value_type = String)]
    username: Username,
}

#[derive(Serialize, ToSchema)]
pub struct Account {
    #[schema(value_type = String)]
    username: Username,
    #[schema(value_type = String, format = DateTime)]
    created_at: Millis,
}

#[derive(Serialize, ToSchema)]
pub struct Me {
    #[schema(value_type = String)]
    username: Username,
    #[schema(value_type = String, format = DateTime)]
    created_at: Millis,
    /// The log-in session that the access token belongs to.
    session: Uuid,
    /// When the access token expires.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Millis,
}

#[derive(Deserialize, IntoParams)]
pub struct Page {
    /// Only usernames that begin with this.
    #[serde(default)]
    prefix: String,
    /// Only usernames after this one: the last of the page before.
    after: Option<String>,
    /// 1 to 100; 50 if left out.
    limit: Option<u32>,
}

#[derive(Serialize, ToSchema)]
pub struct Users {
    /// In the order of their names.
    users: Vec<Account>,
    /// Whether there are more after the last one.
    more: bool,
}

#[utoipa::path(post, path = "/api/v1/users", tag = "accounts", request_body = Credentials, responses(
    (status = 201, description = "The user exists now", body = Account),
    (status = 400, description = "`invalid`: not a username, or a password too short or too long",
        body = ProblemBody, content_type = "application/problem+json"),
    (status = 403, description = "`forbidden`: sign-up is closed", body = ProblemBody,
        content_type = "application/problem+json"),
    (status = 409, description = "`conflict`: the username is taken", body = ProblemBody,
        content_type = "application/problem+json"),
    (status = 429, description = "`rate_limited`", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn sign_up(
    State(auth): State<Auth>,
    Client(client): Client,
    ApiJson(new): ApiJson<Credentials>,
) -> Result<impl IntoResponse, Problem> {
    let user = auth.sign_up(&new.username, new.password, client).await?;
    Ok((StatusCode::CREATED, Json(Account { username: user.username, created_at: user.created_at })))
}

#[utoipa::path(post, path = "/api/v1/sessions", tag = "accounts", request_body = Credentials, responses(
    (status = 200, description = "Logged in", body = Tokens),
    (status = 401, description = "`unauthorized`: wrong username or password", body = ProblemBody,
        content_type = "application/problem+json"),
    (status = 403, description = "`forbidden`: the account is disabled", body = ProblemBody,
        content_type = "application/problem+json"),
    (status = 429, description = "`rate_limited`: too many attempts from this address or for this user",
        body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "`overloaded`: too many log in at once", body = ProblemBody,
        content_type = "application/problem+json"),
))]
pub async fn log_in(
    State(auth): State<Auth>,
    Client(client): Client,
    ApiJson(credentials): ApiJson<Credentials>,
) -> Result<impl IntoResponse, Problem> {
    let grant = auth.log_in(&credentials.username, credentials.password, client).await?;
    Ok((NO_STORE, Json(Tokens::from(grant))))
}

#[utoipa::path(post, path = "/api/v1/sessions/refresh", tag = "accounts", request_body = Refresh, responses(
    (status = 200, description = "New tokens; the one sent is used up", body = Tokens),
    (status = 401, description = "`unauthorized`: the refresh token is not good: log in again. One that was used \
        before ends its session.", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn refresh(
    State(auth): State<Auth>,
    ApiJson(refresh): ApiJson<Refresh>,
) -> Result<impl IntoResponse, Problem> {
    let grant = auth.refresh(&refresh.refresh_token).await?;
    Ok((NO_STORE, Json(Tokens::from(grant))))
}

#[utoipa::path(delete, path = "/api/v1/sessions/current", tag = "accounts", security(("bearer" = [])), responses(
    (status = 204, description = "Logged out: all tokens of the session are worthless, its sockets are closed"),
    (status = 401, description = "`unauthorized`", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn log_out(State(auth): State<Auth>, Bearer(identity): Bearer) -> Result<StatusCode, Problem> {
    auth.log_out(&identity).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(get, path = "/api/v1/me", tag = "accounts", security(("bearer" = [])), responses(
    (status = 200, description = "Whose the access token is", body = Me),
    (status = 401, description = "`unauthorized`", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn me(State(auth): State<Auth>, Bearer(identity): Bearer) -> Result<impl IntoResponse, Problem> {
    let user = auth.accounts().user(&identity.username).await.map_err(AuthError::from)?;
    let user = user.ok_or_else(|| Problem::new(ErrorCode::Unauthorized, "the token's user does not exist"))?;
    let me = Me {
        username: user.username,
        created_at: user.created_at,
        session: identity.session_id,
        expires_at: identity.expires_at,
    };
    Ok((NO_STORE, Json(me)))
}

#[utoipa::path(get, path = "/api/v1/users", tag = "accounts", params(Page), security(("bearer" = [])), responses(
    (status = 200, description = "Users who are not disabled", body = Users),
    (status = 400, description = "`invalid`", body = ProblemBody, content_type = "application/problem+json"),
    (status = 401, description = "`unauthorized`", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn list_users(
    State(auth): State<Auth>,
    _asked_by: Bearer,
    ApiQuery(page): ApiQuery<Page>,
) -> Result<Json<Users>, Problem> {
    let limit = page.limit.unwrap_or(DEFAULT_USERS);
    if !(1..=MAX_USERS).contains(&limit) {
        return Err(Problem::new(ErrorCode::Invalid, format!("limit is 1 to {MAX_USERS}")));
    }
    let after = page.after.as_deref().map(Username::new).transpose().map_err(AuthError::from)?;
    // One more than asked for tells whether there are more.
    let query = UserQuery { prefix: page.prefix, after, limit: limit + 1, with_disabled: false };
    let mut found = auth.accounts().list_users(&query).await.map_err(AuthError::from)?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let users = found.into_iter().map(|user| Account { username: user.username, created_at: user.created_at });
    Ok(Json(Users { users: users.collect(), more }))
}

impl From<Grant> for Tokens {
    fn from(grant: Grant) -> Self {
        Self {
            access_token: grant.access_token,
            refresh_token: grant.refresh_token,
            expires_in: grant.expires_in.as_secs(),
            username: grant.username,
        }
    }
}

#[cfg(test)]
#[path = "accounts_tests.rs"]
mod tests;
