//! `aula simulate-clients`: a capacity probe that also proves the promises.
//!
//! | file | idea |
//! |---|---|
//! | `arguments.rs` | what is asked for |
//! | `scenario/`, `scenarios/` | what people do, in YAML |
//! | `plan.rs` | who is in what, and when what happens |
//! | `people.rs`, `server.rs` | accounts and tokens; the server, found or started |
//! | `engine/` | one thread that is thousands of WebSocket clients |
//! | `crowd/` | what those clients say and remember |
//! | `orders.rs`, `hands.rs` | threads and processes of clients, and what is said to them |
//! | `conduct.rs`, `series.rs`, `sum.rs`, `meter.rs` | a run from its beginning to its end, and its figures |
//! | `watch.rs`, `resources.rs`, `scrape.rs` | what the server used: of a process here, or from its `/metrics` |
//! | `judge.rs` | the oracle's verdict |
//! | `capacity.rs` | the largest load that meets the thresholds |
//! | `measured.rs`, `report/` | what was measured, and how it is told |

mod arguments;
mod capacity;
mod conduct;
pub mod crowd;
pub mod engine;
mod hands;
mod interrupt;
mod judge;
pub mod measured;
mod meter;
mod orders;
mod people;
mod plan;
pub mod report;
pub mod resources;
pub mod scenario;
mod scrape;
mod series;
mod server;
mod sum;
mod watch;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::Url;
use uuid::Uuid;

pub use arguments::Args;
use arguments::Wanted;
use conduct::{Outcome, Run};
use hands::Job;
use interrupt::Interrupt;
use plan::{Account, Plan, Settings};
use report::{Live, Reporter};
use server::{Embedded, Folder, Needs};
use watch::Watch;

use super::exit::Advise as _;
use super::{Context, Exit};
use crate::message::Username;

/// Deliveries up to which the oracle looks without being asked.
const CHECKED_DELIVERIES: f64 = 2e6;
/// Descriptors that a process needs besides its clients.
const OTHER_DESCRIPTORS: u64 = 100;
/// Tokens are good for the run and this much longer.
const TOKEN_MARGIN: Duration = Duration::from_secs(3600);

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        if let Some((job, first, last)) = self.part() {
            return hands::serve(job, first, last).map(|()| Exit::Done);
        }
        if self.list_scenarios {
            return list_scenarios(context);
        }
        let reporter = self.report.clone().prepare()?;
        let wanted = self.wanted()?;
        // Logging begins with the configuration.
        let config = context.config()?;
        let interrupt = Interrupt::listen()?;
        let prober = Prober { context, config, wanted, interrupt };
        match self.find_capacity {
            Some(scale) => capacity::find(&prober, scale, &reporter),
            None => prober.report(&reporter),
        }
    }
}

fn list_scenarios(context: &Context) -> anyhow::Result<Exit> {
    #[derive(serde::Serialize)]
    struct Row {
        name: &'static str,
        about: String,
    }
    let row = |(name, text): (&'static str, &str)| Ok(Row { name, about: scenario::read(text)?.about });
    let rows: anyhow::Result<Vec<_>> = scenario::BUILT_IN.into_iter().map(row).collect();
    context.output.rows(&rows?, ["SCENARIO", "ABOUT"], |row| [row.name.to_owned(), row.about.clone()])?;
    Ok(Exit::Done)
}

/// Runs what is wanted, as often as somebody likes.
struct Prober<'a> {
    context: &'a Context,
    config: crate::config::Config,
    wanted: Wanted,
    interrupt: Interrupt,
}

