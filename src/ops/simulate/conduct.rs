//! One run from its beginning to its end: everybody connects, channels are made, messages are sent, all comes to rest,
//! the oracle looks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::bail;

use super::engine::clock;
use super::hands::{Hands, Job, Told};
use super::interrupt::Interrupt;
use super::judge::judge;
use super::measured::{Measured, Own, Server, Usage};
use super::orders::{Order, Part, Report, Unchecked};
use super::plan::Plan;
use super::report::{Live, Progress};
use super::resources::usage_of;
use super::series::{Series, p99_of_received};
use super::server::Embedded;
use super::sum::Sum;
use super::watch::Watch;
use crate::message::Millis;
use crate::oracle::Record;

/// How long the slowest client may take to connect, and a channel to be made, beyond what is planned.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is on its way when the last message was sent may take so long.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
/// For the oracle's readings.
const CHECK_LIMIT: Duration = Duration::from_secs(120);
/// Between the last channel and the first message: welcomes and creations are over, memory is at rest.
const BREATH: Duration = Duration::from_secs(1);
/// How often the display and the server are looked at, at least.
const LOOK: Duration = Duration::from_millis(100);

/// What a run is made of.
pub struct Run<'a> {
    pub plan: Arc<Plan>,
    pub job: Job,
    pub processes: u32,
    /// For what is passed between processes.
    pub folder: &'a Path,
    /// The scenario's name and the settings, for the report.
    pub scenario: String,
    pub settings: BTreeMap<String, String>,
    pub embedded: Option<&'a mut Embedded>,
    pub watch: Watch,
    pub leaves: bool,
    pub interrupt: &'a Interrupt,
    pub live: Live,
}

/// What came out of it.
pub struct Outcome {
    pub measured: Measured,
    /// What all clients saw, if that was recorded.
    pub record: Option<Record>,
    /// What was to be checked could not be, or not all of it: then no promise is known to be kept.
    pub is_unjudged: bool,
    /// For people, about the run itself.
    pub notes: Vec<String>,
}

/// A step's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    TimedOut,
    Interrupted,
}

struct Conductor<'a> {
    run: Run<'a>,
    hands: Hands,
    told: Receiver<Told>,
    series: Series,
    began: Instant,
    phase: String,
    /// The server's last reading, and the second that it was asked for in.
    server_before: Option<(u64, Usage)>,
    seconds: u64,
    parts: Vec<Part>,
    notes: Vec<String>,
    was_interrupted: bool,
    /// Wishes to end that something was done about.
    heard: u32,
    /// Resident memory of this process before there were clients; other processes had none then.
    own_at_rest: u64,
}

impl Run<'_> {
    /// Errors: the server can't be reached or ends, or the clients' threads fail; what a run finds is no error.
    pub fn conduct(mut self) -> anyhow::Result<Outcome> {
        let interrupt = self.interrupt;
        let at_rest = self.watch.usage(&|| interrupt.count() > 0);
        let own_at_rest = usage_of(&[std::process::id()]).resident;
        let (hands, told) = Hands::start(&self.plan, &self.job, self.processes, self.folder)?;
        let conductor = Conductor {
            series: Series::new(self.job.parts),
            hands,
            told,
            began: Instant::now(),
            phase: String::new(),
            server_before: at_rest.map(|usage| (0, usage)),
            seconds: 0,
            parts: Vec::new(),
            notes: Vec::new(),
            was_interrupted: false,
            heard: 0,
            own_at_rest,
            run: self,
        };
        conductor.conduct(at_rest)
    }
}

