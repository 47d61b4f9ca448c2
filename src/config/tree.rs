//! YAML as sections of keys with line numbers; untyped, so that every wrong key and value can be reported, not the first.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy, Options, Spanned};

/// A value in a configuration file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    /// A scalar or a list.
    Leaf(Value),
    /// A mapping, in the order of the file; keys may repeat.
    Section(Vec<Entry>),
}

/// A key in a file and what it holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    /// From 1.
    pub line: u64,
    pub tree: Tree,
}

/// Why a text isn't a tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub line: u64,
    pub message: String,
}

/// What a configuration needs, with room: three levels and some hundred keys. A file that goes beyond is refused while it is
/// parsed, before it costs time or memory.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 8,
            flow_nesting_limit: 8,
            max_nodes: 20_000,
            max_events: 50_000,
            max_aliases: 100,
            max_anchors: 100,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 1_000,
            max_replay_stack_depth: 4,
        },
        // Repeated keys are collected and reported with their paths.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // Merged values would be reported at the line of the merge.
        merge_keys: MergeKeyPolicy::Error,
        // `no` and `on` are words, not booleans.
        strict_booleans: true,
        // What isn't a number here is refused by name later, which an error of the parser's wouldn't be.
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        // 010 means 8 to some and 10 to others; as a string it is refused where a number is expected.
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
    }
}

/// The tree of a YAML document; an empty document is an empty section.
pub(super) fn parse(text: &str) -> Result<Tree, SyntaxError> {
    match serde_saphyr::from_str_with_options::<Option<Tree>>(text, options()) {
        Ok(tree) => Ok(tree.unwrap_or_else(|| Tree::Section(Vec::new()))),
        Err(error) => Err(syntax_error(&error)),
    }
}

/// What `text` is as a YAML scalar.
pub(super) fn scalar(text: &str) -> Option<Value> {
    serde_saphyr::from_str_with_options(text, options()).ok()
}

fn syntax_error(error: &serde_saphyr::Error) -> SyntaxError {
    use serde_saphyr::Error as E;

    let error = error.without_snippet();
    let location = error.location();
    let message = match error {
        E::Budget { .. } | E::AliasReplayLimitExceeded { .. } | E::AliasReplayStackDepthExceeded { .. } => {
            "nested more deeply, or larger, than a configuration can be".to_owned()
        }
        E::MultipleDocuments { .. } => "a second YAML document; a configuration is one".to_owned(),
        E::MergeKeyNotAllowed { .. } => "merge keys (<<) aren't supported".to_owned(),
        // Only keys are asked to be strings.
        E::NullIntoString { .. } | E::Unexpected { expected: "string scalar", .. } => "a key must be a word".to_owned(),
        other => one_line(&other.to_string()),
    };
    SyntaxError { line: location.map_or(1, |location| location.line().max(1)), message }
}

/// One line a problem, though the parser may quote what it read; and the place is told already.
fn one_line(message: &str) -> String {
    let message = message.replace(['\n', '\r'], " ");
    message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what).to_owned()
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a section, a list or a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let tree = map.next_value()?;
            entries.push(Entry { key: key.value, line: key.referenced.line(), tree });
        }
        Ok(Tree::Section(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element::<Value>()? {
            values.push(value);
        }
        Ok(Tree::Leaf(Value::Array(values)))
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn entries(text: &str) -> Vec<Entry> {
        match parse(text).unwrap() {
            Tree::Section(entries) => entries,
            Tree::Leaf(value) => panic!("a section, not {value}"),
        }
    }

    #[test]
    fn keys_have_their_lines() {
        let top = entries("# comment\n\na: 1\nb:\n  c: [x, y]\n\n  d: 5s\n");
        assert_eq!((top[0].key.as_str(), top[0].line), ("a", 3));
        let Tree::Section(inner) = &top[1].tree else { panic!("{top:?}") };
        assert_eq!((inner[0].key.as_str(), inner[0].line), ("c", 5));
        assert_eq!((inner[1].key.as_str(), inner[1].line), ("d", 7));
        assert_eq!(inner[0].tree, Tree::Leaf(serde_json::json!(["x", "y"])));
    }

    #[test]
    fn scalars_keep_their_types() {
        for (text, want) in [
            ("5", serde_json::json!(5)),
            ("-5", serde_json::json!(-5)),
            ("1.5", serde_json::json!(1.5)),
            ("true", serde_json::json!(true)),
            ("yes", serde_json::json!("yes")),
            ("~", Value::Null),
            ("\"5\"", serde_json::json!("5")),
            ("5s", serde_json::json!("5s")),
            ("010", serde_json::json!("010")),
            ("1_000", serde_json::json!("1_000")),
        ] {
            assert_eq!(entries(&format!("k: {text}\n"))[0].tree, Tree::Leaf(want), "{text}");
        }
    }

    #[test]
    fn empty_files_and_repeated_keys() {
        assert_eq!(entries(""), []);
        assert_eq!(entries("# only a comment\n"), []);
        assert_eq!(entries("a: 1\na: 2\n").len(), 2);
    }

    #[test]
    fn errors_name_their_line() {
        for (text, line) in [
            ("a: 1\nb: [1, 2\nc: 3\n", 3),
            ("a: 1\n b: 2\n", 2),
            ("a: \"x\n", 1),
            ("a: 1\n---\nb: 2\n", 3),
            ("a: *missing\n", 1),
            ("x: &x {a: 1}\ny:\n  <<: *x\n", 3),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.line.abs_diff(line) <= 1, "{text:?}: {error:?}");
            assert!(!error.message.contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn bombs_are_refused_cheaply() {
        let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..30 {
            let before = format!("*a{}, ", level - 1).repeat(9);
            aliases += &format!("a{level}: &a{level} [{before} *a{}]\n", level - 1);
        }
        let deep_block: String = (0..2_000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        let wide: String = (0..100_000).map(|key| format!("k{key}: 1\n")).collect();
        for bomb in [
            aliases,
            "[".repeat(1 << 20),
            "{a: ".repeat(250_000),
            "- ".repeat(500_000),
            deep_block,
            wide,
            "? ".repeat(500_000),
        ] {
            let start = Instant::now();
            assert!(parse(&bomb).is_err(), "{}", &bomb[..40]);
            assert!(start.elapsed() < Duration::from_secs(2), "{} took {:?}", &bomb[..40], start.elapsed());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_judged(text in "(?s)[ \\-\\[\\]{}:&*#'\"\na-c0-9|>!%?,]{0,80}") {
            let _ = parse(&text);
        }
    }
}
