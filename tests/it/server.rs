//! `aula` as a process: `serve` and `worker` started on a data directory of their own, killed, restarted, asked.
#![allow(dead_code, reason = "a harness: each test uses its part of it")]

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;

use crate::cluster::namespace::Namespace;

const START_LIMIT: Duration = Duration::from_secs(20);
const CLI_LIMIT: Duration = Duration::from_secs(60);
/// How much of a process's stderr is kept for a failure message.
const KEPT_OUTPUT: usize = 256 * 1024;
const READY_PREFIX: &str = "listening on http://";

/// How a server is to be started; `start` may be called many times.
#[derive(Clone)]
pub struct Builder {
    dir: PathBuf,
    /// Removes the directory when the last process of the test on it is gone; none if the test brought its own.
    owned_dir: Option<Arc<TempDir>>,
    args: Vec<OsString>,
    global_args: Vec<OsString>,
    env: Vec<(String, String)>,
    wrapper: Vec<OsString>,
    uid: Option<u32>,
    /// A folder with the binary, for a user who may not enter the one where it was built.
    public_binary: Option<Arc<TempDir>>,
    /// The part of the real servers it works on, in a distributed deployment.
    namespace: Option<Arc<Namespace>>,
}

impl Builder {
    fn new() -> Self {
        let dir = TempDir::with_prefix("aula-it-").unwrap();
        Self {
            dir: dir.path().to_path_buf(),
            owned_dir: Some(Arc::new(dir)),
            args: Vec::new(),
            global_args: Vec::new(),
            env: Vec::new(),
            wrapper: Vec::new(),
            uid: None,
            public_binary: None,
            namespace: None,
        }
    }

    /// A process of the distributed deployment that has this namespace, with a data directory of its own.
    pub fn on_servers(namespace: &Arc<Namespace>) -> Self {
        let mut builder = Self::new().global_arg("--config").global_arg(namespace.config());
        builder.namespace = Some(Arc::clone(namespace));
        builder
    }

    /// A data directory the test made itself, and removes itself.
    pub fn data_dir(mut self, dir: &Path) -> Self {
        self.dir = dir.to_path_buf();
        self.owned_dir = None;
        self
    }

    /// An argument after `serve`.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// An argument before the subcommand (`--config FILE`, `--log-format json`).
    pub fn global_arg(mut self, arg: impl Into<OsString>) -> Self {
        self.global_args.push(arg.into());
        self
    }

