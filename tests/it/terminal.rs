//! What commands do on a terminal: a pair of devices, of which the process has one and the test the other.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};

use crate::server::Server;

const SOON: Duration = Duration::from_secs(20);
const COLUMNS: u16 = 90;

pub struct Terminal {
    child: Child,
    keyboard: File,
    shown: mpsc::Receiver<Vec<u8>>,
    text: String,
}

impl Terminal {
    /// `aula` with these words on a server's data directory, its three streams a terminal.
    fn run(server: &Server, words: &[&str], env: &[(&str, &str)]) -> Self {
        Self::of_columns(COLUMNS, server.data_dir(), words, env)
    }

    pub fn of_columns(columns: u16, data_dir: &Path, words: &[&str], env: &[(&str, &str)]) -> Self {
        let size = Winsize { ws_row: 20, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_aula"));
        command.arg("--data-dir").arg(data_dir).args(words);
        command.env_remove("NO_COLOR").env_remove("COLUMNS").env_remove("LINES").env("TERM", "xterm");
        command.envs(env.iter().copied());
        command.stdin(end(&pair.slave)).stdout(end(&pair.slave)).stderr(end(&pair.slave));
        let child = command.spawn().unwrap();
        // The last of them is then the process's own: its end is the end of what can be read.
        drop((command, pair.slave));
        let mut screen = File::from(pair.master.try_clone().unwrap());
        let (sender, shown) = mpsc::channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = screen.read(&mut chunk) {
                if sender.send(chunk[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard: File::from(pair.master), shown, text: String::new() }
    }

    fn wait_for(&mut self, wanted: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + SOON;
        while !wanted(&self.text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let chunk = self.shown.recv_timeout(left).unwrap_or_else(|error| panic!("{error}: {:?}", self.text));
            self.text.push_str(&String::from_utf8_lossy(&chunk));
        }
    }

    pub fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        while let Ok(chunk) = self.shown.recv_timeout(Duration::from_secs(2)) {
            self.text.push_str(&String::from_utf8_lossy(&chunk));
        }
        (status, std::mem::take(&mut self.text))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";

#[test]
fn queue_stats_is_drawn_in_its_place_until_ctrl_c() {
    let server = Server::builder().env("AULA_QUEUE_SHARDS", 2).start();
    let mut watch = Terminal::run(&server, &["queue-stats", "--watch"], &[]);
    watch.wait_for(|text| text.matches(HIDE_CURSOR).count() >= 3);
    let pid = rustix::process::Pid::from_child(&watch.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let (status, text) = watch.end();
    assert!(status.success(), "{status}: {text:?}");
    assert!(text.ends_with(SHOW_CURSOR), "{text:?}");
    let pictures: Vec<&str> = text.split(HIDE_CURSOR).skip(1).collect();
    // From the second on there is a line for the rates.
    assert!(pictures[0].starts_with("\rQUEUE") && pictures[1].starts_with("\x1b[4A\rQUEUE"), "{text:?}");
    assert!(pictures[2].starts_with("\x1b[5A\rQUEUE"), "{text:?}");
    assert!(text.contains("\x1b[32mok\x1b[0m"), "{text:?}");
}

#[test]
fn colours_and_widths_are_those_of_the_terminal() {
    let server = Server::builder().start();
    let (status, text) = Terminal::run(&server, &["queue-stats"], &[("NO_COLOR", "1")]).end();
    assert!(status.success() && text.contains("VERDICT") && !text.contains('\x1b'), "{text:?}");
    for line in text.lines() {
        assert!(line.chars().count() <= usize::from(COLUMNS), "{line:?}");
    }
    let (_, text) = Terminal::run(&server, &["queue-stats"], &[]).end();
    assert!(text.contains("\x1b[32mok\x1b[0m"), "{text:?}");
}

#[test]
fn who_throws_something_away_is_asked() {
    let server = Server::builder().env("AULA_QUEUE_SHARDS", 1).start();
    let database = rusqlite::Connection::open(server.data_dir().join("aula.db")).unwrap();
    database.busy_timeout(SOON).unwrap();
    let dead = "INSERT INTO dead_letters (id, family, shard, payload, enqueued_at, reason, died_at)
                VALUES (7, 'db_tasks', 0, x'09', 1, 'no good', 2)";
    database.execute(dead, []).unwrap();
    let count = || database.query_row("SELECT count(*) FROM dead_letters", [], |row| row.get::<_, u32>(0)).unwrap();
    for (answer, code, left) in [("n", 1, 1), ("", 1, 1), ("y", 0, 0)] {
        let mut purge = Terminal::run(&server, &["dead-letters", "purge", "--reason", "good"], &[]);
        purge.wait_for(|text| text.contains("Throw away 1 dead letter, for good? [y/N]"));
        assert_eq!(count(), 1, "nothing is done before the answer");
        writeln!(purge.keyboard, "{answer}").unwrap();
        let (status, text) = purge.end();
        assert_eq!((status.code(), count()), (Some(code), left), "{answer:?}: {text}");
    }
}
