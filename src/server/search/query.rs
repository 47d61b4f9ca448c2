//! From what a person typed to the terms that a message must have, whatever the index.
//!
//! A term is text and nothing else: an index renders it such that no operator, field or parenthesis of its own
//! language can be smuggled in.

use super::{SearchError, words};

/// Words of a query, at most.
const MAX_WORDS: usize = 32;
/// Of a query's text, at most, in bytes.
const MAX_BYTES: usize = 1024;

/// Words that stand one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    /// As typed, with at least one word in it; a word like `foo-bar` is a phrase of two.
    pub text: String,
    /// The last word may go on.
    pub any_ending: bool,
}

impl Term {
    /// Folded; never empty.
    pub fn words(&self) -> Vec<String> {
        words::split(&self.text).into_iter().map(|word| word.folded).collect()
    }
}

/// All words and phrases of `text`.
pub(super) fn terms(text: &str) -> Result<Vec<Term>, SearchError> {
    if text.len() > MAX_BYTES {
        return Err(SearchError::Invalid(format!("a query has at most {MAX_BYTES} bytes")));
    }
    let mut terms = Vec::new();
    // Outside quotes at the even pieces, inside at the odd ones; an unclosed quote runs to the end.
    for (index, piece) in text.split('"').enumerate() {
        if index % 2 == 1 {
            terms.extend(term(piece, false));
        } else {
            for word in piece.split_whitespace() {
                let (stem, any_ending) = match word.strip_suffix('*') {
                    Some(stem) => (stem, true),
                    None => (word, false),
                };
                terms.extend(term(stem, any_ending));
            }
        }
    }
    if terms.is_empty() {
        return Err(SearchError::Invalid("the query has no word to search for".into()));
    }
    if terms.len() > MAX_WORDS {
        return Err(SearchError::Invalid(format!("a query has at most {MAX_WORDS} words")));
    }
    Ok(terms)
}

/// `None` if there is no word in it.
fn term(text: &str, any_ending: bool) -> Option<Term> {
    (!words::split(text).is_empty()).then(|| Term { text: text.to_owned(), any_ending })
}

/// All of them, joined by AND, for FTS5 (<https://www.sqlite.org/fts5.html#full_text_query_syntax>): each is a quoted
/// string, in which nothing but the quote has a meaning.
pub(super) fn fts5(terms: &[Term]) -> String {
    let quoted = terms.iter().map(|term| {
        // A NUL would end the expression for SQLite.
        let text = term.text.replace(['"', '\0'], " ");
        format!("\"{text}\"{}", if term.any_ending { "*" } else { "" })
    });
    quoted.collect::<Vec<_>>().join(" AND ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn expression(text: &str) -> Result<String, SearchError> {
        terms(text).map(|terms| fts5(&terms))
    }

    #[test]
    fn words_phrases_and_endings() {
        assert_eq!(expression("hello wor*").unwrap(), r#""hello" AND "wor"*"#);
        assert_eq!(expression(r#"say "hello world" twice"#).unwrap(), r#""say" AND "hello world" AND "twice""#);
        assert_eq!(expression(r#"open "end"#).unwrap(), r#""open" AND "end""#);
    }

    #[test]
    fn operators_are_words() {
        assert_eq!(
            expression("a OR channel:1 NEAR(b) -c ^d").unwrap(),
            r#""a" AND "OR" AND "channel:1" AND "NEAR(b)" AND "-c" AND "^d""#
        );
    }

    #[test]
    fn a_query_without_a_word_is_refused() {
        for text in ["", "  ", "\"\"", "*", "!!! ?"] {
            assert!(matches!(expression(text), Err(SearchError::Invalid(_))), "{text}");
        }
        assert!(expression(&"x ".repeat(33)).is_err());
        assert!(expression(&"x".repeat(1025)).is_err());
    }
}
