//! The oracle on trial: it finds nothing in correct histories, and names the right promise in broken ones.

use fastrand::Rng;

use super::breakages::*;
use super::record::Record;
use super::{Counts, Promise, Unjudged, Verdict, check, synth};

#[test]
fn correct_histories_have_no_violations() {
    let mut all = synth::Coverage::default();
    for seed in 0..150 {
        let (record, coverage) = synth::record(seed);
        let Verdict { violations, counts, scope, .. } = check(&record);
        assert_eq!((scope.unread, scope.searches > 0), (0, true), "seed {seed}: {scope:?}");
        // Who comes back makes up for what an earlier connection lacked.
        assert_eq!(scope.unjudged, Unjudged::default(), "seed {seed}");
        assert!(violations.is_empty(), "seed {seed}: {}", violations[0]);
        let Counts { attempts, acknowledged, ok, lost, duplicated, unexpected, recovered, retold } = counts;
        assert_eq!((lost, duplicated, unexpected, retold), (0, 0, 0, 0), "seed {seed}");
        assert!(recovered <= ok && ok <= attempts && acknowledged <= attempts, "seed {seed}: {counts:?}");
        assert!(recovered > 0 && ok > 20, "seed {seed}: {counts:?}");
        all.add(&coverage);
    }
    assert!(all.counts().iter().all(|count| *count >= 20), "the synthetic histories lack variety: {all:?}");
}

/// Breaks a record in one way; false if it has no place for that.
type Breakage = fn(&mut Record, &mut Rng) -> bool;

const BREAKAGES: &[(&str, Promise, Breakage)] = {
    use Promise::{P1, P2, P3, P4, P5, P6, P7, P8, P9, P10, P11, Wire};
    &[
        ("an accepted message is lost for all", P1, lose_last),
        ("an accepted message is lost for one", P1, lose_last_for_one),
        ("a message nobody sent", P2, invent),
        ("a message without client_id", P2, forget_client_id),
        ("a body is altered everywhere", P2, alter_everywhere),
        ("somebody else is shown as the sender", P2, change_sender),
        ("a refused send is seen", P2, refuse_afterwards),
        ("a rejected send is seen", P2, reject_afterwards),
        ("something not sent is rejected", P2, reject_what_nobody_sent),
        ("a message comes before it is sent", P2, show_early),
        ("a message is in the log twice", P3, log_twice),
        ("a message is shown at another seq", P3, show_at_another_seq),
        ("a body is altered for one", P4, alter_once),
        ("a body is altered for one, and nobody reads the log", P4, alter_where_nobody_reads),
        ("a seq is given twice", P4, give_seq_twice),
        ("one history is shorter", P4, lose_last_for_one),
        ("a history has another channel's entries", P4, history_of_another_channel),
        ("search finds another message", P4, alter_hit),
        ("search finds what is not there", P4, find_what_is_not_there),
        ("a frame is dropped", P5, drop_frame),
        ("a frame is repeated", P5, repeat_frame),
        ("two frames are swapped", P5, swap_frames),
        ("a frame is dropped right behind a gap", P5, hole_behind_gap),
        ("a stream stops, and its connection doesn't", P5, stop_stream),
        ("a welcome has a hole", P5, hole_in_welcome),
        ("one connection's sends change places", P6, swap_own),
        ("a later send goes before an accepted one", P6, swap_after_accepted),
        ("persisted has a wrong seq", P7, persist_elsewhere),
        ("persisted is beyond the end", P7, persist_beyond_the_end),
        ("history ends before what is persisted", P7, page_behind_store),
        ("a welcome ends before what is persisted", P7, welcome_behind_store),
        ("resume ends before what is persisted", P8, resume_behind_store),
        ("resume lacks its last entry", P8, shorten_resume),
        ("resume lacks an entry in its midst", P8, hole_in_resume),
        ("resume gives a part and refuses", P8, refuse_resumed),
        ("resume leaves a channel out", P8, ignore_resume),
        ("resume ends before welcome's head", P8, resume_behind_welcome),
        ("a watermark goes back", P9, turn_watermark_back),
        ("a watermark is beyond the end", P9, watermark_beyond),
        ("unread is wrong", P9, miscount_unread),
        ("delivered is beyond the end", P9, deliver_beyond),
        ("a later welcome has read less", P9, forget_read),
        ("a history has a hole", P9, hole_in_history),
        ("a history is out of order", P9, disorder_history),
        ("search finds nothing", P10, find_nothing),
        ("a message comes after its reader's removal", P11, show_after_removal),
        ("a page goes behind its reader's removal", P11, page_after_removal),
        ("something not sent is accepted", Wire, accept_nothing),
        ("a frame makes no sense", Wire, malform),
        ("a send is accepted twice", Wire, accept_twice),
        ("a send is accepted and refused", Wire, refuse_what_was_accepted),
        ("a send is never answered", Wire, answer_nothing),
        ("a sender is never told what is stored", Wire, tell_of_nothing_stored),
        ("a sender's other socket is never told what is stored", Wire, forget_a_socket),
    ]
};

