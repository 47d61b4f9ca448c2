//! A TCP balancer without any memory of who came before: each connection goes to the next server.

use std::net::SocketAddr;

use parking_lot::Mutex;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// Runs in the test's runtime, until it is dropped.
pub struct Balancer {
    addr: SocketAddr,
    /// How many connections went to each server.
    counts: std::sync::Arc<Mutex<Vec<usize>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Balancer {
    pub async fn start(servers: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let counts = std::sync::Arc::new(Mutex::new(vec![0; servers.len()]));
        let counted = std::sync::Arc::clone(&counts);
        let task = tokio::spawn(async move {
            let mut next = 0;
            while let Ok((mut client, _)) = listener.accept().await {
                // Past servers that are gone, as any balancer would.
                for _ in 0..servers.len() {
                    let chosen = next % servers.len();
                    next += 1;
                    if let Ok(mut server) = TcpStream::connect(servers[chosen]).await {
                        counted.lock()[chosen] += 1;
                        tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
                        break;
                    }
                }
            }
        });
        Self { addr, counts, task }
    }

    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn counts(&self) -> Vec<usize> {
        self.counts.lock().clone()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