impl Conductor<'_> {
    fn conduct(mut self, at_rest: Option<Usage>) -> anyhow::Result<Outcome> {
        let (began_at, began) = (Millis::now().0, Instant::now());
        let clients = u64::from(self.run.plan.clients());
        if let Err(error) = self.gather() {
            return Err(self.abandon(error));
        }
        let connected = self.usage();

        let pids = self.hands.pids();
        let (server_before, own_before) = (self.usage(), usage_of(&pids));
        let watched_from = Instant::now();
        let lasted = if self.was_interrupted { Duration::ZERO } else { self.send()? };
        self.settle()?;
        let (server_after, own_after) = (self.usage(), usage_of(&pids));
        let (watched, whole) = (watched_from.elapsed(), began.elapsed());

        let mut is_unread = false;
        if self.run.job.record.is_some() && !self.was_interrupted_twice()? {
            self.step("checking", Order::Check)?;
            let missing = match self.wait(CHECK_LIMIT, |report| matches!(report, Report::Checked))? {
                End::Done => None,
                End::Interrupted => Some("the run was interrupted before all was read and searched for".to_owned()),
                End::TimedOut => Some(format!("not all could be read and searched for within {CHECK_LIMIT:?}")),
            };
            is_unread = missing.is_some();
            self.notes.extend(missing.map(|missing| format!("{missing}: nothing is proved")));
        }
        if self.run.leaves {
            self.leave()?;
        }
        self.step("finishing", Order::Finish)?;
        self.finish()?;

        let server =
            at_rest.zip(connected).zip(server_before.zip(server_after)).map(|((rest, connected), (from, to))| {
                let cpu = to.cpu.saturating_sub(from.cpu);
                let used = Usage { cpu, resident: to.resident };
                Server { used, at_rest: rest.resident, connected: connected.resident }
            });
        if let (None, Some(fault)) = (&server, self.run.watch.fault()) {
            self.notes.push(format!("the server's CPU and memory are not known: {fault}"));
        }
        let own_used = Usage { cpu: own_after.cpu.saturating_sub(own_before.cpu), resident: own_after.resident };
        let own = Own { used: own_used, at_rest: self.own_at_rest, connected: own_before.resident };
        let Self { run, hands, series, parts, mut notes, was_interrupted, .. } = self;
        hands.join();
        let sum = Sum::of(parts)?;
        let is_recorded = run.job.record.is_some() && sum.overflowed.is_none();
        if let Some(events) = sum.overflowed {
            notes.push(format!(
                "the oracle does not judge: a part of the run has more than {events} events; check a smaller one, or \
                 measure alone with --no-check"
            ));
        }
        let record = is_recorded.then(|| Record::merge(sum.records));
        let judged = record.as_ref().map(judge);
        let is_unchecked = sum.unchecked.count > 0;
        notes.extend(unchecked(sum.unchecked));
        let fault = judged.as_ref().and_then(|(_, scope)| scope.fault()).filter(|_| !is_unread && !is_unchecked);
        notes.extend(fault.as_ref().map(|fault| format!("nothing is proved: {fault}")));
        let is_unjudged = is_unread || is_unchecked || fault.is_some() || sum.overflowed.is_some();
        let verdict = judged.map(|(verdict, _)| verdict);
        let measured = Measured {
            scenario: run.scenario,
            settings: run.settings,
            began_at,
            lasted,
            watched,
            whole,
            was_interrupted,
            clients,
            stages: sum.stages,
            received: sum.received,
            expected: sum.expected,
            offered: sum.offered,
            seconds: series.into_seconds(),
            server,
            own,
            verdict,
        };
        Ok(Outcome { measured, record, is_unjudged, notes })
    }

    /// Everybody connects, and the channels are made.
    fn gather(&mut self) -> anyhow::Result<()> {
        let ramp = self.run.plan.settings.scenario.ramp();
        self.step("connecting", Order::Connect { within: ramp.as_nanos() as u64 })?;
        self.arrive(ramp + PATIENCE, |report| matches!(report, Report::Connected), "not all clients could connect")?;
        self.step("making channels", Order::Create)?;
        self.arrive(PATIENCE, |report| matches!(report, Report::Created), "not all channels could be made")?;
        self.pause("catching breath", BREATH)
    }

    /// A run that doesn't come to its beginning cleans up as far as it is able to.
    fn abandon(&mut self, error: anyhow::Error) -> anyhow::Error {
        if !self.run.leaves {
            return error;
        }
        match self.leave() {
            Ok(()) => error,
            Err(also) => error.context(format!("the run's channels could not be left ({also:#})")),
        }
    }

    fn leave(&mut self) -> anyhow::Result<()> {
        self.step("leaving", Order::Leave)?;
        if self.wait(PATIENCE, |report| matches!(report, Report::Left))? != End::Done {
            self.notes.push("not everybody could leave the run's channels".to_owned());
        }
        Ok(())
    }

    /// What the server has used so far; whoever wishes to end doesn't wait for it.
    fn usage(&mut self) -> Option<Usage> {
        let (interrupt, heard) = (self.run.interrupt, self.heard);
        self.run.watch.usage(&|| interrupt.count() > heard)
    }

    /// Messages are sent, as planned; returns how long.
    fn send(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let at = clock::now() + LOOK.as_nanos() as u64;
        self.step("sending", Order::Go { at })?;
        let planned = self.run.plan.duration();
        while began.elapsed() < planned + LOOK && !self.was_interrupted {
            let since = began.elapsed().saturating_sub(LOOK).as_nanos() as u64;
            let index = self.run.plan.spans.partition_point(|span| span.end <= since);
            if let Some(phase) = self.run.plan.settings.scenario.loaded().get(index) {
                self.phase = phase.name().to_owned();
            }
            if self.wait(LOOK, |_| false)? == End::Interrupted {
                self.was_interrupted = true;
            }
        }
        Ok(began.elapsed().saturating_sub(LOOK).min(planned))
    }

    /// Until what was sent is stored and received.
    fn settle(&mut self) -> anyhow::Result<()> {
        self.step("settling", Order::Settle)?;
        let began = Instant::now();
        // The parts' standings are those before the order, at first.
        let mut is_settled = false;
        while began.elapsed() < SETTLE_LIMIT {
            if self.wait(LOOK, |_| false)? == End::Interrupted {
                break;
            }
            let settled_before = std::mem::replace(&mut is_settled, self.series.is_settled());
            if settled_before && is_settled && began.elapsed() > Duration::from_millis(500) {
                return Ok(());
            }
        }
        self.notes.push("not everything that was sent had arrived in the end".to_owned());
        Ok(())
    }

    fn was_interrupted_twice(&self) -> anyhow::Result<bool> {
        if self.run.interrupt.count() > 1 {
            bail!("interrupted again before all was checked");
        }
        Ok(false)
    }

    fn step(&mut self, phase: &str, order: Order) -> anyhow::Result<()> {
        self.phase = phase.to_owned();
        self.hands.order(order)
    }

    /// Waits for all parts, without which there is no run.
    fn arrive(&mut self, limit: Duration, is_it: fn(&Report) -> bool, complaint: &str) -> anyhow::Result<()> {
        match self.wait(limit, is_it)? {
            End::Done => Ok(()),
            End::Interrupted => bail!("interrupted while {}", self.phase),
            End::TimedOut => {
                let (connected, errors) = (self.series.connected(), self.series.errors());
                bail!("{complaint}: {connected} of {} are there, {errors} errors", self.run.plan.clients())
            }
        }
    }

    fn pause(&mut self, phase: &str, length: Duration) -> anyhow::Result<()> {
        self.phase = phase.to_owned();
        match self.wait(length, |_| false)? {
            End::Interrupted => bail!("interrupted while {phase}"),
            _ => Ok(()),
        }
    }

    /// Takes what the parts tell until each has said what `is_it` looks for, or the time is over.
    fn wait(&mut self, limit: Duration, is_it: fn(&Report) -> bool) -> anyhow::Result<End> {
        let deadline = Instant::now() + limit;
        let mut said = vec![false; self.run.job.parts as usize];
        loop {
            self.look()?;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left.min(LOOK)) {
                Ok((part, report)) => {
                    if let (true, Some(said)) = (is_it(&report), said.get_mut(part as usize)) {
                        *said = true;
                    }
                    self.take(part, report)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the clients' threads have ended"),
            }
            if said.iter().all(|said| *said) {
                return Ok(End::Done);
            }
            // Also a wish that came while nothing was waited for.
            let interrupts = self.run.interrupt.count();
            if interrupts > self.heard {
                self.heard = interrupts;
                self.was_interrupted = true;
                return Ok(End::Interrupted);
            }
            if Instant::now() >= deadline {
                return Ok(End::TimedOut);
            }
        }
    }

    fn take(&mut self, part: u32, report: Report) -> anyhow::Result<()> {
        match report {
            Report::Tick(tick) => self.series.add(part, &tick)?,
            Report::Failed(why) => bail!("{why}"),
            Report::Over(part) => self.parts.push(*part),
            Report::Connected | Report::Created | Report::Checked | Report::Left => {}
        }
        Ok(())
    }

    /// At the server, and for those who watch.
    fn look(&mut self) -> anyhow::Result<()> {
        let elapsed = self.began.elapsed();
        if elapsed.as_secs() > self.seconds {
            self.run.watch.ask();
            self.seconds = elapsed.as_secs();
            if let Some(why) = self.run.embedded.as_mut().and_then(|embedded| embedded.has_ended()) {
                bail!("{why}");
            }
        }
        if let Some(now) = self.run.watch.answered() {
            self.add_server(now);
        }
        let scenario = &self.run.plan.settings.scenario;
        let last = self.series.last();
        let progress = Progress {
            phase: self.phase.clone(),
            elapsed,
            planned: Some(scenario.ramp() + BREATH + scenario.duration()),
            connected: self.series.connected(),
            clients: u64::from(self.run.plan.clients()),
            sent: last.map_or(0.0, |second| second.sent as f64),
            received: last.map_or(0.0, |second| second.received as f64),
            p99: last.and_then(p99_of_received),
            errors: self.series.errors(),
        };
        self.run.live.show(&progress);
        Ok(())
    }

    /// To the second before this one. Where a reading failed, the next one is of several seconds.
    fn add_server(&mut self, now: Usage) {
        if let Some((since, before)) = self.server_before {
            let seconds = u32::try_from(self.seconds - since).unwrap_or(u32::MAX).max(1);
            let cpu = now.cpu.saturating_sub(before.cpu) / seconds;
            self.series.add_server(self.seconds.saturating_sub(1), Usage { cpu, resident: now.resident });
        }
        self.server_before = Some((self.seconds, now));
    }

    /// Until each part has told what it measured.
    fn finish(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.parts.len() < self.run.job.parts as usize {
            if Instant::now() > deadline {
                bail!("not all parts of the run say what they have measured");
            }
            self.wait(LOOK, |report| matches!(report, Report::Over(_)))?;
        }
        Ok(())
    }
}

/// What could not be judged because the server refused to tell it, for people.
fn unchecked(unchecked: Unchecked) -> Vec<String> {
    let Unchecked { count, reasons, forbidden } = unchecked;
    let mut notes: Vec<String> = Vec::new();
    notes.extend(forbidden.map(|why| format!("P10 is not judged: no search is allowed ({why})")));
    let more = count.saturating_sub(reasons.len() as u64);
    notes.extend(reasons.into_iter().map(|reason| format!("{reason}: what it would have shown is not proved")));
    if more > 0 {
        notes.push(format!("{more} more readings and searches were refused"));
    }
    notes
}
