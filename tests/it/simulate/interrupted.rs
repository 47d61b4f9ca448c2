//! Who wishes to end a run before it has begun is heard, whatever goes on.

use std::io::Read as _;
use std::net::TcpListener;
use std::sync::mpsc;

use super::*;

/// Ends with what it was busy with, and leaves no folder.
fn assert_interrupted(run: &mut Worker, prefix: &str) {
    let (status, out) = run.finish(LIMIT);
    assert_eq!(status.code(), Some(1), "{out}{}", run.stderr());
    assert!(run.stderr().contains("interrupted"), "{}", run.stderr());
    assert_nothing_is_left(prefix);
}

#[test]
fn accounts_are_made_no_further_and_those_that_were_made_are_disabled() {
    let server = Server::builder();
    let running = server.start();
    let url = running.addr().to_string();
    let words = ["simulate-clients", "--url", &url, "--clients", "60000", "--processes", "64", "--clean-up"];
    let mut run = Worker::spawn(&server, &[&words[..], &["--user-prefix", "halfway"]].concat());
    run.wait_for_log("making 60000 accounts", LIMIT);
    run.signal(Signal::INT);
    assert_interrupted(&mut run, "halfway");
    let (status, out, err) =
        server.aula(&["user", "list", "--prefix", "halfway", "--limit", "1000", "--output", "json"]);
    assert!(status.success(), "{err}");
    let users: Value = serde_json::from_str(&out).unwrap();
    let enabled: Vec<_> = users.as_array().unwrap().iter().filter(|user| user["disabled_at"].is_null()).collect();
    assert!(enabled.is_empty(), "{enabled:?}");
}

#[test]
fn metrics_that_do_not_come_are_waited_for_no_longer() {
    // It takes what is asked, and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = format!("http://{}/metrics", listener.local_addr().unwrap());
    let (asked, was_asked) = mpsc::channel();
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            assert!(stream.read(&mut [0; 512]).unwrap() > 0);
            silent.push(stream);
            let _ = asked.send(());
        }
    });
    let builder = Server::builder();
    let server = builder.start();
    let (url, tokens) = (server.addr().to_string(), tokens(&server));
    let words = ["simulate-clients", "--url", &url, "--tokens", &tokens, "--metrics-url", &metrics];
    let mut run = Worker::spawn(&builder, &[&words[..], &["--duration", "60s", "--user-prefix", "unmetered"]].concat());
    was_asked.recv_timeout(LIMIT).unwrap();
    run.signal(Signal::INT);
    assert_interrupted(&mut run, "unmetered");
}
