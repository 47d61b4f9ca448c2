//! The keys: read from the embedded file, so that it and the code can't disagree.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::DEFAULT_FILE;
use super::tree::{self, Entry, Tree};
use super::types::Config;

/// A key that holds a value.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// `session.idle_timeout`.
    pub path: String,
    /// `AULA_SESSION_IDLE_TIMEOUT`.
    pub variable: String,
    pub default: Value,
}

/// Every key of the embedded file.
#[derive(Debug)]
pub(super) struct Schema {
    leaves: Vec<Leaf>,
    sections: Vec<String>,
    defaults: Value,
    config: Config,
}

impl Default for Config {
    fn default() -> Self {
        Schema::get().config.clone()
    }
}

impl Schema {
    /// The schema of the embedded file.
    #[expect(
        clippy::expect_used,
        reason = "the file is a constant; a build in which it doesn't parse fails every test"
    )]
    pub(super) fn get() -> &'static Self {
        static SCHEMA: LazyLock<Schema> =
            LazyLock::new(|| Schema::of(DEFAULT_FILE).expect("the embedded file is a configuration"));
        &SCHEMA
    }

    fn of(text: &str) -> Result<Self, String> {
        let tree = tree::parse(text).map_err(|error| format!("{}: {}", error.line, error.message))?;
        let Tree::Section(entries) = tree else { return Err("not a section".to_owned()) };
        let (mut leaves, mut sections) = (Vec::new(), Vec::new());
        let defaults = collect("", entries, &mut leaves, &mut sections);
        let config = serde_json::from_value(defaults.clone()).map_err(|error| error.to_string())?;
        Ok(Self { leaves, sections, defaults, config })
    }

    /// The keys that hold values, in the order of the file.
    pub(super) fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    pub(super) fn leaf(&self, path: &str) -> Option<&Leaf> {
        self.leaves.iter().find(|leaf| leaf.path == path)
    }

    pub(super) fn is_section(&self, path: &str) -> bool {
        self.sections.iter().any(|section| section == path)
    }

    /// The default values, nested.
    pub(super) fn defaults(&self) -> &Value {
        &self.defaults
    }

    /// What is right below `section` (`""` = the top), by its last name.
    pub(super) fn children(&self, section: &str) -> Vec<&str> {
        self.paths()
            .filter_map(|path| match path.rsplit_once('.') {
                Some((parent, name)) => (parent == section).then_some(name),
                None => section.is_empty().then_some(path),
            })
            .collect()
    }

    /// The key that was probably meant by `unknown`: one in another section, one spelt nearly the same, or both.
    pub(super) fn nearest(&self, unknown: &str) -> Option<&str> {
        let named = |name: &str| {
            let paths = self.paths().filter(|path| last(path) == name);
            paths.min_by_key(|path| strsim::damerau_levenshtein(path, unknown))
        };
        if unknown.len() > MAX_COMPARED {
            return None;
        }
        named(last(unknown))
            .or_else(|| nearest(unknown, self.paths()))
            .or_else(|| named(nearest(last(unknown), self.leaves.iter().map(|leaf| last(&leaf.path)))?))
    }

    /// The comment above `path` in the embedded file.
    #[cfg(test)]
    pub(super) fn comment(&self, path: &str) -> String {
        let mut tree = tree::parse(DEFAULT_FILE).unwrap();
        let mut line = 0;
        for name in path.split('.') {
            let Tree::Section(entries) = tree else { panic!("{path} is below a value") };
            let entry = entries.into_iter().find(|entry| entry.key == name).unwrap();
            (tree, line) = (entry.tree, usize::try_from(entry.line).unwrap());
        }
        let before: Vec<_> = DEFAULT_FILE.lines().take(line - 1).collect();
        let comment = before.iter().rev().map_while(|line| line.trim().strip_prefix('#'));
        comment.collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn paths(&self) -> impl Iterator<Item = &str> {
        self.sections.iter().map(String::as_str).chain(self.leaves.iter().map(|leaf| leaf.path.as_str()))
    }
}

