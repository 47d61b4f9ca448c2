//! Results on stdout, as tables for eyes or JSON for scripts; everything else on stderr.

use std::cell::RefCell;
use std::error::Error;
use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

/// `--output`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON document, for scripts
    Json,
}

/// Where a command's results and remarks go.
pub struct Output {
    format: Format,
    quiet: bool,
    out: RefCell<Box<dyn Write>>,
    err: RefCell<Box<dyn Write>>,
}

impl Output {
    /// To the process's stdout and stderr.
    pub fn new(format: Format, quiet: bool) -> Self {
        Self::to(format, quiet, Box::new(Stdout), Box::new(io::stderr()))
    }

    /// To `out` and `err`.
    pub fn to(format: Format, quiet: bool, out: Box<dyn Write>, err: Box<dyn Write>) -> Self {
        Self { format, quiet, out: RefCell::new(out), err: RefCell::new(err) }
    }

    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// A list: `rows` as a JSON array, or a table of `cells` under `header` (the header alone if there are none).
    pub fn rows<T: Serialize, const N: usize>(
        &self,
        rows: &[T],
        header: [&str; N],
        cells: impl Fn(&T) -> [String; N],
    ) -> io::Result<()> {
        if self.is_json() {
            return self.json(rows);
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(header);
        table.add_rows(rows.iter().map(|row| cells(row).map(|cell| printable(&cell))));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        self.text(&format!("{}\n", table.trim_fmt()))
    }

    /// A single result: `value` as JSON, or `text` for people.
    pub fn value<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> io::Result<()> {
        if self.is_json() { self.json(value) } else { self.text(&format!("{}\n", text())) }
    }

    /// `value` as an indented JSON document.
    pub fn json<T: Serialize + ?Sized>(&self, value: &T) -> io::Result<()> {
        let mut document = serde_json::to_string_pretty(value)?;
        document.push('\n');
        self.text(&document)
    }

    /// `text` as it is, on stdout.
    pub fn text(&self, text: &str) -> io::Result<()> {
        let mut out = self.out.borrow_mut();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// A remark for whoever watches, on stderr: not with `--quiet`.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            // A remark that can't be made is no reason to stop.
            let _ = writeln!(self.err.borrow_mut(), "{text}");
        }
    }

    /// Both streams, for commands that take writers.
    pub fn with_streams<T>(&self, f: impl FnOnce(&mut dyn Write, &mut dyn Write) -> T) -> T {
        f(&mut **self.out.borrow_mut(), &mut **self.err.borrow_mut())
    }
}

/// `1 channel`, `2 channels`.
pub(super) fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Text from elsewhere must not steer the terminal, nor break a table's line.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// Whether colours are welcome at all (<https://no-color.org>); the caller checks that there is a terminal.
pub fn colors_wanted() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether stdout is a terminal that wants colours.
pub fn stdout_has_colors() -> bool {
    io::stdout().is_terminal() && colors_wanted()
}

/// Whether stderr is a terminal that wants colours.
pub fn stderr_has_colors() -> bool {
    io::stderr().is_terminal() && colors_wanted()
}

/// The process's stdout. A reader that has gone away is told apart from any other broken pipe (a database's).
struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write(bytes).map_err(mark_closed_pipe)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush().map_err(mark_closed_pipe)
    }
}

#[derive(Debug)]
struct ClosedPipe;

impl Display for ClosedPipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads stdout any more")
    }
}

impl Error for ClosedPipe {}

fn mark_closed_pipe(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe { io::Error::new(error.kind(), ClosedPipe) } else { error }
}

/// Whether `error` says that the reader of stdout has gone away.
pub(super) fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.is_some_and(|inner| inner.is::<ClosedPipe>())
}

#[cfg(test)]
pub(super) mod tests {
    use std::rc::Rc;

    use super::*;

    /// What a command under test wrote; clones share it.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Rc<RefCell<Vec<u8>>>);

    impl Captured {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output {
        /// The same, with stdout in `out`; remarks are dropped.
        pub(crate) fn captured(&self, out: &Captured) -> Self {
            Self::to(self.format, self.quiet, Box::new(out.clone()), Box::new(io::sink()))
        }
    }

    #[derive(Serialize)]
    struct Item {
        name: &'static str,
        count: u32,
    }

    fn printed(format: Format) -> String {
        let out = Captured::default();
        let output = Output::to(format, false, Box::new(out.clone()), Box::new(io::sink()));
        let items = [Item { name: "ada", count: 12 }, Item { name: "bad\x1b[2J\n", count: 3 }];
        output.rows(&items, ["NAME", "COUNT"], |item| [item.name.to_owned(), item.count.to_string()]).unwrap();
        out.text()
    }

    #[test]
    fn tables_are_plain_columns_that_nobody_can_break() {
        assert_eq!(printed(Format::Table), "NAME            COUNT\nada             12\nbad\\u{1b}[2J\\n  3\n");
    }

    #[test]
    fn json_is_one_document() {
        let rows: serde_json::Value = serde_json::from_str(&printed(Format::Json)).unwrap();
        assert_eq!(rows[1], serde_json::json!({"name": "bad\u{1b}[2J\n", "count": 3}));
    }

    #[test]
    fn a_closed_pipe_is_found_in_a_chain() {
        let error = mark_closed_pipe(io::ErrorKind::BrokenPipe.into());
        let error = anyhow::Error::new(error).context("can't write the result");
        assert!(error.chain().any(is_closed_pipe));
    }
}
