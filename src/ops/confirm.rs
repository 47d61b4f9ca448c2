//! Asks before something is done that can't be undone.

use std::io::{self, BufRead as _, IsTerminal, Write as _};

use crate::ops::Exit;
use crate::ops::exit::Advise as _;

/// Whether a person says yes.
///
/// Errors: nobody is there who could, with [`Exit::Usage`].
pub fn ask(question: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(anyhow::anyhow!("nobody is there to say yes"))
            .hint("--yes does it without asking, --dry-run says what it would do")
            .exit(Exit::Usage);
    }
    let mut err = io::stderr().lock();
    write!(err, "{question} [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
