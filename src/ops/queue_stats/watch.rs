//! `--watch`: on a terminal in its place, elsewhere one after the other.

use std::io::{self, IsTerminal};
use std::pin::pin;

use super::row::{Picture, Sample};
use super::{INTERVAL, show, table, unreadable};
use crate::ops::{Context, Exit, output, signals, terminal};
use crate::server::backends::Look;
use crate::server::queue::Family;

pub async fn run(context: &Context, look: &Look, only: Option<Family>) -> anyhow::Result<Exit> {
    let mut stop = pin!(signals::Terminate::listen()?.received());
    let mut screen = Screen::new(context);
    let mut before: Option<Sample> = None;
    loop {
        let sample = tokio::select! {
            sample = Sample::take(&*look.queue) => sample,
            _ = &mut stop => return Ok(Exit::Done),
        };
        match sample {
            Ok(sample) => {
                let (at, stats, flows) = (sample.at, sample.stats.clone(), sample.flows.clone());
                let picture = Picture::of(sample, before.as_ref(), only);
                before = Some(Sample { at, stats, flows });
                match &mut screen {
                    Some(screen) => {
                        let lines = table::lines(&picture, terminal::width(), output::stdout_has_colors());
                        screen.draw(lines)?;
                    }
                    None => show(context, &picture)?,
                }
            }
            // Who watches wants to see it come back.
            Err(error) => {
                let text = unreadable(look, error);
                match &mut screen {
                    Some(screen) => screen.draw(vec![terminal::fit(&text, terminal::width())])?,
                    None => context.output.note(text),
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = &mut stop => return Ok(Exit::Done),
        }
    }
}

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";

/// A picture that is drawn over the one before. The cursor is hidden until it is dropped.
struct Screen<'c> {
    context: &'c Context,
    /// Of the last picture.
    lines: usize,
}

impl<'c> Screen<'c> {
    /// `None` where there is no terminal, or none that could.
    fn new(context: &'c Context) -> Option<Self> {
        let can = io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        (can && !context.output.is_json()).then_some(Self { context, lines: 0 })
    }

    fn draw(&mut self, mut lines: Vec<String>) -> io::Result<()> {
        // What has scrolled away can't be drawn over.
        if let Some(height) = terminal::height() {
            lines.truncate(height.saturating_sub(1).max(1));
        }
        let text = picture(self.lines, &lines);
        self.lines = lines.len();
        self.context.output.text(&text)
    }
}

/// In one piece, and each line is cleared only behind its text: nothing flickers.
fn picture(lines_before: usize, lines: &[String]) -> String {
    let up = if lines_before > 0 { format!("\x1b[{lines_before}A") } else { String::new() };
    let body: String = lines.iter().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("{HIDE_CURSOR}{up}\r{body}\x1b[J")
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        // The terminal may be gone; then nobody misses its cursor.
        let _ = self.context.output.text(SHOW_CURSOR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_drawn_over_the_one_before() {
        let lines = ["one".to_owned(), "two".to_owned()];
        assert_eq!(picture(0, &lines), "\x1b[?25l\rone\x1b[K\ntwo\x1b[K\n\x1b[J");
        assert_eq!(picture(3, &lines), "\x1b[?25l\x1b[3A\rone\x1b[K\ntwo\x1b[K\n\x1b[J");
    }
}
