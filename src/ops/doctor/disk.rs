//! Room on the disk of the data directory.

use std::path::Path;

use super::finding::Finding;
use crate::config::{Config, Deployment};

/// Less is a warning, in bytes and as a share of all.
const LOW: (u64, f64) = (2 << 30, 0.10);
/// Less is a problem: writes fail soon.
const NONE: (u64, f64) = (256 << 20, 0.02);

pub async fn check(config: &Config) -> Vec<Finding> {
    let data_dir = &config.data_dir;
    let shown = data_dir.display();
    if !data_dir.exists() {
        let found = format!("{shown} is not there yet");
        return vec![match config.deployment() {
            Deployment::Embedded => {
                Finding::warning("disk", found, "`aula migrate` makes it; or name another: --data-dir")
            }
            Deployment::Distributed => Finding::ok("disk", format!("{found}; a command that keeps something makes it")),
        }];
    }
    let writable = rustix::fs::access(data_dir, rustix::fs::Access::WRITE_OK);
    if writable.is_err() {
        return vec![Finding::problem(
            "disk",
            format!("{shown} can't be written to by this user"),
            format!("give it to the user that aula runs as: `chown aula {shown}`"),
        )];
    }
    vec![match rustix::fs::statvfs(data_dir) {
        Ok(stat) => judge(data_dir, stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks * stat.f_frsize),
        Err(error) => Finding::unknown("disk", format!("{shown}: {error}"), format!("`df -h {shown}`")),
    }]
}

fn judge(path: &Path, free: u64, all: u64) -> Finding {
    let share = if all == 0 { 1.0 } else { free as f64 / all as f64 };
    let said = format!("{} free at {} ({:.0} %)", size(free), path.display(), share * 100.0);
    let is_below = |(bytes, of_all): (u64, f64)| free < bytes && share < of_all;
    let cure = "make room, or move the data directory: runbooks/disk-full.md";
    if is_below(NONE) {
        Finding::problem("disk", said, cure)
    } else if is_below(LOW) {
        Finding::warning("disk", said, cure)
    } else {
        Finding::ok("disk", said)
    }
}

/// For people.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn a_disk_is_full_when_little_of_it_is_left() {
        let state = |free: u64, all: u64| judge(Path::new("/data"), free, all).state;
        assert_eq!(state(100 << 20, 10 << 30), State::Problem);
        assert_eq!(state(1 << 30, 100 << 30), State::Warning);
        assert_eq!(state(20 << 30, 1000 << 30), State::Ok, "2 %, but much");
        assert_eq!(state(1 << 30, 2 << 30), State::Ok, "a small disk");
    }
}
