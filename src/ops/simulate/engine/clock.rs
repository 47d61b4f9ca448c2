//! The clock that all processes of a machine share.

use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC`, in nanoseconds: what one process wrote into a message another can compare.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Counted from the machine's start: neither is negative.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
