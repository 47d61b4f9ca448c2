use super::*;

pub async fn the_newest_come_first<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let (here, there) = (fixture.channel(&["ada"]).await, fixture.channel(&["ada"]).await);
    let mut said = Vec::new();
    for (channel, seq, second) in [(here, 2, 1), (there, 2, 2), (here, 3, 3), (here, 4, 4), (there, 3, 5)] {
        let sent = Message { at: Millis(second * 1000), ..message(channel, seq, "ada", Kind::Text, "word") };
        fixture.0.store().append(Arc::new(batch(channel, vec![sent.clone()]))).await.unwrap();
        fixture.index(vec![sent.clone()]).await;
        said.push(sent);
    }
    let page = fixture.search("ada", query("word")).await.unwrap();
    let expected: Vec<Hit> = said
        .into_iter()
        .rev()
        .map(|message| {
            let Message { channel, seq, id, sender, at, body, .. } = message;
            Hit { channel, seq, id, sender, at, highlight: format!("<mark>{body}</mark>"), body }
        })
        .collect();
    assert_eq!(page, SearchPage { hits: expected, total: 5, cursor: None, facets: None });
}

pub async fn pages_have_no_repeats_and_no_holes<B: Backend>() {
    for limit in [1, 5, 22, 23, 24, usize::MAX] {
        let fixture = Fixture::<B>::new().await;
        let channel = fixture.channel(&["ada"]).await;
        let bodies: Vec<String> = (0..23).map(|n| format!("word {n}")).collect();
        let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
        fixture.say(channel, "ada", &bodies).await;
        let (mut found, mut cursor, mut newer) = (Vec::new(), None, 0);
        loop {
            let page = fixture.search("ada", Query { limit, cursor, ..query("word") }).await.unwrap();
            assert_eq!(page.total, 23 + newer, "of all pages together");
            assert!(page.hits.len() <= limit);
            found.extend(page.hits.into_iter().map(|hit| hit.body));
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
            // What comes in between is newer than every page that is still to come.
            fixture.say(channel, "ada", &["a newer word"]).await;
            newer += 1;
        }
        let expected: Vec<&str> = bodies.iter().rev().copied().collect();
        assert_eq!(found, expected, "pages of {limit}");
    }
}

pub async fn pages_end_where_they_must<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let channel = fixture.channel(&["ada"]).await;
    fixture.say(channel, "ada", &["word"; 6]).await;
    for (limit, more) in [(5, true), (6, false), (7, false), (usize::MAX, false)] {
        let page = fixture.search("ada", Query { limit, ..query("word") }).await.unwrap();
        assert_eq!((page.hits.len(), page.cursor.is_some()), (limit.min(6), more));
    }
    let none = fixture.search("ada", Query { limit: 0, ..query("word") }).await.unwrap();
    assert_eq!(none, SearchPage { total: 6, ..SearchPage::default() }, "only counted");
}

pub async fn the_total_is_counted_up_to_its_cap<B: Backend>() {
    let fixture = Fixture(B::fresh(Duration::from_secs(30), 10).await);
    let channel = fixture.channel(&["ada"]).await;
    fixture.say(channel, "ada", &["word"; 9]).await;
    assert_eq!(fixture.search("ada", query("word")).await.unwrap().total, 9);
    fixture.say(channel, "ada", &["word"; 6]).await;
    let page = fixture.search("ada", query("word")).await.unwrap();
    assert_eq!((page.total, page.hits.len()), (10, 15));
}

pub async fn a_foreign_cursor_is_invalid<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let channel = fixture.channel(&["ada"]).await;
    fixture.say(channel, "ada", &["word"]).await;
    for cursor in ["", "x", "AAAA", "' OR 1=1", &"A".repeat(5000)] {
        let outcome = fixture.search("ada", Query { cursor: Some(cursor.into()), ..query("word") }).await;
        assert!(matches!(outcome, Err(SearchError::Invalid(_))), "{cursor} {outcome:?}");
    }
}

pub async fn a_search_that_takes_too_long_is_given_up<B: Backend>() {
    let fixture = Fixture(B::fresh(Duration::ZERO, 1_000_000).await);
    let channel = fixture.channel(&["ada"]).await;
    for _ in 0..10 {
        fixture.say(channel, "ada", &["word"; 500]).await;
    }
    let slow = Query { limit: 5000, ..query("word") };
    assert_eq!(fixture.search("ada", slow.clone()).await, Err(SearchError::TooSlow));
    // Other reads of the same store are not given up.
    assert_eq!(fixture.0.store().messages(channel, Page::After(0), 10_000).await.unwrap().len(), 5001);
}
