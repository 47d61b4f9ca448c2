//! Records for the tests of those who use the oracle.

use fastrand::Rng;

use super::{Promise, Record, breakages, check, synth};

/// Of a run in which every promise was kept.
pub fn correct() -> Record {
    synth::record(1).0
}

/// … in which one accepted message is missing in one history.
pub fn with_a_loss() -> Record {
    let records = (0..50).filter_map(|seed| {
        let mut record = synth::record(seed).0;
        breakages::lose_last_for_one(&mut record, &mut Rng::with_seed(seed)).then_some(record)
    });
    records.into_iter().find(|record| check(record).broken.get(&Promise::P1) == Some(&1)).unwrap()
}

/// … in which a send had no answer when the record ended.
pub fn with_an_answer_to_come() -> Record {
    let mut record = correct();
    assert!(breakages::answer_nothing(&mut record, &mut Rng::with_seed(1)));
    for connection in &mut record.connections {
        connection.events.retain(|event| event.at < breakages::SILENCE);
    }
    record
}
