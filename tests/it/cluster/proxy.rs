//! A TCP proxy that breaks connections in the ways a network does.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::rng::Rng;

const CHUNK: usize = 16 * 1024;
/// Chunks on their way in one direction of a connection.
const ON_THE_WAY: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Each chunk takes this long, and up to so much longer; their order stays.
    Slow {
        latency: Duration,
        jitter: Duration,
    },
    /// Nothing comes through, nothing is said; what waits comes through later.
    Stall,
    /// As after the loss of the other side: all is swallowed. Connections that meet this stay so for good.
    HalfOpen,
    /// New connections are reset at once.
    Refuse,
}

#[derive(Clone, Copy, Debug)]
struct State {
    mode: Mode,
    /// Connections that are older than this number are reset.
    cuts: u64,
}

/// Runs on a thread of its own until it is dropped, so that no test blocks it.
pub struct Proxy {
    addr: SocketAddr,
    state: watch::Sender<State>,
}

impl Proxy {
    /// On a free port of loopback.
    pub fn start(upstream: &str) -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), upstream)
    }

    pub fn start_on(listen: SocketAddr, upstream: &str) -> Self {
        let listener = std::net::TcpListener::bind(listen).unwrap_or_else(|error| panic!("{listen}: {error}"));
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let (state, of_listener) = watch::channel(State { mode: Mode::Pass, cuts: 0 });
        let upstream = upstream.to_owned();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(listen_on(listener, upstream, of_listener));
        });
        Self { addr, state }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn set(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
    }

    /// From here on everything passes again, on connections that aren't half-open.
    pub fn heal(&self) {
        self.set(Mode::Pass);
    }

    pub fn slow(&self, latency: Duration, jitter: Duration) {
        self.set(Mode::Slow { latency, jitter });
    }

    pub fn stall(&self) {
        self.set(Mode::Stall);
    }

    pub fn half_open(&self) {
        self.set(Mode::HalfOpen);
    }

    pub fn refuse(&self) {
        self.set(Mode::Refuse);
    }

    /// Resets all connections there are (RST to both sides); new ones are let in.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }
}

async fn listen_on(listener: std::net::TcpListener, upstream: String, mut state: watch::Receiver<State>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let (upstream, state) = (upstream.clone(), state.clone());
                tokio::spawn(async move { connection(client, &upstream, state).await });
            }
            // The proxy is dropped, and its runtime with all connections after this.
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}

async fn connection(client: TcpStream, upstream: &str, mut state: watch::Receiver<State>) {
    let State { mode, cuts } = *state.borrow();
    if mode == Mode::Refuse {
        return reset(client);
    }
    let half_open = mode == Mode::HalfOpen;
    let Ok(server) = TcpStream::connect(upstream).await else { return reset(client) };
    let (mut client, mut server) = (client, server);
    // The proxy adds no delay of its own.
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = direction(from_client, to_server, state.clone(), half_open);
        let back = direction(from_server, to_client, state.clone(), half_open);
        tokio::select! {
            ended = async { tokio::try_join!(there, back) } => ended.is_ok(),
            _ = state.wait_for(|state| state.cuts > cuts) => false,
        }
    };
    if !ended {
        reset(client);
        reset(server);
    }
}

fn reset(stream: TcpStream) {
    // An error means that it is gone already. Closed with a linger time of zero, it sends RST (socket(7)).
    let _ = stream.set_zero_linger();
}

/// Ends when one side has said its last word, or with the error that ended it.
async fn direction(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    state: watch::Receiver<State>,
    half_open: bool,
) -> std::io::Result<()> {
    let (chunks, queue) = mpsc::channel(ON_THE_WAY);
    tokio::try_join!(take(from, chunks, state.clone(), half_open), give(to, queue, state)).map(drop)
}

type Chunk = (Instant, Vec<u8>);

async fn take(
    mut from: ReadHalf<'_>,
    chunks: mpsc::Sender<Chunk>,
    state: watch::Receiver<State>,
    mut half_open: bool,
) -> std::io::Result<()> {
    let mut rng = Rng::seeded_by_time();
    let mut last = Instant::now();
    loop {
        let mut chunk = vec![0; CHUNK];
        let read = from.read(&mut chunk).await?;
        let mode = state.borrow().mode;
        half_open |= mode == Mode::HalfOpen;
        if half_open {
            if read == 0 {
                // Its end isn't passed on either.
                std::future::pending::<()>().await;
            }
            continue;
        }
        if read == 0 {
            return Ok(());
        }
        chunk.truncate(read);
        let delay = match mode {
            Mode::Slow { latency, jitter } => latency + jitter.mul_f64(rng.below(1000) as f64 / 1000.0),
            _ => Duration::ZERO,
        };
        last = last.max(Instant::now() + delay);
        // The other end of the queue fails first.
        let _ = chunks.send((last, chunk)).await;
    }
}

