//! The layers above the defaults, as lists of settings: the file, the environment, the flags.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::FILE_VARIABLE;
use super::error::{Problem, Source};
use super::schema::{Schema, join, nearest};
use super::tree::{Entry, Tree};
use super::types::LogFormat;

/// The prefix of every environment variable of ours.
const PREFIX: &str = "AULA_";

/// Variables with the prefix that are read elsewhere.
const OTHER_VARIABLES: [&str; 2] = [FILE_VARIABLE, "AULA_CRASH_AT"];

/// What `scripts/services` and the tests are told; a shell that works with them may well start aula, too.
const OTHER_PREFIXES: [&str; 2] = ["AULA_TEST_", "AULA_SERVICE"];

/// What was given as flags; `None` where a flag wasn't.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--listen` of a worker
    pub worker_listen: Option<String>,
    /// `--log-format`
    pub log_format: Option<LogFormat>,
}

/// A value for a key that exists.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Setting {
    pub path: String,
    pub value: Value,
    pub source: Source,
}

/// The environment variables that [`super::Config::load`] looks at. Unlike [`std::env::vars`] it doesn't panic on those of others that
/// aren't UTF-8.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
        Some((name, value.to_string_lossy().into_owned()))
    })
}

/// The settings of a file.
pub(super) fn file(path: &Path, tree: Tree, problems: &mut Vec<Problem>) -> Vec<Setting> {
    let mut settings = Vec::new();
    match tree {
        Tree::Section(entries) => section(path, "", entries, &mut settings, problems),
        Tree::Leaf(value) => {
            let message = format!("got {}, expected sections and keys such as `server:`", given(&value));
            let source = Source::File { path: path.to_owned(), line: 1 };
            problems.push(Problem { source, key: String::new(), message });
        }
    }
    settings
}

fn section(file: &Path, parent: &str, entries: Vec<Entry>, settings: &mut Vec<Setting>, problems: &mut Vec<Problem>) {
    let schema = Schema::get();
    let mut seen: Vec<(String, u64)> = Vec::new();
    for Entry { key: name, line, tree } in entries {
        let path = join(parent, &name);
        let source = Source::File { path: file.to_owned(), line };
        let mut refuse = |message| problems.push(Problem { source: source.clone(), key: path.clone(), message });

        // A name with a dot isn't a key, whatever it joins to.
        let is_name = !name.contains('.');
        let is_section = is_name && schema.is_section(&path);
        let is_leaf = is_name && schema.leaf(&path).is_some();
        if !is_section && !is_leaf {
            refuse(unknown_key(parent, &path));
            continue;
        }
        if let Some((_, first)) = seen.iter().find(|(other, _)| *other == name) {
            refuse(format!("{path} is given twice, first on line {first}"));
            continue;
        }
        seen.push((name, line));
        match tree {
            // A section whose keys are all commented out.
            Tree::Leaf(Value::Null) if is_section => {}
            Tree::Leaf(value) if is_section => {
                refuse(format!(
                    "{path}: got {}, expected a section with the keys {}",
                    given(&value),
                    schema.children(&path).join(", ")
                ));
            }
            Tree::Leaf(value) => settings.push(Setting { path, value, source }),
            Tree::Section(entries) if is_section => section(file, &path, entries, settings, problems),
            // The value's type tells what is expected instead.
            Tree::Section(_) => settings.push(Setting { path, value: Value::Object(serde_json::Map::new()), source }),
        }
    }
}

fn unknown_key(parent: &str, path: &str) -> String {
    let schema = Schema::get();
    let shown = quoted(path);
    if let Some(nearest) = schema.nearest(path) {
        return match nearest.rsplit_once('.').filter(|_| path == nearest) {
            // `server.listen: …` on one line.
            Some((section, name)) => {
                format!("unknown key {shown}; write `{name}:` on a line of its own, indented below `{section}:`")
            }
            None => format!("unknown key {shown}; did you mean {nearest:?}?"),
        };
    }
    let place = if parent.is_empty() { "the file".to_owned() } else { format!("{parent:?}") };
    format!("unknown key {shown}; {place} has the keys {}", schema.children(parent).join(", "))
}

/// The settings of the environment.
pub(super) fn variables(environment: &[(String, String)], problems: &mut Vec<Problem>) -> Vec<Setting> {
    let schema = Schema::get();
    let mut settings = Vec::new();
    for (name, text) in environment {
        let is_other = OTHER_VARIABLES.contains(&name.as_str()) || OTHER_PREFIXES.iter().any(|p| name.starts_with(p));
        if !name.starts_with(PREFIX) || is_other {
            continue;
        }
        let source = Source::Environment(name.clone());
        let Some(leaf) = schema.leaves().iter().find(|leaf| leaf.variable == *name) else {
            problems.push(Problem { source, key: name.clone(), message: unknown_variable(name) });
            continue;
        };
        if text.contains(char::REPLACEMENT_CHARACTER) {
            problems.push(Problem {
                source,
                key: leaf.path.clone(),
                message: format!("{}: the value isn't UTF-8", leaf.path),
            });
            continue;
        }
        settings.push(Setting { path: leaf.path.clone(), value: typed(text, &leaf.default), source });
    }
    settings
}

fn unknown_variable(name: &str) -> String {
    let candidates = Schema::get().leaves().iter().map(|leaf| leaf.variable.as_str()).chain(OTHER_VARIABLES);
    match nearest(name, candidates) {
        Some(nearest) => format!("unknown environment variable; did you mean {nearest}?"),
        None => "unknown environment variable; `aula config print --default` lists the keys".to_owned(),
    }
}

/// A variable's text as the kind of value the default is. What doesn't fit stays text, and is then refused as what it is.
fn typed(text: &str, default: &Value) -> Value {
    match default {
        Value::Number(_) => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
        Value::Bool(_) => text.parse::<bool>().map_or_else(|_| text.into(), Value::from),
        Value::Array(_) => text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect(),
        _ => text.into(),
    }
}

/// The settings of the flags.
pub(super) fn flags(flags: &Overrides, problems: &mut Vec<Problem>) -> Vec<Setting> {
    let Overrides { data_dir, listen, worker_listen, log_format } = flags;
    let mut settings = Vec::new();
    let mut set = |path: &str, flag, value: Option<Value>| {
        if let Some(value) = value {
            settings.push(Setting { path: path.to_owned(), value, source: Source::Flag(flag) });
        }
    };
    if data_dir.as_ref().is_some_and(|path| path.to_str().is_none()) {
        let message = "data_dir: the path isn't UTF-8".to_owned();
        problems.push(Problem { source: Source::Flag("--data-dir"), key: "data_dir".to_owned(), message });
    }
    set("data_dir", "--data-dir", data_dir.as_ref().and_then(|path| path.to_str()).map(Value::from));
    set("server.listen", "--listen", listen.as_deref().map(Value::from));
    set("worker.listen", "--listen", worker_listen.as_deref().map(Value::from));
    set("log.format", "--log-format", log_format.and_then(|format| serde_json::to_value(format).ok()));
    settings
}

/// A value as a message shows it: never longer than a line.
pub(super) fn given(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => quoted(text),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a section".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
