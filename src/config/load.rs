//! The layers on top of each other.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::Value;

use super::error::{ConfigError, Problem, Sources};
use super::layers::{self, Overrides, Setting, given};
use super::schema::{Schema, nearest};
use super::types::Config;
use super::{FILE_NAME, FILE_VARIABLE, MAX_FILE_BYTES, limits, tree, validate};

/// A configuration and where its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub sources: Sources,
}

impl Config {
    /// The configuration in force: the defaults, below `file`, below the environment, below the flags.
    ///
    /// Without `file`, the one `AULA_CONFIG` names in `env` is read, else `./aula.yaml` if it exists. Of `env` only names that
    /// start with `AULA_` count; see [`super::environment`].
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every unknown key, bad value and broken rule of all the layers; the other kinds if the file
    /// can't be read as YAML at all.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        flags: &Overrides,
    ) -> Result<Self, ConfigError> {
        Loaded::load(file, env, flags).map(|loaded| loaded.config)
    }
}

impl Loaded {
    /// As [`Config::load`], and keeps where each value came from.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        flags: &Overrides,
    ) -> Result<Self, ConfigError> {
        Self::load_or(file, Path::new(FILE_NAME), env, flags)
    }

    /// `usual` is the file that is read if none is named and it exists.
    pub(super) fn load_or(
        file: Option<&Path>,
        usual: &Path,
        env: impl Iterator<Item = (String, String)>,
        flags: &Overrides,
    ) -> Result<Self, ConfigError> {
        let env: Vec<_> = env.collect();
        let variable = env.iter().find(|(name, value)| name == FILE_VARIABLE && !value.is_empty());
        let named = file.map(Path::to_owned).or_else(|| variable.map(|(_, value)| PathBuf::from(value)));
        let (path, must_exist) = named.map_or_else(|| (usual.to_owned(), false), |path| (path, true));

        let mut problems = Vec::new();
        let mut settings = Vec::new();
        if let Some(text) = read(&path, must_exist)? {
            let tree = tree::parse(&text).map_err(|error| ConfigError::Syntax {
                path: path.clone(),
                line: error.line,
                message: error.message,
            })?;
            settings.extend(layers::file(&path, tree, &mut problems));
        }
        settings.extend(layers::variables(&env, &mut problems));
        settings.extend(layers::flags(flags, &mut problems));
        merge(settings, problems)
    }
}

/// The text of `path`; `None` if it doesn't exist and needn't.
fn read(path: &Path, must_exist: bool) -> Result<Option<String>, ConfigError> {
    let failed = |error| ConfigError::Read { path: path.to_owned(), error };
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && !must_exist => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    // The limit holds for what is read, not for what the file system says: a pipe or a device has no size.
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count() as u64;
        ConfigError::Syntax { path: path.to_owned(), line, message: "the file isn't UTF-8".to_owned() }
    })
}

/// The defaults with `settings` on top, weakest first. `problems` are those already known.
fn merge(settings: Vec<Setting>, mut problems: Vec<Problem>) -> Result<Loaded, ConfigError> {
    let mut document = Schema::get().defaults().clone();
    let mut sources = Sources::default();
    let mut rejected: BTreeSet<String> = problems.iter().flat_map(|problem| meant(&problem.key)).collect();
    for Setting { path, value, source } in settings {
        if let Some(error) = refusal(&path, value.clone()) {
            rejected.insert(path.clone());
            problems.push(Problem { source, message: bad_value(&path, &value, &error), key: path });
        } else {
            set(&mut document, &path, value);
            sources.0.insert(path, source);
        }
    }
    let config = match Config::deserialize(&document) {
        Ok(config) => config,
        // Values that are right one by one are right together: each belongs to one field.
        Err(error) => {
            let message = error.to_string();
            problems.push(Problem { source: super::Source::Default, key: String::new(), message });
            return Err(ConfigError::Invalid(problems));
        }
    };
    problems.extend(validate::problems(&config, &sources, &rejected));
    problems.sort_by(|a, b| a.source.cmp(&b.source));
    if problems.is_empty() { Ok(Loaded { config, sources }) } else { Err(ConfigError::Invalid(problems)) }
}

/// The key a problem is about, and the one that was probably meant if there is no such key.
fn meant(key: &str) -> impl Iterator<Item = String> {
    let leaves = Schema::get().leaves();
    let variable = nearest(key, leaves.iter().map(|leaf| leaf.variable.as_str()));
    let of_variable = leaves.iter().find(|leaf| Some(leaf.variable.as_str()) == variable).map(|leaf| leaf.path.clone());
    let nearest = Schema::get().nearest(key).map(str::to_owned);
    [Some(key.to_owned()), nearest, of_variable].into_iter().flatten()
}

/// What serde says against `value` for the key `path`. It is tried alone on the defaults, so that one bad value doesn't hide the
/// next.
fn refusal(path: &str, value: Value) -> Option<String> {
    let mut alone = Schema::get().defaults().clone();
    set(&mut alone, path, value);
    Config::deserialize(&alone).err().map(|error| error.to_string())
}

fn set(document: &mut Value, path: &str, value: Value) {
    if let Some(place) = document.pointer_mut(&format!("/{}", path.replace('.', "/"))) {
        *place = value;
    }
}

/// `session.idle_timeout: got "soon", expected a duration …`, from what serde says about the value.
fn bad_value(path: &str, value: &Value, error: &str) -> String {
    let got = given(value);
    // serde's own words: "invalid type: …, expected …" and "unknown variant …, expected one of `a`, `b`".
    let Some((_, expected)) = error.rsplit_once(", expected ") else {
        return format!("{path}: got {got}: {error}");
    };
    // An enum is asked about a name it doesn't have, which it answers with those it has.
    let names_of_enum =
        if matches!(expected, "string or map" | "map with a single key") { refusal(path, "?".into()) } else { None };
    let expected = names_of_enum
        .as_deref()
        .and_then(|error| error.rsplit_once(", expected "))
        .map_or(expected, |(_, names)| names);
    let names: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
    if names.is_empty() {
        return format!("{path}: got {got}, expected {}", expectation(path, expected));
    }
    let list = names.join(", ");
    match value.as_str() {
        Some(_) if path.ends_with(".backend") => format!("{path}: {got} is not in this build, which has {list}"),
        Some(text) => match nearest(&text.to_lowercase(), names.iter().copied()) {
            Some(nearest) => format!("{path}: got {got}, expected one of {list}; did you mean {nearest}?"),
            None => format!("{path}: got {got}, expected one of {list}"),
        },
        None => format!("{path}: got {got}, expected one of {list}"),
    }
}

/// serde's name of a type in the words of the default file.
fn expectation(path: &str, expected: &str) -> String {
    match expected {
        "u16" | "u32" | "u64" | "usize" => limits::of(&Config::default())
            .iter()
            .find(|limit| limit.key == path)
            .map_or_else(|| "a whole number".to_owned(), |limit| format!("a whole number, {}", limit.range())),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list, such as [a, b]".to_owned(),
        "path string" => "a path".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