#[test]
fn each_breakage_is_found_under_its_promise() {
    const SEEDS: u64 = 150;
    for (name, promise, breakage) in BREAKAGES {
        let mut applied = 0;
        for seed in 0..SEEDS {
            let (mut record, _) = synth::record(seed);
            let mut rng = Rng::with_seed(seed ^ 0xbad);
            if applied >= 40 || !breakage(&mut record, &mut rng) {
                continue;
            }
            applied += 1;
            let verdict = check(&record);
            let found: Vec<String> = verdict.violations.iter().map(ToString::to_string).collect();
            let named = verdict.violations.iter().find(|violation| violation.promise == *promise);
            let named = named.unwrap_or_else(|| panic!("{name} (seed {seed}): expected {promise}, found {found:#?}"));
            // What breaks a frame as such is about no message.
            assert!(*promise == Promise::Wire || !named.messages.is_empty(), "{name}: {named} names no message");
        }
        assert!(applied >= 10, "{name} was applicable to {applied} of {SEEDS} histories only");
    }
}

/// Who stays has everything; only what was stored just before the end may still be on its way.
#[test]
fn a_record_that_goes_on_in_silence_is_correct() {
    for seed in 0..150 {
        let (mut record, _) = synth::record(seed);
        go_on_in_silence(&mut record);
        let verdict = check(&record);
        assert!(verdict.is_clean(), "seed {seed}: {}", verdict.violations[0]);
        assert_eq!(verdict.scope.unjudged, Unjudged::default(), "seed {seed}");
        // Without the silence a stream that lacks its end is not named.
        let (mut record, _) = synth::record(seed);
        if stop_stream(&mut record, &mut Rng::with_seed(seed)) {
            record.connections.iter_mut().for_each(|connection| connection.events.retain(|event| event.at < SILENCE));
            let verdict = check(&record);
            assert!(!verdict.broken.contains_key(&Promise::P5), "seed {seed}");
            assert!(verdict.scope.unjudged.stream_ends > 0, "seed {seed}");
        }
    }
}

/// A status that is missing just before the end may be on its way: it is no violation, and it is counted.
#[test]
fn what_may_still_come_is_counted_as_not_judged() {
    for breakage in [answer_nothing, tell_of_nothing_stored, forget_a_socket] {
        let mut applied = 0;
        for seed in 0..150 {
            let (mut record, _) = synth::record(seed);
            if !breakage(&mut record, &mut Rng::with_seed(seed)) {
                continue;
            }
            applied += 1;
            record.connections.iter_mut().for_each(|connection| connection.events.retain(|event| event.at < SILENCE));
            let verdict = check(&record);
            assert!(verdict.is_clean(), "seed {seed}: {}", verdict.violations[0]);
            assert!(verdict.scope.unjudged.statuses > 0, "seed {seed}");
        }
        assert!(applied > 10, "{applied}");
    }
}

/// A server may say again that a message is persisted.
#[test]
fn what_is_told_again_is_counted_and_no_fault() {
    let (mut record, _) = synth::record(1);
    assert!(tell_again(&mut record, &mut Rng::with_seed(1)));
    let verdict = check(&record);
    assert!(verdict.is_clean(), "{}", verdict.violations[0]);
    assert_eq!(verdict.counts.retold, 1);
}

/// What the counts say of a history that is broken in a known way.
#[test]
fn what_is_broken_is_counted() {
    let broken = |breakage: Breakage| {
        let seeds = (0..).map(|seed| {
            let (mut record, _) = synth::record(seed);
            breakage(&mut record, &mut Rng::with_seed(seed)).then(|| check(&record))
        });
        seeds.take(40).flatten().next().unwrap()
    };
    let lost = broken(lose_last_for_one);
    assert_eq!(lost.counts.lost, lost.broken[&Promise::P1]);
    assert_eq!(broken(log_twice).counts.duplicated, 1);
    assert_eq!(broken(invent).counts.unexpected, 1);
    assert_eq!(broken(forget_client_id).counts.unexpected, 1);
    assert_eq!(broken(reject_afterwards).counts.unexpected, 1);
}

/// The parts of several threads give the verdict of the whole.
#[test]
fn a_merged_record_is_judged_as_the_whole() {
    for seed in 0..20 {
        let (whole, _) = synth::record(seed);
        let mut parts: Vec<Record> = (0..3)
            .map(|part| {
                let connections = whole.connections.iter().skip(part).step_by(3).cloned().collect();
                Record { connections, histories: vec![], hits: vec![], searches: vec![], ..whole.clone() }
            })
            .collect();
        parts.push(Record { connections: vec![], ..whole.clone() });
        let merged = Record::merge(parts);
        assert_eq!(merged.entries, whole.entries);
        assert_eq!(check(&merged), check(&whole), "seed {seed}");
    }
}
