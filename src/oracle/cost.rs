//! What recording and judging cost in CPU time; figures, no limits: `cargo test --release --lib oracle::cost -- --ignored --nocapture`.

use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

use super::frame::{Received, Send, Sent};
use super::{Record, Recorder, check, synth};
use crate::message::{ChannelId, Kind, Message, Millis, Username};
use crate::wire::{Frame, codec};

fn timed<T>(what: &str, events: usize, work: impl FnOnce() -> T) -> T {
    let cpu = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
    };
    let begun = cpu();
    let result = work();
    println!("{what}: {:.0} ns each of {events}", (cpu() - begun) / events as f64);
    result
}

fn events(record: &Record) -> usize {
    record.connections.iter().map(|connection| connection.events.len()).sum()
}

/// Each message of a room as the frame that all its members get.
fn frames(messages: u64) -> Vec<String> {
    let message = |seq: u64| Message {
        channel: ChannelId(Uuid::from_u128(7)),
        seq,
        id: Uuid::from_u128((0x0191_b2c3_d4e5_7000 << 64) | u128::from(seq.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
        sender: Username::new("member-0").unwrap(),
        client_id: Uuid::from_u128(u128::from(seq)),
        kind: Kind::Text,
        body: format!("{seq:0100}"),
        at: Millis(1_795_377_600_120 + seq as i64),
    };
    (1..=messages).map(|seq| codec::to_json(&Frame::Message(message(seq).into())).unwrap()).collect()
}

#[test]
#[ignore = "prints figures"]
fn a_room_of_a_thousand() {
    const MEMBERS: usize = 1000;
    const MESSAGES: u64 = 1000;
    let frames = frames(MESSAGES);
    let decode = || {
        let decoded = |text: &String| Received::from_json(text.as_bytes()).map(drop);
        (0..MEMBERS).for_each(|_| frames.iter().for_each(|text| decoded(text).unwrap()));
    };
    let count = MEMBERS * frames.len();
    timed("decoding a message of 100 bytes", count, decode);
    let mut recorder = Recorder::new(count * 2);
    let members: Vec<_> = (0..MEMBERS).map(|member| recorder.user(&format!("member-{member}"))).collect();
    let connections: Vec<_> = members.iter().map(|user| recorder.open(*user, 0)).collect();
    timed("decoding and recording it", count, || {
        for (text, seq) in frames.iter().zip(1u64..) {
            let (at, channel) = (seq * 1000, ChannelId(Uuid::from_u128(7)));
            let (client_id, body) = (Uuid::from_u128(u128::from(seq)), format!("{seq:0100}").into());
            recorder.sent(connections[0], at, &Sent::Send(Send { reference: seq, channel, client_id, body }));
            for connection in &connections {
                recorder.received(*connection, at + 1, &Received::from_json(text.as_bytes()).unwrap());
            }
        }
    });
    let record = recorder.into_record().unwrap();
    let count = events(&record);
    let verdict = timed("judging an event", count, || check(&record));
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!(verdict.counts.ok, MESSAGES);
    file(&record, count);
}

/// Small channels, restarts, resumes, and everything else that there is.
#[test]
#[ignore = "prints figures"]
fn a_long_life() {
    for steps in [40_000, 400_000, 4_000_000] {
        let (record, _) = synth::long_record(1, steps);
        let count = events(&record);
        let verdict = timed("judging an event", count, || check(&record));
        assert!(verdict.is_clean(), "{verdict:?}");
        file(&record, count);
    }
}

fn file(record: &Record, count: usize) {
    let mut bytes = Vec::new();
    timed("writing an event", count, || record.write(&mut bytes).unwrap());
    println!("{:.1} bytes an event", bytes.len() as f64 / count as f64);
    let read = timed("reading an event", count, || Record::read(bytes.as_slice()).unwrap());
    assert_eq!(read.connections.len(), record.connections.len());
}
