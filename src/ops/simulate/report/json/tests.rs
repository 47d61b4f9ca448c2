use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use uuid::Uuid;

use super::super::super::measured::{Latencies, Offered, Own, Second, Server, Stage, Usage, Verdict, Violation};
use super::super::fake;
use super::*;
use crate::message::ChannelId;
use crate::oracle::{Counts, MessageIds, Unjudged};

fn written(run: &Measured) -> String {
    write(&Report::of(run, &[], None)).unwrap()
}

fn assert_same(a: &Measured, b: &Measured) {
    assert_eq!((&a.scenario, &a.settings, a.began_at, a.lasted), (&b.scenario, &b.settings, b.began_at, b.lasted));
    assert_eq!((a.was_interrupted, a.clients), (b.was_interrupted, b.clients));
    assert_eq!((a.watched, a.whole), (b.watched, b.whole));
    assert_eq!((a.received, a.expected, &a.server, a.own), (b.received, b.expected, &b.server, b.own));
    assert_eq!((&a.seconds, &a.verdict, a.offered), (&b.seconds, &b.verdict, b.offered));
    assert_eq!(a.stages.keys().collect::<Vec<_>>(), b.stages.keys().collect::<Vec<_>>());
    for (stage, latencies) in &a.stages {
        assert_eq!(latencies.micros, b.stages[stage].micros, "{}", stage.name());
        assert_eq!(latencies.errors, b.stages[stage].errors, "{}", stage.name());
    }
}

