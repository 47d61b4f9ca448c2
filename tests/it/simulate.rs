//! `aula simulate-clients` from its start to its end: against servers of its own, and against one that is killed.

mod capacity;
mod interrupted;
mod reach;
mod unproved;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::server::{Server, Worker};

const LIMIT: Duration = Duration::from_secs(90);

/// A run to its end: its status, what it printed and what it complained about.
fn simulate(words: &[&str]) -> (ExitStatus, Value, String) {
    let words = [&["simulate-clients", "--output", "json", "--ramp", "1s"], words].concat();
    let (status, out, err) = Server::builder().aula(&words);
    let report = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
    (status, report, err)
}

fn count(report: &Value, stage: &str) -> u64 {
    report["stages"][stage]["count"].as_u64().unwrap_or_else(|| panic!("no {stage} in {report}"))
}

/// Nothing was lost, and the oracle has looked.
fn assert_clean(report: &Value) {
    assert_eq!(report["received"], report["expected"], "{report}");
    let verdict = &report["verdict"];
    assert_eq!(verdict["violations"], serde_json::json!([]), "{verdict}");
    assert_eq!((&verdict["lost"], &verdict["duplicated"], &verdict["unexpected"]), (&0.into(), &0.into(), &0.into()));
    assert_eq!(verdict["attempts"], verdict["ok"], "{verdict}");
    assert_eq!(verdict["unjudged"], serde_json::json!({"stream_ends": 0, "statuses": 0}), "{verdict}");
}

/// No folder of a run that began with this is left.
fn assert_nothing_is_left(prefix: &str) {
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let left: Vec<_> = names.filter(|name| name.starts_with(&format!("aula-{prefix}-"))).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_run_on_a_server_of_its_own_measures_all_stages_and_finds_all_promises_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.json");
    let record = folder.path().join("run.ndjson");
    let (file, record) = (file.to_str().unwrap(), record.to_str().unwrap());
    let words = ["--clients", "50", "--rate", "100", "--duration", "3s", "--user-prefix", "whole"];
    let (status, report, err) = simulate(&[&words[..], &["--report", file, "--record", record]].concat());
    assert_eq!(status.code(), Some(0), "{err}");
    assert_clean(&report);
    assert_eq!(count(&report, "connect"), 50);
    let sent = count(&report, "accepted");
    assert!((200..400).contains(&sent), "{sent}");
    assert_eq!(count(&report, "persisted"), sent);
    for stage in ["send_to_receive", "delivered", "read"] {
        assert!(count(&report, stage) > 0, "{stage}: {report}");
    }
    assert!(report["server"]["resident_at_rest_bytes"].as_u64() > Some(0), "{report}");
    let written: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(written["stages"], report["stages"]);
    let (status, out, err) = Server::builder().aula(&["verify-history", record]);
    assert_eq!(status.code(), Some(0), "{out}{err}");
    assert_nothing_is_left("whole");
}

#[test]
fn a_crossed_threshold_has_an_exit_code_of_its_own() {
    let words = ["--clients", "10", "--rate", "20", "--duration", "1s", "--threshold", "accepted.p99<1us"];
    let (status, report, err) = simulate(&words);
    assert_eq!(status.code(), Some(99), "{err}");
    assert_eq!(report["thresholds"][0]["met"], false);
}

#[test]
fn several_processes_make_one_report() {
    let words = ["--clients", "40", "--rate", "80", "--duration", "2s", "--processes", "2", "--threads", "2"];
    let (status, report, err) = simulate(&words);
    assert_eq!(status.code(), Some(0), "{err}");
    assert_clean(&report);
    assert_eq!(count(&report, "connect"), 40);
}

#[test]
fn after_a_storm_all_are_back_and_have_everything() {
    let words = ["--scenario", "reconnect-storm", "--clients", "40", "--rate", "60", "--duration", "5s"];
    let (status, report, err) = simulate(&words);
    assert_eq!(status.code(), Some(0), "{err}");
    assert_clean(&report);
    // Two storms; who is just coming back when the second begins is not cut off by it.
    assert!((100..=120).contains(&count(&report, "connect")), "{report}");
}

