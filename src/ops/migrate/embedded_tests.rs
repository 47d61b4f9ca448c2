//! The commands on an embedded deployment.

use super::super::tests::aula;
use super::*;

/// The columns' widths are those of the longest name.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn from_nothing_to_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");

    let (exit, text) = aula(&data, &["migrate", "status"]).unwrap();
    assert_eq!(exit, Exit::Partly);
    assert!(squeezed(&text).contains("sqlite 0001 initial pending"), "{text}");
    let (exit, text) = aula(&data, &["migrate", "plan"]).unwrap();
    assert_eq!(exit, Exit::Partly);
    assert!(text.starts_with("-- sqlite 0001_initial\nBEGIN;\n") && text.contains("CREATE TABLE users"), "{text}");
    assert!(!data.exists(), "looking creates nothing");

    let (exit, text) = aula(&data, &["migrate"]).unwrap();
    assert_eq!(exit, Exit::Done);
    assert!(squeezed(&text).contains("sqlite 0001 initial"), "{text}");
    assert_eq!(aula(&data, &["migrate", "up", "--wait", "1s"]).unwrap(), (Exit::Done, "up to date\n".to_owned()));
    assert_eq!(aula(&data, &["migrate", "plan"]).unwrap(), (Exit::Done, String::new()));
    assert_eq!(aula(&data, &["migrate", "status"]).unwrap().0, Exit::Done);
}

#[test]
fn the_plan_is_a_script_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (_, script) = aula(folder.path(), &["migrate", "plan"]).unwrap();
    rusqlite::Connection::open_in_memory().unwrap().execute_batch(&script).unwrap();
}

#[test]
fn scripts_get_json() {
    let folder = tempfile::tempdir().unwrap();
    let json = |words: &[&str]| -> serde_json::Value {
        let words = [words, &["--output", "json"]].concat();
        serde_json::from_str(&aula(folder.path(), &words).unwrap().1).unwrap()
    };
    assert_eq!(json(&["migrate", "status"])[0]["state"], "pending");
    assert_eq!(json(&["migrate", "up"])[0]["name"], "initial");
    assert_eq!(json(&["migrate", "up"]), serde_json::json!([]));
    assert_eq!(json(&["migrate", "status"])[0]["state"], "applied");
    assert_eq!(json(&["migrate", "unlock"]), serde_json::json!({"held": false, "holder": null}));
}

#[test]
fn a_schema_that_does_not_fit_fails_the_status_and_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    aula(folder.path(), &["migrate"]).unwrap();
    let database = rusqlite::Connection::open(folder.path().join(FILE_NAME)).unwrap();
    database.execute("INSERT INTO schema_migrations VALUES (9999, 'later', '', 0, 0)", []).unwrap();
    let (exit, text) = aula(folder.path(), &["migrate", "status"]).unwrap();
    assert_eq!(exit, Exit::Failed);
    assert!(squeezed(&text).contains("sqlite 9999 later newer"), "{text}");
    for command in ["up", "plan"] {
        let error = aula(folder.path(), &["migrate", command]).unwrap_err().to_string();
        assert!(error.contains("version 9999"), "{error}");
    }
}