    /// Sets an environment variable, replacing one of that name.
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.set_env(name, value);
        self
    }

    pub fn set_env(&mut self, name: &str, value: impl ToString) {
        self.unset_env(name);
        self.env.push((name.to_owned(), value.to_string()));
    }

    pub fn unset_env(&mut self, name: &str) {
        self.env.retain(|(known, _)| known != name);
    }

    /// A command that runs the server (`faketime`, `-f`, `-1h`); it must `exec`, so that the pid stays the server's.
    pub fn wrapper<A: Into<OsString>>(mut self, words: impl IntoIterator<Item = A>) -> Self {
        self.wrapper = words.into_iter().map(Into::into).collect();
        self
    }

    /// Runs as this user (the test process must be root); the data directory is given to it.
    pub fn uid(mut self, uid: u32) -> Self {
        std::os::unix::fs::chown(&self.dir, Some(uid), None).unwrap();
        let folder = TempDir::with_prefix("aula-bin-").unwrap();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (built, public) = (env!("CARGO_BIN_EXE_aula"), folder.path().join("aula"));
        std::fs::hard_link(built, &public).or_else(|_other_disk| std::fs::copy(built, &public).map(drop)).unwrap();
        self.public_binary = Some(Arc::new(folder));
        self.uid = Some(uid);
        self
    }

    /// Starts and waits for the ready line; panics with the captured stderr if it doesn't come in time.
    pub fn start(&self) -> Server {
        match self.try_start() {
            Ok(server) => server,
            Err(failure) => panic!("aula serve did not start: {failure}"),
        }
    }

    /// As `start`, for servers that are expected to refuse.
    pub fn try_start(&self) -> Result<Server, StartFailure> {
        let mut args: Vec<OsString> = vec!["serve".into(), "--listen".into(), "127.0.0.1:0".into()];
        args.extend(self.args.iter().cloned());
        let mut process = Process::spawn(self.command(&args));
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match process.stdout.recv_timeout(left) {
                Ok(line) => {
                    let Some(addr) = line.trim_end().strip_prefix(READY_PREFIX) else { continue };
                    let addr = addr.parse().unwrap_or_else(|_| panic!("no address in {line:?}"));
                    return Ok(Server { builder: self.clone(), process, addr });
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    process.kill9();
                    return Err(StartFailure { status: None, stderr: process.stderr() });
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = process.wait(START_LIMIT);
                    return Err(StartFailure { status, stderr: process.stderr() });
                }
            }
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs an `aula` command on the data directory.
    pub fn aula(&self, args: &[&str]) -> (ExitStatus, String, String) {
        let words: Vec<OsString> = args.iter().map(Into::into).collect();
        let mut process = Process::spawn(self.command(&words));
        let status = process.wait(CLI_LIMIT);
        let Some(status) = status else {
            process.kill9();
            panic!("aula {args:?} still runs after {CLI_LIMIT:?}; stderr:\n{}", process.stderr());
        };
        let lines: Vec<String> = process.stdout.iter().collect();
        (status, lines.concat(), process.stderr())
    }

    /// Starts `aula serve` and waits for nothing.
    pub fn spawn(&self) -> Worker {
        Worker::spawn(self, &["serve", "--listen", "127.0.0.1:0"])
    }

    fn command(&self, args: &[OsString]) -> Command {
        let aula = match &self.public_binary {
            Some(folder) => folder.path().join("aula").into_os_string(),
            None => env!("CARGO_BIN_EXE_aula").into(),
        };
        let mut words = self.wrapper.iter().cloned().chain([aula]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(&self.global_args).arg("--data-dir").arg(&self.dir).args(args);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AULA_") {
                command.env_remove(name);
            }
        }
        // Several workers share the machine.
        command.env("AULA_WORKER_LISTEN", "127.0.0.1:0");
        command.env("NO_COLOR", "1").envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(uid) = self.uid {
            command.uid(uid);
        }
        command
    }
}

/// Why no ready line came: the exit status (none: the time was up) and what stderr said.
#[derive(Debug)]
pub struct StartFailure {
    pub status: Option<ExitStatus>,
    pub stderr: String,
}

impl std::fmt::Display for StartFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status}; stderr:\n{}", self.stderr),
            None => write!(f, "no ready line within {START_LIMIT:?}; stderr:\n{}", self.stderr),
        }
    }
}

/// A running `aula serve`; dropping it kills its process, and only that.
pub struct Server {
    // First: what it works on goes after it.
    process: Process,
    builder: Builder,
    addr: SocketAddr,
}

impl Server {
    /// On the deployment that this test is about: embedded, unless it runs [`on_servers`](crate::cluster::on_servers).
    pub fn builder() -> Builder {
        match crate::cluster::namespace_for_this_test() {
            Some(namespace) => Builder::on_servers(&namespace),
            None => Builder::new(),
        }
    }

    pub fn start() -> Self {
        Self::builder().start()
    }

    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn data_dir(&self) -> &Path {
        &self.builder.dir
    }

    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    pub const fn builder_ref(&self) -> &Builder {
        &self.builder
    }

    /// What the next `restart` starts with.
    pub const fn builder_mut(&mut self) -> &mut Builder {
        &mut self.builder
    }

    /// What this process wrote to stderr so far (its last 256 KiB).
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill9(&mut self) -> ExitStatus {
        self.process.kill9()
    }

    pub fn sigterm(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The exit status, or none if the process still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.process.wait(limit)
    }

    /// Starts again on the same data directory (on a new port); kills the old process if it still runs.
    pub fn restart(&mut self) {
        self.process.kill9();
        let next = self.builder.start();
        *self = next;
    }

    /// As `restart`, for a server that may refuse or die before it is ready; this one stays the dead one then.
    pub fn try_restart(&mut self) -> Result<(), StartFailure> {
        self.process.kill9();
        let next = self.builder.try_start()?;
        *self = next;
        Ok(())
    }