#[test]
fn in_an_overload_what_is_refused_is_given_up_and_the_rest_is_kept() {
    // Little may wait, on whatever machine.
    let few = Server::builder().env("AULA_QUEUE_PREFETCH", 4).env("AULA_QUEUE_MAX_DEPTH", 8);
    let words = ["simulate-clients", "--output", "json", "--scenario", "overload", "--clients", "20", "--rate", "100"];
    let (status, out, err) = few.aula(&[&words[..], &["--duration", "6s", "--ramp", "1s", "--check"]].concat());
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
    assert_eq!(status.code(), Some(0), "{err}");
    let verdict = &report["verdict"];
    assert_eq!(verdict["violations"], serde_json::json!([]), "{verdict}");
    assert_eq!((&verdict["lost"], &verdict["duplicated"], &verdict["unexpected"]), (&0.into(), &0.into(), &0.into()));
    let refused = report["stages"]["accepted"]["errors"]["overloaded"].as_u64().unwrap_or_default();
    assert!(refused > 100, "{report}");
    assert_eq!(verdict["attempts"].as_u64(), Some(count(&report, "accepted") + refused), "{report}");
    // Groups of ten: what was accepted is to reach all of them.
    assert_eq!(report["expected"].as_u64(), Some(10 * count(&report, "accepted")), "{report}");
    assert_eq!(report["received"], report["expected"], "{report}");
}

#[test]
fn ctrl_c_ends_a_run_early_and_it_is_told_all_the_same() {
    let words = ["--output", "json", "simulate-clients", "--clients", "20", "--rate", "50", "--duration", "60s"];
    let mut run =
        Worker::spawn(&Server::builder(), &[&words[..], &["--ramp", "1s", "--user-prefix", "early"]].concat());
    run.wait_for_log(" hold: ", LIMIT);
    std::thread::sleep(Duration::from_secs(2));
    run.signal(Signal::INT);
    let (status, out) = run.finish(LIMIT);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {}", run.stderr()));
    assert_eq!(status.code(), Some(0), "{}", run.stderr());
    assert_eq!(report["was_interrupted"], true, "{report}");
    assert_clean(&report);
    assert!(count(&report, "accepted") > 20);
    assert_nothing_is_left("early");
}

/// A run on a server that is killed in its midst, and comes back at the same address: its status and its report.
/// Something is done while it serves, and something while it is down.
fn through_a_kill(serving: impl FnOnce(&Path), down: impl FnOnce(&Path)) -> (ExitStatus, Value) {
    let server = Server::builder();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let serve = || {
        let mut process = Worker::spawn(&server, &["serve", "--listen", &address]);
        process.wait_for_log("serving", LIMIT);
        process
    };
    let mut first = serve();
    // Its people are made in the server's data directory, beside it.
    let words = ["--output", "json", "simulate-clients", "--url", &address, "--clients", "12", "--clean-up"];
    let load = ["--rate", "100", "--duration", "6s", "--ramp", "1s"];
    let mut run = Worker::spawn(&server, &[&words[..], &load].concat());
    run.wait_for_log(" hold: ", LIMIT);
    std::thread::sleep(Duration::from_secs(1));
    serving(server.dir());
    std::thread::sleep(Duration::from_secs(1));
    first.kill9();
    std::thread::sleep(Duration::from_millis(500));
    down(server.dir());
    let _second = serve();
    let (status, out) = run.finish(LIMIT);
    let report = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {}", run.stderr()));
    (status, report)
}

