//! How wide and high the terminal is, and lines that fit it.

use std::io::{self, IsTerminal};

/// Columns of the terminal that stdout is, or what `COLUMNS` says; `None`: as wide as it takes.
pub fn width() -> Option<usize> {
    let set = number("COLUMNS").filter(|columns| *columns > 0);
    set.or_else(|| size().map(|(columns, _)| columns))
}

/// Lines of the terminal that stdout is.
pub fn height() -> Option<usize> {
    number("LINES").filter(|lines| *lines > 0).or_else(|| size().map(|(_, lines)| lines))
}

fn size() -> Option<(usize, usize)> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(stdout).ok()?;
    (size.ws_col > 0).then_some((usize::from(size.ws_col), usize::from(size.ws_row)))
}

fn number(name: &str) -> Option<usize> {
    std::env::var_os(name)?.to_str()?.parse().ok()
}

/// `line` cut to `width` characters, with an ellipsis in the place of what is missing.
pub fn fit(line: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if line.chars().count() > width => {
            let kept: String = line.chars().take(width.saturating_sub(1)).collect();
            format!("{}…", kept.trim_end())
        }
        _ => line.to_owned(),
    }
}

/// `1.5 s`, `12 s`, `3 m 20 s`, `5 h 2 m`, `3 d 4 h`.
pub fn age(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..10 => format!("{:.1} s", millis as f64 / 1000.0),
        10..60 => format!("{seconds} s"),
        60..3_600 => format!("{} m {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Lines of cells in columns, two blanks between them.
pub fn columns(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
            cells.chain([name.chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head = line(header.to_vec());
    std::iter::once(head).chain(rows.iter().map(|row| line(row.iter().map(String::as_str).collect()))).collect()
}

/// As [`columns`], without those of `dispensable` for which `width` has no room: the first of them goes first. The last
/// column may be cut to so many characters (see [`fit`]) before another goes for it.
pub fn fitting(
    mut header: Vec<&str>,
    mut rows: Vec<Vec<String>>,
    dispensable: &[&str],
    last: usize,
    width: Option<usize>,
) -> Vec<String> {
    let Some(width) = width else { return columns(&header, &rows) };
    for name in dispensable {
        let lines = columns(&header, &rows);
        let before =
            lines.first().map_or(0, |line| line.chars().count()) - header.last().map_or(0, |name| name.chars().count());
        let needed = lines.iter().map(|line| line.chars().count().min(before.saturating_add(last))).max();
        if needed.is_none_or(|needed| needed <= width) {
            return lines;
        }
        if let Some(place) = header.iter().position(|known| known == name) {
            leave_out(place, &mut header, &mut rows);
        }
    }
    columns(&header, &rows)
}

/// A column goes.
pub fn leave_out(place: usize, header: &mut Vec<&str>, rows: &mut [Vec<String>]) {
    header.remove(place);
    for row in rows {
        row.remove(place);
    }
}

/// `text` in lines of at most `width` characters, broken at blanks; a word that is longer is cut.
pub fn wrapped(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width else { return vec![text.to_owned()] };
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(fit(word, Some(width))),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dispensable_goes_where_it_is_narrow() {
        let rows = || vec![vec!["1".to_owned(), "two".to_owned(), "a long reason".to_owned()]];
        let shown = |last, width| fitting(vec!["ID", "KIND", "REASON"], rows(), &["KIND", "ID"], last, width);
        assert_eq!(shown(99, None), ["ID  KIND  REASON", "1   two   a long reason"]);
        assert_eq!(shown(99, Some(23)), ["ID  KIND  REASON", "1   two   a long reason"]);
        assert_eq!(shown(99, Some(22)), ["ID  REASON", "1   a long reason"]);
        assert_eq!(shown(6, Some(16)), ["ID  KIND  REASON", "1   two   a long reason"]);
        assert_eq!(shown(6, Some(15)), ["ID  REASON", "1   a long reason"]);
        assert_eq!(shown(99, Some(4)), ["REASON", "a long reason"]);
    }

    #[test]
    fn text_is_broken_at_blanks() {
        assert_eq!(wrapped("see `aula doctor` there", None), ["see `aula doctor` there"]);
        assert_eq!(wrapped("see `aula doctor` there", Some(12)), ["see `aula", "doctor`", "there"]);
        assert_eq!(wrapped("overlong is cut", Some(5)), ["over…", "is", "cut"]);
    }

    #[test]
    fn lines_are_cut_to_the_width() {
        assert_eq!(fit("narrow", None), "narrow");
        assert_eq!(fit("narrow", Some(6)), "narrow");
        assert_eq!(fit("a line", Some(4)), "a l…");
        assert_eq!(fit("ab cd", Some(4)), "ab…");
    }

    #[test]
    fn ages_have_two_units() {
        let ages = [0, 1_500, 59_999, 61_000, 3_660_000, 90_000_000].map(age);
        assert_eq!(ages, ["0.0 s", "1.5 s", "59 s", "1 m 1 s", "1 h 1 m", "1 d 1 h"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["ccccc".to_owned(), "é".to_owned()]];
        assert_eq!(columns(&["ONE", "TWO"], &rows), ["ONE    TWO", "a      b", "ccccc  é"]);
    }
}
