use super::super::{Overrides, Source};
use super::*;

/// The problems of the defaults after `change`.
fn problems_of(change: impl FnOnce(&mut Config)) -> Vec<String> {
    let mut config = Config::default();
    change(&mut config);
    let problems = problems(&config, &Sources::default(), &BTreeSet::new());
    problems.into_iter().map(|problem| problem.message).collect()
}

#[test]
fn the_defaults_are_valid() {
    assert_eq!(problems_of(|_| ()), [""; 0]);
}

#[test]
fn an_embedded_writer_has_a_core_to_itself() {
    let cores = std::thread::available_parallelism().unwrap().get();
    let mut config = Config::default();
    assert_eq!(config.server_threads(), cores.saturating_sub(1).max(1));
    config.store.backend = crate::config::StoreBackend::Cassandra;
    assert_eq!(config.server_threads(), cores);
    config.server.threads = 7;
    assert_eq!(config.server_threads(), 7);
}

#[test]
fn every_bound_is_checked() {
    use super::super::schema::Schema;
    let nowhere = std::path::Path::new("/nonexistent/aula.yaml");
    for limit in limits::of(&Config::default()) {
        let leaf = Schema::get().leaf(limit.key).unwrap();
        let set = |value: u128| {
            let environment = [(leaf.variable.clone(), limit.unit.format(value))];
            let loaded = super::super::Loaded::load_or(None, nowhere, environment.into_iter(), &Overrides::default());
            loaded.err().map_or_else(String::new, |error| error.to_string())
        };
        let fault = format!("but must be {}", limit.range());
        // The bound itself may break a rule between keys, but not this one.
        for inside in [limit.min, limit.max] {
            assert!(!set(inside).contains(&fault), "{}: {}", limit.key, set(inside));
        }
        // 65536 isn't a u16: the type refuses it, with the same range.
        let refused = |error: String| {
            error.contains(&fault) || error.contains(&format!("expected a whole number, {}", limit.range()))
        };
        assert!(refused(set(limit.max + 1)), "{}: {}", limit.key, set(limit.max + 1));
        if limit.min > 0 {
            assert!(refused(set(limit.min - 1)), "{}: {}", limit.key, set(limit.min - 1));
        }
    }
}

#[test]
fn rules_between_keys() {
    use std::time::Duration;
    type Change = fn(&mut Config);
    let broken: [(&str, Change); 9] = [
        ("server.max_unauthenticated is 256, but must be at most server.max_connections", |c| {
            c.server.max_connections = 100
        }),
        ("session.outbox_bytes is 32KiB, but must be at least session.max_frame_bytes", |c| {
            c.session.outbox_bytes = 32 << 10
        }),
        ("session.idle_timeout is 25s, but must be more than session.ping_interval", |c| {
            c.session.idle_timeout = Duration::from_secs(25)
        }),
        ("session.max_frame_bytes is 64KiB, but must be 1KiB or more above channels.max_body_bytes", |c| {
            c.channels.max_body_bytes = 64 << 10
        }),
        ("welcome.messages is 10, but must be at most channels.ring_frames", |c| c.channels.ring_frames = 9),
        ("search.total_cap is 49, but must be at least search.max_results", |c| c.search.total_cap = 49),
        ("auth.refresh_token_ttl is 15m, but must be more than auth.access_token_ttl", |c| {
            c.auth.refresh_token_ttl = c.auth.access_token_ttl
        }),
        ("queue.max_depth is 1000, but must be at least queue.prefetch", |c| c.queue.max_depth = 1000),
        ("queue.lease is 1s, but must be more than queue.poll_interval", |c| {
            (c.queue.lease, c.queue.poll_interval) = (Duration::from_secs(1), Duration::from_secs(1));
        }),
    ];
    for (want, change) in broken {
        let got = problems_of(change);
        assert!(got.len() == 1 && got[0].starts_with(want), "{want}: {got:?}");
        assert!(got[0].ends_with(" (default)"), "{got:?}");
    }
}

#[test]
fn a_rule_is_reported_at_the_stronger_layer() {
    let mut config = Config::default();
    config.session.ping_interval = config.session.idle_timeout;
    let mut sources = Sources::default();
    sources.0.insert("session.ping_interval".to_owned(), Source::Environment("AULA_SESSION_PING_INTERVAL".to_owned()));
    let got: Vec<_> = problems(&config, &sources, &BTreeSet::new()).iter().map(ToString::to_string).collect();
    let want = "AULA_SESSION_PING_INTERVAL: session.ping_interval is 1m, but must be less than session.idle_timeout, which is 1m (default)";
    assert_eq!(got, [want]);
}

#[test]
fn a_rejected_key_breaks_no_rule() {
    let mut config = Config::default();
    config.session.ping_interval = config.session.idle_timeout;
    let rejected = BTreeSet::from(["session.idle_timeout".to_owned()]);
    assert_eq!(problems(&config, &Sources::default(), &rejected), []);
}

#[test]
fn listen_addresses() {
    for good in
        ["127.0.0.1:0", "0.0.0.0:8080", "[::1]:8080", "[::]:1", "localhost:8080", "chat.example.org:65535", "a-1:80"]
    {
        assert_eq!(problems_of(|c| c.server.listen = good.to_owned()), [""; 0], "{good}");
    }
    for bad in [
        "",
        ":8080",
        "8080",
        "localhost",
        "localhost:",
        "localhost:http",
        "localhost:65536",
        "localhost:+80",
        "::1:8080",
        "127.0.0.256:80",
        "a b:80",
        "-a:80",
        "a..b:80",
        "http://a:80",
    ] {
        let got = problems_of(|c| c.server.listen = bad.to_owned());
        assert!(
            got.len() == 1 && got[0].starts_with(&format!("server.listen is {bad:?}, but must be")),
            "{bad}: {got:?}"
        );
    }
    assert!(problems_of(|c| c.server.listen = "::1:8080".to_owned())[0].ends_with("in brackets"));
    assert!(problems_of(|c| c.server.listen = "localhost".to_owned())[0].ends_with("the port is missing"));
}

#[test]
fn allowed_origins() {
    let with = |origins: &[&str]| {
        problems_of(|c| c.server.allowed_origins = origins.iter().map(ToString::to_string).collect())
    };
    let good = [
        "*",
        "http://localhost:5173",
        "https://chat.example.org",
        "http://127.0.0.1:80801",
        "https://[::1]:8443",
        "https://[::1]",
        "tauri://localhost",
    ];
    for origin in good.iter().filter(|origin| !origin.ends_with("80801")) {
        assert_eq!(with(&[origin]), [""; 0], "{origin}");
    }
    let bad = [
        "",
        "example.org",
        "https://",
        "https://a/",
        "https://a/b",
        "https://A.example",
        "HTTPS://a",
        "https://*.a",
        "https://a:443",
        "http://a:80",
        "https://a:",
        "http://127.0.0.1:80801",
        "https://[::1",
        "https://[::1]x",
        "https://user@a",
        "null",
        "https://a b",
        "https://[::1]:",
    ];
    for origin in bad {
        let got = with(&[origin]);
        assert!(got.len() == 1 && got[0].contains(&format!("has {origin:?}")), "{origin}: {got:?}");
    }
    assert_eq!(with(&["*", "https://a.example"]).len(), 1);
    assert_eq!(with(&["https://a.example", "https://b.example"]), [""; 0]);
}

#[test]
fn data_dir_is_named() {
    assert_eq!(problems_of(|c| c.data_dir = "".into()), ["data_dir is empty, but must name a folder"]);
}
