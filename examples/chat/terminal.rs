//! Lines on a terminal, of which the nearer ones can be written over. Piped elsewhere, a changed line comes again.
#![allow(clippy::print_stdout, reason = "it is the terminal's turn")]

use std::io::{IsTerminal, Write};

use tokio::sync::mpsc::{Receiver, channel};

/// How far up a line may be.
const NEAR: usize = 20;

/// Keeps count of the lines below each other. A line that is wider than the terminal puts it out by one.
#[derive(Default)]
pub struct Terminal {
    rows: usize,
}

impl Terminal {
    /// What is typed. Read on a thread of its own, because reading a terminal blocks.
    pub fn lines() -> Receiver<String> {
        let (lines, typed) = channel(16);
        std::thread::spawn(move || {
            std::io::stdin().lines().map_while(Result::ok).try_for_each(|it| lines.blocking_send(it))
        });
        typed
    }

    /// The user has typed a line and pressed enter. Says in which row it is.
    pub fn typed(&mut self) -> usize {
        self.rows += 1;
        self.rows - 1
    }

    pub fn line(&mut self, line: &str) {
        // What is half typed vanishes from sight, though not from the line that will be read.
        let clear = if std::io::stdout().is_terminal() { "\r\x1b[K" } else { "" };
        println!("{clear}{line}");
        self.rows += 1;
    }

    pub fn write_over(&self, row: usize, line: &str) {
        let up = self.rows - row;
        if !std::io::stdout().is_terminal() {
            println!("{line}");
        } else if up <= NEAR {
            print!("\x1b7\x1b[{up}A\r\x1b[K{line}\x1b8");
            std::io::stdout().flush().unwrap_or_default();
        }
    }
}
