//! The threads and processes that are a run's clients.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use anyhow::Context as _;
use mio::Waker;
use serde::{Deserialize, Serialize};

use super::crowd::{Crowd, Setup, Share, Target};
use super::orders::{Order, Report};
use super::plan::{Account, Plan, Settings};
use crate::oracle::Record;

/// All that a part needs to know; as JSON, for another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub settings: Settings,
    pub accounts: Vec<Account>,
    pub target: Target,
    /// Of each part; none without an oracle.
    pub record: Option<usize>,
    pub parts: u32,
}

/// What those who conduct are told, with the part's number.
pub type Told = (u32, Report);

/// One thread, here.
struct Thread {
    orders: Sender<Order>,
    waker: Arc<Waker>,
    thread: JoinHandle<()>,
}

impl Thread {
    fn start(plan: &Arc<Plan>, job: &Job, index: u32, reports: Sender<Told>) -> anyhow::Result<Self> {
        let (orders, ordered) = channel();
        let share = Share { index, of: job.parts };
        let setup = Setup { plan: Arc::clone(plan), share, target: job.target.clone(), record: job.record };
        let engine = Crowd::engine(setup, ordered, reports.clone())?;
        let waker = engine.waker();
        let run = move || {
            if let Err(error) = engine.run() {
                // If nobody listens, it doesn't matter.
                drop(reports.send((index, Report::Failed(format!("the clients' loop failed: {error}")))));
            }
        };
        let thread = std::thread::Builder::new().name(format!("aula-crowd-{index}")).spawn(run)?;
        Ok(Self { orders, waker, thread })
    }

    fn order(&self, order: Order) -> anyhow::Result<()> {
        self.orders.send(order).context("a thread of clients has ended")?;
        Ok(self.waker.wake()?)
    }
}

/// Another process with some threads.
struct Process {
    child: Child,
    reader: JoinHandle<()>,
}

impl Process {
    /// Runs `aula simulate-clients --job FILE --parts FROM-TO`, which reads orders and writes reports, a line each.
    fn start(job: &Path, first: u32, last: u32, reports: Sender<Told>) -> anyhow::Result<Self> {
        let aula = std::env::current_exe().context("can't find the binary of aula")?;
        let mut command = Command::new(aula);
        command.args(["simulate-clients", "--job"]).arg(job).args(["--parts", &format!("{first}-{last}")]);
        // In a group of its own: ctrl-c is for the one who conducts.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
        let mut child = command.spawn().context("can't start a process of clients")?;
        let stdout = child.stdout.take().context("a process of clients has no output")?;
        let reader = std::thread::spawn(move || forward(BufReader::new(stdout), first, &reports));
        Ok(Self { child, reader })
    }

    fn order(&mut self, order: Order) -> anyhow::Result<()> {
        let stdin = self.child.stdin.as_mut().context("a process of clients has no input")?;
        writeln!(stdin, "{}", serde_json::to_string(&order)?).context("a process of clients has ended")
    }
}

/// Reads the reports of a process to its end.
fn forward(lines: impl std::io::BufRead, first: u32, reports: &Sender<Told>) {
    let fail = |why: String| drop(reports.send((first, Report::Failed(why))));
    let mut is_over = false;
    for line in lines.lines() {
        let told = line.map_err(anyhow::Error::from).and_then(|line| Ok(serde_json::from_str::<Told>(&line)?));
        match told {
            Ok(told) => {
                is_over |= matches!(told.1, Report::Over(_));
                if reports.send(told).is_err() {
                    return;
                }
            }
            Err(error) => return fail(format!("a process of clients can't be understood: {error}")),
        }
    }
    if !is_over {
        fail("a process of clients has ended before its time".to_owned());
    }
}

/// All of a run's clients.
pub struct Hands {
    threads: Vec<Thread>,
    processes: Vec<Process>,
}

impl Hands {
    /// Starts as many processes, each with its part of the threads; with one, all are threads of this process. The
    /// job's file is kept in `folder`, because it has everybody's tokens.
    pub fn start(plan: &Arc<Plan>, job: &Job, processes: u32, folder: &Path) -> anyhow::Result<(Self, Receiver<Told>)> {
        let (reports, told) = channel();
        let mut hands = Self { threads: Vec::new(), processes: Vec::new() };
        if processes <= 1 {
            for index in 0..job.parts {
                hands.threads.push(Thread::start(plan, job, index, reports.clone())?);
            }
            return Ok((hands, told));
        }
        let path = folder.join("job.json");
        write_job(&path, job)?;
        let each = job.parts / processes;
        for process in 0..processes {
            let (first, last) = (process * each, (process + 1) * each - 1);
            hands.processes.push(Process::start(&path, first, last, reports.clone())?);
        }
        Ok((hands, told))
    }