    /// Runs an `aula` command on this server's data directory.
    pub fn aula(&self, args: &[&str]) -> (ExitStatus, String, String) {
        self.builder.aula(args)
    }

    /// Starts `aula worker --queue QUEUE` on this server's data directory.
    pub fn worker(&self, queue: &str) -> Worker {
        Worker::start(&self.builder, queue)
    }
}

/// A running `aula worker`; dropping it kills its process, and only that.
pub struct Worker {
    process: Process,
    /// Keeps the data directory while the worker runs.
    _builder: Builder,
}

impl Worker {
    pub fn start(on: &Builder, queue: &str) -> Self {
        Self::spawn(on, &["worker", "--queue", queue])
    }

    /// Any `aula` command that stays, on a builder's data directory.
    pub fn spawn(on: &Builder, args: &[&str]) -> Self {
        let args: Vec<OsString> = args.iter().map(Into::into).collect();
        Self { process: Process::spawn(on.command(&args)), _builder: on.clone() }
    }

    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for a line of its log; panics with the log if it doesn't come or the process ends.
    pub fn wait_for_log(&mut self, text: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.stderr().contains(text) {
            let ended = self.wait(Duration::from_millis(5));
            let over = Instant::now() >= deadline || (ended.is_some() && !self.stderr().contains(text));
            assert!(!over, "no {text:?} in the log after {limit:?} ({ended:?}):\n{}", self.stderr());
        }
    }

    /// Its end, which must come within `limit`, and all that it printed.
    pub fn finish(&mut self, limit: Duration) -> (ExitStatus, String) {
        let status = self.process.wait(limit);
        let status = status.unwrap_or_else(|| panic!("it still runs after {limit:?}:\n{}", self.stderr()));
        (status, self.process.stdout.iter().collect())
    }

    /// What is on its stdout and not yet taken.
    pub fn stdout(&self) -> String {
        self.process.stdout.try_iter().collect()
    }

    pub fn kill9(&mut self) -> ExitStatus {
        self.process.kill9()
    }

    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.process.wait(limit)
    }

    pub fn stderr(&self) -> String {
        self.process.stderr()
    }
}

/// A child with both of its pipes drained by threads, so that it never blocks on them.
struct Process {
    child: Child,
    /// Lines with their ends; disconnected when the process closed its stdout.
    stdout: mpsc::Receiver<String>,
    stderr: Arc<Mutex<VecDeque<u8>>>,
    stderr_reader: Option<std::thread::JoinHandle<()>>,
}

impl Process {
    fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let out = child.stdout.take().unwrap();
        let (lines, stdout) = mpsc::channel();
        std::thread::spawn(move || {
            let mut out = BufReader::new(out);
            let mut line = Vec::new();
            while out.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                // A receiver that is gone doesn't end the draining.
                let _ = lines.send(String::from_utf8_lossy(&line).into_owned());
                line.clear();
            }
        });
        let mut err = child.stderr.take().unwrap();
        let stderr = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&stderr);
        let reader = std::thread::spawn(move || {
            let mut chunk = [0_u8; 8192];
            while let Ok(read @ 1..) = err.read(&mut chunk) {
                let mut kept = kept.lock();
                kept.extend(&chunk[..read]);
                let excess = kept.len().saturating_sub(KEPT_OUTPUT);
                kept.drain(..excess);
            }
        });
        Self { child, stdout, stderr, stderr_reader: Some(reader) }
    }

    fn kill9(&mut self) -> ExitStatus {
        // An error here means that it has already ended and been waited for.
        let _ = self.child.kill();
        let status = self.child.wait().unwrap();
        self.finish_stderr();
        status
    }

    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.finish_stderr();
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// After the process's end: waits for the rest of its stderr, unless a grandchild holds the pipe open.
    fn finish_stderr(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.stderr_reader.as_ref().is_some_and(|reader| !reader.is_finished()) {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.stderr_reader = None;
    }

    fn stderr(&self) -> String {
        let kept: Vec<u8> = self.stderr.lock().iter().copied().collect();
        String::from_utf8_lossy(&kept).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}
