use super::*;

const SMALL: &str =
    "about: two\nclients: 2\nrate: 1\nchannels: [{shape: direct}]\nphases: [{phase: hold, duration: 2s}]\n";

fn error(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn the_built_in_ones_are_right() {
    for (name, text) in BUILT_IN {
        let scenario = read(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!scenario.about.is_empty() && scenario.duration() > Duration::ZERO, "{name}");
    }
}

#[test]
fn a_misspelt_key_is_named_with_the_nearest() {
    assert_eq!(error(&SMALL.replace("rate:", "rates:")), "line 3: unknown key rates; did you mean rate?");
    let shape = error(&SMALL.replace("direct", "directs"));
    assert!(shape.starts_with("line 4: directs is none of direct, group, room, zipf"), "{shape}");
    assert!(error(&SMALL.replace("duration: 2s", "duration: 2")).contains("with its unit"));
    assert!(error(&SMALL.replace("clients: 2\n", "")).ends_with(": the key clients is missing"));
}

#[test]
fn values_out_of_bounds_are_refused() {
    let wrong = [
        ("clients: 2", "clients: 0", "clients: a number"),
        ("rate: 1", "rate: -1", "rate: messages a second"),
        ("rate: 1", "rate: .nan", "rate: messages a second"),
        ("shape: direct", "shape: group", "channels[0].members: a group needs"),
        ("shape: direct", "shape: zipf", "channels[0].count: a zipf mix needs"),
        ("phase: hold", "phase: ramp", "phases: at least one phase besides"),
        ("duration: 2s", "duration: 2s, share: 0.5", "phases[0].share: only a reconnect_storm"),
        ("duration: 2s", "duration: 0s", "phases[0].duration: a time"),
        ("rate: 1", "rate: 1\nmsgpack: 2", "msgpack: a share"),
        ("rate: 1", "rate: 1\nper_message: {typing: 1.5}", "per_message.typing: a share"),
        ("rate: 1", "rate: 1\nthink: {min: 1s, max: 800h}", "think: no more than 30 days"),
        ("shape: direct", "shape: direct, weight: 0", "channels: a weight above 0"),
        ("duration: 2s", "duration: 800h", "phases[0].duration: no more than 30 days"),
        ("duration: 2s}", "duration: 400h}, {phase: hold, duration: 400h}", "phases: no more than 30 days"),
        ("rate: 1", "rate: 1\nbody: {min: 5, max: 5}", "body: "),
    ];
    for (right, replaced, message) in wrong {
        let error = error(&SMALL.replacen(right, replaced, 1));
        assert!(error.starts_with(message), "{replaced}: {error}");
    }
}

#[test]
fn a_duration_stretches_what_is_sent_in_and_not_the_ramp() {
    let mut scenario = Scenario::built_in("reconnect-storm").unwrap().unwrap();
    let ramp = scenario.ramp();
    scenario.set_duration(Duration::from_secs(6));
    assert_eq!(scenario.ramp(), ramp);
    assert!((scenario.duration().as_secs_f64() - 6.0).abs() < 1e-6);
}

#[test]
fn what_is_written_down_reads_the_same() {
    for (name, text) in BUILT_IN {
        let scenario = read(text).unwrap();
        let json = serde_json::to_string(&scenario).unwrap();
        let again: Scenario = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), json, "{name}");
    }
}
