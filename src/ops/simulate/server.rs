//! The server of a run: one that is there, or one that is started for it in a process and a folder of its own, so that
//! its CPU time and memory are not the clients'.

use std::fs::{self, DirBuilder};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::crowd::Target;
use super::interrupt::{Interrupt, receive};
use crate::ops::Context;
use crate::ops::exit::{Advise as _, Exit};

const START_LIMIT: Duration = Duration::from_secs(30);
/// For the drain, which sends thousands of clients away.
const END_LIMIT: Duration = Duration::from_secs(15);
const READY: &str = "listening on http://";
/// Of what the server has logged, in an error.
const SHOWN_LOG: usize = 2000;

/// A folder that is removed with all that is in it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// In the system's folder for such things (`TMPDIR`); nobody else can read it.
    pub fn new(run: &str) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("aula-{run}"));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("can't make {}", path.display())).hint("TMPDIR says where it is made")?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a folder was left behind");
        }
    }
}

/// A server that was started for the run.
#[derive(Debug)]
pub struct Embedded {
    child: Child,
    pub target: Target,
    log: PathBuf,
}

/// What the server must be able to bear.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    pub clients: u32,
    pub largest_channel: usize,
}

impl Embedded {
    /// Starts `aula serve` on this data directory, with the configuration in force and with those limits raised that a
    /// single machine full of clients would meet before the server's own.
    pub fn start(context: &Context, data_dir: &Path, needs: Needs, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let log = data_dir.join("server.log");
        let aula = std::env::current_exe().context("can't find the binary of aula")?;
        let mut command = Command::new(aula);
        command.arg("--data-dir").arg(data_dir);
        if let Some(file) = &context.config_file {
            command.arg("--config").arg(file);
        }
        command.args(["serve", "--listen", "127.0.0.1:0", "--until-stdin-ends"]);
        command
            .env("AULA_SERVER_MAX_CONNECTIONS", (needs.clients.saturating_add(1000)).to_string())
            .env("AULA_CHANNELS_MAX_MEMBERS", needs.largest_channel.max(1000).to_string())
            .env("AULA_SESSION_REQUESTS_PER_SECOND", "100000")
            .env("AULA_SESSION_REQUEST_BURST", "100000");
        if std::env::var_os("AULA_LOG_LEVEL").is_none() {
            command.env("AULA_LOG_LEVEL", "warn");
        }
        let errors = fs::File::create(&log).with_context(|| format!("can't write {}", log.display()))?;
        // In a group of its own: ctrl-c is for the one who measures, who ends the server afterwards.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).process_group(0);
        let mut child = command.spawn().context("can't start the server")?;
        match ready(&mut child, interrupt) {
            Ok(address) => Ok(Self { child, target: Target { address, host: address.to_string() }, log }),
            Err(error) => {
                end(&mut child);
                Err(error.context(format!("the server did not start: {}", tail(&log))))
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Why it runs no more, if it doesn't.
    pub fn has_ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!("the server ended ({status}): {}", tail(&self.log)))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Waits for the line that says where it listens.
fn ready(child: &mut Child, interrupt: &Interrupt) -> anyhow::Result<SocketAddr> {
    let stdout = child.stdout.take().context("its output is not there")?;
    let (sender, lines) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            // Later lines are read so that the server is never held up, and nobody wants them.
            let Ok(line) = line else { return };
            drop(sender.try_send(line));
        }
    });
    let line = match receive(&lines, START_LIMIT, || interrupt.count() > 0) {
        Ok(line) => line,
        Err(_) if interrupt.count() > 0 => bail!("interrupted"),
        Err(_) => bail!("it says nothing"),
    };
    let address = line.strip_prefix(READY).with_context(|| format!("it says {line:?}"))?;
    Ok(address.parse()?)
}

/// Closes its stdin, which is its sign to drain; what takes too long is killed.
fn end(child: &mut Child) {
    drop(child.stdin.take());
    let began = Instant::now();
    while began.elapsed() < END_LIMIT {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            _ => return,
        }
    }
    tracing::warn!("the server did not drain in time and is killed");
    if let Err(error) = child.kill().and_then(|()| child.wait().map(drop)) {
        tracing::warn!(%error, "the server could not be killed");
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let begin = text.len().saturating_sub(SHOWN_LOG);
    text[text.ceil_char_boundary(begin)..].trim().to_owned()
}

/// The address behind `http://HOST:PORT`; only this machine's own unless `allow_remote`.
pub fn target(url: &str, allow_remote: bool) -> anyhow::Result<Target> {
    let usage = |message: String| anyhow::Error::msg(message);
    let host = match url.split_once("://") {
        Some(("http" | "ws", rest)) => rest,
        Some(("https" | "wss", _)) => {
            return Err(usage(format!("{url}: no TLS is spoken here")))
                .hint("name the server itself, behind the proxy that speaks TLS")
                .exit(Exit::Usage);
        }
        Some(_) => return Err(usage(format!("{url} is no URL of a server"))).exit(Exit::Usage),
        None => url,
    };
    let host = host.strip_suffix("/ws").unwrap_or(host).trim_end_matches('/');
    if host.contains('/') {
        return Err(usage(format!("{url}: only a host and a port are expected, such as http://127.0.0.1:8080")))
            .exit(Exit::Usage);
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let named = if has_port { host.to_owned() } else { format!("{host}:80") };
    let mut addresses = named.to_socket_addrs().with_context(|| format!("can't find {named}"))?;
    let Some(address) = addresses.next() else { bail!("{named} has no address") };
    if !address.ip().is_loopback() && !allow_remote {
        return Err(usage(format!("{named} is another machine, or can be reached from others")))
            .hint("say --allow-remote if a load test of it is wanted and allowed")
            .exit(Exit::Usage);
    }
    Ok(Target { address, host: host.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_by_its_url() {
        for url in ["http://127.0.0.1:8080", "127.0.0.1:8080", "ws://127.0.0.1:8080/ws", "http://127.0.0.1:8080/"] {
            let target = target(url, false).unwrap();
            assert_eq!(
                (target.address.to_string(), target.host),
                ("127.0.0.1:8080".to_owned(), "127.0.0.1:8080".to_owned())
            );
        }
        assert_eq!(target("http://127.0.0.1", false).unwrap().address.port(), 80);
        for bad in ["https://127.0.0.1:1", "ftp://127.0.0.1:1", "http://127.0.0.1:1/api", "http://192.0.2.1:80"] {
            assert!(target(bad, false).is_err(), "{bad}");
        }
        assert!(target("http://192.0.2.1:80", true).is_ok());
    }

    #[test]
    fn a_folder_goes_with_its_owner() {
        let folder = Folder::new(&format!("test-{}", uuid::Uuid::new_v4())).unwrap();
        let path = folder.path().to_owned();
        fs::write(path.join("x"), "y").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
