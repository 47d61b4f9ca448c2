use std::io::Write;

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::exit::Advise;
use super::{Context, Exit, migrate, runtime, signals};
use crate::server::run::Server;

/// Run the chat server
///
/// Without configuration it listens on 127.0.0.1:8080 and keeps everything in ./aula-data. SIGTERM or ctrl-c drains:
/// it stops accepting, sends its clients away, finishes what it has begun and ends with status 0.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Accept connections here, whatever `server.listen` says elsewhere; port 0 takes any free one
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Leave the tasks to `aula worker` processes
    #[arg(long)]
    no_worker: bool,
    /// End when stdin ends: for a server that must not outlive the process that started it
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let config = context.service_config(|overrides| overrides.listen = self.listen)?;
        let runtime = runtime::build(&config)?;
        let exit = runtime.block_on(async {
            let signals = signals::Terminate::listen()?;
            let listen = config.server.listen.clone();
            let listener = TcpListener::bind(&listen)
                .await
                .with_context(|| format!("can't listen on {listen}"))
                .hint("choose another address with --listen, or find who has it with `ss -ltnp`")?;
            let address = listener.local_addr()?;
            let mut server = migrate::with_hint_if_any(Server::start(config, listener, !self.no_worker).await)?;
            // Supervisors and scripts wait for this line.
            let mut stdout = std::io::stdout();
            writeln!(stdout, "listening on http://{address}").and_then(|()| stdout.flush())?;
            tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "serving");

            let signal = tokio::select! {
                signal = signals.received() => signal,
                () = stdin_ends(), if self.until_stdin_ends => "end of stdin",
                // Half a server would look like a whole one: its supervisor starts another.
                broken = server.broken() => return Err(broken.into()),
            };
            tracing::info!(signal, "draining");
            if server.drain().await {
                tracing::info!("drained");
            } else {
                tracing::warn!("server.drain_timeout is over; what was not finished is in the queue");
            }
            anyhow::Ok(Exit::Done)
        });
        // Whatever still blocks a thread is past its deadline.
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        exit
    }
}

async fn stdin_ends() {
    let (ended, end) = tokio::sync::oneshot::channel();
    // A thread of its own: a runtime would wait for a blocking one of its own when it shuts down.
    std::thread::spawn(move || {
        // An error is an end as well.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    });
    // The sender is only dropped after it was used.
    let _ = end.await;
}