async fn give(
    mut to: WriteHalf<'_>,
    mut queue: mpsc::Receiver<Chunk>,
    mut state: watch::Receiver<State>,
) -> std::io::Result<()> {
    while let Some((due, chunk)) = queue.recv().await {
        tokio::time::sleep_until(due).await;
        let goes_on = state.wait_for(|state| state.mode != Mode::Stall).await;
        if goes_on.is_ok_and(|state| state.mode == Mode::HalfOpen) {
            std::future::pending::<()>().await;
        }
        to.write_all(&chunk).await?;
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const SILENCE: Duration = Duration::from_millis(200);

    /// Answers each byte with the same one.
    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        addr.to_string()
    }

    async fn ask(stream: &mut TcpStream, limit: Duration) -> std::io::Result<()> {
        let answered = async {
            stream.write_all(b"hello").await?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await?;
            assert_eq!(&answer, b"hello");
            Ok(())
        };
        let timeout = || std::io::Error::from(std::io::ErrorKind::TimedOut);
        tokio::time::timeout(limit, answered).await.unwrap_or_else(|_| Err(timeout()))
    }

    async fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.addr()).await.unwrap()
    }

    fn kind(result: std::io::Result<()>) -> Option<std::io::ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn passes_and_ends_in_good_order() {
        let proxy = Proxy::start(&echo().await);
        let mut stream = connect(&proxy).await;
        ask(&mut stream, SOON).await.unwrap();
        // More than is on its way at once, and its end.
        let body = vec![7; 3_000_000];
        let (mut from, mut to) = stream.split();
        let sent = async {
            to.write_all(&body).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(sent, from.read_to_end(&mut received));
        assert_eq!((read.unwrap(), received == body), (body.len(), true));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn slows_down() {
        let proxy = Proxy::start(&echo().await);
        let mut stream = connect(&proxy).await;
        proxy.slow(Duration::from_millis(60), Duration::from_millis(10));
        let begun = Instant::now();
        ask(&mut stream, SOON).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(120), "{:?}", begun.elapsed());
        proxy.heal();
        let begun = Instant::now();
        ask(&mut stream, SOON).await.unwrap();
        assert!(begun.elapsed() < Duration::from_millis(60), "{:?}", begun.elapsed());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn cuts_and_refuses() {
        let proxy = Proxy::start(&echo().await);
        let mut stream = connect(&proxy).await;
        ask(&mut stream, SOON).await.unwrap();
        proxy.cut();
        let mut byte = [0];
        let read = tokio::time::timeout(SOON, stream.read(&mut byte)).await.unwrap();
        assert_eq!(kind(read.map(drop)), Some(std::io::ErrorKind::ConnectionReset));
        let mut second = connect(&proxy).await;
        ask(&mut second, SOON).await.unwrap();
        proxy.refuse();
        // What is there stays.
        ask(&mut second, SOON).await.unwrap();
        let refused = match TcpStream::connect(proxy.addr()).await {
            Ok(mut stream) => ask(&mut stream, SOON).await,
            Err(error) => Err(error),
        };
        assert!(refused.is_err());
        proxy.heal();
        ask(&mut connect(&proxy).await, SOON).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn stalls_and_goes_on() {
        let proxy = Proxy::start(&echo().await);
        let mut stream = connect(&proxy).await;
        ask(&mut stream, SOON).await.unwrap();
        proxy.stall();
        assert_eq!(kind(ask(&mut stream, SILENCE).await), Some(std::io::ErrorKind::TimedOut));
        proxy.heal();
        let mut answer = [0; 5];
        tokio::time::timeout(SOON, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"hello");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn half_open_connections_stay_silent_for_good() {
        let proxy = Proxy::start(&echo().await);
        let mut before = connect(&proxy).await;
        ask(&mut before, SOON).await.unwrap();
        proxy.half_open();
        let mut during = connect(&proxy).await;
        for stream in [&mut before, &mut during] {
            assert_eq!(kind(ask(stream, SILENCE).await), Some(std::io::ErrorKind::TimedOut));
        }
        proxy.heal();
        for stream in [&mut before, &mut during] {
            assert_eq!(kind(ask(stream, SILENCE).await), Some(std::io::ErrorKind::TimedOut));
        }
        ask(&mut connect(&proxy).await, SOON).await.unwrap();
    }
}
