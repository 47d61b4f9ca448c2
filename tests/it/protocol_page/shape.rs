//! Placeholders: `<uuid lunch>`, `<token ada>`, `<time>`, `<int>`, `<text>`.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// What the named placeholders stand for in this run.
#[derive(Clone, Debug, Default)]
pub struct Bindings(HashMap<String, String>);

impl Bindings {
    /// A frame to be sent: names that were not seen yet are made up.
    pub fn fill(&mut self, example: &Value) -> Value {
        match example {
            Value::String(text) => Value::String(self.fill_text(text)),
            Value::Array(items) => Value::Array(items.iter().map(|item| self.fill(item)).collect()),
            Value::Object(fields) => {
                let fill = |(key, value): (&String, &Value)| (self.fill_text(key), self.fill(value));
                Value::Object(fields.iter().map(fill).collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }

    /// Text with placeholders anywhere in it.
    pub fn fill_text(&mut self, text: &str) -> String {
        let Some((before, rest)) = text.split_once('<') else { return text.to_owned() };
        let Some((inside, after)) = rest.split_once('>') else { return text.to_owned() };
        if !is_placeholder(inside) {
            return text.to_owned();
        }
        let value = self.0.get(inside).cloned().unwrap_or_else(|| {
            assert!(inside.starts_with("uuid "), "<{inside}> is used before it was seen");
            let made = uuid::Uuid::now_v7().to_string();
            self.0.insert(inside.to_owned(), made.clone());
            made
        });
        format!("{before}{value}{}", self.fill_text(after))
    }

    /// Whether `actual` has the example's shape: the same keys and types, equal values where there is no
    /// placeholder. Binds the names; `Err` says where they differ.
    pub fn matches(&mut self, example: &Value, actual: &Value) -> Result<(), String> {
        match (example, actual) {
            (Value::String(wanted), actual) => match placeholder(wanted) {
                Some(inside) => self.stands_for(inside, actual),
                None if example == actual => Ok(()),
                None => Err(format!("{actual} instead of {wanted:?}")),
            },
            (Value::Array(wanted), Value::Array(actual)) => {
                if wanted.len() != actual.len() {
                    return Err(format!("{} items instead of {}", actual.len(), wanted.len()));
                }
                wanted.iter().zip(actual).try_for_each(|(wanted, actual)| self.matches(wanted, actual))
            }
            (Value::Object(wanted), Value::Object(actual)) => {
                let mut left: Vec<&String> = actual.keys().collect();
                for (key, value) in wanted {
                    let key = self.fill_text(key);
                    let found = actual.get(&key).ok_or_else(|| format!("{key} is missing"))?;
                    self.matches(value, found).map_err(|why| format!("{key}: {why}"))?;
                    left.retain(|other| **other != key);
                }
                if left.is_empty() { Ok(()) } else { Err(format!("{left:?} is not on the page")) }
            }
            (wanted, actual) if wanted == actual => Ok(()),
            (wanted, actual) => Err(format!("{actual} instead of {wanted}")),
        }
    }

    fn stands_for(&mut self, inside: &str, actual: &Value) -> Result<(), String> {
        let (kind, name) = inside.split_once(' ').unwrap_or((inside, ""));
        let text = actual.as_str();
        let good = match kind {
            "int" => actual.is_u64(),
            "text" => text.is_some(),
            "uuid" => text.is_some_and(|text| text.len() == 36 && uuid::Uuid::parse_str(text).is_ok()),
            "token" => text.is_some_and(|text| text.len() >= 32 && text.is_ascii()),
            "time" => text.is_some_and(is_time),
            _ => false,
        };
        if !good {
            return Err(format!("{actual} instead of <{inside}>"));
        }
        match (name, text) {
            ("", _) | (_, None) => Ok(()),
            (_, Some(text)) => match self.0.get(inside) {
                Some(bound) if bound != text => Err(format!("{text} instead of {bound} (<{inside}>)")),
                Some(_) => Ok(()),
                None => {
                    self.0.insert(inside.to_owned(), text.to_owned());
                    Ok(())
                }
            },
        }
    }
}

fn placeholder(text: &str) -> Option<&str> {
    text.strip_prefix('<')?.strip_suffix('>').filter(|inside| is_placeholder(inside))
}

fn is_placeholder(inside: &str) -> bool {
    let kind = inside.split(' ').next().unwrap_or_default();
    ["uuid", "token", "time", "int", "text"].contains(&kind)
}

/// `2026-11-22T19:45:53.120Z`
fn is_time(text: &str) -> bool {
    let pattern = b"0000-00-00T00:00:00.000Z";
    text.len() == pattern.len()
        && text
            .bytes()
            .zip(pattern)
            .all(|(byte, like)| if *like == b'0' { byte.is_ascii_digit() } else { byte == *like })
}
