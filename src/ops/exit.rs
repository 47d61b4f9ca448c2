//! How a command ends: its exit code, and what a person reads when it failed.

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::builder::styling::{AnsiColor, Style};

use super::output;

/// The exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    /// Wrong arguments or a wrong configuration: nothing was begun. Also clap's.
    Usage = 2,
    /// Some of it is done, or something is left to do: the output says what.
    Partly = 3,
    /// A limit given by the caller was crossed.
    Threshold = 99,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// For `--help`.
pub const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration, 3 partly done or something left to do, \
99 a given threshold was crossed.";

/// Adds to an error what can be done about it, and how the process should end because of it.
pub trait Advise<T> {
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T>;
    fn exit(self, exit: Exit) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Advise<T> for Result<T, E> {
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| Advised { error: error.into(), hint: Some(hint.into()), exit: None }.into())
    }

    fn exit(self, exit: Exit) -> anyhow::Result<T> {
        self.map_err(|error| Advised { error: error.into(), hint: None, exit: Some(exit) }.into())
    }
}

/// Reads as the error that it wraps: it adds no sentence to the chain.
#[derive(Debug)]
struct Advised {
    error: anyhow::Error,
    hint: Option<String>,
    exit: Option<Exit>,
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for Advised {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.error.as_ref())
    }
}

/// The command's end as the process's: prints what went wrong on stderr.
pub fn finish(outcome: anyhow::Result<Exit>) -> ExitCode {
    match outcome {
        Ok(exit) => exit.into(),
        // Whoever reads the output has seen enough (`aula … | head`).
        Err(error) if error.chain().any(output::is_closed_pipe) => Exit::Done.into(),
        Err(error) => {
            let report = Report::of(&error);
            let color = io::stderr().is_terminal() && output::colors_wanted();
            // Nobody is left to tell if stderr is closed as well.
            let _ = io::stderr().lock().write_all(report.text(color).as_bytes());
            report.exit.into()
        }
    }
}

struct Report {
    causes: Vec<String>,
    hints: Vec<String>,
    exit: Exit,
}

impl Report {
    fn of(error: &anyhow::Error) -> Self {
        let mut report = Self { causes: Vec::new(), hints: Vec::new(), exit: Exit::Failed };
        report.collect(error, &mut false);
        report
    }

    /// The innermost exit code wins over the default, the outermost over the inner ones.
    fn collect(&mut self, error: &anyhow::Error, exit_is_set: &mut bool) {
        for cause in error.chain() {
            if let Some(advised) = cause.downcast_ref::<Advised>() {
                self.hints.extend(advised.hint.clone());
                if let (Some(exit), false) = (advised.exit, *exit_is_set) {
                    self.exit = exit;
                    *exit_is_set = true;
                }
                continue;
            }
            let text = cause.to_string();
            // Some errors repeat their source in their own sentence.
            if !self.causes.last().is_some_and(|outer| outer.contains(&text)) {
                self.causes.push(text);
            }
        }
    }

    fn text(&self, color: bool) -> String {
        let paint = |word: &str, style: Style| if color { format!("{style}{word}{style:#}") } else { word.to_owned() };
        let error = paint("error:", AnsiColor::Red.on_default().bold());
        let hint = paint("hint:", AnsiColor::Cyan.on_default().bold());
        let mut text = format!("{error} {}\n", self.causes.join(": "));
        for line in &self.hints {
            text.push_str(&format!("{hint} {line}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    fn report(error: anyhow::Error) -> (String, Exit) {
        let report = Report::of(&error);
        (report.text(false), report.exit)
    }

    #[test]
    fn the_whole_chain_is_one_line() {
        let error = anyhow::anyhow!("disk full").context("can't write").context("can't add ada");
        assert_eq!(report(error), ("error: can't add ada: can't write: disk full\n".to_owned(), Exit::Failed));
    }

    #[test]
    fn advice_is_no_cause() {
        let inner: anyhow::Result<()> = Err(anyhow::anyhow!("locked"));
        let error = inner.hint("wait").exit(Exit::Usage).context("can't migrate").unwrap_err();
        assert_eq!(report(error), ("error: can't migrate: locked\nhint: wait\n".to_owned(), Exit::Usage));
    }

    #[test]
    fn a_source_that_is_already_quoted_is_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("aula.db: {0}")]
        struct Quoting(#[source] io::Error);
        let error = anyhow::Error::new(Quoting(io::Error::other("no space")));
        assert_eq!(report(error).0, "error: aula.db: no space\n");
    }

    #[test]
    fn only_the_reader_s_closed_pipe_is_quiet() {
        let elsewhere = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(!elsewhere.chain().any(output::is_closed_pipe));
    }
}
