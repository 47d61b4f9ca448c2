//! The index template and the first index: what `aula migrate` does on Elasticsearch.
//!
//! Everything is written and searched through one alias. Behind it stands `<alias>-000001`; a later index with another
//! mapping is made beside it, filled, and takes the alias over. Nothing here changes or removes an index.

use std::fmt;

use elasticsearch::Elasticsearch;
use elasticsearch::http::Method;
use elasticsearch::http::headers::HeaderMap;
use elasticsearch::http::response::Response;
use serde_json::{Value, json};

use super::client;
use crate::server::migrate::ELASTICSEARCH;

/// The newest file, with `{alias}` in the place of the alias.
const TEMPLATE: &str = ELASTICSEARCH[ELASTICSEARCH.len() - 1].text;

#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("Elasticsearch can't be asked: {0}")]
    Unavailable(String),
    #[error("{step} was refused: {why}")]
    Refused { step: String, why: String },
    /// Nothing was changed.
    #[error("the index template {name} is of version {found}, and this binary knows version {known}: use a newer aula")]
    Newer { name: String, found: i64, known: i64 },
    /// Nothing was changed.
    #[error(
        "there is an index {index}, but no alias {alias}: give it back (POST /_aliases) if that index is the one in \
         use, or name another elasticsearch.alias"
    )]
    NoAlias { index: String, alias: String },
}

/// A request, as it is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Each is a PUT.
    pub path: String,
    pub body: Value,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PUT {}\n{:#}", self.path, self.body)
    }
}

/// All that an empty server is asked, in order: the template, then the first index with the alias.
pub fn plan(alias: &str) -> Vec<Step> {
    let index = json!({"aliases": {alias: {"is_write_index": true}}});
    vec![
        Step { path: template_path(alias), body: template(alias) },
        Step { path: format!("/{}", first_index(alias)), body: index },
    ]
}

/// Those steps of the plan that are still to be taken.
pub async fn pending(elasticsearch: &Elasticsearch, alias: &str) -> Result<Vec<Step>, SchemaError> {
    let known = version(&template(alias));
    let found = read_template(elasticsearch, alias).await?.map(|found| version(&found));
    if let Some(found) = found.filter(|found| *found > known) {
        return Err(SchemaError::Newer { name: alias.to_owned(), found, known });
    }
    let has_alias = get(elasticsearch, &format!("/_alias/{alias}")).await?.is_some();
    let is_needed = [found != Some(known), !has_alias];
    Ok(plan(alias).into_iter().zip(is_needed).filter(|(_, is_needed)| *is_needed).map(|(step, _)| step).collect())
}

/// Takes the steps that are pending, and returns them. May run in many processes at once: each step is one change of
/// the cluster's state, and who comes second finds it done.
pub async fn apply(elasticsearch: &Elasticsearch, alias: &str) -> Result<Vec<Step>, SchemaError> {
    let steps = pending(elasticsearch, alias).await?;
    for step in &steps {
        let response = send(elasticsearch, Method::Put, &step.path, Some(step.body.to_string())).await?;
        if response.status_code().is_success() {
            continue;
        }
        let why = client::refusal(response).await;
        if !why.contains("resource_already_exists_exception") {
            return Err(SchemaError::Refused { step: format!("PUT {}", step.path), why });
        }
        // Made by another process a moment ago, with the alias; or long ago, and the alias was taken off it.
        if get(elasticsearch, &format!("/_alias/{alias}")).await?.is_none() {
            return Err(SchemaError::NoAlias { index: first_index(alias), alias: alias.to_owned() });
        }
    }
    Ok(steps)
}

