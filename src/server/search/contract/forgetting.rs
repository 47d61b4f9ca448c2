use super::*;
use crate::server::queue::IndexRange;

/// Removed from the store, and from the index by whoever it is that does that.
pub async fn what_is_purged_is_found_no_more<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let (channel, other) = (fixture.channel(&["ada"]).await, fixture.channel(&["ada"]).await);
    let bodies: Vec<String> = (2..=30).map(|seq| format!("apple {seq:02}")).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let said = fixture.say(channel, "ada", &bodies).await;
    fixture.say(other, "ada", &["apple elsewhere"]).await;
    let rebuild = fixture.0.rebuild();
    for walk in rebuild.begin().await.unwrap() {
        let mut walk = Some(walk);
        while let Some(next) = walk {
            walk = rebuild.fill(next).await.unwrap().rest;
        }
    }
    let index = fixture.0.index();
    let all = IndexRange { channel, first: 1, last: 30 };
    assert_eq!(index.count(all).await.unwrap(), 29);
    assert_eq!(index.count(IndexRange { first: 3, last: 12, ..all }).await.unwrap(), 10);

    let removed = fixture.0.purge().remove(channel, 21, 100).await.unwrap();
    assert_eq!((removed.purged_seq, removed.is_done), (21, true));
    let gone = index.forget(IndexRange { last: 21, ..all }).await.unwrap();
    assert_eq!(removed.indexed + gone, 20);
    fixture.0.settle().await;
    let mut left: Vec<&str> = bodies[20..].to_vec();
    left.insert(0, "apple elsewhere");
    left.sort_unstable();
    assert_eq!(fixture.find("ada", "apple").await, left);
    assert_eq!(index.count(all).await.unwrap(), 9);
    assert_eq!(index.forget(IndexRange { last: 21, ..all }).await.unwrap(), 0, "again");

    // A write that was on its way comes too late.
    let late = said.iter().filter(|message| message.seq == 21).cloned().collect();
    fixture.index(late).await;
    assert_eq!(fixture.find("ada", "apple").await, left);
    // Nor is it in the index that was being built.
    rebuild.swap().await.unwrap();
    fixture.0.settle().await;
    assert_eq!(fixture.find("ada", "apple").await, left);
    rebuild.roll_back().await.unwrap();
    fixture.0.settle().await;
    assert_eq!(fixture.find("ada", "apple").await, left);
}
