//! A way to a server that can break in the ways in which networks break.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Passes connections on, until told otherwise.
pub(crate) struct Proxy {
    address: SocketAddr,
    way: Arc<watch::Sender<Way>>,
    stop: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    /// Connections that were made before the last cut are over.
    cuts: u64,
    accepts: bool,
    /// Nothing is passed on, and nobody is told: as when a machine has lost its power.
    is_silent: bool,
    delay: Duration,
}

impl Proxy {
    pub(crate) async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = Way { cuts: 0, accepts: true, is_silent: false, delay: Duration::ZERO };
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            way: Arc::new(watch::Sender::new(way)),
            stop: CancellationToken::new(),
        };
        let (server, way, stop) = (server.to_owned(), Arc::clone(&proxy.way), proxy.stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if way.borrow().accepts {
                    tokio::spawn(pass(client, server.clone(), way.subscribe()));
                }
            }
        }));
        proxy
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections without goodbye.
    pub(crate) fn cut(&self) {
        self.way.send_modify(|way| way.cuts += 1);
    }

    /// Whether new connections are let through.
    pub(crate) fn accept(&self, accepts: bool) {
        self.way.send_modify(|way| way.accepts = accepts);
    }

    pub(crate) fn silence(&self, is_silent: bool) {
        self.way.send_modify(|way| way.is_silent = is_silent);
    }

    /// Each piece takes so much longer, in each direction.
    pub(crate) fn delay(&self, delay: Duration) {
        self.way.send_modify(|way| way.delay = delay);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        self.cut();
    }
}

async fn pass(client: TcpStream, server: String, mut way: watch::Receiver<Way>) {
    let cuts = way.borrow_and_update().cuts;
    let Ok(server) = TcpStream::connect(server).await else { return };
    for socket in [&client, &server] {
        socket.set_nodelay(true).unwrap();
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (there, back) = (copy(from_client, to_server, way.clone()), copy(from_server, to_client, way.clone()));
    let cut = way.wait_for(|way| way.cuts > cuts);
    // What is dropped is closed.
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = cut => {}
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut way: watch::Receiver<Way>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if way.wait_for(|way| !way.is_silent).await.is_err() {
            return;
        }
        let delay = way.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