impl Prober<'_> {
    /// One run, told.
    fn report(&self, reporter: &Reporter) -> anyhow::Result<Exit> {
        let Outcome { measured, record, is_unjudged, notes } = self.probe(&self.wanted)?;
        for note in notes {
            self.context.output.note(&note);
        }
        match (&self.wanted.record, record) {
            (Some(path), Some(record)) => {
                hands::write_record(path, &record)?;
                self.context.output.note(format_args!("record written to {}", path.display()));
            }
            (Some(path), None) => bail!("there is nothing to write to {}: see above", path.display()),
            (None, _) => {}
        }
        let exit = reporter.conclude(&measured, &self.context.output)?;
        // Who asks for a proof must not take its absence for one.
        Ok(if is_unjudged { Exit::Failed } else { exit })
    }

    /// One run.
    fn probe(&self, wanted: &Wanted) -> anyhow::Result<Outcome> {
        let run = format!("{}-{:x}", wanted.user_prefix, Uuid::new_v4().as_u128() >> 104);
        let folder = Folder::new(&run)?;
        self.check_descriptors(wanted)?;
        if let Some(pid) = wanted.server_pid.filter(|pid| resources::usage(*pid).is_none()) {
            return Err(anyhow::anyhow!("--server-pid: there is no process {pid}, or the system tells nothing of it"))
                .exit(Exit::Usage);
        }
        let are_accounts_given = wanted.tokens.is_some();
        let settings = Settings { scenario: wanted.scenario.clone(), run, seed: wanted.seed, are_accounts_given };
        let Some(url) = &wanted.url else {
            let (mut embedded, accounts) = self.start_server(wanted, &settings, &folder)?;
            let target = embedded.target.clone();
            return self.conduct(wanted, settings, accounts, target, Some(&mut embedded), &folder);
        };
        let target = server::target(url, wanted.allow_remote)?;
        if let Some(tokens) = &wanted.tokens {
            let accounts = self.given(tokens, wanted)?;
            let mut wanted = wanted.clone();
            wanted.scenario.clients = accounts.len() as u32;
            let settings = Settings { scenario: wanted.scenario.clone(), ..settings };
            return self.conduct(&wanted, settings, accounts, target, None, &folder);
        }
        let names = people::names(&settings.run, wanted.scenario.clients)?;
        self.context.output.note(format_args!("making {} accounts, named {}-…", names.len(), settings.run));
        let people::Made { accounts, fault } = people::make_beside(self.context, &names, ttl(wanted), &self.interrupt)?;
        let made: Vec<Username> = accounts.iter().map_while(|account| Username::new(&account.name).ok()).collect();
        let outcome = match fault {
            None => self.conduct(wanted, settings, accounts, target, None, &folder),
            Some(fault) => Err(fault),
        };
        if !wanted.clean_up {
            return outcome;
        }
        match (people::disable(self.context, &made), outcome) {
            (Ok(()), outcome) => outcome,
            (Err(also), Ok(_)) => Err(also.context("the run's accounts could not be disabled")),
            (Err(also), Err(error)) => {
                Err(error.context(format!("the run's accounts could not be disabled ({also:#})")))
            }
        }
    }

    /// As many as there are to be clients. A scenario's number is only a suggestion: with fewer tokens there are fewer.
    fn given(&self, tokens: &Path, wanted: &Wanted) -> anyhow::Result<Vec<Account>> {
        let (clients, file) = (wanted.scenario.clients as usize, tokens.display());
        let mut accounts = people::given(tokens)?;
        if accounts.len() < clients {
            let few = format!("{file} has tokens for {} clients", accounts.len());
            if wanted.are_clients_asked {
                return Err(anyhow::anyhow!("{few}, and {clients} are to run")).exit(Exit::Usage);
            }
            self.context.output.note(format_args!("{few}: so many run, instead of the scenario's {clients}"));
        }
        accounts.truncate(clients);
        Ok(accounts)
    }

    /// With everybody's accounts in its data directory.
    fn start_server(
        &self,
        wanted: &Wanted,
        settings: &Settings,
        folder: &Folder,
    ) -> anyhow::Result<(Embedded, Vec<Account>)> {
        if self.config.deployment() != crate::config::Deployment::Embedded {
            return Err(anyhow::anyhow!("the configuration names servers, and none is started for them"))
                .hint("start the deployment and name one of its gateways with --url")
                .exit(Exit::Usage);
        }
        let mut config = self.config.clone();
        config.data_dir = folder.path().join("data");
        config.auth.keys_file = std::path::PathBuf::new();
        let names = people::names(&settings.run, wanted.scenario.clients)?;
        let accounts = people::make(&config, &names, ttl(wanted), &self.interrupt)?.all()?;
        // Only to know how large channels will be; who is in them is the same later.
        let largest_channel = Plan::new(settings.clone(), accounts.clone()).largest_channel();
        let needs = Needs { clients: wanted.scenario.clients, largest_channel };
        Ok((Embedded::start(self.context, &config.data_dir, needs, &self.interrupt)?, accounts))
    }

    fn conduct(
        &self,
        wanted: &Wanted,
        settings: Settings,
        accounts: Vec<Account>,
        target: crowd::Target,
        embedded: Option<&mut Embedded>,
        folder: &Folder,
    ) -> anyhow::Result<Outcome> {
        let plan = Arc::new(Plan::new(settings, accounts));
        let expected = plan.expected_deliveries();
        let checks = wanted.check.unwrap_or(expected <= CHECKED_DELIVERIES);
        let mut notes = Vec::new();
        if wanted.check.is_none() && !checks {
            notes.push(format!("some {expected:.0} deliveries are too many to be checked unasked: --check does it"));
        }
        let parts = wanted.processes * wanted.threads;
        // Twice what is expected, and as much again for all that is said besides.
        let events = (expected * 4.0 / f64::from(parts)) as usize + 1_000_000;
        let watch = match wanted.server_pid.or(embedded.as_ref().map(|embedded| embedded.pid())) {
            Some(pid) => Watch::process(pid),
            None => watch_metrics(wanted, &target)?,
        };
        let job = Job {
            settings: plan.settings.clone(),
            accounts: if wanted.processes > 1 { plan.accounts.clone() } else { Vec::new() },
            target,
            record: checks.then_some(events),
            parts,
        };
        let run = Run {
            plan,
            job,
            processes: wanted.processes,
            folder: folder.path(),
            scenario: wanted.name.clone(),
            settings: wanted.settings(checks),
            embedded,
            watch,
            leaves: wanted.clean_up,
            interrupt: &self.interrupt,
            live: Live::new(self.context.output.is_quiet()),
        };
        let mut outcome = run.conduct()?;
        outcome.notes.splice(0..0, notes);
        Ok(outcome)
    }

    /// Each client is a descriptor here and one in a server that is started here.
    fn check_descriptors(&self, wanted: &Wanted) -> anyhow::Result<()> {
        let limit = resources::descriptors();
        let clients = u64::from(wanted.scenario.clients);
        let here = clients.div_ceil(u64::from(wanted.processes)) + OTHER_DESCRIPTORS;
        if here > limit {
            let processes = clients.div_ceil(limit.saturating_sub(OTHER_DESCRIPTORS).max(1));
            return Err(anyhow::anyhow!("{here} descriptors are needed, and a process may have {limit}"))
                .hint(format!("raise `ulimit -n`, or spread the clients: --processes {processes}"))
                .exit(Exit::Usage);
        }
        if wanted.url.is_none() && clients + OTHER_DESCRIPTORS > limit {
            return Err(anyhow::anyhow!("the server needs {} descriptors, and may have {limit}", clients + 100))
                .hint("raise `ulimit -n`, or use fewer clients")
                .exit(Exit::Usage);
        }
        Ok(())
    }
}

/// At the address that was given, or else where an `aula serve` has its metrics.
fn watch_metrics(wanted: &Wanted, target: &crowd::Target) -> anyhow::Result<Watch> {
    let url = match &wanted.metrics_url {
        Some(url) => url.clone(),
        None => Url::parse(&format!("http://{}/metrics", target.host)).context("the server has no /metrics")?,
    };
    Watch::metrics(url).context("the server's metrics can't be read")
}

/// How long the tokens of a run's people have to be good.
fn ttl(wanted: &Wanted) -> Duration {
    wanted.scenario.ramp() + wanted.scenario.duration() + TOKEN_MARGIN
}

/// What is told of the settings.
type Told = BTreeMap<String, String>;
