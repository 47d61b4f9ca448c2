//! Rights that are taken back close the sockets that were opened with them, within about a second.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Auth, Client, ConnectError, Encoding};
use crate::http::PASSWORD;
use crate::people::People;
use crate::server::Server;

const SOON: Duration = Duration::from_millis(1500);

async fn closes_soon(client: &Client, since: Instant, reason: &str) {
    let close = client.wait_closed().await;
    let after = since.elapsed();
    assert_eq!((close.code, close.reason.as_str()), (Some(1008), reason));
    assert!(after < SOON, "{} was closed after {after:?}", client.username);
}

const REVOKED: &str = "the token was revoked or the account disabled";

async fn can_not_come_back(people: &People, token: &str) {
    let addr = people.server.addr();
    let refused = Client::try_connect(addr, "again", Auth::Bearer(token), Encoding::Json).await;
    assert!(matches!(refused, Err(ConnectError::Refused(401))));
    assert_eq!(people.http.get("/api/v1/me", Some(token)).await.0, 401);
    let client = Client::try_connect(addr, "again", Auth::FirstFrame(token), Encoding::Json).await.unwrap();
    let error = client.wait_for(|frame| frame["op"] == "error").await;
    assert_eq!(error["code"], "unauthorized");
    assert_eq!(client.wait_closed().await.code, Some(1008));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_out_closes_its_sockets_alone() {
    let people = People::new(&["ada"]).await;
    for encoding in Encoding::BOTH {
        let addr = people.server.addr();
        let other = people.http.log_in("ada", PASSWORD).await;
        let (mine, theirs) =
            (Client::connect(addr, "ada", &other.access, encoding).await, people.client("ada", encoding).await);
        let since = Instant::now();
        assert_eq!(people.http.delete("/api/v1/sessions/current", Some(&other.access)).await.0, 204);
        closes_soon(&mine, since, REVOKED).await;
        can_not_come_back(&people, &other.access).await;
        let refresh = json!({"refresh_token": other.refresh});
        assert_eq!(people.http.post("/api/v1/sessions/refresh", None, &refresh).await.0, 401);
        assert_eq!(theirs.request(json!({"op": "ping"})).await["op"], "pong");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_used_twice_ends_its_session() {
    let people = People::new(&["ada"]).await;
    let tokens = people.http.log_in("ada", PASSWORD).await;
    let client = Client::connect(people.server.addr(), "ada", &tokens.access, Encoding::Json).await;
    let refresh = json!({"refresh_token": tokens.refresh});
    let (status, _) = people.http.post("/api/v1/sessions/refresh", None, &refresh).await;
    assert_eq!(status, 200);
    let since = Instant::now();
    assert_eq!(people.http.post("/api/v1/sessions/refresh", None, &refresh).await.0, 401);
    closes_soon(&client, since, REVOKED).await;
    can_not_come_back(&people, &tokens.access).await;
}

/// By `aula` in another process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_closes_sockets() {
    let people = People::new(&["ada", "bob", "cleo", "dan"]).await;
    let token_of_bob = people.token("bob").to_owned();
    let cases: [(&str, Vec<&str>); 4] = [
        ("ada", vec!["user", "disable", "ada"]),
        ("bob", vec!["token", "revoke", &token_of_bob]),
        ("cleo", vec!["token", "revoke", "--user", "cleo"]),
        ("dan", vec!["user", "passwd", "dan", "--generate"]),
    ];
    for (name, command) in cases {
        let mut clients = Vec::new();
        for encoding in Encoding::BOTH {
            clients.push(people.client(name, encoding).await);
        }
        let (status, _, stderr) = tokio::task::block_in_place(|| people.server.aula(&command));
        // From the end of the command: it is done then.
        let since = Instant::now();
        assert!(status.success(), "{command:?}: {stderr}");
        for client in &clients {
            closes_soon(client, since, REVOKED).await;
        }
        can_not_come_back(&people, people.token(name)).await;
        let (status, _) =
            people.http.post("/api/v1/sessions", None, &json!({"username": name, "password": PASSWORD})).await;
        let expected = match name {
            "ada" => 403,
            "dan" => 401,
            _ => 200,
        };
        assert_eq!(status, expected, "{name} logs in again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_expires_closes_its_sockets() {
    let people = People::on(Server::builder().env("AULA_AUTH_ACCESS_TOKEN_TTL", "3s"), &["ada"]).await;
    for encoding in Encoding::BOTH {
        let tokens = people.http.log_in("ada", PASSWORD).await;
        let begun = Instant::now();
        let client = Client::connect(people.server.addr(), "ada", &tokens.access, encoding).await;
        assert_eq!(client.request(json!({"op": "ping"})).await["op"], "pong");
        let close = client.wait_closed().await;
        assert_eq!(close.reason, "the token has expired: log in or refresh");
        let lived = begun.elapsed();
        assert!((1500..4500).contains(&lived.as_millis()), "{lived:?}");
        can_not_come_back(&people, &tokens.access).await;
    }
}

crate::on_servers![
    a_log_out_closes_its_sockets_alone,
    a_refresh_token_used_twice_ends_its_session,
    the_operator_closes_sockets,
    a_token_that_expires_closes_its_sockets,
];
