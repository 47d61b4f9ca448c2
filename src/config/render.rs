//! The configuration in force, as text.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::error::Source;
use super::load::Loaded;
use super::schema::Schema;
use super::tree;

impl Loaded {
    /// YAML that [`super::Config::load`] reads back to the same configuration, but for passwords, which are hidden; with a comment at each value that isn't the default
    /// saying where it was set.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let values = self.values();
        let mut text = String::new();
        let mut open = "";
        for leaf in Schema::get().leaves() {
            let (section, name) = leaf.path.rsplit_once('.').unwrap_or(("", &leaf.path));
            if section != open {
                // Writing to a String doesn't fail.
                let _ = writeln!(text, "{section}:");
                open = section;
            }
            let indent = if section.is_empty() { "" } else { "  " };
            let value = values.pointer(&format!("/{}", leaf.path.replace('.', "/"))).unwrap_or(&Value::Null);
            let _ = write!(text, "{indent}{name}: {}", yaml(value));
            match self.sources.of(&leaf.path) {
                Source::Default => {}
                // A path may hold a line break; a comment may not.
                source => drop(write!(text, "  # {}", source.to_string().escape_debug())),
            }
            text.push('\n');
        }
        text
    }

    /// `{"config": {…}, "sources": {"server.listen": "AULA_SERVER_LISTEN", …}}`; values at their default have no source.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let sources: serde_json::Map<_, _> =
            self.sources.iter().map(|(key, source)| (key.to_owned(), source.to_string().into())).collect();
        json!({ "config": self.values(), "sources": sources })
    }

    fn values(&self) -> Value {
        // Fails only for a data_dir that isn't UTF-8, which no layer lets in.
        let mut values = serde_json::to_value(&self.config).unwrap_or_default();
        for (pointer, hide) in SECRETS {
            if let Some(Value::String(text)) = values.pointer_mut(pointer) {
                *text = hide(text);
            }
        }
        values
    }
}

/// What is printed must be fit to be shown to others.
const HIDDEN: &str = "********";
/// Of a value, without what must not be seen.
type Hide = fn(&str) -> String;
const SECRETS: [(&str, Hide); 4] = [
    ("/cassandra/password", hide),
    ("/elasticsearch/password", hide),
    ("/rabbitmq/url", hide_password),
    ("/rabbitmq/management_url", hide_password),
];

fn hide(secret: &str) -> String {
    if secret.is_empty() { String::new() } else { HIDDEN.to_owned() }
}

/// Of a URL; that of the broker's built-in user, who can come from its own host alone, is no secret.
fn hide_password(url: &str) -> String {
    let parts = url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)));
    match parts {
        Some((scheme, (user, host))) if user != "guest:guest" => {
            let name = user.split_once(':').map_or(user, |(name, _)| name);
            format!("{scheme}://{name}:{HIDDEN}@{host}")
        }
        _ => url.to_owned(),
    }
}

/// A value on one line. What YAML would read differently without quotes gets JSON's, which YAML has too.
fn yaml(value: &Value) -> String {
    let plain = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./:-".contains(&byte))
            && !text.ends_with(':')
            && tree::scalar(text).as_ref() == Some(value)
    };
    match value {
        Value::String(text) if plain(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Overrides};
    use super::*;

    fn load(env: &[(&str, &str)], flags: &Overrides) -> Loaded {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Loaded::load_or(None, Path::new("/nonexistent/aula.yaml"), env, flags).unwrap()
    }

    #[test]
    fn sources_are_comments() {
        let flags = Overrides { listen: Some("[::1]:9000".to_owned()), ..Overrides::default() };
        let text =
            load(&[("AULA_SESSION_IDLE_TIMEOUT", "90s"), ("AULA_SERVER_ALLOWED_ORIGINS", "https://a.example")], &flags)
                .to_yaml();
        assert!(text.starts_with("data_dir: aula-data\nlog:\n  format: text\n"), "{text}");
        assert!(text.contains("\n  idle_timeout: 90s  # AULA_SESSION_IDLE_TIMEOUT\n"), "{text}");
        assert!(text.contains("\n  listen: \"[::1]:9000\"  # --listen\n"), "{text}");
        assert!(
            text.contains("\n  allowed_origins: [\"https://a.example\"]  # AULA_SERVER_ALLOWED_ORIGINS\n"),
            "{text}"
        );
        assert_eq!(text.matches('#').count(), 3, "{text}");
    }

    #[test]
    fn yaml_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("printed.yaml");
        for data_dir in [
            "aula-data",
            "/var/lib/aula",
            "a b",
            "true",
            "12",
            "1e3",
            "null",
            "~",
            "x: y",
            "#x",
            "a\"b",
            "ä\n",
            "- a",
            "*",
            "010",
            "'",
        ] {
            let loaded =
                load(&[("AULA_DATA_DIR", data_dir), ("AULA_SERVER_ALLOWED_ORIGINS", "*")], &Overrides::default());
            std::fs::write(&path, loaded.to_yaml()).unwrap();
            let again = Config::load(Some(&path), std::iter::empty(), &Overrides::default()).unwrap();
            assert_eq!(again, loaded.config, "{}", loaded.to_yaml());
        }
    }

    #[test]
    fn json_has_values_and_sources() {
        let json = load(&[("AULA_QUEUE_SHARDS", "4")], &Overrides::default()).to_json();
        assert_eq!(json["config"]["queue"]["shards"], 4);
        assert_eq!(json["config"]["session"]["outbox_bytes"], "1MiB");
        assert_eq!(json["sources"], serde_json::json!({"queue.shards": "AULA_QUEUE_SHARDS"}));
    }

    #[test]
    fn passwords_are_hidden() {
        assert_eq!(hide_password("amqps://chat:pa:ss@host:5671/v"), "amqps://chat:********@host:5671/v");
        assert_eq!(hide_password("amqp://guest:guest@127.0.0.1:5672/%2f"), "amqp://guest:guest@127.0.0.1:5672/%2f");
        assert_eq!(hide_password("http://host:15672"), "http://host:15672");
        assert_eq!((hide("").as_str(), hide("x").as_str()), ("", HIDDEN));
    }
}
