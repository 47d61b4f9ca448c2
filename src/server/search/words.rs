//! The words of a text, as FTS5's tokenizer `unicode61 remove_diacritics 2` finds them
//! (<https://www.sqlite.org/fts5.html#unicode61_tokenizer>), so that a search finds the same wherever the index is.
//!
//! A word is a run of letters, digits and private characters; case makes no difference, nor do accents on Latin
//! letters. Unlike there, the vowel signs of Indic scripts are part of their word.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

/// Longer words are taken as several, one behind the other: 254 UTF-16 units, as many as a word in Elasticsearch has.
const MAX_CHARS: usize = 127;

/// Latin letters with accents, by what is left without them (the first letter of their canonical decomposition).
const ACCENTED: [(char, &str); 25] = [
    ('a', "àáâãäåāăąǎǟǡǻȁȃȧḁạảấầẩẫậắằẳẵặ"),
    ('b', "ḃḅḇ"),
    ('c', "çćĉċčḉ"),
    ('d', "ďḋḍḏḑḓ"),
    ('e', "èéêëēĕėęěȅȇȩḕḗḙḛḝẹẻẽếềểễệ"),
    ('f', "ḟ"),
    ('g', "ĝğġģǧǵḡ"),
    ('h', "ĥȟḣḥḧḩḫẖ"),
    ('i', "ìíîïĩīĭįǐȉȋḭḯỉị"),
    ('j', "ĵǰ"),
    ('k', "ķǩḱḳḵ"),
    ('l', "ĺļľḷḹḻḽ"),
    ('m', "ḿṁṃ"),
    ('n', "ñńņňǹṅṇṉṋ"),
    ('o', "òóôõöōŏőơǒǫǭȍȏȫȭȯȱṍṏṑṓọỏốồổỗộớờởỡợ"),
    ('p', "ṕṗ"),
    ('r', "ŕŗřȑȓṙṛṝṟ"),
    ('s', "śŝşšșṡṣṥṧṩ"),
    ('t', "ţťțṫṭṯṱẗ"),
    ('u', "ùúûüũūŭůűųưǔǖǘǚǜȕȗṳṵṷṹṻụủứừửữự"),
    ('v', "ṽṿ"),
    ('w', "ŵẁẃẅẇẉẘ"),
    ('x', "ẋẍ"),
    ('y', "ýÿŷȳẏẙỳỵỷỹ"),
    ('z', "źżžẑẓẕ"),
];

static BASES: LazyLock<HashMap<char, char>> = LazyLock::new(|| {
    ACCENTED.iter().flat_map(|(base, accented)| accented.chars().map(|letter| (letter, *base))).collect()
});

/// A word and where it stands, in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// In lower case and without accents: equal for words that count as the same.
    pub folded: String,
    pub range: Range<usize>,
}

/// In the order of the text.
pub(super) fn split(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut chars = 0;
    for (start, c) in text.char_indices() {
        let is_inside = is_of_word(c) || word.is_some() && is_accent(c);
        let is_full = chars == MAX_CHARS && is_of_word(c);
        if !is_inside || is_full {
            words.extend(word.take());
            chars = 0;
        }
        if is_inside {
            let word = word.get_or_insert_with(|| Word { folded: String::new(), range: start..start });
            fold(c, &mut word.folded);
            word.range.end = start + c.len_utf8();
            chars += usize::from(is_of_word(c));
        }
    }
    words.extend(word);
    words
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() && !is_accent(c)
        || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{ffffd}' | '\u{100000}'..='\u{10fffd}')
}

/// Accents that follow their letter as characters of their own.
fn is_accent(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}')
}

fn fold(c: char, folded: &mut String) {
    if c.is_ascii() {
        folded.push(c.to_ascii_lowercase());
        return;
    }
    for lower in c.to_lowercase().filter(|c| !is_accent(*c)) {
        folded.push(match lower {
            // Other shapes of the same letters.
            'ſ' | 'ẛ' => 's',
            '\u{b5}' => '\u{3bc}',
            '\u{1fbe}' => '\u{3b9}',
            'ς' => 'σ',
            'ϐ' => 'β',
            'ϑ' => 'θ',
            'ϕ' => 'φ',
            'ϖ' => 'π',
            'ϰ' => 'κ',
            'ϱ' => 'ρ',
            'ϵ' => 'ε',
            other => BASES.get(&other).copied().unwrap_or(other),
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn folded(text: &str) -> Vec<String> {
        split(text).into_iter().map(|word| word.folded).collect()
    }

    #[test]
    fn words_are_runs_of_letters_and_digits() {
        assert_eq!(
            folded("Don't foo_bar, a.b-c 3.14 (x@y.org)!"),
            "don t foo bar a b c 3 14 x y org".split(' ').collect::<Vec<_>>()
        );
        assert_eq!(folded(" \0 ?! \u{301} \u{345}"), Vec::<String>::new());
        assert_eq!(
            folded("Zürich ZU\u{308}RICH İstanbul Straße ΣΊΣΥΦΟΣ σίσυφος"),
            ["zurich", "zurich", "istanbul", "straße", "σίσυφοσ", "σίσυφοσ"]
        );
    }

    #[test]
    fn ranges_are_of_the_text_as_it_was() {
        let text = "é! ZU\u{308}RICH";
        let found: Vec<&str> = split(text).into_iter().map(|word| &text[word.range]).collect();
        assert_eq!(found, ["é", "ZU\u{308}RICH"]);
    }

    #[test]
    fn a_long_word_is_several() {
        let lengths: Vec<usize> =
            split(&"😀x".repeat(2).replace("😀", "y").repeat(100)).iter().map(|word| word.folded.len()).collect();
        assert_eq!(lengths, [127, 127, 127, 19]);
    }

    /// Against the tokenizer itself, character by character.
    #[test]
    fn the_same_words_as_fts5() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE VIRTUAL TABLE texts USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2');
                 CREATE VIRTUAL TABLE words USING fts5vocab (texts, 'instance');",
            )
            .unwrap();
        let mut insert = connection.prepare("INSERT INTO texts (rowid, text) VALUES (?1, ?2)").unwrap();
        let mut select = connection.prepare("SELECT term FROM words WHERE doc = ?1 ORDER BY offset").unwrap();
        // Letters and digits of some scripts, and signs; without the letters that are younger than its tables.
        let scripts = ['\u{a1}'..'\u{530}', '\u{1e00}'..'\u{2000}', '\u{3040}'..'\u{3100}', '\u{4e00}'..'\u{4e80}'];
        let letters = scripts.into_iter().flatten().filter(|c| c.is_alphanumeric() && !is_accent(*c));
        let signs = ('\u{1}'..'\u{a1}').chain('\u{2000}'..'\u{2060}');
        let chars: Vec<char> = letters.chain(signs).filter(|c| !"ǠǡͿԨԪԬԮ".contains(*c)).collect();
        connection.execute_batch("BEGIN").unwrap();
        for c in &chars {
            insert.execute((*c as u32, format!("x{c}y"))).unwrap();
        }
        let mut different = Vec::new();
        for c in chars {
            let theirs: Vec<String> =
                select.query_map([c as u32], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
            let ours = folded(&format!("x{c}y"));
            if ours != theirs {
                different.push((c, c as u32, ours, theirs));
            }
        }
        assert!(different.is_empty(), "{} {different:?}", different.len());
    }
}
