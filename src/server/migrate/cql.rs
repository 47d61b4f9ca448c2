//! Files of CQL as single statements: the protocol takes one at a time.

/// Why a file can't be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    #[error("{what} that begins on line {line} has no end")]
    Unterminated { what: &'static str, line: usize },
}

/// The statements of `text` without their `;`, without comments and blank lines.
///
/// Knows CQL's strings (`'it''s'`, `$$…$$`), quoted names (`"…"`) and comments (`--`, `//`, `/*…*/`); see
/// <https://cassandra.apache.org/doc/latest/cassandra/developing/cql/definitions.html>. A last statement without its
/// `;` is an error: the file may have been cut off.
pub fn split(text: &str) -> Result<Vec<String>, SplitError> {
    let mut statements = Vec::new();
    let mut statement = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let quote = ["$$", "'", "\""].into_iter().find(|quote| rest.starts_with(quote));
        let (taken, kept) = if rest.starts_with("--") || rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), false)
        } else if rest.starts_with("/*") {
            (2 + end(text, rest, 2, "*/", "a comment")?, false)
        } else if let Some(quote) = quote {
            // A doubled quote inside is two strings side by side to us: their text comes out the same.
            (quote.len() + end(text, rest, quote.len(), quote, "a quotation")?, true)
        } else if next == ';' {
            push(&mut statements, &statement);
            statement.clear();
            (1, false)
        } else {
            (next.len_utf8(), true)
        };
        let (piece, after) = rest.split_at(taken);
        statement.push_str(if kept { piece } else { "" });
        // A comment separates words.
        if piece.starts_with("/*") {
            statement.push(' ');
        }
        rest = after;
    }
    if statement.trim().is_empty() {
        return Ok(statements);
    }
    let begin = text.trim_end().len();
    let line = line_of(text, begin.saturating_sub(statement.trim().len()));
    Err(SplitError::Unterminated { what: "a statement", line })
}

