//! A task that panics takes the process with it: what is left would look healthy, and do half of its work.

use super::{END_LIMIT, bounded, builder, start_worker};
use crate::client::{Client, Encoding, is_status};
use crate::http::Http;
use crate::server::Worker;

/// In a lane, before the message is stored.
const IN_A_LANE: &str = "after_broadcast_before_store";

fn assert_panicked(status: Option<std::process::ExitStatus>, said: &str) {
    assert_eq!(status.and_then(|status| status.code()), Some(1), "{said}");
    assert!(said.contains("a thread panicked") && said.contains("error: a task of the workers panicked"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_panics_ends_the_server() {
    bounded(60, async {
        let mut server = builder().env("AULA_CRASH_AT", format!("{IN_A_LANE}:1:panic")).start();
        let http = Http::new(server.addr());
        let (ada, _) = (http.new_user("ada").await, http.new_user("bob").await);
        let client = Client::connect(server.addr(), "ada", &ada, Encoding::Json).await;
        // The channel is stored by the same way.
        let request = serde_json::json!({"op": "create_channel", "kind": "direct", "members": ["bob"]});
        client.post(request).await.unwrap();
        let status = tokio::task::block_in_place(|| server.wait(END_LIMIT));
        assert_panicked(status, &server.stderr());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_panics_ends_the_worker_and_another_goes_on() {
    bounded(90, async {
        let server = builder().arg("--no-worker").start();
        let on = server.builder_ref().clone();
        let args = ["worker", "--queue", "db_tasks", "--queue", "index_tasks"];
        // The channel, and then the message.
        let mut doomed = Worker::spawn(&on.clone().env("AULA_CRASH_AT", format!("{IN_A_LANE}:2:panic")), &args);
        doomed.wait_for_log("working", super::WORKER_LIMIT);
        let http = Http::new(server.addr());
        let (ada, _) = (http.new_user("ada").await, http.new_user("bob").await);
        let client = Client::connect(server.addr(), "ada", &ada, Encoding::Json).await;
        let channel = client.create_direct("bob").await;
        let (client_id, reply) = client.send(&channel, "hello").await;
        assert_eq!(reply["status"], "accepted", "{reply}");
        let status = tokio::task::block_in_place(|| doomed.wait(END_LIMIT));
        assert_panicked(status, &doomed.stderr());
        let _heir = tokio::task::block_in_place(|| start_worker(&on, &[]));
        client.wait_for(|frame| is_status(frame, "persisted") && frame["client_id"] == *client_id).await;
    })
    .await;
}
