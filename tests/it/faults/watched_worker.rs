//! What a worker says of itself over HTTP.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{END_LIMIT, WORKER_LIMIT, bounded, builder, start_worker};
use crate::http::Http;
use crate::server::Worker;

/// The address in the line that supervisors wait for.
fn address(worker: &Worker) -> SocketAddr {
    let deadline = Instant::now() + WORKER_LIMIT;
    let mut said = String::new();
    while !said.ends_with('\n') {
        assert!(Instant::now() < deadline, "no line came: {said:?}; {}", worker.stderr());
        std::thread::sleep(Duration::from_millis(5));
        said += &worker.stdout();
    }
    let address = said.trim_end().strip_prefix("health and metrics on http://");
    address.unwrap_or_else(|| panic!("{said:?}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_answers_probes() {
    bounded(90, async {
        let server = builder().arg("--no-worker").start();
        let on = server.builder_ref();
        let mut worker = start_worker(on, &["--listen", "127.0.0.1:0"]);
        let at = address(&worker);
        let http = Http::new(at);
        assert_eq!(http.get("/healthz", None).await, (200, "ok\n".into()));
        assert_eq!(http.get("/readyz", None).await, (200, "ready\n".into()));
        let (status, metrics) = http.get("/metrics", None).await;
        assert!(status == 200 && metrics.as_str().unwrap().contains("aula_queue_depth{"), "{metrics}");
        // It is no server.
        for path in ["/", "/ws", "/api/v1/channels", "/api/v1/openapi.json"] {
            assert_eq!(http.get(path, None).await.0, 404, "{path}");
        }

        let taken = at.to_string();
        let (status, out, err) = on.aula(&["worker", "--queue", "index_tasks", "--listen", &taken]);
        assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains(&format!("can't listen on {taken}")) && err.contains("hint:"), "{err}");
        assert!(err.contains("--listen off"), "{err}");

        worker.signal(Signal::TERM);
        let status = tokio::task::block_in_place(|| worker.wait(END_LIMIT)).expect("SIGTERM ends it");
        assert_eq!(status.code(), Some(0), "{}", worker.stderr());
        assert!(std::net::TcpStream::connect(at).is_err(), "nobody listens there any more");
    })
    .await;
}

#[test]
fn a_worker_may_be_told_to_answer_nobody() {
    let server = builder().arg("--no-worker").start();
    let mut worker = start_worker(server.builder_ref(), &["--listen", "off"]);
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait(END_LIMIT).and_then(|status| status.code()), Some(0), "{}", worker.stderr());
    assert_eq!(worker.stdout(), "");
}

#[test]
fn questions_go_through_no_queue_where_gateways_have_the_index() {
    let server = builder().arg("--no-worker").start();
    for queues in [&["--queue", "search_tasks"][..], &["--queue", "db_tasks", "--queue", "search_tasks"]] {
        let (status, out, err) = server.aula(&[&["worker"], queues].concat());
        assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains("search_tasks is not used in this deployment"), "{err}");
    }
}
