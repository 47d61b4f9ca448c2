use std::time::{Duration, Instant};

use super::super::{LogFormat, LogLevel, Signup, Source};
use super::*;

/// A folder with an `aula.yaml`, and what is loaded from it.
struct Setup {
    directory: tempfile::TempDir,
    env: Vec<(String, String)>,
    flags: Overrides,
}

impl Setup {
    fn file(text: &str) -> Self {
        let setup = Self { directory: tempfile::tempdir().unwrap(), env: Vec::new(), flags: Overrides::default() };
        std::fs::write(setup.path(), text).unwrap();
        setup
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("aula.yaml")
    }

    fn load(&self) -> Result<Loaded, ConfigError> {
        Loaded::load_or(None, &self.path(), self.env.clone().into_iter(), &self.flags)
    }

    fn config(&self) -> Config {
        self.load().unwrap().config
    }

    /// The lines of the error, with the folder's name left out.
    fn errors(&self) -> Vec<String> {
        let directory = format!("{}/", self.directory.path().display());
        let text = self.load().unwrap_err().to_string().replace(&directory, "");
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn without_a_file_the_defaults_are_in_force() {
    let loaded =
        Loaded::load_or(None, Path::new("/nonexistent/aula.yaml"), std::iter::empty(), &Overrides::default()).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.sources.iter().count(), 0);
    assert_eq!(loaded.config.server.listen, "127.0.0.1:8080");
    assert_eq!(loaded.config.session.max_frame_bytes, 65_536);
    assert_eq!(loaded.config.auth.refresh_token_ttl, Duration::from_secs(30 * 86_400));
    assert_eq!(loaded.config.auth.signup, Signup::Auto);
    assert!(loaded.config.features.receipts);
}

#[test]
fn files_that_say_nothing_change_nothing() {
    for text in [
        "",
        "\n",
        "# comment\n",
        "---\n",
        "{}",
        "server:\n",
        "server: {}\nlog: ~\n",
        "\u{feff}# with a byte order mark\n",
    ] {
        assert_eq!(Setup::file(text).config(), Config::default(), "{text:?}");
    }
    assert_eq!(Setup::file(super::super::DEFAULT_FILE).config(), Config::default());
}

#[test]
fn each_layer_wins_over_the_one_below() {
    let mut setup = Setup::file("server:\n  listen: 127.0.0.1:1\nlog: {format: json, level: warn}\n");
    let file = setup.load().unwrap();
    assert_eq!((file.config.server.listen.as_str(), file.config.log.level), ("127.0.0.1:1", LogLevel::Warn));
    assert_eq!(file.sources.of("server.listen"), &Source::File { path: setup.path(), line: 2 });
    assert_eq!(file.sources.of("server.max_connections"), &Source::Default);

    setup = setup.env("AULA_SERVER_LISTEN", "127.0.0.1:2");
    let env = setup.load().unwrap();
    assert_eq!((env.config.server.listen.as_str(), env.config.log.level), ("127.0.0.1:2", LogLevel::Warn));
    assert_eq!(env.sources.of("server.listen"), &Source::Environment("AULA_SERVER_LISTEN".to_owned()));

    setup.flags = Overrides {
        worker_listen: None,
        listen: Some("127.0.0.1:3".to_owned()),
        log_format: Some(LogFormat::Text),
        data_dir: Some("/d".into()),
    };
    let flags = setup.load().unwrap();
    assert_eq!((flags.config.server.listen.as_str(), flags.config.log.level), ("127.0.0.1:3", LogLevel::Warn));
    assert_eq!((flags.config.log.format, flags.config.data_dir), (LogFormat::Text, PathBuf::from("/d")));
    assert_eq!(flags.sources.of("log.format"), &Source::Flag("--log-format"));
}

#[test]
fn the_file_is_the_flag_then_the_variable_then_the_usual_one() {
    let usual = Setup::file("queue: {shards: 1}\n");
    let variable = Setup::file("queue: {shards: 2}\n");
    let flag = Setup::file("queue: {shards: 3}\n");
    let shards = |file: Option<&Path>, value: &str| {
        let env = [(FILE_VARIABLE.to_owned(), value.to_owned())];
        Loaded::load_or(file, &usual.path(), env.into_iter(), &Overrides::default()).unwrap().config.queue.shards
    };
    let value = variable.path().display().to_string();
    assert_eq!(shards(Some(&flag.path()), &value), 3);
    assert_eq!(shards(None, &value), 2);
    assert_eq!(shards(None, ""), 1);
}

#[test]
fn a_named_file_must_exist() {
    let missing = Path::new("/nonexistent/chat.yaml");
    let error = Config::load(Some(missing), std::iter::empty(), &Overrides::default()).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/chat.yaml: cannot read the configuration file: "), "{error}");
    let error = Setup::file("").env(FILE_VARIABLE, "/nonexistent/chat.yaml").errors();
    assert!(error[0].starts_with("/nonexistent/chat.yaml: cannot read"), "{error:?}");
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(
        Config::load(Some(directory.path()), std::iter::empty(), &Overrides::default()),
        Err(ConfigError::Read { .. })
    ));
}

