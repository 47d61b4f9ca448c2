//! What processes use, as the system tells (proc_pid_stat(5)).

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::measured::Usage;
use crate::server::metrics::process::resident_bytes;

/// Of a process of this machine so far; none if it is gone, or the system doesn't tell.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Fields 14 and 15, counted behind the name, which may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    let ticks = times.next()?? + times.next()??;
    let cpu = Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
    Some(Usage { cpu, resident: resident_bytes(pid)? })
}

/// Of several processes together; those that are gone used nothing.
pub fn usage_of(pids: &[u32]) -> Usage {
    let mut sum = Usage::default();
    for usage in pids.iter().filter_map(|pid| usage(*pid)) {
        sum.cpu += usage.cpu;
        sum.resident += usage.resident;
    }
    sum
}

/// Descriptors that this process, and each that it starts, may have open: the limit is raised as far as it may be.
pub fn descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let limit = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    limit.current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let used = usage(std::process::id()).unwrap();
        assert!(used.resident > 1 << 20, "{used:?}");
        assert_eq!(usage(u32::MAX), None);
        assert!(descriptors() >= 64);
    }
}
