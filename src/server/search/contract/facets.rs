use super::*;
use crate::wire::frame::{ChannelCount, Facets, SenderCount};

async fn facets<B: Backend>(fixture: &Fixture<B>, searcher: &str, query: Query) -> Facets {
    let page = fixture.search(searcher, Query { facets: true, ..query }).await.unwrap();
    page.facets.unwrap()
}

fn by_channel(facets: &Facets) -> Vec<(ChannelId, u64)> {
    facets.channels.iter().map(|ChannelCount { channel, count }| (*channel, *count)).collect()
}

fn by_sender(facets: &Facets) -> Vec<(&str, u64)> {
    facets.senders.iter().map(|SenderCount { username, count }| (username.as_str(), *count)).collect()
}

pub async fn matches_are_counted_by_channel_and_by_sender<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let here = fixture.channel(&["ada", "bob"]).await;
    let there = fixture.channel(&["ada", "bob", "cyd"]).await;
    fixture.say(here, "ada", &["word", "word", "another"]).await;
    fixture.say(here, "bob", &["word"]).await;
    fixture.say(there, "cyd", &["word"]).await;
    fixture.say(there, "bob", &["a word", "another"]).await;
    let all = facets(&fixture, "ada", query("word")).await;
    assert_eq!(by_channel(&all), [(here, 3), (there, 2)]);
    assert_eq!(by_sender(&all), [("ada", 2), ("bob", 2), ("cyd", 1)], "equal counts by name");
    let from_bob = facets(&fixture, "ada", Query { from: Some(user("bob")), ..query("word") }).await;
    assert_eq!(by_channel(&from_bob).iter().map(|(_, count)| *count).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(by_sender(&from_bob), [("bob", 2)]);
    let of_there = facets(&fixture, "ada", Query { channel: Some(there), ..query("word") }).await;
    assert_eq!(by_channel(&of_there), [(there, 2)]);
    assert_eq!(facets(&fixture, "ada", query("absent")).await, Facets::default());
    assert_eq!(facets(&fixture, "nobody", query("word")).await, Facets::default(), "no channels, no counts");
    assert_eq!(fixture.search("ada", query("word")).await.unwrap().facets, None, "only if they are asked for");
}

pub async fn the_ten_largest_are_named<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let mut expected = Vec::new();
    for size in 1..=12 {
        let sender = format!("user{size:02}");
        let channel = fixture.channel(&[&sender, "ada"]).await;
        fixture.say(channel, &sender, &vec!["word"; size as usize]).await;
        expected.insert(0, (channel, sender, size));
    }
    let all = facets(&fixture, "ada", query("word")).await;
    let channels: Vec<_> = expected.iter().take(10).map(|(channel, _, size)| (*channel, *size)).collect();
    let senders: Vec<_> = expected.iter().take(10).map(|(_, sender, size)| (sender.as_str(), *size)).collect();
    assert_eq!((by_channel(&all), by_sender(&all)), (channels, senders));
}

pub async fn only_ones_own_channels_are_counted<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let shared = fixture.channel(&["ada", "bob"]).await;
    let secret = fixture.channel(&["ada"]).await;
    fixture.say(secret, "ada", &["word"; 5]).await;
    fixture.say(shared, "bob", &["word"]).await;
    let of_bob = facets(&fixture, "bob", query("word")).await;
    assert_eq!((by_channel(&of_bob), by_sender(&of_bob)), (vec![(shared, 1)], vec![("bob", 1)]));
}

pub async fn counts_do_not_depend_on_the_page<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let channel = fixture.channel(&["ada"]).await;
    fixture.say(channel, "ada", &["word"; 7]).await;
    let first = fixture.search("ada", Query { limit: 3, facets: true, ..query("word") }).await.unwrap();
    assert_eq!(by_channel(first.facets.as_ref().unwrap()), [(channel, 7)]);
    let next = Query { limit: 3, cursor: first.cursor, facets: true, ..query("word") };
    assert_eq!(fixture.search("ada", next).await.unwrap().facets, first.facets);
    let counted = Query { limit: 0, facets: true, ..query("word") };
    assert_eq!(
        fixture.search("ada", counted).await.unwrap(),
        SearchPage { hits: Vec::new(), total: 7, cursor: None, facets: first.facets }
    );
}
