//! What a process uses.
#![allow(dead_code, reason = "not every benchmark looks at both")]

use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// User and system time of a process so far, its ended threads included, in nanoseconds: what proc_pid_stat(5) tells
/// is cut to hundredths of a second.
pub fn cpu(pid: u32) -> Duration {
    let clock = clock_getcpuclockid(Pid::from_raw(pid as i32)).unwrap();
    clock_gettime(clock).unwrap().into()
}

/// RSS in KiB (proc_pid_status(5)).
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
