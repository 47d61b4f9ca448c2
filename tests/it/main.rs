//! The one integration-test binary: real `aula` processes, real sockets on loopback, and nothing of the
//! library but its lists of names and the oracle, which knows nothing of the server: so the wire is checked
//! independently of the code that writes it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests fail by panicking"
)]

mod authorisation;
mod client;
mod clock;
mod cluster;
mod crash_points;
mod doctor;
mod faults;
mod golden;
mod hostile;
mod http;
mod kill9;
mod moves;
mod people;
mod protocol_page;
mod purge;
mod raw;
mod reindex;
mod rng;
mod runbooks;
mod server;
mod simulate;
mod smoke;
mod swarm;
mod terminal;
mod trace;
mod verify;
mod wire;