/// It comes back with what it had a second before its end.
#[test]
fn a_server_that_forgets_a_second_is_found_out() {
    let earlier = |dir: &Path| dir.join("earlier.db");
    let keep = |dir: &Path| {
        let file = rusqlite::Connection::open(dir.join("aula.db")).unwrap();
        file.busy_timeout(LIMIT).unwrap();
        file.execute("VACUUM INTO ?1", [earlier(dir).to_str().unwrap()]).unwrap();
    };
    let put_back = |dir: &Path| {
        for rest in ["aula.db-wal", "aula.db-shm"] {
            std::fs::remove_file(dir.join(rest)).unwrap();
        }
        std::fs::rename(earlier(dir), dir.join("aula.db")).unwrap();
    };
    let (status, report) = through_a_kill(keep, put_back);
    assert_eq!(status.code(), Some(1), "{report}");
    let verdict = &report["verdict"];
    assert!(verdict["lost"].as_u64() > Some(10), "{verdict}");
    let broken: Vec<&str> =
        verdict["violations"].as_array().unwrap().iter().filter_map(|found| found["promise"].as_str()).collect();
    assert!(broken.contains(&"P1"), "{verdict}");
}

#[test]
fn a_server_that_is_killed_and_comes_back_has_lost_nothing() {
    let (status, report) = through_a_kill(|_serving| {}, |_down| {});
    assert_eq!(status.code(), Some(0), "{report}");
    assert_clean(&report);
    assert!(count(&report, "connect") >= 24, "{report}");
    // What was to be sent while there was no server counts from then.
    assert!(report["stages"]["accepted"]["max_us"].as_u64() > Some(300_000), "{report}");
}

/// A file with the tokens of four people of this server.
fn tokens(server: &Server) -> String {
    let file = server.data_dir().join("tokens");
    let aula = |words: &[&str]| {
        let (status, out, err) = server.aula(words);
        assert!(status.success(), "{words:?}: {err}");
        out
    };
    let token = |user| {
        let name = format!("user{user}");
        aula(&["user", "add", &name, "--generate"]);
        aula(&["token", "mint", &name])
    };
    std::fs::write(&file, (0..4).map(token).collect::<String>()).unwrap();
    file.to_str().unwrap().to_owned()
}

/// A short run of them on their server, to its end.
fn simulate_on(server: &Server, words: &[&str]) -> (Value, String) {
    let (url, tokens) = (format!("http://{}", server.addr()), tokens(server));
    let on = ["--url", &url, "--tokens", &tokens, "--rate", "20", "--duration", "2s"];
    let (status, report, err) = simulate(&[&on[..], words].concat());
    assert_eq!(status.code(), Some(0), "{err}");
    assert_clean(&report);
    (report, err)
}

/// CPU time so far in microseconds and resident memory in bytes (proc_pid_stat(5), proc_pid_statm(5)).
fn used(pid: u32) -> (u64, u64) {
    let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let (stat, statm) = (read("stat"), read("statm"));
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    let page = rustix::param::page_size() as u64;
    (ticks * 1_000_000 / rustix::param::clock_ticks_per_second(), pages * page)
}

/// Answers every request with a page of metrics, on which a second of CPU time was used since the one before.
fn serve_metrics(resident: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/of/the/server", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (seconds, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut request = BufReader::new(&stream).lines();
            while request.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let page =
                format!("process_cpu_seconds_total {seconds}.5\nprocess_resident_memory_bytes {resident}\naula_x 1\n");
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", page.len());
            stream.write_all(format!("{head}{page}").as_bytes()).unwrap();
        }
    });
    url
}

#[test]
fn people_with_tokens_use_a_server_that_is_there() {
    let server = Server::start();
    let (report, err) = simulate_on(&server, &["--server-pid", &server.pid().to_string(), "--clean-up"]);
    assert_eq!(count(&report, "connect"), 4);
    assert_eq!(report["settings"]["clients"], "4", "{report}");
    assert!(err.contains("tokens for 4 clients: so many run, instead of the scenario's 1000"), "{err}");
    assert!(report["server"]["resident_bytes"].as_u64() > Some(0), "{report}");
}

