use std::process::ExitCode;

use aula::ops::{Cli, finish};
use clap::Parser;

fn main() -> ExitCode {
    finish(Cli::parse().run())
}