    pub fn order(&mut self, order: Order) -> anyhow::Result<()> {
        self.threads.iter().try_for_each(|thread| thread.order(order))?;
        self.processes.iter_mut().try_for_each(|process| process.order(order))
    }

    /// The processes that the clients are: this one, and those that were started.
    pub fn pids(&self) -> Vec<u32> {
        let own = std::process::id();
        std::iter::once(own).chain(self.processes.iter().map(|process| process.child.id())).collect()
    }

    /// Waits for the end of all; they were told to finish.
    pub fn join(self) {
        for thread in self.threads {
            if thread.thread.join().is_err() {
                tracing::error!("a thread of clients panicked");
            }
        }
        for mut process in self.processes {
            drop(process.child.stdin.take());
            if let Err(error) = process.child.wait() {
                tracing::warn!(%error, "a process of clients can't be waited for");
            }
            if process.reader.join().is_err() {
                tracing::error!("a reader of reports panicked");
            }
        }
    }
}

fn write_job(path: &Path, job: &Job) -> anyhow::Result<()> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path);
    let mut file = BufWriter::new(file.with_context(|| format!("can't write {}", path.display()))?);
    serde_json::to_writer(&mut file, job)?;
    Ok(file.flush()?)
}

/// A process of clients: the parts from `first` to `last` of the job in a file.
pub fn serve(job: &Path, first: u32, last: u32) -> anyhow::Result<()> {
    let file = File::open(job).with_context(|| format!("can't read {}", job.display()))?;
    let folder = job.parent().map(Path::to_owned).unwrap_or_default();
    let job: Job = serde_json::from_reader(BufReader::new(file))?;
    let plan = Arc::new(Plan::new(job.settings.clone(), job.accounts.clone()));
    let (reports, told) = channel();
    let threads: anyhow::Result<Vec<_>> =
        (first..=last).map(|index| Thread::start(&plan, &job, index, reports.clone())).collect();
    let threads = threads?;
    drop(reports);
    let orders: Vec<_> = threads.iter().map(|thread| (thread.orders.clone(), Arc::clone(&thread.waker))).collect();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let order = line.map_err(anyhow::Error::from).and_then(|line| Ok(serde_json::from_str::<Order>(&line)?));
            let Ok(order) = order else { break };
            for (orders, waker) in &orders {
                // A thread that has ended takes no orders.
                drop((orders.send(order), waker.wake()));
            }
        }
        // Nobody conducts any more: the threads see that their orders have ended.
        for (sender, waker) in orders {
            drop(sender);
            drop(waker.wake());
        }
    });
    let threads: Vec<_> = threads.into_iter().map(|thread| thread.thread).collect();
    let mut stdout = std::io::stdout().lock();
    for (index, report) in told {
        let report = match report {
            Report::Over(mut part) => {
                if let Some(record) = part.record.take() {
                    let file = folder.join(format!("record-{index}.ndjson"));
                    write_record(&file, &record)?;
                    part.record_file = Some(file);
                }
                Report::Over(part)
            }
            report => report,
        };
        serde_json::to_writer(&mut stdout, &(index, report))?;
        stdout.write_all(b"\n")?;
        stdout.flush()?;
    }
    for thread in threads {
        thread.join().map_err(|_panic| anyhow::anyhow!("a thread of clients panicked"))?;
    }
    Ok(())
}

/// The record, for `aula verify-history` or another process.
pub fn write_record(path: &Path, record: &Record) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("can't write {}", path.display()))?;
    let mut file = BufWriter::new(file);
    record.write(&mut file).and_then(|()| file.flush()).with_context(|| format!("can't write {}", path.display()))
}

/// What another process wrote.
pub fn read_record(path: &Path) -> anyhow::Result<Record> {
    let file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
    let record = Record::read(BufReader::new(file)).with_context(|| format!("can't read {}", path.display()))?;
    fs::remove_file(path).with_context(|| format!("can't remove {}", path.display()))?;
    Ok(record)
}
