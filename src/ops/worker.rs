use std::io::Write as _;

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::exit::Advise as _;
use super::{Context, Exit, migrate, runtime, signals};
use crate::config::Deployment;
use crate::server::queue::Family;
use crate::server::run::Worker;

/// Work on the tasks of a queue
///
/// On the same data directory as `aula serve --no-worker`. Several workers share the shards: each shard has one
/// consumer at a time, the others stand by and take over when it ends, however it ends.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// `db_tasks` (messages, channels, receipts), `index_tasks` (what search finds) or, where the backends are servers,
    /// `search_tasks` (searches); give it several times for several
    #[arg(long = "queue", required = true, value_name = "NAME")]
    queues: Vec<Family>,
    /// Only these shards of db_tasks, such as `0,2-3`
    #[arg(long, value_name = "LIST", value_parser = shards)]
    shards: Option<Shards>,
    /// Answer /healthz, /readyz and /metrics here, whatever `worker.listen` says elsewhere; `off` for no answer at all
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

#[derive(Debug, Clone)]
struct Shards(Vec<u16>);

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let config = context.service_config(|overrides| overrides.worker_listen = self.listen.clone())?;
        let timeout = config.server.drain_timeout;
        let runtime = runtime::build(&config)?;
        runtime.block_on(async {
            let signals = signals::Terminate::listen()?;
            let shards = self.shards.as_ref().map(|shards| shards.0.as_slice());
            let listen = config.worker.listen.clone();
            let listener = match listen.as_str() {
                "off" => None,
                address => {
                    Some(TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}")).hint(
                        "each worker of a host needs a port of its own: choose one with --listen, or `--listen off`",
                    )?)
                }
            };
            let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
            let hint = match config.deployment() {
                Deployment::Embedded => {
                    "a worker needs the data directory of a server, and its configuration: see `aula config print`"
                }
                Deployment::Distributed => "a worker needs the configuration of its gateways: see `aula config print`",
            };
            let worker = Worker::start(config, &self.queues, shards, listener).await;
            let mut worker = migrate::with_hint_or(worker, hint)?;
            if let Some(address) = address {
                // Supervisors and scripts wait for this line.
                let mut stdout = std::io::stdout();
                writeln!(stdout, "health and metrics on http://{address}").and_then(|()| stdout.flush())?;
            }
            tracing::info!(version = env!("CARGO_PKG_VERSION"), "working");
            let signal = tokio::select! {
                signal = signals.received() => signal,
                broken = worker.broken() => return Err(broken.into()),
            };
            tracing::info!(signal, "draining");
            if !worker.drain(timeout).await {
                tracing::warn!("server.drain_timeout is over; what was not finished is in the queue");
            }
            Ok(Exit::Done)
        })
    }
}

/// `0,2-3` as 0, 2, 3.
fn shards(list: &str) -> Result<Shards, String> {
    let number = |text: &str| text.trim().parse::<u16>().map_err(|_| format!("{text:?} is no shard number"));
    let mut shards = Vec::new();
    for part in list.split(',') {
        match part.split_once('-') {
            None => shards.push(number(part)?),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(format!("{part:?} runs backwards"));
                }
                shards.extend(first..=last);
            }
        }
    }
    Ok(Shards(shards))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn shard_lists() {
        assert_eq!(shards("0,2-3").unwrap().0, [0, 2, 3]);
        for bad in ["", "x", "1-", "3-2", "-1", "70000"] {
            assert!(shards(bad).is_err(), "{bad}");
        }
    }
}
