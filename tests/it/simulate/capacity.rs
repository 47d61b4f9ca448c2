//! The search for the largest load.

use super::*;

#[test]
fn the_largest_load_that_meets_the_thresholds_is_found_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("best.json");
    let file = file.to_str().unwrap();
    // How many are accepted in a second is what is looked for, so that the machine's speed doesn't matter.
    let words = ["--find-capacity", "rate", "--clients", "10", "--rate", "20", "--duration", "1s", "--no-check"];
    let thresholds = ["--threshold", "reach>=1", "--threshold", "accepted.count<60", "--report", file];
    let (status, found, err) = simulate(&[&words[..], &thresholds].concat());
    assert_eq!(status.code(), Some(0), "{found} {err}");
    assert_eq!(found["scale"], "rate");
    let largest = found["largest"].as_u64().unwrap();
    assert!((20..80).contains(&largest), "{found}");
    let runs = found["runs"].as_array().unwrap();
    assert!(runs.iter().any(|run| run["met"] == true) && runs.iter().any(|run| run["met"] == false), "{found}");
    assert!(err.contains(&format!("rate {largest}: met")), "{err}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(report["settings"]["rate"], largest.to_string(), "{report}");
    assert!(count(&report, "accepted") < 60);
}

#[test]
fn what_a_search_has_no_place_for_is_refused() {
    for other in [["--record", "run.ndjson"], ["--compare", "run.json"]] {
        let words = ["simulate-clients", "--find-capacity", "rate", "--threshold", "reach>=1"];
        let (status, _, err) = Server::builder().aula(&[&words[..], &other].concat());
        assert_eq!(status.code(), Some(2), "{err}");
        assert!(err.contains("cannot be used with"), "{err}");
    }
}
