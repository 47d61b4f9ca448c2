//! What this process uses, under the names that Prometheus' own client libraries give it
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>), as the system tells (proc(5)).

use std::fmt::Display;
use std::fs;
use std::sync::OnceLock;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::time::{ClockId, clock_gettime};

/// The figures in the text format; one that the system doesn't tell is left out.
///
/// May block: the system counts the open files.
pub fn exposition() -> String {
    // Not counted by the recorder: its counters are whole numbers, and these seconds are not.
    let figures = [
        ("process_cpu_seconds_total", "counter", Some(cpu_seconds())),
        ("process_resident_memory_bytes", "gauge", resident_bytes("self").map(|bytes| bytes as f64)),
        ("process_open_fds", "gauge", open_descriptors().map(|count| count as f64)),
        ("process_start_time_seconds", "gauge", started_at()),
    ];
    let told = figures.into_iter().filter_map(|(name, kind, figure)| Some((name, kind, figure?)));
    told.map(|(name, kind, figure)| format!("# TYPE {name} {kind}\n{name} {figure}\n\n")).collect()
}

/// Resident memory of a process, in bytes; none if it is gone, or the system doesn't tell.
pub fn resident_bytes(process: impl Display) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

/// User and system time so far.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn open_descriptors() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    match fs::metadata(FOLDER).ok()?.len() {
        // Before Linux 6.2 the folder's size isn't told; its reading is one of the entries.
        0 => Some((fs::read_dir(FOLDER).ok()?.count() as u64).saturating_sub(1)),
        count => Some(count),
    }
}

/// In seconds since 1970; the same at each call, although the system's own answer follows corrections of its clock.
fn started_at() -> Option<f64> {
    static STARTED: OnceLock<Option<f64>> = OnceLock::new();
    *STARTED.get_or_init(|| {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // Field 22, counted behind the name, which may hold anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
        let system = fs::read_to_string("/proc/stat").ok()?;
        let booted: u64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(booted as f64 + ticks as f64 / clock_ticks_per_second() as f64)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use crate::message::Millis;

    fn told(name: &str) -> f64 {
        let text = exposition();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
        line.trim().parse().unwrap()
    }

    #[test]
    fn what_this_process_uses_is_told() {
        let before = told("process_cpu_seconds_total");
        while told("process_cpu_seconds_total") < before + 0.01 {}
        let resident = told("process_resident_memory_bytes");
        assert!((1e6..1e12).contains(&resident), "{resident}");
        let age = Millis::now().0 as f64 / 1000.0 - told("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }

    #[test]
    fn open_files_are_counted() {
        const FILES: usize = 200;
        let before = told("process_open_fds");
        let files: Vec<_> = (0..FILES).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let with_files = told("process_open_fds");
        drop(files);
        // Other tests open and close some meanwhile.
        assert!(with_files >= before + FILES as f64 / 2.0, "{before}, then {with_files}");
    }
}
