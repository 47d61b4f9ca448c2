//! The shortest way through everything: two people, one channel, in both encodings.

use std::time::Duration;

use aula::oracle;

use crate::client::{Client, Encoding, is_status, recorder};
use crate::http::Http;
use crate::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_talk() {
    let mut server = Server::start();
    let http = Http::new(server.addr());
    let mut recorder = recorder();
    for (index, encoding) in Encoding::BOTH.into_iter().enumerate() {
        let (ada, bob) = (format!("ada{index}"), format!("bob{index}"));
        let ada_token = http.new_user(&ada).await;
        let bob_token = http.new_user(&bob).await;
        let ada = Client::connect(server.addr(), &ada, &ada_token, encoding).await;
        let bob = Client::connect(server.addr(), &bob, &bob_token, Encoding::Json).await;

        let channel = ada.create_direct(&bob.username).await;
        bob.wait_for(|frame| frame["op"] == "channel_created" && frame["channel"]["id"] == channel).await;
        let seq = ada.send_persisted(&channel, "hello").await;
        let shown = bob.wait_for(|frame| frame["op"] == "message" && frame["body"] == "hello").await;
        assert_eq!(shown["seq"], seq);
        assert_eq!(shown["sender"], ada.username);

        bob.post(serde_json::json!({"op": "read", "channel": channel, "seq": seq})).await.unwrap();
        ada.post(serde_json::json!({"op": "read", "channel": channel, "seq": seq})).await.unwrap();
        ada.wait_for(|frame| is_status(frame, "read") && frame["seq"] == seq).await;

        bob.close().await;
        ada.send_persisted(&channel, "while you were out").await;
        let again = Client::connect(server.addr(), &bob.username, &bob_token, encoding).await;
        let reply = again.resume(&[(&channel, seq)]).await;
        assert_eq!(reply["channels"][&channel]["complete"], true, "{reply}");
        again.wait_for(|frame| frame["op"] == "message" && frame["body"] == "while you were out").await;

        for client in [&ada, &again] {
            client.record_history(&channel, &mut recorder).await;
        }
        [&ada, &bob, &again].iter().for_each(|client| client.record(&mut recorder));
    }
    let verdict = oracle::check(&recorder.into_record().unwrap());
    assert!(verdict.is_clean(), "{verdict:#?}");
    // Of each pair: "hello", and what was sent while bob was out, which came to ada's own socket live.
    let counts = verdict.counts;
    assert_eq!((counts.attempts, counts.acknowledged, counts.ok, counts.recovered), (4, 4, 4, 0), "{counts:?}");

    server.sigterm();
    let status = server.wait(Duration::from_secs(20)).expect("SIGTERM ends the server");
    assert_eq!(status.code(), Some(0), "{}", server.stderr());
}

crate::on_servers![two_people_talk];