/// Where `closing` ends in `rest`, counted from `from`.
fn end(text: &str, rest: &str, from: usize, closing: &str, what: &'static str) -> Result<usize, SplitError> {
    let found = rest.get(from..).and_then(|inside| inside.find(closing));
    let at = text.len() - rest.len();
    found.map(|index| index + closing.len()).ok_or_else(|| SplitError::Unterminated { what, line: line_of(text, at) })
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

fn push(statements: &mut Vec<String>, statement: &str) {
    // Blank lines are what comments leave behind; inside a string they belong to it.
    let lines = statement.trim();
    if lines.is_empty() {
        return;
    }
    if lines.contains(['\'', '"', '$']) {
        statements.push(lines.to_owned());
        return;
    }
    let lines = lines.lines().map(str::trim_end).filter(|line| !line.is_empty());
    statements.push(lines.collect::<Vec<_>>().join("\n"));
}

/// Table and column, if the statement adds one column to a table: `ALTER TABLE t ADD c type`.
///
/// It can't be said idempotently in a way that ScyllaDB takes as well (`ADD IF NOT EXISTS` is Cassandra's alone), so
/// the migrator looks whether the column is there.
pub fn added_column(statement: &str) -> Option<(String, String)> {
    let words: Vec<&str> = statement.split_whitespace().collect();
    let [alter, table, name, add, column, ..] = words.as_slice() else { return None };
    let is_keyword = |word: &str, keyword: &str| word.eq_ignore_ascii_case(keyword);
    let adds = is_keyword(alter, "ALTER") && is_keyword(table, "TABLE") && is_keyword(add, "ADD");
    // A comma outside of `map<…, …>` would begin another column.
    let has_comma = words.iter().skip(5).any(|word| word.contains(',') && !word.contains('<'));
    let is_plain = !statement.contains(['(', ')', '"']);
    (adds && is_plain && !has_comma).then(|| (name.to_lowercase(), column.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::migrate::files::CASSANDRA;

    /// What a file of ours may contain: statements that take nothing away and that may be repeated.
    fn is_allowed(statement: &str) -> bool {
        // Up to the first parenthesis: enough to tell what it does.
        let head = statement.split('(').next().unwrap_or_default().to_uppercase();
        let words: Vec<&str> = head.split_whitespace().collect();
        match words.as_slice() {
            ["CREATE", "TABLE" | "INDEX" | "TYPE", "IF", "NOT", "EXISTS", ..]
            | ["CREATE", "CUSTOM", "INDEX", "IF", "NOT", "EXISTS", ..]
            | ["CREATE", "MATERIALIZED", "VIEW", "IF", "NOT", "EXISTS", ..]
            | ["ALTER", "TABLE", _, "WITH", ..]
            | ["INSERT", "INTO", ..] => true,
            _ => added_column(statement).is_some(),
        }
    }

    #[test]
    fn semicolons_end_statements_unless_quoted_or_commented_out() {
        let text = "-- one; two\nCREATE TABLE a (x int); // x;\n/* y; */ INSERT INTO a (x) VALUES ('a;''b--c');;\n\
                    INSERT INTO \"A;\" (x) VALUES ($$it's; -- not a comment$$);\n";
        assert_eq!(
            split(text).unwrap(),
            [
                "CREATE TABLE a (x int)",
                "INSERT INTO a (x) VALUES ('a;''b--c')",
                "INSERT INTO \"A;\" (x) VALUES ($$it's; -- not a comment$$)"
            ]
        );
        assert_eq!(split("").unwrap(), [] as [&str; 0]);
        assert_eq!(split("  \n-- a comment alone").unwrap(), [] as [&str; 0]);
    }

    #[test]
    fn comments_leave_neither_blank_lines_nor_joined_words() {
        let text = "CREATE TABLE é ( -- a table\n    -- the key\n    x/* int or */int,\n\n    PRIMARY KEY (x)\n);";
        assert_eq!(split(text).unwrap(), ["CREATE TABLE é (\n    x int,\n    PRIMARY KEY (x)\n)"]);
        assert_eq!(split("INSERT INTO a (x) VALUES ('a\n\nb');").unwrap(), ["INSERT INTO a (x) VALUES ('a\n\nb')"]);
    }

    #[test]
    fn a_file_that_was_cut_off_is_refused() {
        for (text, what, line) in [
            ("SELECT 1;\n\nSELECT 2", "a statement", 3),
            ("SELECT 'x;\n", "a quotation", 1),
            ("\nSELECT \"x;\n", "a quotation", 2),
            ("SELECT $$x$;\n", "a quotation", 1),
            ("SELECT 1;\n/* x", "a comment", 2),
            ("SELECT 1;\n/*/", "a comment", 2),
        ] {
            assert_eq!(split(text), Err(SplitError::Unterminated { what, line }), "{text}");
        }
    }

    #[test]
    fn the_column_that_is_added() {
        let added = |statement| added_column(statement);
        let expected = Some(("messages".to_owned(), "edited".to_owned()));
        assert_eq!(added("ALTER TABLE messages ADD edited timestamp"), expected);
        assert_eq!(added("alter table Messages\n  add Edited frozen<map<text, int>>"), expected);
        for other in ["ALTER TABLE m ADD (a int)", "ALTER TABLE m ADD a int, b int", "ALTER TABLE m DROP a", "x"] {
            assert_eq!(added(other), None, "{other}");
        }
    }

    #[test]
    fn no_file_takes_anything_away_or_fails_when_it_is_repeated() {
        for file in CASSANDRA {
            for statement in split(file.text).unwrap() {
                assert!(is_allowed(&statement), "{:04}_{}: {statement}", file.version, file.name);
            }
        }
        for refused in [
            "DROP TABLE x",
            "TRUNCATE x",
            "DELETE FROM x WHERE y = 1",
            "ALTER TABLE x DROP y",
            "ALTER TABLE x RENAME y TO z",
            "ALTER KEYSPACE x WITH replication = {}",
            "CREATE TABLE x (y int PRIMARY KEY)",
            "UPDATE x SET y = y + 1 WHERE z = 1",
            "BATCH",
        ] {
            assert!(!is_allowed(refused), "{refused}");
        }
    }
}
