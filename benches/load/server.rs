use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{index_tasks, process, stored_messages};

/// A release build of the server, as its own process.
pub struct Server {
    child: Child,
    address: SocketAddr,
    data_dir: PathBuf,
}

impl Server {
    /// On a data directory that may have something in it, with settings as environment variables: nobody is held to a
    /// rate, and the rest is as it comes unless `settings` says otherwise.
    pub fn start(data_dir: &Path, settings: &[(&str, &str)]) -> Self {
        let mut child = aula(data_dir)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("AULA_SESSION_REQUESTS_PER_SECOND", "1000000")
            .env("AULA_SESSION_REQUEST_BURST", "1000000")
            .env("AULA_LOG_LEVEL", "warn")
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").expect("the server's line").parse().unwrap();
        Self { child, address, data_dir: data_dir.to_owned() }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new user with an access token.
    pub fn mint(&self, name: &str) -> String {
        let added = aula(&self.data_dir).args(["user", "add", name, "--generate"]).output().unwrap();
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        let minted = aula(&self.data_dir).args(["token", "mint", name, "--ttl", "1h", "--output", "json"]).output();
        let minted: serde_json::Value = serde_json::from_slice(&minted.unwrap().stdout).unwrap();
        minted["token"].as_str().or_else(|| minted["access_token"].as_str()).expect("a token").to_owned()
    }

    /// What a reader of the file finds: nothing may be counted that isn't there.
    pub fn stored_messages(&self) -> u64 {
        stored_messages(&self.data_dir)
    }

    /// Until search knows everything that was stored. Panics after `patience`.
    pub async fn wait_until_indexed(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while index_tasks(&self.data_dir) > 0 {
            assert!(Instant::now() < deadline, "the index has not caught up");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// RSS in KiB.
    pub fn resident_kib(&self) -> u64 {
        process::resident_kib(self.child.id())
    }

    /// User and system time so far.
    pub fn cpu(&self) -> Duration {
        process::cpu(self.child.id())
    }
}

/// The same build as a command on a data directory.
pub fn aula(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aula"));
    command.arg("--data-dir").arg(data_dir);
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
