use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;

/// A way to the database that can fall silent, and close.
struct Proxy {
    address: SocketAddr,
    silent: watch::Sender<bool>,
    running: Option<JoinHandle<()>>,
}

impl Proxy {
    async fn new() -> Self {
        let mut proxy =
            Self { address: "127.0.0.1:0".parse().unwrap(), silent: watch::channel(false).0, running: None };
        proxy.open().await;
        proxy
    }

    async fn open(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let silent = self.silent.subscribe();
        self.running = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&testing::configured().contact_points[0]).await.unwrap();
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                connections.spawn(forward(from_client, to_server, silent.clone()));
                connections.spawn(forward(from_server, to_client, silent.clone()));
            }
        }));
    }

    async fn close(&mut self) {
        let running = self.running.take().unwrap();
        running.abort();
        running.await.unwrap_err();
    }
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut silent: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        silent.wait_for(|silent| !silent).await.unwrap();
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn unavailable_in_time(store: &CassandraStore, batch: &ChannelBatch) -> String {
    let since = Instant::now();
    let outcome = store.append(Arc::new(batch.clone())).await;
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    let Err(StoreError::Unavailable(cause)) = outcome else { panic!("{outcome:?}") };
    assert!(cause.len() < 80 && !cause.contains("INSERT"), "{cause}");
    cause
}

async fn stored_again(store: &CassandraStore, batch: &ChannelBatch) {
    let since = Instant::now();
    while let Err(error) = store.append(Arc::new(batch.clone())).await {
        assert!(since.elapsed() < Duration::from_secs(60), "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_outage_is_said_and_survived() {
    let direct = store().await;
    let mut proxy = Proxy::new().await;
    let mut config = testing::configured();
    config.contact_points = vec![proxy.address.to_string()];
    config.request_timeout = Duration::from_secs(2);
    let cassandra = Cassandra::connect(&config, true).await.unwrap();
    let store = CassandraStore::new(cassandra, TTL).await.unwrap();
    let ada = somebody();
    let mut owned = Owned::new();
    append(&store, &owned.creation(&[&ada])).await;

    proxy.silent.send_replace(true);
    let second = owned.batch(vec![message(owned.id, 2, &ada)]);
    assert_eq!(unavailable_in_time(&store, &second).await, "Cassandra did not answer within 2s");
    proxy.silent.send_replace(false);
    stored_again(&store, &second).await;

    proxy.close().await;
    let third = owned.batch(vec![message(owned.id, 3, &ada)]);
    unavailable_in_time(&store, &third).await;
    assert!(store.channel(owned.id).await.is_err());
    proxy.open().await;
    stored_again(&store, &third).await;
    assert_eq!(direct.channel(owned.id).await.unwrap(), Some(owned.state));
}
