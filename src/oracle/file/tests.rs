use proptest::prelude::*;

use crate::oracle::record::{ChannelNo, Event, Malformed, NO_REFERENCE, Record, Seen};
use crate::oracle::{check, synth};
use crate::wire::ErrorCode;

fn written(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.write(&mut bytes).unwrap();
    bytes
}

fn purged(seq: u64) -> Seen {
    Seen::Purged { channel: ChannelNo(0), seq }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_is_written_is_read(seed: u64, name: String, problem: String, at: u64, code in 0..ErrorCode::ALL.len()) {
        let (mut record, _) = synth::long_record(seed, 150);
        record.users.push(format!("{name} ")); // No other one.
        record.connections[0].closed_at = u64::MAX;
        let refused = Seen::Refused { reference: NO_REFERENCE, code: ErrorCode::ALL[code], retry: at % 2 == 0 };
        let malformed = Seen::Malformed(Box::new(Malformed { problem }));
        record.connections[0].events.extend([refused, malformed, purged(at)].map(|seen| Event { at, seen }));
        prop_assert_eq!(Record::read(written(&record).as_slice()).unwrap(), record);
    }

    /// Whatever a file holds, it is refused or judged.
    #[test]
    fn nothing_that_can_be_read_is_too_much(seed in 0..20u64, changes in prop::collection::vec((any::<usize>(), 0..10u8), 1..5)) {
        let (mut record, _) = synth::long_record(seed, 60);
        record.connections[0].events.push(Event { at: seed, seen: purged(seed) });
        let mut bytes = written(&record);
        let digits: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
        for (at, digit) in changes {
            bytes[digits[at % digits.len()]] = b'0' + digit;
        }
        if let Ok(record) = Record::read(bytes.as_slice()) {
            check(&record);
        }
    }
}

/// The numbers themselves may be as large as they can be.
#[test]
fn extreme_numbers_are_judged() {
    let (mut record, _) = synth::long_record(3, 200);
    record.connections[0].events.push(Event { at: 3, seen: purged(3) });
    let text = String::from_utf8(written(&record)).unwrap();
    for kind in
        ["entry", "m", "persisted", "read", "welcome", "gap", "purged", "resume", "resumed", "history", "hit", "search"]
    {
        let lines = text.lines().map(|line| {
            if !line.starts_with(&format!("{{\"{kind}\":")) {
                return line.to_owned();
            }
            // The last number that is no place: a seq or a time.
            let largest = line.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u64>().ok());
            largest.max().map_or_else(
                || line.to_owned(),
                |largest| line.replacen(&largest.to_string(), &u64::MAX.to_string(), 1),
            )
        });
        let changed = lines.map(|line| line + "\n").collect::<String>();
        if let Ok(record) = Record::read(changed.as_bytes()) {
            check(&record);
        }
    }
}

#[test]
fn a_record_of_the_first_version_is_read() {
    let (mut record, _) = synth::long_record(1, 50);
    record.searches.clear();
    let text = String::from_utf8(written(&record)).unwrap();
    let first = text.replacen("history\",3", "history\",1", 1);
    assert_ne!(first, text);
    assert_eq!(Record::read(first.as_bytes()).unwrap(), record);
}

#[test]
fn a_bad_line_is_named() {
    let (record, _) = synth::long_record(1, 50);
    let text = String::from_utf8(written(&record)).unwrap();
    let problem = |text: &str| Record::read(text.as_bytes()).unwrap_err().to_string();
    let with = |old: &str, new: &str| {
        assert!(text.contains(old), "{old}");
        problem(&text.replacen(old, new, 1))
    };
    let second = format!("{{\"user\":\"{}\"}}", record.users[1]);
    let second = |new: &str| with(&second, new);
    let first = format!("{{\"user\":\"{}\"}}", record.users[0]);
    let cases = [
        (problem(""), "line 1: the file ends without the line `end`"),
        (problem("{\"user\":\"ada\"}\n"), "line 1: no recorded history"),
        (with("history\",3", "history\",4"), "line 1: format version 4; this program reads versions 1 to 3"),
        (second("{\"usr\":\"bob\"}"), "line 3: column 6: unknown variant `usr`, expected one of"),
        (second(&first), "line 3: this user came before, as number 0"),
        (second("bob"), "line 3: column 1: expected value"),
        (second("{\"m\":[1,99999]}"), "line 3: entry 99999 is used, but only 0 came before"),
        (second("{\"accepted\":[1,9]}"), "line 3: an event before the first `connection`"),
        (second("{\"end\":9}"), "line 3: `end` counts 9 lines before it, there are 2"),
        (problem(&text[..text.len() - 5]), "it breaks off"),
        (problem(&(text.clone() + "{\"end\":1}\n")), "nothing comes after the line `end`"),
    ];
    for (problem, expected) in cases {
        assert!(problem.contains(expected), "{problem}");
    }
    let cut = text.lines().count() / 2;
    let half: String = text.lines().take(cut).map(|line| format!("{line}\n")).collect();
    assert!(problem(&half).starts_with(&format!("line {}: the file ends", cut + 1)));
}