#[test]
fn what_a_server_uses_is_read_from_its_metrics() {
    let server = Server::start();
    let (cpu_before, _) = used(server.pid());
    let (report, err) = simulate_on(&server, &[]);
    assert!(!err.contains("are not known"), "{err}");
    let (cpu, resident) = used(server.pid());
    let told = |field: &str| report["server"][field].as_u64().unwrap_or_else(|| panic!("no {field}: {report}"));
    // The system counts hundredths of a second.
    let most = cpu - cpu_before + 20_000;
    assert!((1..=most).contains(&told("cpu_us")), "{} of {most}", told("cpu_us"));
    for field in ["resident_bytes", "resident_at_rest_bytes", "resident_connected_bytes"] {
        assert!((resident / 3..resident * 3).contains(&told(field)), "{field} {}, and {resident}", told(field));
    }
    let seconds = report["seconds"].as_array().unwrap();
    let seen: Vec<_> = seconds.iter().filter_map(|second| second["server"]["resident_bytes"].as_u64()).collect();
    assert!(seen.len() >= 2 && seen.iter().all(|bytes| *bytes > resident / 3), "{seen:?}");
}

#[test]
fn a_metrics_url_says_where_the_server_is_watched() {
    const RESIDENT: u64 = 123_456_789;
    let server = Server::start();
    let (report, err) = simulate_on(&server, &["--metrics-url", &serve_metrics(RESIDENT)]);
    assert_eq!(report["server"]["resident_bytes"], RESIDENT, "{report} {err}");
    let cpu = report["server"]["cpu_us"].as_u64().unwrap();
    assert!(cpu >= 1_000_000 && cpu.is_multiple_of(1_000_000), "{cpu}");
}

#[test]
fn a_server_that_can_not_be_watched_is_loaded_all_the_same() {
    let server = Server::start();
    let url = format!("http://{}/nothing/here", server.addr());
    let (report, err) = simulate_on(&server, &["--metrics-url", &url]);
    assert_eq!(report["server"], Value::Null);
    let note = format!("the server's CPU and memory are not known: {url}: ");
    assert!(err.contains(&note) && err.contains("404"), "{err}");
}

#[test]
fn what_can_not_be_run_is_refused_before_anything_is_begun() {
    let refused = |words: &[&str], reason: &str| {
        let (status, _, err) = Server::builder().aula(&[&["simulate-clients"], words].concat());
        assert_eq!(status.code(), Some(2), "{words:?}: {err}");
        assert!(err.contains(reason), "{words:?}: {err}");
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.yaml");
    std::fs::write(&file, "about: x\nclients: 2\nchannel: []\nphases: []\n").unwrap();
    refused(&["--scenario", file.to_str().unwrap()], "did you mean channels?");
    refused(&["--scenario", "chatt"], "one of idle, chat, big-room, reconnect-storm, overload");
    refused(&["--clients", "900000"], "--processes");
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "x\n").unwrap();
    refused(&["--url", "http://127.0.0.1:1", "--tokens", tokens.to_str().unwrap()], "access token");
    let header = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.x\n";
    std::fs::write(&tokens, header.repeat(2)).unwrap();
    refused(&["--url", "http://192.0.2.1:1", "--tokens", tokens.to_str().unwrap()], "--allow-remote");
    let url = ["--url", "http://127.0.0.1:1", "--tokens", tokens.to_str().unwrap()];
    refused(&url, "tokens:2 is a token of ada, as line 1 is");
    std::fs::write(&tokens, format!("{header}eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJib2IifQ.x\n")).unwrap();
    refused(&[&url[..], &["--clients", "3"]].concat(), "has tokens for 2 clients, and 3 are to run");
    // The largest number that a process may have (proc_sys_kernel(5)) is smaller.
    refused(&["--url", "http://127.0.0.1:1", "--server-pid", "2000000000"], "there is no process 2000000000");
    refused(&["--ramp", "999999999999s"], "no more than 30 days");
    refused(&["--duration", "721h"], "no more than 30 days");
    refused(&["--rate=-1"], "messages a second");
    refused(&["--url", "http://127.0.0.1:1", "--metrics-url", "127.0.0.1:1"], "a URL is expected");
    let twice = ["--url", "http://127.0.0.1:1", "--metrics-url", "http://127.0.0.1:1/metrics", "--server-pid", "1"];
    refused(&twice, "cannot be used with");
}
