//! Where a run sees what its server uses: in the process itself, if it is on this machine, or at its `/metrics`.

use std::io;

use reqwest::Url;

use super::measured::Usage;
use super::resources;
use super::scrape::{Scraper, Unseen};

/// Looks at a server.
pub struct Watch {
    source: Source,
    /// Asked for, and not yet taken.
    reading: Option<Usage>,
    fault: Option<String>,
}

enum Source {
    Process(u32),
    Metrics { shown: Url, scraper: Scraper },
}

impl Watch {
    pub const fn process(pid: u32) -> Self {
        Self { source: Source::Process(pid), reading: None, fault: None }
    }

    /// Errors: see [`Scraper::start`].
    pub fn metrics(url: Url) -> io::Result<Self> {
        let mut shown = url.clone();
        // Both can only fail where there is no place for them.
        let _ = (shown.set_username(""), shown.set_password(None));
        let source = Source::Metrics { shown, scraper: Scraper::start(url)? };
        Ok(Self { source, reading: None, fault: None })
    }

    /// What the server has used so far, as of now; waits for some seconds at most, and no longer than until `is_enough`.
    /// None if that can't be seen.
    pub fn usage(&mut self, is_enough: &dyn Fn() -> bool) -> Option<Usage> {
        if let Source::Process(pid) = self.source {
            return self.of_process(pid);
        }
        // One that is on its way is of earlier.
        let earlier = self.scraper().and_then(|scraper| scraper.wait(is_enough));
        self.keep(earlier);
        self.scraper()?.ask();
        let now = self.scraper()?.wait(is_enough);
        self.accept(now)
    }

    fn of_process(&mut self, pid: u32) -> Option<Usage> {
        let usage = resources::usage(pid);
        if usage.is_none() {
            self.fault = Some(format!("there is no process {pid} any more"));
        }
        usage
    }

    /// Asks for a reading without waiting for it.
    pub fn ask(&mut self) {
        match &mut self.source {
            Source::Process(pid) => {
                let pid = *pid;
                self.reading = self.of_process(pid);
            }
            Source::Metrics { scraper, .. } => scraper.ask(),
        }
    }

    /// The reading that was asked for, once it is there.
    pub fn answered(&mut self) -> Option<Usage> {
        let answer = self.scraper().and_then(Scraper::answered);
        self.keep(answer);
        self.reading.take()
    }

    /// Why the last reading that failed did so.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    const fn scraper(&mut self) -> Option<&mut Scraper> {
        match &mut self.source {
            Source::Process(_) => None,
            Source::Metrics { scraper, .. } => Some(scraper),
        }
    }

    fn keep(&mut self, answer: Option<Result<Usage, Unseen>>) {
        if let Some(usage) = self.accept(answer) {
            self.reading = Some(usage);
        }
    }

    fn accept(&mut self, answer: Option<Result<Usage, Unseen>>) -> Option<Usage> {
        match answer? {
            Ok(usage) => Some(usage),
            Err(why) => {
                if let Source::Metrics { shown, .. } = &self.source {
                    self.fault = Some(format!("{shown}: {why}"));
                }
                None
            }
        }
    }
}
