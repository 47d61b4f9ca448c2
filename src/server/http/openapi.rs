//! The description of the interface (OpenAPI 3.1) at `/api/v1/openapi.json`.

use std::sync::OnceLock;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{accounts, channels};

pub const PATH: &str = "/api/v1/openapi.json";

#[derive(OpenApi)]
#[openapi(
    info(title = "aula", description = "A real-time chat server. Messages travel on the socket at `/ws`."),
    paths(
        accounts::sign_up,
        accounts::log_in,
        accounts::refresh,
        accounts::log_out,
        accounts::me,
        accounts::list_users,
        channels::list_channels,
        channels::list_messages,
        channels::search,
    ),
    modifiers(&BearerToken)
)]
struct Api;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The whole interface.
pub fn document() -> Document {
    Api::openapi()
}

pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route(PATH, get(serve))
}

async fn serve() -> impl IntoResponse {
    static JSON: OnceLock<String> = OnceLock::new();
    // Made of our own annotations: writing it can't fail.
    let json = JSON.get_or_init(|| document().to_json().unwrap_or_default());
    ([(CONTENT_TYPE, "application/json")], json.as_str())
}
