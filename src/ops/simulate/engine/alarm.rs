//! Ends a poll when the next timer is due.

use std::io;
use std::time::Duration;

use mio::{Registry, Token};

/// A poll's own timeout is rounded up to milliseconds, which would be in every latency of an open loop; a timer of the
/// kernel's is exact.
#[cfg(target_os = "linux")]
pub(super) struct Alarm {
    timer: std::os::fd::OwnedFd,
    armed: Option<u64>,
}

#[cfg(target_os = "linux")]
impl Alarm {
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use std::os::fd::AsRawFd as _;

        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut mio::unix::SourceFd(&timer.as_raw_fd()), token, mio::Interest::READABLE)?;
        Ok(Self { timer, armed: None })
    }

    /// Makes the next poll end at `next` ([`super::clock`]). Returns the timeout that it needs besides.
    pub fn arm(&mut self, next: Option<u64>) -> io::Result<Option<Duration>> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        let Some(next) = next else { return Ok(None) };
        if self.armed != Some(next) {
            let moment = |nanos: u64| Timespec {
                tv_sec: (nanos / 1_000_000_000) as i64,
                // 0 would mean never.
                tv_nsec: (nanos % 1_000_000_000) as _,
            };
            let once = Itimerspec { it_interval: moment(0), it_value: moment(next.max(1)) };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
            self.armed = Some(next);
        }
        Ok(None)
    }

    /// It rings once.
    pub fn fired(&mut self) {
        self.armed = None;
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub fn new(_registry: &Registry, _token: Token) -> io::Result<Self> {
        Ok(Self)
    }

    pub fn arm(&mut self, next: Option<u64>) -> io::Result<Option<Duration>> {
        Ok(next.map(|next| Duration::from_nanos(next.saturating_sub(super::clock::now()))))
    }

    pub fn fired(&mut self) {}
}
