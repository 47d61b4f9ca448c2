use std::collections::BTreeSet;

use super::*;

/// Many more than this test makes may be in a store that it shares.
const LIMIT: usize = 1_000;

/// All of a part, `limit` at a time, with heads.
async fn read_part(scan: &dyn Scan, part: Part, mut after: Option<Cursor>, limit: usize) -> Vec<(ChannelId, Seq)> {
    let mut found = Vec::new();
    loop {
        let page = scan.channels(part, after, limit).await.unwrap();
        assert!(page.len() <= limit);
        found.extend(page.iter().map(|scanned| (scanned.channel, scanned.last_seq)));
        match page.last() {
            Some(last) if page.len() == limit => after = Some(last.cursor),
            _ => return found,
        }
    }
}

async fn read_all(scan: &dyn Scan, wanted: usize, limit: usize) -> Vec<(ChannelId, Seq)> {
    let mut found = Vec::new();
    for part in scan.parts(wanted).await.unwrap() {
        found.extend(read_part(scan, part, None, limit).await);
    }
    found
}

/// Those of `ours` in what was found, sorted.
fn only(ours: &[(ChannelId, Seq)], found: &[(ChannelId, Seq)]) -> Vec<(ChannelId, Seq)> {
    let ids: BTreeSet<ChannelId> = ours.iter().map(|(id, _)| *id).collect();
    let mut found: Vec<_> = found.iter().filter(|(id, _)| ids.contains(id)).copied().collect();
    found.sort_unstable();
    found
}

async fn groups(store: &dyn Store, count: Seq) -> Vec<(ChannelId, Seq)> {
    let mut made = Vec::new();
    for head in 1..=count {
        made.push((group(store, head).await.0, head));
    }
    made.sort_unstable();
    made
}

pub async fn every_channel_is_found_once<B: Backend>() {
    let backend = B::fresh().await;
    let (store, scan) = (backend.store(), backend.scan());
    assert_eq!(only(&[], &read_all(&*scan, 4, LIMIT).await), []);
    let ours = groups(&*store, 17).await;
    // Refusals alone make no channel.
    let refused = Refused { sender: user("ada"), client_id: Uuid::new_v4(), code: None, at: Millis(1) };
    let nowhere = ChannelId::new_group();
    let refusal = ChannelBatch { refused: vec![refused], ..entries(nowhere, Vec::new()) };
    append(&*store, &refusal).await.unwrap();
    for (wanted, limit) in [(1, LIMIT), (1, 3), (4, 5), (100, LIMIT), (0, LIMIT)] {
        let found = read_all(&*scan, wanted, limit).await;
        assert_eq!(only(&ours, &found), ours, "{wanted} parts, {limit} at a time");
        assert!(found.iter().all(|(id, _)| *id != nowhere));
    }
}

pub async fn a_scan_goes_on_behind_its_cursor<B: Backend>() {
    let backend = B::fresh().await;
    let (store, scan) = (backend.store(), backend.scan());
    let ours = groups(&*store, 9).await;
    let parts = scan.parts(2).await.unwrap();
    let mut found = Vec::new();
    for part in parts {
        let first = scan.channels(part, None, 3).await.unwrap();
        found.extend(first.iter().map(|scanned| (scanned.channel, scanned.last_seq)));
        let Some(last) = first.last() else { continue };
        // As a checkpoint keeps them.
        let kept = serde_json::to_string(&(part, last.cursor)).unwrap();
        let (part, cursor): (Part, Cursor) = serde_json::from_str(&kept).unwrap();
        found.extend(read_part(&*scan, part, Some(cursor), LIMIT).await);
    }
    assert_eq!(only(&ours, &found), ours);
}

pub async fn a_scan_minds_no_channels_that_come_meanwhile<B: Backend>() {
    let backend = B::fresh().await;
    let (store, scan) = (backend.store(), backend.scan());
    let early = groups(&*store, 8).await;
    let parts = scan.parts(3).await.unwrap();
    let mut begun = Vec::new();
    for part in &parts {
        begun.push(scan.channels(*part, None, 2).await.unwrap());
    }
    let late = groups(&*store, 8).await;
    let mut found = Vec::new();
    for (part, first) in parts.iter().zip(begun) {
        found.extend(first.iter().map(|scanned| (scanned.channel, scanned.last_seq)));
        found.extend(read_part(&*scan, *part, first.last().map(|last| last.cursor), LIMIT).await);
    }
    assert_eq!(only(&early, &found), early);
    // The parts that were made before them have the newer ones, too.
    let mut again = Vec::new();
    for part in parts {
        again.extend(read_part(&*scan, part, None, LIMIT).await);
    }
    assert_eq!(only(&late, &again), late);
}
