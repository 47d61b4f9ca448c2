use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::*;
use crate::server::auth::AuthOptions;
use crate::server::auth::testing;
use crate::server::http::{openapi, refuse_the_rest};

struct Api {
    router: Router,
    auth: Auth,
    guard: TempDir,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Api {
    fn new(change: impl FnOnce(&mut AuthOptions)) -> Self {
        let (auth, guard) = testing::auth(change);
        let router = refuse_the_rest(router::<Auth>().merge(openapi::router())).with_state(auth.clone());
        Self { router, auth, guard }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(json_request(path).body(Body::from(body.to_string())).unwrap()).await
    }

    async fn with_token(&self, method: Method, path: &str, token: &str) -> Answer {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        self.with_token(Method::GET, path, token).await
    }

    async fn sign_up(&self, username: &str) -> Answer {
        self.post("/api/v1/users", json!({"username": username, "password": "correct horse"})).await
    }

    /// An access and a refresh token.
    async fn log_in(&self, username: &str) -> (String, String) {
        let answer = self.post("/api/v1/sessions", json!({"username": username, "password": "correct horse"})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let text = |field: &str| answer.body[field].as_str().unwrap().to_owned();
        (text("access_token"), text("refresh_token"))
    }
}

fn json_request(path: &str) -> axum::http::request::Builder {
    Request::builder().method(Method::POST).uri(path).header("content-type", "application/json")
}

impl Answer {
    #[track_caller]
    fn is_problem(&self, status: u16, code: &str) -> &Self {
        assert_eq!((self.status, &self.body["code"]), (status, &json!(code)), "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], "about:blank");
        assert!(self.body["title"].is_string() && self.body["detail"].is_string());
        self
    }

    fn detail(&self) -> &str {
        self.body["detail"].as_str().unwrap()
    }
}

#[tokio::test]
async fn from_sign_up_to_log_out() {
    let api = Api::new(|_| ());
    let created = api.sign_up("ada").await;
    assert_eq!((created.status, &created.body["username"]), (201, &json!("ada")));
    let answer = api.post("/api/v1/sessions", json!({"username": "ada", "password": "correct horse"})).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!((&answer.body["expires_in"], &answer.body["username"]), (&json!(900), &json!("ada")));
    let access = answer.body["access_token"].as_str().unwrap();

    let me = api.get("/api/v1/me", access).await;
    assert_eq!((me.status, &me.body["username"]), (200, &json!("ada")));
    assert_eq!(me.body["created_at"], created.body["created_at"]);
    assert!(me.body["session"].is_string() && me.body["expires_at"].as_str().unwrap().ends_with('Z'));

    let refreshed = api.post("/api/v1/sessions/refresh", json!({"refresh_token": answer.body["refresh_token"]})).await;
    assert_eq!(refreshed.status, 200);
    assert_eq!(refreshed.headers["cache-control"], "no-store");
    let access = refreshed.body["access_token"].as_str().unwrap();

    let out = api.with_token(Method::DELETE, "/api/v1/sessions/current", access).await;
    assert_eq!((out.status, out.body), (204, Value::Null));
    let answer = api.get("/api/v1/me", access).await;
    assert_eq!(answer.is_problem(401, "unauthorized").detail(), "the token was revoked");
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    api.post("/api/v1/sessions/refresh", json!({"refresh_token": refreshed.body["refresh_token"]}))
        .await
        .is_problem(401, "unauthorized");
}

#[tokio::test]
async fn sign_up_is_refused_with_the_reason() {
    let api = Api::new(|_| ());
    api.sign_up("ada").await;
    api.sign_up("ada").await.is_problem(409, "conflict");
    assert!(api.sign_up("Ada").await.is_problem(400, "invalid").detail().contains("a-z"));
    let short = api.post("/api/v1/users", json!({"username": "bob", "password": "short"})).await;
    assert!(short.is_problem(400, "invalid").detail().contains("at least 8"));
    Api::new(|options| options.signup_open = false).sign_up("ada").await.is_problem(403, "forbidden");
}

#[tokio::test]
async fn log_in_is_refused_alike_for_all_but_the_disabled() {
    let api = Api::new(|_| ());
    api.sign_up("ada").await;
    let log_in = async |username: &str, password: &str| {
        api.post("/api/v1/sessions", json!({"username": username, "password": password})).await
    };
    let wrong = log_in("ada", "wrong").await;
    wrong.is_problem(401, "unauthorized");
    assert_eq!(log_in("bob", "correct horse").await.body, wrong.body);
    api.auth.accounts().disable(&Username::new("ada").unwrap(), Millis::now()).await.unwrap();
    log_in("ada", "correct horse").await.is_problem(403, "forbidden");
    assert_eq!(log_in("ada", "wrong").await.body, wrong.body);
}

#[tokio::test]
async fn too_many_attempts_from_one_address_have_to_wait() {
    let api = Api::new(|options| options.logins_per_minute = 2);
    let attempt = async |username: &str, address: &str| {
        let body = json!({"username": username, "password": "correct horse"}).to_string();
        let mut request = json_request("/api/v1/sessions").body(Body::from(body)).unwrap();
        request.extensions_mut().insert(ConnectInfo(address.parse::<SocketAddr>().unwrap()));
        api.send(request).await
    };
    attempt("a", "192.0.2.1:1").await.is_problem(401, "unauthorized");
    attempt("b", "192.0.2.1:2").await.is_problem(401, "unauthorized");
    let refused = attempt("c", "192.0.2.1:3").await;
    refused.is_problem(429, "rate_limited");
    let wait = refused.body["retry_after_ms"].as_u64().unwrap();
    assert!((20_000..=30_000).contains(&wait), "{wait}");
    assert_eq!(refused.headers["retry-after"], wait.div_ceil(1000).to_string());
    attempt("c", "192.0.2.2:1").await.is_problem(401, "unauthorized");
}

#[tokio::test]
async fn too_many_at_once_are_refused() {
    let api = Api::new(|options| {
        options.password_threads = 1;
        options.password_queue = 0;
    });
    let (one, two, three) = tokio::join!(api.sign_up("ada"), api.sign_up("bob"), api.sign_up("carl"));
    let mut statuses = [one.status, two.status, three.status];
    statuses.sort_unstable();
    assert_eq!(statuses[0], 201);
    let refused = [one, two, three].into_iter().find(|answer| answer.status != 201).unwrap();
    refused.is_problem(503, "overloaded");
    assert_eq!(refused.body["retry_after_ms"], 1000);
}

#[tokio::test]
async fn a_used_refresh_token_ends_the_session() {
    let api = Api::new(|_| ());
    api.sign_up("ada").await;
    let (access, refresh) = api.log_in("ada").await;
    let body = json!({"refresh_token": refresh});
    assert_eq!(api.post("/api/v1/sessions/refresh", body.clone()).await.status, 200);
    let reused = api.post("/api/v1/sessions/refresh", body).await;
    assert!(reused.is_problem(401, "unauthorized").detail().contains("used before"));
    api.get("/api/v1/me", &access).await.is_problem(401, "unauthorized");
}

#[tokio::test]
async fn a_bearer_token_is_needed_and_must_be_good() {
    let api = Api::new(|_| ());
    for (method, path) in
        [(Method::GET, "/api/v1/me"), (Method::GET, "/api/v1/users"), (Method::DELETE, "/api/v1/sessions/current")]
    {
        let bare = Request::builder().method(method.clone()).uri(path).body(Body::empty()).unwrap();
        assert!(api.send(bare).await.is_problem(401, "unauthorized").detail().contains("Bearer"));
        let bad = api.with_token(method, path, "rubbish").await;
        assert_eq!(bad.is_problem(401, "unauthorized").detail(), "the token is malformed");
    }
    api.sign_up("ada").await;
    let (access, _) = api.log_in("ada").await;
    for header in [format!("Basic {access}"), access.clone(), String::new()] {
        let request = Request::builder().uri("/api/v1/me").header("authorization", header);
        api.send(request.body(Body::empty()).unwrap()).await.is_problem(401, "unauthorized");
    }
    let twice = Request::builder().uri("/api/v1/me").header("authorization", "Bearer a");
    let twice = twice.header("authorization", format!("Bearer {access}")).body(Body::empty()).unwrap();
    api.send(twice).await.is_problem(401, "unauthorized");
    let small = Request::builder().uri("/api/v1/me").header("authorization", format!("bearer {access}"));
    assert_eq!(api.send(small.body(Body::empty()).unwrap()).await.status, 200, "a scheme's case doesn't matter");
}

#[tokio::test]
async fn users_are_found_by_prefix_in_pages() {
    let api = Api::new(|_| ());
    for username in ["ada", "adam", "adele", "bob"] {
        api.sign_up(username).await;
    }
    let (access, _) = api.log_in("bob").await;
    let names = async |path: &str| {
        let answer = api.get(path, &access).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let users = answer.body["users"].as_array().unwrap();
        let names: Vec<_> = users.iter().map(|user| user["username"].as_str().unwrap().to_owned()).collect();
        (names.join(" "), answer.body["more"].as_bool().unwrap())
    };
    assert_eq!(names("/api/v1/users").await, ("ada adam adele bob".into(), false));
    assert_eq!(names("/api/v1/users?prefix=ad&limit=2&new=1").await, ("ada adam".into(), true));
    assert_eq!(names("/api/v1/users?prefix=ad&limit=2&after=adam").await, ("adele".into(), false));
    for bad in ["limit=0", "limit=101", "limit=-1", "limit=x", "after=No"] {
        api.get(&format!("/api/v1/users?{bad}"), &access).await.is_problem(400, "invalid");
    }
}

#[tokio::test]
async fn bodies_that_are_no_request_are_refused_cheaply() {
    let api = Api::new(|_| ());
    let send = async |body: Body| api.send(json_request("/api/v1/sessions").body(body).unwrap()).await;
    for (body, detail) in [
        ("", "must be a JSON object"),
        ("{", "not JSON"),
        ("[\"ada\",\"hunter22\"]", "must be a JSON object"),
        ("{}", "username is missing"),
        ("{\"username\":\"ada\",\"password\":{\"$ne\":1}}", "field password"),
        ("{\"username\":[],\"password\":\"hunter22\"}", "field username"),
        ("{\"username\":\"a\",\"password\":\"b\"} {}", "more than one"),
        ("null", "must be a JSON object"),
        (&format!("{{\"username\":{}", "[".repeat(10_000)), "field username"),
        (&format!("{{\"x\":{}", "[".repeat(10_000)), "not JSON"),
    ] {
        let answer = send(Body::from(body.to_owned())).await;
        let detail_got = answer.is_problem(400, "invalid").detail();
        assert!(detail_got.contains(detail) && !detail_got.contains("hunter22"), "{body:.99}: {detail_got}");
    }
    send(Body::from(vec![b' '; 17 * 1024])).await.is_problem(413, "too_large");
    // Without a length, in pieces.
    let pieces = futures_util::stream::iter((0..5000).map(|_| Ok::<_, std::io::Error>("    ")));
    send(Body::from_stream(pieces)).await.is_problem(413, "too_large");
    let broken = futures_util::stream::iter([Ok("{"), Err(std::io::Error::other("broken"))]);
    send(Body::from_stream(broken)).await.is_problem(400, "invalid");

    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
        let request = Request::builder().method(Method::POST).uri("/api/v1/sessions");
        let request = request.header("content-type", content_type).body(Body::from("{}")).unwrap();
        api.send(request).await.is_problem(415, "invalid");
    }
}

#[tokio::test]
async fn a_broken_store_is_unavailable_and_tells_no_details() {
    let api = Api::new(|_| ());
    api.sign_up("ada").await;
    let (access, refresh) = api.log_in("ada").await;
    let file = api.guard.path().join("aula.db");
    rusqlite::Connection::open(file).unwrap().execute_batch("DROP TABLE users; DROP TABLE login_sessions").unwrap();
    let answers = [
        api.sign_up("bob").await,
        api.post("/api/v1/sessions", json!({"username": "ada", "password": "correct horse"})).await,
        api.post("/api/v1/sessions/refresh", json!({"refresh_token": refresh})).await,
        api.with_token(Method::DELETE, "/api/v1/sessions/current", &access).await,
        api.get("/api/v1/me", &access).await,
        api.get("/api/v1/users", &access).await,
    ];
    for answer in answers {
        assert_eq!(answer.is_problem(503, "unavailable").detail(), "accounts are unavailable");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let api = Api::new(|_| ());
    for path in ["/api", "/api/", "/api/v1", "/api/v2/users", "/api/v1/users/ada"] {
        api.get(path, "x").await.is_problem(404, "not_found");
    }
    let answer = api.with_token(Method::PUT, "/api/v1/users", "x").await;
    assert!(answer.is_problem(405, "unknown_op").detail().contains("PUT"));
    assert!(answer.headers["allow"].to_str().unwrap().contains("POST"), "{:?}", answer.headers);
}

#[tokio::test]
async fn the_interface_is_described() {
    let answer = Api::new(|_| ()).get("/api/v1/openapi.json", "x").await;
    assert_eq!(answer.status, 200);
    let operations: Vec<_> = answer.body["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |method| format!("{method} {path}")))
        .collect();
    for route in [
        "post /api/v1/users",
        "get /api/v1/users",
        "post /api/v1/sessions",
        "post /api/v1/sessions/refresh",
        "delete /api/v1/sessions/current",
        "get /api/v1/me",
    ] {
        assert!(operations.iter().any(|operation| operation == route), "{route} is not among {operations:?}");
    }
    let codes = answer.body["components"]["schemas"]["ErrorCode"]["enum"].as_array().unwrap();
    assert_eq!(codes.len(), ErrorCode::ALL.len());
    assert_eq!(answer.body["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
}
