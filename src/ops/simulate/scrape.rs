//! What a server says of itself at `/metrics`, read in a thread of its own: an answer that is late holds nobody up.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use std::{io, thread};

use reqwest::{Client, Url};

use super::interrupt::receive;
use super::measured::Usage;

/// For one answer. An overloaded server takes its time.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The thread's own work comes on top of it.
const PATIENCE: Duration = Duration::from_secs(6);
/// No page of metrics is longer.
const MAX_BYTES: usize = 16 << 20;

const CPU: &str = "process_cpu_seconds_total";
const RESIDENT: &str = "process_resident_memory_bytes";
const STARTED: &str = "process_start_time_seconds";

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum Unseen {
    #[error("{}", chain(.0))]
    Http(#[from] reqwest::Error),
    #[error("it answers with more than {} MiB", MAX_BYTES >> 20)]
    TooLong,
    #[error("it has no {0}")]
    Missing(&'static str),
    #[error("it has {0} of several processes")]
    Several(&'static str),
    #[error("its readings are of more than one process: it was started again, or several share the address")]
    Changed,
    #[error("it does not answer")]
    Late,
}

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reading {
    usage: Usage,
    /// Tells processes apart.
    started: Option<f64>,
}

/// Reads when it is asked to.
pub struct Scraper {
    asks: SyncSender<()>,
    answers: Receiver<Result<Reading, Unseen>>,
    is_asked: bool,
    /// Of the process that answered first; what another one used has nothing to do with it.
    first: Option<Option<f64>>,
    has_changed: bool,
}

impl Scraper {
    /// Errors: there is no thread to be had.
    pub fn start(url: Url) -> io::Result<Self> {
        let (asks, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // As the clients connect: directly, and each time anew, so that one of several behind an address shows itself.
        let client = Client::builder().timeout(TIMEOUT).no_proxy().pool_max_idle_per_host(0);
        let client = client.build().map_err(io::Error::other)?;
        let work = move || {
            while asked.recv().is_ok() {
                if answer.send(runtime.block_on(scrape(&client, &url))).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("aula-scraper".to_owned()).spawn(work)?;
        Ok(Self { asks, answers, is_asked: false, first: None, has_changed: false })
    }

    /// Asks for a reading, unless one is on its way.
    pub fn ask(&mut self) {
        self.is_asked |= self.asks.try_send(()).is_ok();
    }

    /// The reading that was asked for, if it is there.
    pub fn answered(&mut self) -> Option<Result<Usage, Unseen>> {
        let answer = self.answers.try_recv().ok().filter(|_| self.is_asked)?;
        self.is_asked = false;
        Some(self.accept(answer))
    }

    /// Waits for the reading that was asked for, if one was, and no longer than until `is_enough`.
    pub fn wait(&mut self, is_enough: &dyn Fn() -> bool) -> Option<Result<Usage, Unseen>> {
        if !self.is_asked {
            return None;
        }
        let Ok(answer) = receive(&self.answers, PATIENCE, is_enough) else { return Some(Err(Unseen::Late)) };
        self.is_asked = false;
        Some(self.accept(answer))
    }

    fn accept(&mut self, answer: Result<Reading, Unseen>) -> Result<Usage, Unseen> {
        let Reading { usage, started } = answer?;
        self.has_changed |= *self.first.get_or_insert(started) != started;
        if self.has_changed { Err(Unseen::Changed) } else { Ok(usage) }
    }
}

async fn scrape(client: &Client, url: &Url) -> Result<Reading, Unseen> {
    // Somebody may have put a password into the address.
    let mut answer =
        client.get(url.clone()).send().await.and_then(|answer| answer.error_for_status()).map_err(quiet)?;
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(quiet)? {
        if text.len() + chunk.len() > MAX_BYTES {
            return Err(Unseen::TooLong);
        }
        text.extend_from_slice(&chunk);
    }
    read(&String::from_utf8_lossy(&text))
}

fn quiet(error: reqwest::Error) -> reqwest::Error {
    error.without_url()
}

/// With what it rests on: reqwest says only what it was about.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The figures of a page in the Prometheus text format.
fn read(page: &str) -> Result<Reading, Unseen> {
    let cpu = sample(page, CPU)?.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let resident = sample(page, RESIDENT)?.filter(|bytes| *bytes >= 0.0);
    let usage =
        Usage { cpu: cpu.ok_or(Unseen::Missing(CPU))?, resident: resident.ok_or(Unseen::Missing(RESIDENT))? as u64 };
    Ok(Reading { usage, started: sample(page, STARTED)? })
}

/// The one sample of this name; what is no number counts as none.
fn sample(page: &str, name: &'static str) -> Result<Option<f64>, Unseen> {
    let mut samples = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once('}')?.1,
            None => rest.strip_prefix([' ', '\t'])?,
        };
        // A timestamp may follow.
        value.split_whitespace().next()
    });
    let Some(first) = samples.next() else { return Ok(None) };
    if samples.next().is_some() {
        return Err(Unseen::Several(name));
    }
    Ok(first.parse().ok().filter(|value: &f64| value.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP process_cpu_seconds_total Total.\n# TYPE process_cpu_seconds_total counter\n\
        process_cpu_seconds_total 12.5\nprocess_resident_memory_bytes 2.4117248e+07 1395066363000\n\
        process_resident_memory_bytes_max 1\nprocess_start_time_seconds 1.795377600e9\naula_sessions 3\n";

    fn reading(page: &str) -> Reading {
        read(page).unwrap()
    }

    #[test]
    fn the_figures_are_found_in_a_page() {
        let usage = Usage { cpu: Duration::from_millis(12_500), resident: 24_117_248 };
        assert_eq!(reading(PAGE), Reading { usage, started: Some(1_795_377_600.0) });
        let labelled = PAGE.replace("total 12.5", "total{instance=\"a b\"} 12.5");
        assert_eq!(reading(&labelled).usage, usage);
        assert_eq!(reading(&PAGE.replace("process_start_time_seconds", "x")).started, None);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = |page: &str| read(page).unwrap_err().to_string();
        assert_eq!(error("hello"), "it has no process_cpu_seconds_total");
        assert_eq!(error(&PAGE.replace("12.5", "NaN")), "it has no process_cpu_seconds_total");
        assert_eq!(error(&PAGE.replace("12.5", "-1")), "it has no process_cpu_seconds_total");
        assert_eq!(error(&PAGE.replace("2.4117248e+07", "-1")), "it has no process_resident_memory_bytes");
        let twice = format!("{PAGE}process_cpu_seconds_total{{instance=\"b\"}} 1\n");
        assert_eq!(error(&twice), "it has process_cpu_seconds_total of several processes");
    }

    #[test]
    fn another_process_is_noticed_and_not_forgotten() {
        let mut scraper = Scraper::start(Url::parse("http://127.0.0.1:1/metrics").unwrap()).unwrap();
        let another = reading(&PAGE.replace("1.795377600e9", "1.795377601e9"));
        assert!(scraper.accept(Ok(reading(PAGE))).is_ok());
        assert!(matches!(scraper.accept(Ok(another)), Err(Unseen::Changed)));
        assert!(matches!(scraper.accept(Ok(reading(PAGE))), Err(Unseen::Changed)));
    }

    #[test]
    fn nobody_there_is_a_reason() {
        let mut scraper = Scraper::start(Url::parse("http://127.0.0.1:1/metrics").unwrap()).unwrap();
        assert!(scraper.wait(&|| false).is_none(), "nothing was asked");
        scraper.ask();
        let why = scraper.wait(&|| false).unwrap().unwrap_err().to_string();
        assert!(why.contains("Connection refused"), "{why}");
        assert!(!why.contains("127.0.0.1:1/"), "{why}");
    }
}