#[test]
fn large_files_and_bombs_are_refused_cheaply() {
    let start = Instant::now();
    let large = Setup::file(&"# comment\n".repeat(110_000));
    assert_eq!(large.errors(), ["aula.yaml: a configuration file larger than 1048576 bytes is refused"]);
    if cfg!(unix) {
        let endless = Config::load(Some(Path::new("/dev/zero")), std::iter::empty(), &Overrides::default());
        assert!(matches!(endless, Err(ConfigError::TooLarge { .. })));
    }
    let bomb = Setup::file(
        "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd: &d [*c, *c, *c, *c]\ne: &e [*d, *d, *d, *d]\nf: [*e, *e, *e, *e]\n",
    );
    assert!(matches!(bomb.load(), Err(ConfigError::Syntax { .. })), "{:?}", bomb.errors());
    let deep = Setup::file(&"[".repeat(100_000));
    assert!(matches!(deep.load(), Err(ConfigError::Syntax { line: 1, .. })), "{:?}", deep.errors());
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn syntax_errors_name_their_line() {
    let cases = [
        ("log: [1\nlevel: 2\n", "aula.yaml:2: illegal placement of ':' indicator"),
        ("log: 1\n level: 2\n", "aula.yaml:2: mapping values are not allowed in this context"),
        ("log: \"x\n", "aula.yaml:1: unclosed quote"),
        ("log: *x\n", "aula.yaml:1: alias references unknown anchor"),
        ("log:\n\tlevel: info\n", "aula.yaml:2: tabs disallowed within this context (block indentation)"),
        ("log: {}\n---\nlog: {}\n", "aula.yaml:3: a second YAML document; a configuration is one"),
        ("x: &x {level: info}\nlog: {<<: *x}\n", "aula.yaml:2: merge keys (<<) aren't supported"),
        ("- - - - - - - - - - a\n", "aula.yaml:1: nested more deeply, or larger, than a configuration can be"),
        ("~: 1\n", "aula.yaml:1: a key must be a word"),
        ("? [a]\n: b\n", "aula.yaml:1: a key must be a word"),
    ];
    for (text, want) in cases {
        assert_eq!(Setup::file(text).errors(), [want], "{text:?}");
    }
    let setup = Setup::file("");
    std::fs::write(setup.path(), b"log:\n  level: \xff\n").unwrap();
    assert_eq!(setup.errors(), ["aula.yaml:2: the file isn't UTF-8"]);
}

#[test]
fn unknown_keys_name_the_nearest() {
    let text = "\
session:
  idle_timout: 5s
sever:
  listen: x
server.listen: 127.0.0.1:1
ping_interval: 1s
log:
  colour: true
server:
  log: {level: info}
  listen.port: 1
x: 1
";
    let want = [
        "aula.yaml:2: unknown key \"session.idle_timout\"; did you mean \"session.idle_timeout\"?",
        "aula.yaml:3: unknown key \"sever\"; did you mean \"server\"?",
        "aula.yaml:5: unknown key \"server.listen\"; write `listen:` on a line of its own, indented below `server:`",
        "aula.yaml:6: unknown key \"ping_interval\"; did you mean \"session.ping_interval\"?",
        "aula.yaml:8: unknown key \"log.colour\"; \"log\" has the keys format, level",
    ];
    let errors = Setup::file(text).errors();
    assert_eq!(errors[..5], want);
    assert_eq!(errors[5], "aula.yaml:10: unknown key \"server.log\"; did you mean \"log\"?");
    assert!(errors[6].starts_with("aula.yaml:11: unknown key \"server.listen.port\"; "), "{errors:?}");
    assert!(errors[7].starts_with("aula.yaml:12: unknown key \"x\"; the file has the keys "), "{errors:?}");
    assert_eq!(errors.len(), 8);
}

#[test]
fn unknown_variables_name_the_nearest() {
    let setup = Setup::file("")
        .env("AULA_SERVER_LISTN", "x")
        .env("AULA_CRASH_AT", "anything")
        .env("AULA_COLOUR_OF_THE_SKY", "blue")
        .env("AULA_CONFG", "x")
        .env("PATH", "/bin");
    let want = [
        "AULA_COLOUR_OF_THE_SKY: unknown environment variable; `aula config print --default` lists the keys",
        "AULA_CONFG: unknown environment variable; did you mean AULA_CONFIG?",
        "AULA_SERVER_LISTN: unknown environment variable; did you mean AULA_SERVER_LISTEN?",
    ];
    assert_eq!(setup.errors(), want);
}

#[test]
fn repeated_keys_are_refused() {
    let text = "log:\n  level: info\n  level: debug\nserver: {}\nlog:\n  format: json\n";
    let want =
        ["aula.yaml:3: log.level is given twice, first on line 2", "aula.yaml:5: log is given twice, first on line 1"];
    assert_eq!(Setup::file(text).errors(), want);
}

#[test]
fn every_bad_value_says_what_is_expected() {
    let cases = [
        (
            "session: {idle_timeout: soon}",
            "session.idle_timeout: got \"soon\", expected a duration with its unit, such as 100ms, 5s, 15m or 30d",
        ),
        (
            "session: {idle_timeout: 60}",
            "session.idle_timeout: got 60, expected a duration with its unit, such as 100ms, 5s, 15m or 30d",
        ),
        (
            "session: {idle_timeout: -5s}",
            "session.idle_timeout: got \"-5s\", expected a duration with its unit, such as 100ms, 5s, 15m or 30d",
        ),
        (
            "session: {idle_timeout: }",
            "session.idle_timeout: got nothing, expected a duration with its unit, such as 100ms, 5s, 15m or 30d",
        ),
        (
            "session: {max_frame_bytes: 64KB}",
            "session.max_frame_bytes: got \"64KB\", expected a size in bytes, such as 65536, 64KiB or 1MiB",
        ),
        (
            "session: {max_frame_bytes: -1}",
            "session.max_frame_bytes: got -1, expected a size in bytes, such as 65536, 64KiB or 1MiB",
        ),
        (
            "session: {max_frame_bytes: 1.5}",
            "session.max_frame_bytes: got 1.5, expected a size in bytes, such as 65536, 64KiB or 1MiB",
        ),
        (
            "server: {max_connections: many}",
            "server.max_connections: got \"many\", expected a whole number, 1 to 1000000",
        ),
        (
            "server: {max_connections: \"5\"}",
            "server.max_connections: got \"5\", expected a whole number, 1 to 1000000",
        ),
        ("server: {max_connections: -1}", "server.max_connections: got -1, expected a whole number, 1 to 1000000"),
        ("server: {max_connections: 1.5}", "server.max_connections: got 1.5, expected a whole number, 1 to 1000000"),
        ("server: {max_connections: [1]}", "server.max_connections: got a list, expected a whole number, 1 to 1000000"),
        (
            "server: {max_connections: {a: 1}}",
            "server.max_connections: got a section, expected a whole number, 1 to 1000000",
        ),
        ("queue: {prefetch: 65536}", "queue.prefetch: got 65536, expected a whole number, 1 to 65535"),
        ("features: {search: yes}", "features.search: got \"yes\", expected true or false"),
        ("features: {search: 1}", "features.search: got 1, expected true or false"),
        ("log: {level: verbose}", "log.level: got \"verbose\", expected one of error, warn, info, debug, trace"),
        (
            "log: {level: DEBUG}",
            "log.level: got \"DEBUG\", expected one of error, warn, info, debug, trace; did you mean debug?",
        ),
        ("log: {format: jsn}", "log.format: got \"jsn\", expected one of text, json; did you mean json?"),
        ("server: {allowed_origins: \"*\"}", "server.allowed_origins: got \"*\", expected a list, such as [a, b]"),
        ("server: {allowed_origins: [1]}", "server.allowed_origins: got a list, expected a string"),
        ("data_dir: 12", "data_dir: got 12, expected a path"),
        ("data_dir: ", "data_dir: got nothing, expected a path"),
        ("server: {listen: 8080}", "server.listen: got 8080, expected a string"),
        ("queue: {backend: kafka}", "queue.backend: \"kafka\" is not in this build, which has sqlite, rabbitmq"),
        ("store: {backend: mysql}", "store.backend: \"mysql\" is not in this build, which has sqlite, cassandra"),
        ("search: {backend: solr}", "search.backend: \"solr\" is not in this build, which has fts5, elasticsearch"),
        ("search: {backend: 5}", "search.backend: got 5, expected one of fts5, elasticsearch"),
        (
            "worker: {listen: localhost}",
            "worker.listen is \"localhost\", but must be an address such as 127.0.0.1:8080, [::1]:8080 or localhost:8080; the port is missing",
        ),
        (
            "cassandra: {keyspace: Chat}",
            "cassandra.keyspace is \"Chat\", but must be a lower-case letter and up to 47 more of letters, digits and _",
        ),
        (
            "cassandra: {contact_points: []}",
            "cassandra.contact_points must name at least one node, each as host:port such as 127.0.0.1:9042",
        ),
        (
            "cassandra: {replication: [three]}",
            "cassandra.replication has \"three\", but each must be a datacenter and its replicas, such as dc1:3",
        ),
        ("rabbitmq: {url: http://secret@host}", "rabbitmq.url must begin with amqp:// or amqps:// and name a host"),
        ("cassandra: {cert_file: x.pem}", "cassandra.cert_file and cassandra.key_file go together: set both or none"),
        (
            "queue: {backend: rabbitmq}",
            "queue.backend does not go with store.backend sqlite: \
             the three are either embedded or servers, here sqlite and fts5",
        ),
        ("log: {level: [info]}", "log.level: got a list, expected one of error, warn, info, debug, trace"),
        ("log: {level: {debug: ~}}", "log.level: got a section, expected one of error, warn, info, debug, trace"),
        ("log: {level: }", "log.level: got nothing, expected one of error, warn, info, debug, trace"),
        (
            "server: {max_connections: .inf}",
            "server.max_connections: got \".inf\", expected a whole number, 1 to 1000000",
        ),
        (
            "server: {max_connections: 99999999999999999999}",
            "server.max_connections: got 1e+20, expected a whole number, 1 to 1000000",
        ),
        ("log: 5", "log: got 5, expected a section with the keys format, level"),
        ("log: [a]", "log: got a list, expected a section with the keys format, level"),
        ("server: {max_connections: 0}", "server.max_connections is 0, but must be 1 to 1000000"),
        ("5", "got 5, expected sections and keys such as `server:`"),
        ("[a]", "got a list, expected sections and keys such as `server:`"),
    ];
    for (text, want) in cases {
        let errors = Setup::file(&format!("{text}\n")).errors();
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        assert_eq!(errors[0], format!("aula.yaml:1: {want}"), "{text}");
    }
}

#[test]
fn long_values_are_cut() {
    let errors = Setup::file(&format!("log: {{level: {}}}\n{}: 1\n", "ä".repeat(10_000), "k".repeat(900))).errors();
    assert!(errors.iter().all(|line| line.len() < 500), "{errors:?}");
}

#[test]
fn variables_are_read_as_the_type_of_their_key() {
    let config = Setup::file("")
        .env("AULA_SERVER_MAX_CONNECTIONS", "500")
        .env("AULA_SERVER_ALLOWED_ORIGINS", "https://a.example, https://b.example")
        .env("AULA_SESSION_MAX_FRAME_BYTES", "32768")
        .env("AULA_SESSION_OUTBOX_BYTES", "2MiB")
        .env("AULA_CHANNELS_MAX_NAME_BYTES", "1KiB")
        .env("AULA_FEATURES_SEARCH", "false")
        .env("AULA_LOG_LEVEL", "trace")
        .env("AULA_DATA_DIR", "12")
        .config();
    assert_eq!(config.server.max_connections, 500);
    assert_eq!(config.server.allowed_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(config.session.max_frame_bytes, 32_768);
    assert_eq!(config.session.outbox_bytes, 2 << 20);
    assert_eq!(config.channels.max_name_bytes, 1 << 10);
    assert!(!config.features.search);
    assert_eq!(config.log.level, LogLevel::Trace);
    assert_eq!(config.data_dir, PathBuf::from("12"));
    let none = Setup::file("server: {allowed_origins: [\"*\"]}\n").env("AULA_SERVER_ALLOWED_ORIGINS", "");
    assert_eq!(none.config().server.allowed_origins, [""; 0]);
}

#[test]
fn bad_variables_and_flags_name_themselves() {
    let mut setup = Setup::file("")
        .env("AULA_SERVER_MAX_CONNECTIONS", "many")
        .env("AULA_FEATURES_SEARCH", "no")
        .env("AULA_DATA_DIR", "a\u{fffd}b")
        .env("AULA_SESSION_IDLE_TIMEOUT", "");
    setup.flags.listen = Some("nowhere".to_owned());
    let want = [
        "AULA_DATA_DIR: data_dir: the value isn't UTF-8",
        "AULA_FEATURES_SEARCH: features.search: got \"no\", expected true or false",
        "AULA_SERVER_MAX_CONNECTIONS: server.max_connections: got \"many\", expected a whole number, 1 to 1000000",
        "AULA_SESSION_IDLE_TIMEOUT: session.idle_timeout: got \"\", expected a duration with its unit, such as 100ms, 5s, 15m or 30d",
        "--listen: server.listen is \"nowhere\", but must be an address such as 127.0.0.1:8080, [::1]:8080 or localhost:8080; the port is missing",
    ];
    assert_eq!(setup.errors(), want);
}

#[test]
fn all_problems_are_reported_at_once_in_order() {
    let setup = Setup::file("typo: 1\nlog: {level: loud}\nstore:\n  readers: 0\n  max_batch: x\n")
        .env("AULA_SESSION_IDLE_TIMEOUT", "20s");
    let errors = setup.errors();
    let starts = [
        "aula.yaml:1: unknown key",
        "aula.yaml:2: log.level: got",
        "aula.yaml:4: store.readers is 0",
        "aula.yaml:5: store.max_batch: got",
        "AULA_SESSION_IDLE_TIMEOUT: session.idle_timeout is 20s",
    ];
    assert_eq!(errors.len(), starts.len(), "{errors:?}");
    for (error, start) in errors.iter().zip(starts) {
        assert!(error.starts_with(start), "{errors:?}");
    }
}

#[test]
fn a_bad_value_that_is_overridden_is_still_an_error() {
    let setup = Setup::file("log: {level: loud}\n").env("AULA_LOG_LEVEL", "debug");
    assert_eq!(setup.errors().len(), 1);
}

#[test]
fn one_mistake_is_one_error() {
    // The default idle_timeout of 60 s doesn't go with this ping_interval; the one that was meant does.
    for text in ["idle_timeout: 5 minuets", "idle_timout: 5m"] {
        let setup = Setup::file(&format!("session: {{ping_interval: 2m, {text}}}\n"));
        assert_eq!(setup.errors().len(), 1, "{:?}", setup.errors());
    }
    let section = Setup::file("sesion: {idle_timeout: 5m}\n").env("AULA_SESSION_PING_INTERVAL", "2m");
    assert_eq!(section.errors().len(), 1, "{:?}", section.errors());
    let variable = Setup::file("session: {ping_interval: 2m}\n").env("AULA_SESSION_IDLE_TIMOUT", "5m");
    assert_eq!(variable.errors().len(), 1, "{:?}", variable.errors());
}

#[test]
fn signup_follows_the_bound_address() {
    for (address, auto) in [
        ("127.0.0.1", true),
        ("127.8.8.8", true),
        ("::1", true),
        ("::ffff:127.0.0.1", true),
        ("0.0.0.0", false),
        ("192.168.1.1", false),
        ("::", false),
    ] {
        let address = address.parse().unwrap();
        assert_eq!(Signup::Auto.is_open(address), auto, "{address}");
        assert!(Signup::Open.is_open(address) && !Signup::Closed.is_open(address));
    }
}

proptest::proptest! {
    #[test]
    fn any_file_is_judged(text in "(?s)(server|log|listen|level|[a-z]|: |\n|  |- |[\\[\\]{}&*#\"']){0,30}") {
        let tree = tree::parse(&text);
        if let Ok(tree) = tree {
            let mut problems = Vec::new();
            let settings = layers::file(Path::new("aula.yaml"), tree, &mut problems);
            let _ = merge(settings, problems);
        }
    }
}