/// What is not as this binary needs it, a sentence each; empty if all is.
pub async fn verify(elasticsearch: &Elasticsearch, alias: &str) -> Result<Vec<String>, SchemaError> {
    let wanted = template(alias);
    let mut different = Vec::new();
    match read_template(elasticsearch, alias).await? {
        None => different.push(format!("there is no index template {alias}")),
        Some(found) => {
            for key in ["version", "index_patterns", "template"] {
                compare(&format!("index template {alias}: {key}"), &wanted[key], &found[key], &mut different);
            }
        }
    }
    let Some(aliased) = get(elasticsearch, &format!("/_alias/{alias}")).await? else {
        different.push(format!("there is no alias {alias}"));
        return Ok(different);
    };
    let indices: Vec<&String> = aliased.as_object().into_iter().flat_map(|indices| indices.keys()).collect();
    let is_written = |index: &&&String| aliased[index.as_str()]["aliases"][alias]["is_write_index"] == true;
    if indices.len() > 1 && indices.iter().filter(is_written).count() != 1 {
        different.push(format!("alias {alias}: not one of its {} indices is the one to write to", indices.len()));
    }
    let details = get(elasticsearch, &format!("/{alias}")).await?.unwrap_or_default();
    for index in indices {
        let found = &details[index.as_str()];
        let part = format!("index {index}: mappings");
        compare(&part, &wanted["template"]["mappings"], &found["mappings"], &mut different);
        // The number of shards is the operator's to choose for a new index, in the template.
        for key in ["refresh_interval", "max_terms_count"] {
            let part = format!("index {index}: settings.index.{key}");
            let wanted = &wanted["template"]["settings"]["index"][key];
            compare(&part, wanted, &found["settings"]["index"][key], &mut different);
        }
    }
    Ok(different)
}

/// Goes down to where they differ.
fn compare(part: &str, wanted: &Value, found: &Value, different: &mut Vec<String>) {
    if wanted == found {
        return;
    }
    let (Value::Object(wanted), Value::Object(found)) = (wanted, found) else {
        different.push(match (wanted, found) {
            (wanted, Value::Null) => format!("{part} is not set, instead of {wanted}"),
            (Value::Null, found) => format!("{part} is {found}, and unknown to this binary"),
            (wanted, found) => format!("{part} is {found} instead of {wanted}"),
        });
        return;
    };
    let keys: std::collections::BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    for key in keys {
        let of = |object: &serde_json::Map<String, Value>| object.get(key).cloned().unwrap_or_default();
        compare(&format!("{part}.{key}"), &of(wanted), &of(found), different);
    }
}

fn template(alias: &str) -> Value {
    let text = TEMPLATE.replace("{alias}", alias);
    // The embedded file is JSON (there is a test), and an alias has nothing in it that has to be escaped.
    serde_json::from_str(&text).unwrap_or_default()
}

/// Those of an index in use.
pub(super) fn settings(alias: &str) -> Value {
    template(alias)["template"]["settings"].take()
}

fn version(template: &Value) -> i64 {
    template["version"].as_i64().unwrap_or_default()
}

fn template_path(alias: &str) -> String {
    format!("/_index_template/{alias}")
}

fn first_index(alias: &str) -> String {
    format!("{alias}-000001")
}

async fn read_template(elasticsearch: &Elasticsearch, alias: &str) -> Result<Option<Value>, SchemaError> {
    let found = get(elasticsearch, &template_path(alias)).await?;
    Ok(found.map(|mut found| found["index_templates"][0]["index_template"].take()))
}

/// `None` if there is nothing of this name.
pub(super) async fn get(elasticsearch: &Elasticsearch, path: &str) -> Result<Option<Value>, SchemaError> {
    let response = send(elasticsearch, Method::Get, path, None).await?;
    match response.status_code().as_u16() {
        404 => Ok(None),
        200..300 => response.json().await.map(Some).map_err(unavailable),
        _ => Err(SchemaError::Refused { step: format!("GET {path}"), why: client::refusal(response).await }),
    }
}

pub(super) async fn send(
    elasticsearch: &Elasticsearch,
    method: Method,
    path: &str,
    body: Option<String>,
) -> Result<Response, SchemaError> {
    elasticsearch.send(method, path, HeaderMap::new(), None::<&()>, body, None).await.map_err(unavailable)
}

fn unavailable(error: elasticsearch::Error) -> SchemaError {
    SchemaError::Unavailable(client::failure(&error))
}