fn collect(parent: &str, entries: Vec<Entry>, leaves: &mut Vec<Leaf>, sections: &mut Vec<String>) -> Value {
    let mut object = Map::new();
    for Entry { key, tree, .. } in entries {
        let path = join(parent, &key);
        let value = match tree {
            Tree::Leaf(value) => {
                let variable = format!("AULA_{}", path.replace('.', "_").to_uppercase());
                leaves.push(Leaf { path, variable, default: value.clone() });
                value
            }
            Tree::Section(entries) => {
                sections.push(path.clone());
                collect(&path, entries, leaves, sections)
            }
        };
        object.insert(key, value);
    }
    Value::Object(object)
}

/// `parent.key`, or `key` at the top.
pub(super) fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

/// `idle_timeout` of `session.idle_timeout`.
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The longest name that is compared with others, in bytes: the cost grows with the product of the lengths.
const MAX_COMPARED: usize = 100;

/// The candidate that differs least from `text`, if that is by no more than a typing error or two.
pub(crate) fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > MAX_COMPARED {
        return None;
    }
    let allowed = (text.len() / 4).max(1);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(text, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_field_is_in_the_file_and_the_reverse() {
        // A field that the file lacks has no default, and a key that no field takes is unknown: either fails to deserialise.
        let schema = Schema::of(DEFAULT_FILE).unwrap();
        let written = serde_json::to_value(&schema.config).unwrap();
        assert_eq!(serde_json::from_value::<Config>(written).unwrap(), schema.config);

        let without = DEFAULT_FILE.replace("  idle_timeout: 60s\n", "");
        assert!(Schema::of(&without).unwrap_err().contains("missing field `idle_timeout`"));
        let more = DEFAULT_FILE.replace("  idle_timeout: 60s\n", "  idle_timeout: 60s\n  surplus: 1\n");
        assert!(Schema::of(&more).unwrap_err().contains("unknown field `surplus`"));
    }

    #[test]
    fn every_key_is_documented() {
        for leaf in Schema::get().leaves() {
            let comment = Schema::get().comment(&leaf.path);
            let lines: Vec<_> = comment.lines().collect();
            assert!(lines.len() >= 2, "{} has a reason and a line that says what it may be: {comment:?}", leaf.path);
            let kinds = [
                "Number, ",
                "Bytes, ",
                "Duration, ",
                "One of: ",
                "true or false.",
                "Path.",
                "List of ",
                "Address ",
                "Text.",
                "URL.",
            ];
            let last = lines.last().unwrap().trim();
            assert!(kinds.iter().any(|kind| last.starts_with(kind)), "{}: {last:?}", leaf.path);
        }
    }

    #[test]
    fn variables_are_distinct() {
        let leaves = Schema::get().leaves();
        let variables: BTreeSet<_> = leaves.iter().map(|leaf| leaf.variable.as_str()).collect();
        assert_eq!(variables.len(), leaves.len());
        assert!(variables.contains("AULA_SESSION_MAX_FRAME_BYTES"));
        assert!(variables.contains("AULA_DATA_DIR"));
    }

    #[test]
    fn nearest_keys() {
        let cases = [
            ("session.idle_timout", Some("session.idle_timeout")),
            ("sesion.idle_timeout", Some("session.idle_timeout")),
            ("sesion", Some("session")),
            ("server.lisen", Some("server.listen")),
            ("idle_timeout", Some("session.idle_timeout")),
            ("server.ping_interval", Some("session.ping_interval")),
            ("ping_intervall", Some("session.ping_interval")),
            ("ping_interval", Some("session.ping_interval")),
            ("sesion.max_per_user", Some("session.max_per_user")),
            ("server.log", Some("log")),
            ("datadir", Some("data_dir")),
            ("server.colour", None),
            ("x", None),
            ("", None),
        ];
        for (unknown, want) in cases {
            assert_eq!(Schema::get().nearest(unknown), want, "{unknown}");
        }
        assert_eq!(Schema::get().nearest(&"x".repeat(1 << 20)), None);
    }

    #[test]
    fn children() {
        assert_eq!(Schema::get().children("log"), ["format", "level"]);
        assert!(Schema::get().children("").contains(&"data_dir"));
        assert!(Schema::get().children("").contains(&"session"));
    }
}
