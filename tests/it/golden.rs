//! What each command of an operator prints, word for word: without a terminal, for scripts, on a terminal without
//! colours that is too narrow, and on one with colours. Other words than those of `tests/it/golden/` fail;
//! `INSTA_UPDATE=always` writes what is printed now, to be read in the diff.

use std::fmt::Write as _;

use insta::Settings;

use crate::client::Encoding;
use crate::people::People;
use crate::server::Builder;
use crate::terminal::Terminal;

const NARROW: u16 = 60;
const WIDE: u16 = 120;
/// Told as days and hours, which are the same for the minutes that a test takes.
const DIED_AGO_MS: i64 = (3 * 24 + 2) * 3_600_000 + 1_800_000;

/// A deployment that is the same each time but for its ids and moments, and whose server has ended.
#[derive(Clone)]
pub struct Stage {
    pub on: Builder,
    pub channel: String,
    /// The id of its first message.
    pub message: String,
}

impl Stage {
    pub async fn new() -> Self {
        let mut people =
            People::on(crate::server::Server::builder().env("AULA_QUEUE_SHARDS", 1), &["ada", "bob"]).await;
        let ada = people.client("ada", Encoding::Json).await;
        let channel = ada.create_group("orchard", &["bob"]).await;
        for body in ["an apple", "a pear", "a quince"] {
            ada.send_persisted(&channel, body).await;
        }
        drop(ada);
        let on = people.server.builder_ref().clone();
        tokio::task::block_in_place(|| {
            people.server.sigterm();
            people.server.wait(std::time::Duration::from_secs(20)).expect("it ends");
        });
        let message: [u8; 16] =
            Self::file(&on).query_row("SELECT id FROM messages WHERE body = 'an apple'", [], |row| row.get(0)).unwrap();
        Self { on, channel, message: uuid::Uuid::from_bytes(message).to_string() }
    }

    pub fn file(on: &Builder) -> rusqlite::Connection {
        rusqlite::Connection::open(on.dir().join("aula.db")).unwrap()
    }

    /// In its four forms; commands that change something can be given in one alone.
    fn printed(&self, words: &[&str], forms: &[Form]) -> String {
        let mut printed = format!("$ aula {}\n", words.join(" "));
        for form in forms {
            let (title, code, text) = form.run(&self.on, words);
            write!(printed, "\n--- {title}: exit {code}\n{}", text.replace("\r\n", "\n")).unwrap();
        }
        printed
    }

