//! Logs, on stderr: stdout belongs to results.
//!
//! Our own events never hold a message's body or a token. Libraries can't be asked to do the same, and some print
//! what they send at their lower levels: they are heard from `warn` up only, whatever level is configured. One that
//! prints messages even there is not heard at all.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::panic::{self, PanicHookInfo};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::output;
use crate::config::{Log, LogFormat};

/// Who reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The operator of a long-running process: everything from the configured level up.
    Service,
    /// Someone who typed a command: only what went wrong on the way.
    Command,
}

/// Starts logging for the rest of the process. A second call changes nothing.
pub fn start(log: &Log, reader: Reader) {
    let ansi = log.format == LogFormat::Text && output::stderr_has_colors();
    // An error means that logging has been started before.
    if subscriber(log, reader, ansi, io::stderr).try_init().is_ok() && reader == Reader::Service {
        panic::set_hook(Box::new(log_panic));
    }
}

fn subscriber<W>(log: &Log, reader: Reader, ansi: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let configured = LevelFilter::from_level(log.level.into());
    let ours = match reader {
        Reader::Service => configured,
        Reader::Command => configured.min(LevelFilter::WARN),
    };
    let filter = Targets::new()
        .with_default(ours.min(LevelFilter::WARN))
        .with_target("aula", ours)
        // It prints, as errors, answers of the broker that it hands to us as well, and tasks that came back, body and all.
        .with_target("lapin", LevelFilter::OFF)
        // Repeats, for each statement, the database's opinion that its tables should be named with their keyspace.
        .with_target("scylla::network::connection", LevelFilter::ERROR)
        // Whoever connects says why it failed.
        .with_target("scylla::cluster::metadata::cc_establisher", LevelFilter::OFF);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(ansi);
    let layer = match log.format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter))
}

/// In the log's own format, and without a formatted message: that of a failed string operation quotes the string,
/// which may be somebody's message.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let reason = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(not shown)");
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("?");
    // Captured only if RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(location, reason, thread, %backtrace, "a thread panicked");
    } else {
        tracing::error!(location, reason, thread, "a thread panicked");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::config::LogLevel;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, reader: Reader) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let log = Log { format, level: LogLevel::Debug };
        tracing::subscriber::with_default(subscriber(&log, reader, false, move || writer.clone()), || {
            tracing::debug!(seq = 7, "ours");
            tracing::warn!("ours too");
            tracing::info!(target: "hyper", "theirs, quiet");
            tracing::warn!(target: "hyper", "theirs, loud");
        });
        let bytes = captured.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn libraries_are_heard_only_when_something_is_wrong() {
        let text = logged(LogFormat::Text, Reader::Service);
        assert!(text.contains("ours seq=7") && text.contains("theirs, loud"), "{text}");
        assert!(!text.contains("theirs, quiet"), "{text}");
    }

    #[test]
    fn a_command_stays_quiet() {
        let text = logged(LogFormat::Text, Reader::Command);
        assert!(!text.contains("seq=7") && text.contains("ours too"), "{text}");
    }

    #[test]
    fn json_is_an_object_a_line() {
        let text = logged(LogFormat::Json, Reader::Service);
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((&first["message"], &first["seq"]), (&"ours".into(), &7.into()), "{first}");
    }
}
