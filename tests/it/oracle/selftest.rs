//! The oracle on trial: it finds nothing in correct histories, and names the right promise in broken ones.

use super::breakages::*;
use super::record::Record;
use super::{Promise, check, synth};
use crate::rng::Rng;

#[test]
fn correct_histories_have_no_violations() {
    let mut all = synth::Coverage::default();
    for seed in 0..150 {
        let (record, coverage) = synth::record(seed);
        let violations = check(&record);
        assert!(violations.is_empty(), "seed {seed}: {}", violations[0]);
        all.restarts += coverage.restarts;
        all.gaps += coverage.gaps;
        all.retries += coverage.retries;
        all.deduplicated += coverage.deduplicated;
        all.ahead_of_store += coverage.ahead_of_store;
        all.refused += coverage.refused;
        all.deferred += coverage.deferred;
    }
    let counts = [all.restarts, all.gaps, all.retries, all.deduplicated, all.ahead_of_store, all.refused, all.deferred];
    assert!(counts.iter().all(|count| *count >= 20), "the synthetic histories lack variety: {all:?}");
}

/// Breaks a record in one way; false if it has no place for that.
type Breakage = fn(&mut Record, &mut Rng) -> bool;

#[test]
fn each_breakage_is_found_under_its_promise() {
    use Promise::{P1, P2, P3, P4, P5, P6, P7, P8, P9, Wire};
    let breakages: &[(&str, Promise, Breakage)] = &[
        ("an accepted message is lost for all", P1, lose_last),
        ("an accepted message is lost for one", P1, lose_last_for_one),
        ("a message nobody sent", P2, invent),
        ("a body is altered everywhere", P2, alter_everywhere),
        ("a refused send is seen", P2, refuse_afterwards),
        ("a rejected send is seen", P2, reject_afterwards),
        ("a message comes before it is sent", P2, show_early),
        ("a message is in the log twice", P3, log_twice),
        ("a body is altered for one", P4, alter_once),
        ("a seq is given twice", P4, give_seq_twice),
        ("one history is shorter", P4, lose_last_for_one),
        ("search finds another message", P4, alter_hit),
        ("a frame is dropped", P5, drop_frame),
        ("a frame is repeated", P5, repeat_frame),
        ("two frames are swapped", P5, swap_frames),
        ("one connection's sends change places", P6, swap_own),
        ("a later send goes before an accepted one", P6, swap_after_accepted),
        ("persisted has a wrong seq", P7, persist_elsewhere),
        ("history ends before what is persisted", P7, page_behind_store),
        ("a welcome ends before what is persisted", P7, welcome_behind_store),
        ("resume ends before what is persisted", P8, resume_behind_store),
        ("resume lacks its last entry", P8, shorten_resume),
        ("resume gives a part and refuses", P8, refuse_resumed),
        ("resume leaves a channel out", P8, ignore_resume),
        ("resume ends before welcome's head", P8, resume_behind_welcome),
        ("a watermark goes back", P9, turn_watermark_back),
        ("a watermark is beyond the end", P9, watermark_beyond),
        ("unread is wrong", P9, miscount_unread),
        ("a later welcome has read less", P9, forget_read),
        ("a history has a hole", P9, hole_in_history),
        ("a history is out of order", P9, disorder_history),
        ("something not sent is accepted", Wire, accept_nothing),
        ("a frame makes no sense", Wire, malform),
    ];
    for (name, promise, breakage) in breakages {
        let mut applied = 0;
        for seed in 0..40 {
            let (mut record, _) = synth::record(seed);
            let mut rng = Rng::new(seed ^ 0xbad);
            if !breakage(&mut record, &mut rng) {
                continue;
            }
            applied += 1;
            let violations = check(&record);
            let found: Vec<String> = violations.iter().map(ToString::to_string).collect();
            let named = violations.iter().any(|violation| violation.promise == *promise);
            assert!(named, "{name} (seed {seed}): expected {promise:?}, found {found:#?}");
        }
        assert!(applied >= 10, "{name} was applicable to {applied} of 40 histories only");
    }
}
