//! What a server refuses to show is told, and not waited for.

use super::*;

#[test]
fn a_server_without_search_is_judged_by_all_else() {
    let server = Server::builder().env("AULA_FEATURES_SEARCH", "false");
    let record = server.dir().join("run.ndjson");
    let record = record.to_str().unwrap();
    let words = ["simulate-clients", "--output", "json", "--clients", "12", "--rate", "40", "--duration", "2s"];
    let (status, out, err) = server.aula(&[&words[..], &["--ramp", "1s", "--record", record]].concat());
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
    assert_eq!(status.code(), Some(0), "{err}");
    assert!(err.contains("P10 is not judged: no search is allowed (forbidden: "), "{err}");
    assert_eq!(report["verdict"]["broken"], 0, "{report}");
    let (status, out, err) = server.aula(&["verify-history", record]);
    assert_eq!(status.code(), Some(0), "{out}{err}");
    assert!(out.contains("P10 (search finds what is stored) is not judged"), "{out}");
}
