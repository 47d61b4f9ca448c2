//! The one integration-test binary: real `aula` processes, real sockets on loopback, and nothing of the
//! library's types, so that the wire is checked independently of the code that writes it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests fail by panicking"
)]

mod client;
mod clock;
mod crash_points;
mod faults;
mod http;
mod kill9;
mod oracle;
mod raw;
mod rng;
mod server;
mod smoke;
mod swarm;
