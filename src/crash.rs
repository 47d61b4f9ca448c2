//! Named points at which a debug build kills itself when asked to, so that tests can see what a crash just there does.
//!
//! `AULA_CRASH_AT=name:n` kills the process at the n-th passage of the point; with `name:n:panic` the task that passes it
//! panics. A release build has none of this.

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

    struct Asked {
        name: String,
        count: u64,
        panics: bool,
    }
    static ASKED: OnceLock<Option<Asked>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    let asked = ASKED.get_or_init(|| {
        let setting = std::env::var("AULA_CRASH_AT").ok()?;
        let mut parts = setting.split(':');
        let name = parts.next()?.to_owned();
        let count = parts.next().and_then(|count| count.parse().ok()).unwrap_or(1);
        Some(Asked { name, count, panics: parts.next() == Some("panic") })
    });
    let Some(asked) = asked else { return };
    if asked.name != name || PASSED.fetch_add(1, Ordering::Relaxed) + 1 != asked.count {
        return;
    }
    tracing::error!("crash point {name}");
    assert!(!asked.panics, "asked to panic");
    // No destructor, no flush: as if the power went.
    if let Err(error) = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL) {
        tracing::error!(%error, "can't kill this process");
    }
    std::thread::park();
}
