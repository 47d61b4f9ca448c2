//! Every `aula` command that a runbook or the README shows is run, as it stands there, by a shell: a page whose command
//! is refused as no command of this program is out of date.

mod examples;

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use regex::Regex;

use crate::client::Encoding;
use crate::people::People;
use crate::server::Server;

/// Commands that run until they are told to end get so long to refuse their arguments.
const A_WHILE: &str = "3";

struct Shown {
    page: String,
    line: usize,
    command: String,
}

/// The commands of a page: lines that begin with `    aula`, and `aula …` in backquotes.
fn commands(page: &str, text: &str) -> Vec<Shown> {
    let inline = Regex::new("`(aula [^`]+)`").unwrap();
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut add = |command: &str| {
            found.push(Shown { page: page.to_owned(), line: number + 1, command: command.to_owned() });
        };
        // Further to the right in a list.
        match line.strip_prefix("    ").map(str::trim_start).filter(|rest| rest.starts_with("aula ")) {
            Some(rest) => {
                let mut whole = rest.to_owned();
                while let Some(begun) = whole.strip_suffix('\\') {
                    let next = lines.next().map_or("", |(_, next)| next.trim());
                    whole = format!("{begun}{next}");
                }
                add(&whole);
            }
            // A name alone is spoken of: `aula worker` needs to be told what to work on.
            None => inline.captures_iter(line).for_each(|found| match found[1].split(' ').count() {
                2 => add(&format!("{} --help", &found[1])),
                _ => add(&found[1]),
            }),
        }
    }
    found
}

/// What the page leaves to the reader.
fn filled(command: &str, server: &Server, channel: &str) -> String {
    let url = format!("http://{}", server.addr());
    let id = if command.contains("dead-letters") { "4711" } else { channel };
    let words = [
        ("http://127.0.0.1:8080", url.as_str()),
        ("/var/lib/aula", server.data_dir().to_str().unwrap()),
        ("NAME", "bob"),
        ("SHELL", "bash"),
        ("FILE", "run.ndjson"),
        (" TIME", " 2h"),
        ("$(pidof -s aula)", &server.pid().to_string()),
    ]
    .map(|(shown, real)| (shown.to_owned(), real.to_owned()));
    let mut command = command.to_owned();
    for (shown, real) in words {
        command = command.replace(&shown, &real);
    }
    let id_alone = Regex::new(r"\bID\b").unwrap();
    let command = id_alone.replace_all(&command, id);
    // A load of minutes would prove no more than one of a second.
    let load = Regex::new(r"--(clients|rate|duration) [0-9]+[smh]?").unwrap();
    let command = load.replace_all(&command, |found: &regex::Captures<'_>| match &found[1] {
        "clients" => "--clients 5".to_owned(),
        "rate" => "--rate 10".to_owned(),
        _ => "--duration 1s".to_owned(),
    });
    command.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_runbooks_is_one() {
    let people = People::new(&["ada", "bob"]).await;
    let ada = people.client("ada", Encoding::Json).await;
    let channel = ada.create_group("orchard", &["bob"]).await;
    ada.send_persisted(&channel, "apple").await;

    let folder = tempfile::tempdir().unwrap();
    symlink(env!("CARGO_BIN_EXE_aula"), folder.path().join("aula")).unwrap();
    std::fs::write(folder.path().join("token.txt"), people.token("bob")).unwrap();
    let url = format!("http://{}", people.server.addr());
    let load = ["simulate-clients", "--url", &url, "--clients", "4", "--rate", "10", "--duration", "1s", "--record"];
    let record = folder.path().join("run.ndjson");
    let (status, _, err) = people.server.aula(&[&load[..], &[record.to_str().unwrap()]].concat());
    assert_eq!(status.code(), Some(0), "{err}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages: Vec<_> =
        std::fs::read_dir(root.join("runbooks")).unwrap().map(|page| page.unwrap().path()).collect();
    pages.push(root.join("README.md"));
    pages.sort();
    let mut shown = Vec::new();
    for page in &pages {
        let name = page.file_name().unwrap().to_string_lossy().into_owned();
        shown.extend(commands(&name, &std::fs::read_to_string(page).unwrap()));
    }
    // Not commands, but the names that processes have at the broker.
    shown.retain(|shown| !shown.command.contains('…'));
    assert!(shown.len() > 60, "{} commands are shown", shown.len());

    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut run: BTreeSet<String> = BTreeSet::new();
    let mut wrong = Vec::new();
    for Shown { page, line, command } in shown {
        let command = filled(&command, &people.server, &channel);
        if !run.insert(command.clone()) {
            continue;
        }
        let output = tokio::task::block_in_place(|| {
            Command::new("timeout")
                .args(["--signal", "INT", "--kill-after", "20", A_WHILE, "sh", "-c", &command])
                .current_dir(folder.path())
                .env_clear()
                .env("PATH", &path)
                .env("HOME", folder.path())
                .env("AULA_DATA_DIR", people.server.data_dir())
                .env("AULA_SERVER_LISTEN", "127.0.0.1:0")
                .env("AULA_WORKER_LISTEN", "127.0.0.1:0")
                .stdin(Stdio::null())
                .output()
                .unwrap()
        });
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        // clap's words for what it does not know; 127: a shell that found no command.
        let is_no_command = output.status.code() == Some(127)
            || ["Usage:", "unexpected argument", "unrecognized subcommand", "panicked"]
                .iter()
                .any(|word| err.contains(word));
        // Nobody is there who could say yes, or type a password; and pages speak of both deployments.
        let asks = ["--yes", "no terminal", "--password-stdin", "not part of the deployment"]
            .iter()
            .any(|word| err.contains(word));
        if is_no_command || (output.status.code() == Some(2) && !asks) {
            wrong.push(format!("{page}:{line}: {command}\n{err}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), run.len(), wrong.join("\n"));
}

/// Every page is in the index, and the index has no other.
#[test]
fn the_index_of_the_runbooks_is_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks");
    let index = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let link = Regex::new(r"\]\(([a-z-]+\.md)\)").unwrap();
    let linked: BTreeSet<String> = link.captures_iter(&index).map(|found| found[1].to_owned()).collect();
    let names = std::fs::read_dir(folder).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap());
    let there: BTreeSet<String> = names.filter(|name| name != "README.md").collect();
    assert_eq!(linked, there);
}
