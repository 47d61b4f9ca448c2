use std::time::Duration;

use crate::config;

/// The limits of accounts.
#[derive(Debug, Clone)]
pub struct AuthOptions {
    /// How long an access token is good. Never longer than its session.
    pub access_ttl: Duration,
    /// How long a session lasts after its last refresh.
    pub refresh_ttl: Duration,
    /// In characters.
    pub min_password_length: usize,
    /// Attempts to log in or sign up, a minute: for each client's address, and again for each username.
    /// 0 means 1.
    pub logins_per_minute: u32,
    /// Whether anybody may sign up.
    pub signup_open: bool,
    /// Passwords hashed at the same time, 19 MiB and a core each.
    pub password_threads: usize,
    /// Passwords that may wait for their turn; one more is refused.
    pub password_queue: usize,
}

impl AuthOptions {
    /// What the configuration says. `signup_open`: what its `auth.signup` comes to where this server listens.
    pub fn configured(auth: &config::Auth, signup_open: bool) -> Self {
        Self {
            access_ttl: auth.access_token_ttl,
            refresh_ttl: auth.refresh_token_ttl,
            min_password_length: auth.min_password_length,
            logins_per_minute: auth.logins_per_minute,
            signup_open,
            ..Self::default()
        }
    }
}

impl Default for AuthOptions {
    fn default() -> Self {
        Self {
            access_ttl: Duration::from_secs(15 * 60),
            refresh_ttl: Duration::from_secs(30 * 24 * 3600),
            min_password_length: 8,
            logins_per_minute: 10,
            signup_open: true,
            password_threads: std::thread::available_parallelism().map_or(1, usize::from),
            password_queue: 100,
        }
    }
}
