//! One connection: where to, over TLS or not, and under which name.

use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lapin::tcp::RustlsConnector;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use parking_lot::Mutex;
use rustls::ClientConfig;

use super::Unavailable;
use crate::config;
use crate::server::tls;

/// How long a connection may take from the first packet to the broker's "open".
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the broker is, and how to get in.
#[derive(Clone)]
pub(super) struct Target {
    uri: AMQPUri,
    tls: Option<Arc<ClientConfig>>,
    cert_file: PathBuf,
}

impl Target {
    pub(super) fn new(config: &config::Rabbitmq) -> anyhow::Result<Self> {
        let uri: AMQPUri = config.url.parse().map_err(|reason| anyhow::anyhow!("rabbitmq.url: {reason}"))?;
        let mut target = Self { tls: None, cert_file: config.cert_file.clone(), uri };
        // Both sides propose one, the shorter is taken. The protocol counts in seconds.
        target.uri.query.heartbeat = Some(u16::try_from(config.heartbeat.as_secs().max(1)).unwrap_or(u16::MAX));
        if target.uri.scheme == AMQPScheme::AMQPS {
            let tls = tls::client(&config.ca_file, &config.cert_file, &config.key_file);
            target.tls = Some(tls.context("rabbitmq.ca_file, cert_file, key_file")?);
        }
        Ok(target)
    }

    /// Without user and password.
    pub(super) fn address(&self) -> String {
        let authority = &self.uri.authority;
        format!("{}:{}, virtual host {}", authority.host, authority.port, self.uri.vhost)
    }

    /// Connects once. `name` is shown to the broker's operators.
    pub(super) async fn connect(&self, name: &str) -> Result<(Connection, Cut), Unavailable> {
        // No recovery by the library: it would repeat publishes and consumers behind our back. A broken connection is
        // given up, and everybody who used it is told.
        let properties = ConnectionProperties::default()
            .with_connection_name(name.to_owned().into())
            .with_client_property("product".into(), "aula".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
        let cut = Cut::default();
        let (tls, handle) = (self.tls.clone(), cut.clone());
        // The library's own way in trusts no public authorities, or these besides those of `ca_file`.
        let open_socket = async move |uri: AMQPUri, runtime: async_rs::TokioRuntime| {
            let host = uri.authority.host.clone();
            let address = runtime.to_socket_addrs((host.clone(), uri.authority.port));
            let stream = AsyncTcpStream::connect(&runtime, address).await?;
            if let AsyncTcpStream::Plain(plain) = &stream {
                let duplicate = plain.get_ref().as_fd().try_clone_to_owned()?;
                *handle.0.lock() = Some(TcpStream::from(duplicate));
            }
            match &tls {
                Some(config) => Ok(stream.into_rustls(&RustlsConnector::from(Arc::clone(config)), &host).await?),
                None => Ok(stream),
            }
        };
        let runtime = async_rs::TokioRuntime::tokio_current();
        let connecting = Connection::connector(self.uri.clone(), runtime, open_socket, properties);
        let failed = |reason: String| {
            let advice = tls::advice("rabbitmq", self.tls.is_some().then_some(&self.cert_file), &reason);
            Unavailable(format!("no connection with {}: {reason}{advice}", self.address()))
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok((connection, cut)),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_elapsed) => {
                // The library's thread still waits for an answer.
                cut.now();
                Err(failed(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))
            }
        }
    }
}

/// Ends a connection without goodbye: of a peer that doesn't answer, a goodbye would have to be waited for.
#[derive(Clone, Default)]
pub(super) struct Cut(Arc<Mutex<Option<TcpStream>>>);

impl Cut {
    pub(super) fn now(&self) {
        if let Some(socket) = self.0.lock().take()
            && let Err(error) = socket.shutdown(Shutdown::Both)
        {
            tracing::debug!(%error, "a broken connection was closed already");
        }
    }
}

/// What the broker's operators see: `aula worker, consuming, host web-1, process 4711`.
pub(super) fn name(role: &str) -> String {
    format!("aula {role}, {}", process())
}

/// This process, as operators find it.
pub fn process() -> String {
    let system = rustix::system::uname();
    format!("host {}, process {}", system.nodename().to_string_lossy(), std::process::id())
}
