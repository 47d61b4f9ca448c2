use super::*;

pub async fn only_the_searchers_channels_are_searched<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let both = fixture.channel(&["ada", "bob"]).await;
    let adas = fixture.channel(&["ada"]).await;
    let bobs = fixture.channel(&["bob"]).await;
    fixture.say(both, "ada", &["word of both"]).await;
    fixture.say(adas, "ada", &["word of ada"]).await;
    fixture.say(bobs, "bob", &["word of bob"]).await;
    assert_eq!(fixture.find("ada", "word").await, ["word of ada", "word of both"]);
    assert_eq!(fixture.find("bob", "word").await, ["word of bob", "word of both"]);
    assert_eq!(fixture.find("nobody", "word").await.len(), 0);
    // The filters don't widen it.
    let of_bob = Query { from: Some(user("bob")), ..query("word") };
    assert_eq!(fixture.search("ada", of_bob).await.unwrap().total, 0);
}

pub async fn a_removed_member_finds_nothing<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let channel = fixture.channel(&["ada", "bob"]).await;
    fixture.say(channel, "ada", &["word one", "word two"]).await;
    let first_page = fixture.search("bob", Query { limit: 1, ..query("word") }).await.unwrap();
    assert_eq!(first_page.total, 2);
    let head = 3;
    let removal = ChannelBatch {
        departed: vec![user("bob")],
        ..batch(channel, vec![message(channel, head + 1, "ada", Kind::System, "{}")])
    };
    fixture.0.store().append(Arc::new(removal)).await.unwrap();
    assert_eq!(fixture.find("bob", "word").await.len(), 0);
    let next_page = Query { cursor: first_page.cursor, ..query("word") };
    assert_eq!(fixture.search("bob", next_page).await.unwrap().hits, []);
    let here = Query { channel: Some(channel), ..query("word") };
    assert_eq!(fixture.search("bob", here).await, Err(SearchError::NotAMember));
    assert_eq!(fixture.find("ada", "word").await.len(), 2);

    // Back again: what was said before is readable again, as in the history.
    let back = ChannelBatch {
        members: vec![(user("bob"), Member { role: Role::Member, joined_seq: 5, delivered: 4, read: 4 })],
        ..batch(channel, vec![message(channel, head + 2, "ada", Kind::System, "{}")])
    };
    fixture.0.store().append(Arc::new(back)).await.unwrap();
    assert_eq!(fixture.find("bob", "word").await.len(), 2);
}

pub async fn a_channel_of_others_is_refused<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let channel = fixture.channel(&["ada"]).await;
    fixture.channel(&["bob"]).await;
    fixture.say(channel, "ada", &["word"]).await;
    let of_others = fixture.search("bob", Query { channel: Some(channel), ..query("word") }).await;
    let of_nobody = fixture.search("bob", Query { channel: Some(ChannelId::new_group()), ..query("word") }).await;
    assert_eq!(of_others, Err(SearchError::NotAMember));
    assert_eq!(of_nobody, of_others, "they can't be told apart");
}

/// No text of a query gets around the filter, whatever the index calls its columns.
pub async fn no_query_leaves_ones_channels<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let mine = fixture.channel(&["bob"]).await;
    let secret = fixture.channel(&["ada"]).await;
    fixture.say(secret, "ada", &["secret 1 2 3"]).await;
    fixture.say(mine, "bob", &["secret of mine 1 2 3"]).await;
    let attempts = [
        "secret OR channel:1",
        "secret\") OR (channel : (\"2\")",
        "secret) OR channel : (1 OR 2",
        "\" OR channel : 2 OR \"secret",
        "secret* OR *",
        "{body channel} : secret",
        "secret\0\") OR secret",
        "secret OR channel:*",
    ];
    for text in attempts {
        for id in 0..4 {
            let text = text.replace('2', &id.to_string());
            if let Ok(page) = fixture.search("bob", query(&text)).await {
                assert!(page.hits.iter().all(|hit| hit.channel == mine), "{text}");
                assert!(page.total <= 1, "{text}");
            }
        }
    }
    // A channel's name is no word of its messages.
    for id in 0..10 {
        let found = fixture.search("ada", query(&id.to_string())).await.unwrap();
        assert_eq!(found.total, u64::from((1..=3).contains(&id)), "{id}");
    }
}

pub async fn somebody_in_a_thousand_channels_can_search<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let channels = futures_util::future::join_all((0..1000).map(|_| fixture.channel(&["ada"]))).await;
    let others = fixture.channel(&["bob"]).await;
    let mut said = Vec::new();
    for channel in channels.iter().step_by(50).chain([&others]) {
        said.extend(fixture.store(*channel, "ada", &["word"]).await);
    }
    fixture.index(said).await;
    let page = fixture.search("ada", query("word")).await.unwrap();
    assert_eq!((page.total, page.hits.len()), (20, 20));
    assert!(page.hits.iter().all(|hit| hit.channel != others));
    let one = Query { channel: Some(channels[50]), ..query("word") };
    assert_eq!(fixture.search("ada", one).await.unwrap().total, 1);
}
