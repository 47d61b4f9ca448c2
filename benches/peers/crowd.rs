//! The clients of one server: connected for as long as the crowd lives, they answer what keeps a connection alive, and
//! send when they are told to.

mod actors;
mod witness;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use aula::ops::simulate::engine::{Engine, Options};
use aula::oracle::Record;
use hdrhistogram::Histogram;
use mio::Waker;

use crate::cast::Cast;
use crate::server::Server;
use actors::Actors;

/// Longer than anything that is asked of a crowd takes.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);

/// A sequence of sends, each with its moment (open loop): what waits for a late one counts as latency.
#[derive(Clone)]
pub struct Load {
    /// They send by turns.
    pub senders: Vec<u32>,
    /// Messages a second, by all of them together.
    pub rate: u64,
    pub length: Duration,
}

/// What came of a [`Load`].
pub struct Outcome {
    pub sent: u64,
    pub received: u64,
    /// Messages times members, the sender included.
    pub expected: u64,
    /// From the due moment to the receipt, in microseconds.
    pub latency: Histogram<u64>,
}

enum Command {
    /// Connects the clients with these numbers, and answers when all are in their rooms.
    Connect {
        clients: std::ops::Range<u32>,
        answer: SyncSender<Result<Duration, String>>,
    },
    Send {
        load: Load,
        answer: SyncSender<Result<Outcome, String>>,
    },
    Check {
        answer: SyncSender<Result<(), String>>,
    },
    Witness,
    Witnessed {
        answer: SyncSender<Result<Record, String>>,
    },
    Stop,
}

/// Clients in a thread of their own; dropping it cuts their connections.
pub struct Crowd {
    commands: SyncSender<Command>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// The clients of this cast, none of them connected.
    pub fn new(server: &Server, cast: &Arc<Cast>) -> Self {
        let (commands, waiting) = sync_channel(1);
        let actors = Actors::new(server.peer, server.address, Arc::clone(cast), waiting);
        let engine = Engine::new(actors, Options::new(cast.len()).with_loopback_sources(8)).unwrap();
        let waker = engine.waker();
        let thread = std::thread::spawn(move || drop(engine.run().unwrap()));
        Self { commands, waker, thread: Some(thread) }
    }

    /// How long it took until they were all in their rooms.
    pub fn connect(&self, clients: std::ops::Range<u32>) -> Duration {
        self.ask(|answer| Command::Connect { clients, answer })
    }

    /// Sends, and waits until all of it was received or nothing comes any more.
    pub fn send(&self, load: &Load) -> Outcome {
        self.ask(|answer| Command::Send { load: load.clone(), answer })
    }

    /// Nothing was amiss since the last time that anything was asked: nobody lost its connection, say.
    pub fn check(&self) {
        self.ask(|answer| Command::Check { answer });
    }

    /// From now on all that aula's clients see is kept.
    pub fn witness(&self) {
        self.tell(Command::Witness);
    }

    /// What was kept. No more is.
    pub fn witnessed(&self) -> Record {
        self.ask(|answer| Command::Witnessed { answer })
    }

    fn ask<T>(&self, command: impl FnOnce(SyncSender<Result<T, String>>) -> Command) -> T {
        let (answer, answered) = sync_channel(1);
        self.tell(command(answer));
        self.wait(&answered).unwrap_or_else(|fault| panic!("{fault}"))
    }

    fn tell(&self, command: Command) {
        self.commands.send(command).unwrap();
        self.waker.wake().unwrap();
    }

    fn wait<T>(&self, answered: &Receiver<T>) -> T {
        let mut waited = Duration::ZERO;
        loop {
            match answered.recv_timeout(LOOK) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) if waited < PATIENCE => waited += LOOK,
                Err(RecvTimeoutError::Timeout) => panic!("the clients got no further in {PATIENCE:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the clients' thread has ended"),
            }
            crate::stop_if_interrupted();
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // It may be what is unwinding: then the channel or the thread are gone already.
        if self.commands.send(Command::Stop).is_ok() && self.waker.wake().is_ok() {
            let _ = self.thread.take().map(JoinHandle::join);
        }
    }
}
