use elasticsearch::http::Method;
use serde_json::json;

use super::super::schema::{SchemaError, apply, pending, plan, verify};
use super::super::testing::TestIndex;

#[tokio::test]
async fn it_is_made_once_by_ten_at_once() {
    let test = TestIndex::unmade();
    assert_eq!(
        verify(&test.client, &test.alias).await.unwrap(),
        [format!("there is no index template {}", test.alias), format!("there is no alias {}", test.alias),]
    );
    let applied = futures_util::future::join_all((0..10).map(|_| apply(&test.client, &test.alias))).await;
    for outcome in applied {
        outcome.unwrap();
    }
    assert_eq!(verify(&test.client, &test.alias).await.unwrap(), [""; 0]);
    assert_eq!(pending(&test.client, &test.alias).await.unwrap(), []);
    assert_eq!(apply(&test.client, &test.alias).await.unwrap(), [], "nothing is done twice");
}

#[test]
fn the_plan_is_what_is_sent() {
    let steps = plan("chat");
    let shown: Vec<String> = steps.iter().map(ToString::to_string).collect();
    assert!(shown[0].starts_with("PUT /_index_template/chat\n{"), "{}", shown[0]);
    assert!(shown[0].contains("\"chat-0*\"") && !shown[0].contains("{alias}"));
    assert_eq!(steps[1].path, "/chat-000001");
    assert_eq!(steps[1].body, json!({"aliases": {"chat": {"is_write_index": true}}}));
}

#[tokio::test]
async fn what_differs_is_said() {
    let test = TestIndex::new().await;
    let alias = &test.alias;
    let mut changed = plan(alias)[0].body.clone();
    changed["template"]["mappings"]["properties"]["seq"]["type"] = json!("keyword");
    changed["template"]["settings"]["index"]["number_of_shards"] = json!("3");
    test.call(Method::Put, &format!("/_index_template/{alias}"), Some(changed)).await;
    let slower = json!({"index": {"refresh_interval": "30s"}});
    test.call(Method::Put, &format!("/{alias}-000001/_settings"), Some(slower)).await;
    let more = json!({"properties": {"mood": {"type": "keyword"}}});
    test.call(Method::Put, &format!("/{alias}-000001/_mapping"), Some(more)).await;
    assert_eq!(
        verify(&test.client, alias).await.unwrap(),
        [
            format!("index template {alias}: template.mappings.properties.seq.type is \"keyword\" instead of \"long\""),
            format!("index template {alias}: template.settings.index.number_of_shards is \"3\" instead of \"1\""),
            format!(
                "index {alias}-000001: mappings.properties.mood is {{\"type\":\"keyword\"}}, and unknown to this binary"
            ),
            format!("index {alias}-000001: settings.index.refresh_interval is \"30s\" instead of \"1s\""),
        ]
    );
    assert_eq!(apply(&test.client, alias).await.unwrap(), [], "what was changed by hand is left alone");
}

#[tokio::test]
async fn an_index_without_its_alias_is_left_alone() {
    let test = TestIndex::new().await;
    let alias = &test.alias;
    test.call(Method::Delete, &format!("/{alias}-000001/_alias/{alias}"), None).await;
    assert_eq!(verify(&test.client, alias).await.unwrap(), [format!("there is no alias {alias}")]);
    let outcome = apply(&test.client, alias).await;
    assert!(matches!(outcome, Err(SchemaError::NoAlias { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_second_index_behind_the_alias_is_fine() {
    let test = TestIndex::new().await;
    let alias = &test.alias;
    let next = json!({"aliases": {(alias.as_str()): {"is_write_index": false}}});
    test.call(Method::Put, &format!("/{alias}-000002"), Some(next)).await;
    assert_eq!(verify(&test.client, alias).await.unwrap(), [""; 0]);
    test.call(Method::Delete, &format!("/{alias}-000001"), None).await;
    assert_eq!(apply(&test.client, alias).await.unwrap(), [], "the first index is not made again");
}

#[tokio::test]
async fn the_template_of_a_newer_binary_stays() {
    let test = TestIndex::new().await;
    let alias = &test.alias;
    let mut newer = plan(alias)[0].body.clone();
    newer["version"] = json!(99);
    test.call(Method::Put, &format!("/_index_template/{alias}"), Some(newer)).await;
    let outcome = apply(&test.client, alias).await;
    assert!(matches!(outcome, Err(SchemaError::Newer { found: 99, .. })), "{outcome:?}");
}
