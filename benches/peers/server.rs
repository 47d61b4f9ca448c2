//! The servers, each as a process of its own.

mod aula;
mod centrifuge;
mod centrifugo;
mod socketio;

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::cast::Cast;
use crate::durable::load::process;
use crate::pause;
use crate::peer::Peer;

/// A process counts as settled when it uses less than this in [`LOOK`].
const QUIET: Duration = Duration::from_millis(3);
const LOOK: Duration = Duration::from_millis(100);
/// For work that goes on in the background.
const LONGEST_SETTLING: Duration = Duration::from_secs(20);
const START_LIMIT: Duration = Duration::from_secs(20);

/// Builds or installs what this server needs, unless that was done before; whether it can be had here. If not, a line
/// on stderr says why.
pub fn install(peer: Peer) -> bool {
    let missing = match peer {
        Peer::Bare | Peer::Aula => None,
        Peer::SocketIo => {
            socketio::install();
            None
        }
        Peer::Centrifuge => centrifuge::install().err(),
        Peer::Centrifugo => centrifugo::binary().err(),
    };
    if let Some(missing) = &missing {
        eprintln!("{} is left out: {missing}", peer.name());
    }
    missing.is_none()
}

/// A server that accepts connections; dropping it ends it.
pub struct Server {
    pub peer: Peer,
    pub address: SocketAddr,
    // Ended before its folder is removed.
    process: Process,
    folder: TempDir,
    /// Some end when this does: so they don't outlive a benchmark that is killed.
    _stdin: Option<ChildStdin>,
    _stdout: Option<BufReader<ChildStdout>>,
}

impl Server {
    /// Starts one that knows `cast`, and notes there by what its people and rooms are known.
    pub fn start(peer: Peer, cast: &mut Cast) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = match peer {
            Peer::Bare => bare(),
            Peer::Aula => aula::prepare(folder.path(), cast),
            Peer::SocketIo => socketio::prepare(cast),
            Peer::Centrifuge => centrifuge::prepare(),
            Peer::Centrifugo => {
                let (mut command, address) = centrifugo::prepare(folder.path());
                // It says where it listens in its log, if at all; that goes where people read.
                let mut process = Process(command.stdin(Stdio::null()).stdout(std::io::stderr()).spawn().unwrap());
                process.wait_until_it_accepts(peer, address);
                return Self { peer, address, process, folder, _stdin: None, _stdout: None };
            }
        };
        let mut process = Process(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let (stdin, mut stdout) = (process.0.stdin.take(), BufReader::new(process.0.stdout.take().unwrap()));
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let Some(address) = line.trim().strip_prefix("listening on http://") else {
            panic!("{} did not start; it said: {line:?}", peer.name());
        };
        let address = address.parse().unwrap();
        Self { peer, address, process, folder, _stdin: stdin, _stdout: Some(stdout) }
    }

    /// User and system time so far.
    pub fn cpu(&self) -> Duration {
        process::cpu(self.process.0.id())
    }

    pub fn resident_kib(&self) -> f64 {
        process::resident_kib(self.process.0.id()) as f64
    }

    /// Waits until what is done in the background is done, and gives the CPU time so far.
    pub fn settled_cpu(&self) -> Duration {
        let mut before = self.cpu();
        let mut waited = Duration::ZERO;
        loop {
            pause(LOOK);
            waited += LOOK;
            let cpu = self.cpu();
            if cpu - before < QUIET || waited >= LONGEST_SETTLING {
                return cpu;
            }
            before = cpu;
        }
    }

    /// What a reader of aula's file finds.
    pub fn stored_messages(&self) -> Option<u64> {
        (self.peer == Peer::Aula).then(|| crate::durable::load::stored_messages(self.folder.path()))
    }
}

/// Ends when nobody has it any more.
pub struct Process(pub Child);

impl Process {
    fn wait_until_it_accepts(&mut self, peer: Peer, address: SocketAddr) {
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.0.try_wait().unwrap() {
                panic!("{} ended ({status})", peer.name());
            }
            assert!(began.elapsed() < START_LIMIT, "{} does not accept at {address}", peer.name());
            pause(LOOK);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bare() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(crate::SERVE_BARE);
    command
}
