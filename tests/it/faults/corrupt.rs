//! Files that aren't what they should be: the configuration, the database, the keys.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{END_LIMIT, bounded, builder, differences, snapshot};
use crate::client::{Client, Encoding};
use crate::http::Http;
use crate::server::Builder;

#[test]
fn a_wrong_configuration_is_explained() {
    // What is in the file, and what the explanation must say.
    let cases: [(&str, &[&str]); 9] = [
        ("server:\n  listen: [\n", &[":2"]),
        ("server:\n\tlisten: x\n", &[":2"]),
        ("log: {level: info}\nserver:\n  lisen: 127.0.0.1:0\n", &[":3", "server.lisen", "server.listen"]),
        ("sesion:\n  idle_timeout: 5s\n", &[":1", "sesion", "session"]),
        ("session:\n  idle_timeout: soon\n", &[":2", "session.idle_timeout", "soon"]),
        ("store:\n  readers: many\n", &[":2", "store.readers", "many"]),
        ("store:\n  readers: 0\n", &[":2", "store.readers", "1 to 256"]),
        ("features: yes please\n", &[":1", "features"]),
        ("log:\n  level: info\n  level: debug\n", &[":3", "level"]),
    ];
    for (content, said) in cases {
        let on = builder();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("aula.yaml");
        fs::write(&file, content).unwrap();
        let config = file.to_str().unwrap();
        for words in [&["serve"][..], &["worker", "--queue", "db_tasks"], &["config", "check"], &["queue-stats"]] {
            let (status, out, err) = on.aula(&[&["--config", config], words].concat());
            assert_eq!(status.code(), Some(2), "{words:?} with {content:?}: {err}");
            assert!(out.is_empty(), "{out}");
            for word in [&[config], said].concat() {
                assert!(err.contains(word), "{words:?} with {content:?} does not say {word:?}: {err}");
            }
        }
        assert!(snapshot(on.dir()).is_empty(), "nothing was begun");
    }
    let on = builder();
    for (file, said) in [("/nowhere/aula.yaml", "/nowhere/aula.yaml"), ("/proc/self/mem", "/proc/self/mem"), ("/", "/")]
    {
        let (status, _, err) = on.aula(&["--config", file, "serve"]);
        assert!(status.code() == Some(2) && err.contains(said), "{file}: {status} {err}");
    }
    let (status, _, err) = on.clone().env("AULA_SERVER_LISEN", "x").aula(&["serve"]);
    assert!(status.code() == Some(2) && err.contains("AULA_SERVER_LISTEN"), "{status} {err}");
}

/// A stopped server's data directory with something in it; ada's token and the channel.
async fn used_directory() -> (Builder, String, String) {
    let mut server = builder().start();
    let http = Http::new(server.addr());
    let token = http.new_user("ada").await;
    http.new_user("bob").await;
    let ada = Client::connect(server.addr(), "ada", &token, Encoding::Json).await;
    let channel = ada.create_direct("bob").await;
    for number in 0..50 {
        ada.send_persisted(&channel, &format!("number {number} {}", "long ".repeat(200))).await;
    }
    server.sigterm();
    let ended = tokio::task::block_in_place(|| server.wait(END_LIMIT));
    assert!(ended.is_some_and(|status| status.success()), "{}", server.stderr());
    (server.builder_ref().clone(), token, channel)
}

/// A start is refused, in words that say which file and that it is damaged; the file stays as it is.
fn assert_damage_is_named(on: &Builder, what: &str) {
    let database = on.dir().join("aula.db");
    let before = fs::read(&database).unwrap();
    let failure = on.try_start().err().unwrap_or_else(|| panic!("{what}: it is served"));
    assert_eq!(failure.status.and_then(|status| status.code()), Some(1), "{failure}");
    let said = &failure.stderr;
    assert!(said.contains("aula.db"), "{failure}");
    assert!(said.contains("damaged") || said.contains("not an SQLite database"), "{failure}");
    assert!(fs::read(&database).unwrap() == before, "the damaged file was changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_database_is_not_served_and_not_touched() {
    bounded(120, async {
        let (on, token, channel) = used_directory().await;
        let database = on.dir().join("aula.db");
        let whole = fs::read(&database).unwrap();
        let header_gone = [&[0xaa; 100][..], &whole[100..]].concat();
        let half = whole[..whole.len() / 2].to_vec();
        let few_bytes = whole[..10].to_vec();
        let first_page_gone = [&whole[..100], &[0x55; 3996][..], &whole[4096..]].concat();
        let cases = [
            ("no header", header_gone),
            ("half of it", half),
            ("a few bytes", few_bytes),
            ("no first page", first_page_gone),
        ];
        for (what, damaged) in cases {
            fs::write(&database, damaged).unwrap();
            tokio::task::block_in_place(|| assert_damage_is_named(&on, what));
            let (status, _, err) = on.aula(&["queue-stats"]);
            assert!(status.code() == Some(1) && err.contains("aula.db"), "{err}");
        }
        // Given back, it is all there.
        fs::write(&database, whole).unwrap();
        let server = tokio::task::block_in_place(|| on.start());
        let ada = Client::connect(server.addr(), "ada", &token, Encoding::Json).await;
        assert_eq!(ada.history_all(&channel).await.len(), 51);
    })
    .await;
}

#[test]
fn signing_keys_that_others_can_read_are_refused() {
    let on = builder();
    on.start().kill9();
    let keys = on.dir().join("secrets/signing-keys.json");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&keys), 0o600);
    assert_eq!(mode(&on.dir().join("secrets")), 0o700);
    for loose in [0o640, 0o604, 0o660, 0o777] {
        fs::set_permissions(&keys, PermissionsExt::from_mode(loose)).unwrap();
        let before = snapshot(&on.dir().join("secrets"));
        let failure = on.try_start().err().expect("refused");
        assert_eq!(failure.status.and_then(|status| status.code()), Some(1), "{failure}");
        let said = &failure.stderr;
        assert!(said.contains("signing-keys.json") && said.contains("chmod 600"), "{failure}");
        assert!(differences(&before, &snapshot(&on.dir().join("secrets"))).is_empty());
    }
    fs::set_permissions(&keys, PermissionsExt::from_mode(0o600)).unwrap();
    let good = fs::read(&keys).unwrap();
    for bad in [&b""[..], b"{}", b"not json", &good[..good.len() / 2]] {
        fs::write(&keys, bad).unwrap();
        let failure = on.try_start().err().expect("refused");
        assert_eq!(failure.status.and_then(|status| status.code()), Some(1), "{failure}");
        assert!(failure.stderr.contains("signing-keys.json"), "{failure}");
        assert!(fs::read(&keys).unwrap() == bad, "it was replaced");
    }
    fs::write(&keys, good).unwrap();
    drop(on.start());
}
