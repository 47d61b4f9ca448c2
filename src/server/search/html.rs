//! Messages as HTML text, with what matched in `<mark>`.

use std::ops::Range;

use uuid::Uuid;

use super::query::Term;
use super::words;

/// What stands around a match until the rest is escaped. Random, so that no message can have it in it.
pub(super) struct Marks {
    pub open: String,
    pub close: String,
}

impl Marks {
    pub fn new() -> Self {
        let secret = Uuid::new_v4().simple();
        Self { open: format!("\u{2}{secret}\u{2}"), close: format!("\u{3}{secret}\u{3}") }
    }

    /// From a text that an index put the marks into.
    pub fn to_html(&self, highlighted: &str) -> String {
        let mut html = String::with_capacity(highlighted.len() + 16);
        for (index, piece) in highlighted.split(&self.open).enumerate() {
            if index > 0 {
                html.push_str("<mark>");
            }
            match piece.split_once(&self.close) {
                Some((matched, rest)) => {
                    escape(matched, &mut html);
                    html.push_str("</mark>");
                    escape(rest, &mut html);
                }
                None => escape(piece, &mut html),
            }
        }
        html
    }
}

/// The text without marks.
pub(super) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + 16);
    escape(text, &mut html);
    html
}

/// Marks what these terms match. For an index that holds folded words and can't say where they stood in the text.
pub(super) fn highlight(text: &str, terms: &[Term]) -> String {
    let mut html = String::with_capacity(text.len() + 16);
    let mut end = 0;
    for matched in matches(text, terms) {
        escape(&text[end..matched.start], &mut html);
        html.push_str("<mark>");
        escape(&text[matched.clone()], &mut html);
        html.push_str("</mark>");
        end = matched.end;
    }
    escape(&text[end..], &mut html);
    html
}

/// Ascending; those that overlap are one.
fn matches(text: &str, terms: &[Term]) -> Vec<Range<usize>> {
    let found = words::split(text);
    let terms: Vec<(Vec<String>, bool)> = terms.iter().map(|term| (term.words(), term.any_ending)).collect();
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for first in 0..found.len() {
        for (wanted, any_ending) in &terms {
            let Some(here) = found.get(first..first + wanted.len()) else { continue };
            let Some((last, before)) = wanted.split_last() else { continue };
            let Some((here_last, here_before)) = here.split_last() else { continue };
            let matches = here_before.iter().zip(before).all(|(word, wanted)| word.folded == *wanted)
                && (here_last.folded == *last || *any_ending && here_last.folded.starts_with(last));
            if !matches {
                continue;
            }
            let range = found[first].range.start..here_last.range.end;
            match ranges.last_mut() {
                Some(before) if range.start < before.end => before.end = before.end.max(range.end),
                _ => ranges.push(range),
            }
        }
    }
    ranges
}

fn escape(text: &str, html: &mut String) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use crate::server::search::query;

    fn highlighted(text: &str, typed: &str) -> String {
        highlight(text, &query::terms(typed).unwrap())
    }

    #[test]
    fn words_phrases_and_endings_are_marked() {
        assert_eq!(highlighted("to be, or not TO BE", "\"to be\""), "<mark>to be</mark>, or not <mark>TO BE</mark>");
        assert_eq!(highlighted("bee best abbe", "be*"), "<mark>bee</mark> <mark>best</mark> abbe");
        assert_eq!(highlighted("foo-barely foo bar", "foo-bar*"), "<mark>foo-barely</mark> <mark>foo bar</mark>");
        assert_eq!(highlighted("a b c d", "\"a b\" \"b c\""), "<mark>a b c</mark> d");
        assert_eq!(highlighted("a b", "a b"), "<mark>a</mark> <mark>b</mark>");
        assert_eq!(highlighted("nothing <here>", "absent"), "nothing &lt;here&gt;");
    }
}