    fn assert(&self, name: &str, words: &[&str], forms: &[Form]) {
        let printed = self.printed(words, forms);
        let mut settings = Settings::clone_current();
        settings.set_snapshot_path("golden");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        for (pattern, shown) in [
            (regex::escape(self.on.dir().to_str().unwrap()), "/var/lib/aula"),
            (regex::escape(&self.channel), "cccccccc-cccc-cccc-cccc-cccccccccccc"),
            (regex::escape(&self.message), "mmmmmmmm-mmmm-mmmm-mmmm-mmmmmmmmmmmm"),
            (
                r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".to_owned(),
                "00000000-0000-0000-0000-000000000000",
            ),
            (r"\b[0-9a-f]{64}\b".to_owned(), "<sha256>"),
            (r"\b\d{4}-\d\d-\d\d([T ])\d\d:\d\d:\d\d(\.\d{3})".to_owned(), "2026-01-02${1}03:04:05.006"),
            (r"\b\d{4}-\d\d-\d\d([T ])\d\d:\d\d:\d\dZ".to_owned(), "2026-01-02${1}03:04:05Z"),
            (r"\bin \d+(\.\d+)? s\b".to_owned(), "in 0 s"),
            (r"\(\d+/s\)".to_owned(), "(0/s)"),
            (r#""by": ".*""#.to_owned(), r#""by": "somebody""#),
            (r#""seconds": [\d.]+"#.to_owned(), r#""seconds": 0.0"#),
        ] {
            settings.add_filter(&pattern, shown);
        }
        settings.bind(|| insta::assert_snapshot!(name, printed));
    }
}

#[derive(Clone, Copy)]
enum Form {
    Piped,
    Json,
    Narrow,
    Coloured,
}

const ALL: &[Form] = &[Form::Piped, Form::Json, Form::Narrow, Form::Coloured];

impl Form {
    /// Its name, the exit status and what was printed: stdout, then stderr where the two are apart.
    fn run(self, on: &Builder, words: &[&str]) -> (&'static str, i32, String) {
        let apart = |words: &[&str]| {
            let (status, out, err) = on.aula(words);
            (status.code().expect("not killed"), if err.is_empty() { out } else { format!("{out}(stderr)\n{err}") })
        };
        let terminal = |columns, env: &[(&str, &str)]| {
            let (status, text) = Terminal::of_columns(columns, on.dir(), words, env).end();
            // How often a bar is drawn is a matter of time; it is gone in the end.
            let lines = text.lines().map(|line| line.rsplit("\x1b[2K").next().unwrap_or(line).trim_start_matches('\r'));
            let lines: String = lines.map(|line| format!("{}\n", line.replace('\x1b', "␛"))).collect();
            (status.code().expect("not killed"), lines)
        };
        let (title, (code, text)) = match self {
            Self::Piped => ("no terminal", apart(words)),
            Self::Json => ("--output json", apart(&[&["--output", "json"], words].concat())),
            Self::Narrow => {
                ("60 columns, NO_COLOR", terminal(NARROW, &[("NO_COLOR", "1"), ("AULA_QUEUE_SHARDS", "1")]))
            }
            Self::Coloured => ("120 columns", terminal(WIDE, &[("AULA_QUEUE_SHARDS", "1")])),
        };
        (title, code, text)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_command_prints_what_it_printed() {
    let stage = Stage::new().await;
    Stage::file(&stage.on)
        .execute(
            "INSERT INTO dead_letters (id, family, shard, payload, enqueued_at, reason, died_at)
             VALUES (7, 'db_tasks', 0, x'09', ?1 - 60000, 'no good', ?1)",
            [aula::message::Millis::now().0 - DIED_AGO_MS],
        )
        .unwrap();
    let (channel, message) = (stage.channel.as_str(), stage.message.as_str());
    tokio::task::block_in_place(|| {
        stage.assert("queue-stats", &["queue-stats"], ALL);
        stage.assert("dead-letters-list", &["dead-letters", "list"], ALL);
        stage.assert("dead-letters-show", &["dead-letters", "show", "7"], ALL);
        stage.assert("dead-letters-retry-dry-run", &["dead-letters", "retry", "7", "--dry-run"], ALL);
        stage.assert("dead-letters-purge-dry-run", &["dead-letters", "purge", "7", "--dry-run"], ALL);
        stage.assert("trace", &["trace", message], ALL);
        stage.assert("verify-clean", &["verify"], ALL);
        stage.assert("reindex-dry-run", &["reindex", "--dry-run"], ALL);
        stage.assert("reindex", &["reindex"], ALL);
        stage.assert("purge-dry-run", &["purge-channel", channel, "--before-seq", "3", "--dry-run"], ALL);
        stage.assert("purge-unconfirmed", &["purge-channel", channel, "--before-seq", "3"], &[Form::Piped, Form::Json]);
        stage.assert("migrate-status", &["migrate", "status"], ALL);
        stage.assert("migrate-plan", &["migrate", "plan"], ALL);
        stage.assert("user-list", &["user", "list"], ALL);
        stage.assert("config-check", &["config", "check"], ALL);

        let exported = stage.on.dir().join("exported").to_str().unwrap().to_owned();
        stage.assert("export", &["export", &exported], &[Form::Piped]);
        stage.assert("import-dry-run", &["import", &exported, "--dry-run"], ALL);
        stage.assert("import", &["import", &exported], ALL);
        let copied = stage.on.dir().join("copied").to_str().unwrap().to_owned();
        stage.assert("backup", &["backup", &copied], &[Form::Piped]);
        stage.assert("restore-refused", &["restore", &copied], ALL);
        stage.assert("no-such-folder", &["import", &stage.on.dir().join("nowhere").display().to_string()], ALL);

        let purge = ["purge-channel", channel, "--before-seq", "3", "--yes"];
        stage.assert("purge", &purge, &[Form::Piped]);
        stage.assert("purge-again", &purge, &[Form::Json, Form::Narrow]);

        let mut wrong = stage.clone();
        wrong.on.set_env("AULA_SERVER_MAX_CONNECTIONS", "many");
        wrong.assert("doctor-wrong-configuration", &["doctor"], &[Form::Piped, Form::Json]);

        // A hole, and a message that no search finds.
        Stage::file(&stage.on).execute("DELETE FROM messages WHERE body = 'a quince'", []).unwrap();
        stage.assert("verify-found", &["verify"], ALL);
        stage.assert("verify-repair", &["verify", "--repair"], &[Form::Piped]);
        stage.assert("unknown-channel", &["verify", "--channel", "00000000-0000-0000-0000-000000000000"], ALL);
    });
}
