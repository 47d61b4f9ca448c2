//! Named points at which a debug build kills itself when asked to, so that tests can see what a crash just there does.
//!
//! `AULA_CRASH_AT=name:n` kills the process at the n-th passage of the point. A release build has none of this.

/// Passes a named point.
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        #[cfg(debug_assertions)]
        $crate::crash::pass($name);
    };
}

#[cfg(debug_assertions)]
pub fn pass(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ASKED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    let asked = ASKED.get_or_init(|| {
        let setting = std::env::var("AULA_CRASH_AT").ok()?;
        let (name, count) = setting.split_once(':').unwrap_or((&setting, "1"));
        Some((name.to_owned(), count.parse().unwrap_or(1)))
    });
    let Some((asked_name, count)) = asked else { return };
    if asked_name == name && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *count {
        tracing::error!("crash point {name}");
        // No destructor, no flush: as if the power went.
        if let Err(error) = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL) {
            tracing::error!(%error, "can't kill this process");
        }
        std::thread::park();
    }
}
