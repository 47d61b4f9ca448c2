//! Who is let in: subprotocols, origins, tokens.

use serde_json::json;

use super::{named, three};
use crate::client::{Auth, Client, ConnectError, Encoding};
use crate::people::People;
use crate::server::Server;

async fn with_headers(people: &People, headers: &[(&'static str, &str)], encoding: Encoding) -> Result<Client, u16> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    match Client::open(people.server.addr(), "ada-j", &headers, encoding).await {
        Ok(client) => Ok(client),
        Err(ConnectError::Refused(status)) => Err(status),
        Err(ConnectError::Failed(error)) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_subprotocol_decides_the_encoding() {
    let people = three(Server::builder()).await;
    let offers = [
        (Some("aula.v1.json"), Encoding::Json),
        (Some("aula.v1.msgpack"), Encoding::Msgpack),
        (Some("aula.v9.cbor, aula.v1.msgpack"), Encoding::Msgpack),
        (None, Encoding::Json),
    ];
    for (offer, encoding) in offers {
        let offered: Vec<_> = offer.iter().map(|offer| ("sec-websocket-protocol", *offer)).collect();
        let client = with_headers(&people, &offered, encoding).await.unwrap();
        client.post(json!({"op": "auth", "token": people.token("ada-j")})).await.unwrap();
        assert_eq!(client.welcome().await["username"], "ada-j", "{offer:?}");
    }
    for unknown in ["aula.v2.json", "chat"] {
        let refused = with_headers(&people, &[("sec-websocket-protocol", unknown)], Encoding::Json).await;
        assert_eq!(refused.err(), Some(400), "{unknown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_listed_origins_are_let_in() {
    let people = three(Server::builder()).await;
    let own = format!("http://{}", people.server.addr());
    let own_port_else = "http://127.0.0.1:1".to_owned();
    for (origin, allowed) in
        [(&own, true), (&own_port_else, false), (&"https://evil.example".into(), false), (&"null".into(), false)]
    {
        let answer = with_headers(&people, &[("origin", origin)], Encoding::Json).await;
        assert_eq!(answer.err(), (!allowed).then_some(403), "{origin}");
    }
    let listed = three(Server::builder().env("AULA_SERVER_ALLOWED_ORIGINS", "https://chat.example")).await;
    assert!(with_headers(&listed, &[("origin", "https://chat.example")], Encoding::Json).await.is_ok());
    assert_eq!(with_headers(&listed, &[("origin", "https://evil.example")], Encoding::Json).await.err(), Some(403));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bearer_token_in_the_handshake_needs_no_auth() {
    let people = three(Server::builder()).await;
    let addr = people.server.addr();
    for encoding in Encoding::BOTH {
        let ada = named("ada", encoding);
        let client = Client::try_connect(addr, &ada, Auth::Bearer(people.token(&ada)), encoding).await.unwrap();
        assert_eq!(client.welcome().await["username"], *ada);
        let again = client.request(json!({"op": "auth", "token": people.token(&ada)})).await;
        super::refused(again, "invalid");
        let refused = Client::try_connect(addr, &ada, Auth::Bearer("no.such.token"), encoding).await;
        assert!(matches!(refused, Err(ConnectError::Refused(401))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bearer_handshake_takes_no_strangers_place() {
    let people = three(Server::builder().env("AULA_SERVER_MAX_UNAUTHENTICATED", 1)).await;
    let _stranger = people.stranger(Encoding::Json).await;
    let addr = people.server.addr();
    let second = Client::try_connect(addr, "second", Auth::None, Encoding::Json).await;
    assert!(matches!(second, Err(ConnectError::Refused(503))));
    let ada = Client::try_connect(addr, "ada-j", Auth::Bearer(people.token("ada-j")), Encoding::Json).await.unwrap();
    ada.welcome().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_frame_is_a_good_auth_or_the_last() {
    let people = three(Server::builder().env("AULA_SERVER_AUTH_TIMEOUT", "400ms")).await;
    for encoding in Encoding::BOTH {
        let firsts = [
            Some(json!({"op": "ping"})),
            Some(json!({"op": "auth", "token": "no.such.token"})),
            Some(json!({"op": "auth", "token": {"$ne": null}})),
            Some(json!({"op": "auth"})),
            Some(json!({"op": "dance"})),
            None,
        ];
        for first in firsts {
            let client = people.stranger(encoding).await;
            let reference = match &first {
                Some(frame) => Some(client.post(frame.clone()).await.unwrap()),
                None => None,
            };
            let error = client.wait_for(|frame| frame["op"] == "error").await;
            assert_eq!(error["code"], "unauthorized", "{first:?}");
            assert_eq!(error.get("ref").and_then(|value| value.as_u64()), reference, "{first:?}");
            let close = client.wait_closed().await;
            assert_eq!((close.code, close.reason.as_str()), (Some(1008), "authentication required"), "{first:?}");
        }
    }
}
