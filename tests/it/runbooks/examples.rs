//! What a runbook shows below a command is what that command prints, in the state that the page is about: the same words
//! in the same columns. Numbers, ids and times are the page's own.

use std::path::Path;
use std::sync::Arc;

use regex::Regex;
use serde_json::json;

use crate::client::Encoding;
use crate::cluster::namespace::Namespace;
use crate::cluster::servers::Servers;
use crate::golden::Stage;
use crate::people::People;
use crate::server::{Builder, Server};

struct Example {
    line: usize,
    command: String,
    printed: String,
}

/// In an indented block, the lines between a command of aula and the next command.
fn examples(text: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut is_open = false;
    for (number, line) in text.lines().enumerate() {
        match line.strip_prefix("    ") {
            Some(command) if command.starts_with("aula ") => {
                found.push(Example { line: number + 1, command: command.to_owned(), printed: String::new() });
                is_open = !command.ends_with('\\');
            }
            Some(printed) if is_open && !printed.starts_with("rabbitmqctl ") && !printed.starts_with("openssl ") => {
                let example = found.last_mut().unwrap();
                example.printed.push_str(printed);
                example.printed.push('\n');
            }
            // A block goes on behind an empty line.
            None if line.is_empty() => {}
            _ => is_open = false,
        }
    }
    found.retain(|example| !example.printed.is_empty());
    found
}

/// Without what is another each time.
fn shape(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, shown) in [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
        (r"\b\d+ (d|h|m) \d+ (h|m|s)\b|\b\d+(\.\d+)? s\b", "AGE"),
        (r"keyspace \w+", "keyspace NAME"),
        (r"\d+(\.\d+)?", "#"),
        (r"# channels?\b", "# channels"),
        // Of columns.
        (r" {2,}", "  "),
        (r"(?m) +$", ""),
        (r"\n+", "\n"),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, shown).into_owned();
    }
    text.trim().to_owned()
}

/// A page's state, made for real.
async fn stage(page: &str) -> Stage {
    match page {
        "queue-grows.md" | "stuck-lane.md" => {
            let builder = Server::builder().env("AULA_QUEUE_SHARDS", 1).arg("--no-worker");
            let mut people = People::on(builder, &["ada", "bob"]).await;
            let ada = people.client("ada", Encoding::Json).await;
            // It waits in the queue: nobody makes it.
            let channel = json!({"op": "create_channel", "kind": "group", "name": "orchard", "members": ["bob"]});
            let reply = ada.request(channel).await;
            assert_eq!(reply["op"], "ok", "{reply}");
            let on = people.server.builder_ref().clone();
            tokio::task::block_in_place(|| people.server.kill9());
            Stage { on, channel: String::new(), message: String::new() }
        }
        _ => {
            let stage = Stage::new().await;
            let file = Stage::file(&stage.on);
            match page {
                "dead-letters.md" => file.execute_batch(
                    "INSERT INTO dead_letters (id, family, shard, payload, enqueued_at, reason, died_at)
                     VALUES (4711, 'db_tasks', 0, x'02', 1, 'payload version 2, this binary reads up to 1: upgrade \
                     the workers first', 1000 * unixepoch() - 4000)",
                ),
                "verify.md" => file.execute_batch("DELETE FROM messages WHERE body = 'a pear'"),
                "purge.md" => file.execute_batch("UPDATE messages SET at = 1735689600000 WHERE seq <= 2"),
                "backup.md" | "embedded-to-distributed.md" | "reindex.md" => Ok(()),
                other => panic!("{other} shows what a command prints: in which state?"),
            }
            .unwrap();
            stage
        }
    }
}

/// What an import ends with that finds all there: the way on of the page that moves to servers.
fn moved(stage: Stage, folder: &str) -> Stage {
    let run = |on: &Builder, words: &[&str]| {
        let (status, out, err) = on.aula(words);
        assert!(status.success(), "{words:?}: {out}{err}");
    };
    run(&stage.on, &["export", folder]);
    let on = Builder::on_servers(&Arc::new(Namespace::new(&Servers::shared())));
    run(&on, &["import", folder]);
    Stage { on, ..stage }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_runbooks_show_is_what_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks");
    let mut pages: Vec<_> = std::fs::read_dir(pages).unwrap().map(|page| page.unwrap().path()).collect();
    pages.sort();
    let (mut compared, mut wrong) = (0, Vec::new());
    for page in pages {
        let name = page.file_name().unwrap().to_string_lossy().into_owned();
        let examples = examples(&std::fs::read_to_string(&page).unwrap());
        if examples.is_empty() {
            continue;
        }
        let mut stage = stage(&name).await;
        let place = folder.path().join(&name).display().to_string();
        if name == "embedded-to-distributed.md" {
            stage = tokio::task::block_in_place(|| moved(stage, &place));
        }
        for Example { line, command, printed } in examples {
            let words = command.strip_prefix("aula ").unwrap().split(' ').map(|word| match word {
                "ID" => &stage.channel,
                "DIR" | "SECOND" => &place,
                word => word,
            });
            let words: Vec<&str> = words.collect();
            assert!(
                !command.contains(['\'', '"', '|', '$', '#']),
                "{name}:{line}: {command}: these words need a shell"
            );
            let (_, out, err) = tokio::task::block_in_place(|| stage.on.aula(&words));
            // What goes to stderr beside a result is said while it works.
            let mut now = if out.is_empty() { err } else { out }.replace(&place, "DIR");
            now = now.replace(stage.on.dir().to_str().unwrap(), "/var/lib/aula");
            compared += 1;
            if shape(&now) != shape(&printed) {
                wrong.push(format!("{name}:{line}: {command}\nprints\n{now}\nand not\n{printed}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared >= 8, "{compared} examples");
}

#[test]
fn examples_are_found() {
    let text = "Look:\n\n    aula one\n    A  B\n\n    below: `aula two`\n\nand\n\n    aula three\n    openssl four\n    aula five\n    C\n";
    let found = examples(text);
    let found: Vec<_> = found.iter().map(|found| (found.line, &*found.command, &*found.printed)).collect();
    assert_eq!(found, [(3, "aula one", "A  B\nbelow: `aula two`\n"), (12, "aula five", "C\n")]);
    assert_eq!(shape("DEPTH   1.5 s  12\n\n3 m 20 s\n"), "DEPTH  AGE  #\nAGE");
    assert_ne!(shape("1 entry"), shape("1 message"));
}