fn error(text: &str) -> String {
    read(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_report_has_its_figures_by_name() {
    let run = fake::measured();
    let document: serde_json::Value = serde_json::from_str(&written(&run)).unwrap();
    assert_eq!(document["report"], "aula simulate-clients");
    assert_eq!(document["version"], 1);
    assert_eq!(document["began_at"], "2026-11-22T20:00:00.120Z");
    assert_eq!(document["reach"], 0.9999);
    assert_eq!(document["verdict"]["unjudged"], serde_json::json!({"stream_ends": 0, "statuses": 0}));
    assert_eq!(document["server_cpu_per_delivery_us"], 492_000.0 / 119_988.0);
    assert_eq!(document["server_share_of_core"], 0.492 / 41.0);
    assert_eq!(document["own_cpu_per_received_us"], 318_000.0 / 119_988.0);
    assert_eq!(document["own_bytes_per_client"], 2_097.152);
    let accepted = &document["stages"]["accepted"];
    assert_eq!(accepted["count"], run.stages[&Stage::Accepted].micros.len());
    assert_eq!(accepted["errors"], serde_json::json!({"rate_limited": 2, "timeout": 1}));
    let percentiles = accepted["percentiles"].as_array().unwrap();
    assert_eq!(percentiles.last().unwrap(), &serde_json::json!([1.0, accepted["max_us"]]));
    // V2 encodings begin with the same cookie.
    assert!(accepted["histogram"].as_str().unwrap().starts_with("HISTEw"), "{}", accepted["histogram"]);
    // The stages stand in the order in which they are met.
    let text = written(&run);
    assert!(text.find("\"connect\": {") < text.find("\"accepted\": {"));
}

#[test]
fn a_violation_has_what_names_its_messages() {
    let mut run = fake::measured();
    let id = Uuid::from_u128(7);
    let messages = vec![MessageIds { channel: ChannelId(id), seq: Some(41), id: None, client_id: Some(id) }];
    let violation = Violation { promise: "P1".to_owned(), seen: "it is lost".to_owned(), messages };
    run.verdict.as_mut().unwrap().violations.push(violation);
    let document: serde_json::Value = serde_json::from_str(&written(&run)).unwrap();
    let id = id.to_string();
    let ids = serde_json::json!([{"channel": id, "seq": 41, "id": null, "client_id": id}]);
    assert_eq!(document["verdict"]["violations"][0]["messages"], ids);
}

#[test]
fn a_report_of_before_has_one_time_for_all() {
    let mut document: serde_json::Value = serde_json::from_str(&written(&fake::measured())).unwrap();
    for key in ["watched_us", "whole_us", "offered"] {
        document.as_object_mut().unwrap().remove(key).unwrap();
    }
    for key in ["resident_at_rest_bytes", "resident_connected_bytes"] {
        document["own"].as_object_mut().unwrap().remove(key).unwrap();
    }
    let run = read(document.to_string().as_bytes()).unwrap();
    assert_eq!((run.watched, run.whole), (run.lasted, run.lasted));
    assert_eq!(run.own_bytes_per_client(), None);
    assert_eq!(run.offered, Offered::default());
}

#[test]
fn histograms_of_two_reports_can_be_added() {
    let run = read(written(&fake::measured()).as_bytes()).unwrap();
    let mut sum = run.stages[&Stage::Accepted].micros.clone();
    sum.add(&fake::measured().stages[&Stage::Accepted].micros).unwrap();
    assert_eq!(sum.len(), 2 * run.stages[&Stage::Accepted].micros.len());
}

#[test]
fn what_is_no_report_is_refused_with_a_reason() {
    assert!(
        error("not json").contains("is not a report of `aula simulate-clients`: expected"),
        "{}",
        error("not json")
    );
    assert!(error("{}").contains("it has no `\"report\": "), "{}", error("{}"));
    assert!(error(r#"{"report": "aula simulate-clients"}"#).contains("it has no version"));
    let later = written(&fake::measured()).replace("\"version\": 1", "\"version\": 2");
    assert!(error(&later).contains("of version 2, and this aula reads version 1"), "{}", error(&later));
}

#[test]
fn damage_is_named_by_its_place() {
    let text = written(&fake::measured());
    let without = text.replace("\"lasted_us\"", "\"lasted\"");
    assert!(error(&without).contains("missing field `lasted_us`"), "{}", error(&without));
    let broken = text.replace("HISTEw", "AISTEw");
    assert!(error(&broken).contains("not a histogram"), "{}", error(&broken));
    let cut = &text[..text.len() / 2];
    assert!(error(cut).contains("EOF"), "{}", error(cut));
}

prop_compose! {
    fn latencies()(
        samples in vec((1_u64..2_000_000_000, 1_u64..1000), 0..20),
        errors in btree_map("[a-z]{1,9}", any::<u64>(), 0..3),
    ) -> Latencies {
        let mut latencies = Latencies::new().unwrap();
        for (value, count) in samples {
            latencies.micros.saturating_record_n(value, count);
        }
        latencies.errors = errors;
        latencies
    }
}

prop_compose! {
    fn usage()(cpu in 0_u64..1 << 50, resident: u64) -> Usage {
        Usage { cpu: Duration::from_micros(cpu), resident }
    }
}

fn stage() -> impl Strategy<Value = Stage> {
    proptest::sample::select(Stage::ALL.to_vec())
}

prop_compose! {
    fn second()(
        (at, connected, sent, received, errors) in any::<(u64, u64, u64, u64, u64)>(),
        stages in btree_map(stage(), any::<(u64, u64, u64)>(), 0..4),
        server in proptest::option::of(usage()),
    ) -> Second {
        Second { at, connected, sent, received, errors, stages, server }
    }
}

prop_compose! {
    fn violation()(
        promise in ".{0,5}",
        seen in ".{0,20}",
        messages in vec(any::<(u128, Option<u64>, Option<u128>, Option<u128>)>(), 0..3),
    ) -> Violation {
        let ids = |(channel, seq, id, client_id): (u128, Option<u64>, Option<u128>, Option<u128>)| MessageIds {
            channel: ChannelId(Uuid::from_u128(channel)),
            seq,
            id: id.map(Uuid::from_u128),
            client_id: client_id.map(Uuid::from_u128),
        };
        Violation { promise, seen, messages: messages.into_iter().map(ids).collect() }
    }
}

prop_compose! {
    fn verdict()(
        (attempts, acknowledged, ok, lost, duplicated, unexpected, recovered, retold)
            in any::<(u64, u64, u64, u64, u64, u64, u64, u64)>(),
        (stream_ends, statuses) in any::<(u64, u64)>(),
        violations in vec(violation(), 0..3),
    ) -> Verdict {
        let counts = Counts { attempts, acknowledged, ok, lost, duplicated, unexpected, recovered, retold };
        let unjudged = Unjudged { stream_ends, statuses };
        Verdict { counts, broken: violations.len() as u64, violations, unjudged }
    }
}

prop_compose! {
    fn measured()(
        scenario in ".{0,20}",
        settings in btree_map(".{0,8}", ".{0,8}", 0..4),
        began_at in 0_i64..4_000_000_000_000,
        (lasted, watched, whole) in (0_u64..1 << 50, 0_u64..1 << 50, 0_u64..1 << 50),
        (was_interrupted, clients, received, expected) in any::<(bool, u64, u64, u64)>(),
        stages in btree_map(stage(), latencies(), 0..4),
        seconds in vec(second(), 0..5),
        server in proptest::option::of((usage(), any::<u64>(), any::<u64>())),
        own in (usage(), any::<u64>(), any::<u64>()),
        verdict in proptest::option::of(verdict()),
        (planned, attempted, unwritten, late_us) in any::<(u64, u64, u64, u64)>(),
    ) -> Measured {
        let (lasted, watched) = (Duration::from_micros(lasted), Duration::from_micros(watched));
        let whole = Duration::from_micros(whole);
        let own = Own { used: own.0, at_rest: own.1, connected: own.2 };
        let server = server.map(|(used, at_rest, connected)| Server { used, at_rest, connected });
        Measured {
            scenario, settings, began_at, lasted, watched, whole, was_interrupted, clients, stages, received, expected,
            offered: Offered { planned, attempted, unwritten, late_us }, seconds, server, own, verdict,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_run_survives(run in measured()) {
        assert_same(&read(written(&run).as_bytes()).unwrap(), &run);
    }

    #[test]
    fn any_text_is_judged(text in ".{0,60}") {
        prop_assert!(read(text.as_bytes()).is_err());
    }
}
