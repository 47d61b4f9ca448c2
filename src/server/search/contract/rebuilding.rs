use super::*;
use crate::server::search::rebuild::{Comparison, Rebuild, Walk};

/// Takes them to their end; how many entries they came by.
async fn fill(rebuild: &dyn Rebuild, walks: Vec<Walk>) -> u64 {
    let mut entries = 0;
    for walk in walks {
        let mut walk = Some(walk);
        while let Some(next) = walk {
            let filled = rebuild.fill(next).await.unwrap();
            assert_eq!(filled.rejected, []);
            entries += filled.entries;
            walk = filled.rest;
            assert!((0.0..=1.0).contains(&next.fraction()));
        }
    }
    entries
}

async fn mend(rebuild: &dyn Rebuild, walks: Vec<Walk>, since: Option<Millis>) {
    for walk in walks {
        let mut walk = Some(walk);
        while let Some(next) = walk {
            walk = rebuild.mend(next, since).await.unwrap().rest;
        }
    }
}

pub async fn a_new_index_has_all_that_is_stored<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let rebuild = fixture.0.rebuild();
    let mut expected = Vec::new();
    for n in 0..7 {
        let channel = fixture.channel(&["ada"]).await;
        let bodies: Vec<String> = (0..300 * (n % 3) + 1).map(|m| format!("word {n:02} {m:04}")).collect();
        fixture.store(channel, "ada", &bodies.iter().map(String::as_str).collect::<Vec<_>>()).await;
        expected.extend(bodies);
    }
    let before = rebuild.indexes().await.unwrap();
    assert_eq!((before.next, before.former), (None, None));
    let walks = rebuild.begin().await.unwrap();
    let next = rebuild.indexes().await.unwrap().next;
    assert!(next.is_some() && next.as_ref() != Some(&before.live));

    let behind = rebuild.compare(expected.len() as u64, 50).await.unwrap();
    assert!(!behind.agrees(), "nothing is in it yet: {behind:?}");
    assert_eq!(fill(&*rebuild, walks.clone()).await, expected.len() as u64);
    let again = rebuild.begin().await.unwrap();
    assert_eq!(again, walks, "it is the same one");
    assert_eq!(fill(&*rebuild, again).await, expected.len() as u64, "and has them once");
    let Comparison { found, sampled, .. } = rebuild.compare(expected.len() as u64, 50).await.unwrap();
    assert_eq!(found, expected.len() as u64);
    assert!((7..=60).contains(&sampled), "{sampled}");
    let one_too_many = rebuild.compare(expected.len() as u64 + 1, 50).await.unwrap();
    assert!(!one_too_many.agrees());

    assert_eq!(fixture.find("ada", "word").await, Vec::<String>::new(), "the old one is still in use");
    rebuild.swap().await.unwrap();
    assert_eq!(rebuild.indexes().await.unwrap().next, None);
    fixture.0.settle().await;
    let found = fixture.search("ada", Query { limit: 5000, ..query("word") }).await.unwrap();
    assert_eq!(found.hits.len(), expected.len());
    for body in ["word 00 0000", "word 02 0600", "word 05 0299", "word 06 0000"] {
        assert_eq!(fixture.find("ada", &format!("\"{body}\"")).await, [body]);
    }
}

pub async fn what_is_sent_meanwhile_is_in_both<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let rebuild = fixture.0.rebuild();
    let channel = fixture.channel(&["ada"]).await;
    fixture.say(channel, "ada", &["word before"]).await;
    let walks = rebuild.begin().await.unwrap();
    fixture.say(channel, "ada", &["word meanwhile"]).await;
    assert_eq!(fixture.find("ada", "word").await, ["word before", "word meanwhile"]);
    // As if the walk had come by before that was stored: it is there without it.
    let expected = fill(&*rebuild, walks).await;
    assert!((1..=2).contains(&expected), "{expected}");
    let late = fixture.store(channel, "ada", &["word late"]).await;
    assert!(rebuild.compare(expected, 10).await.unwrap().found >= 2);
    rebuild.swap().await.unwrap();
    fixture.index(late).await;
    assert_eq!(fixture.find("ada", "word").await, ["word before", "word late", "word meanwhile"]);
}

pub async fn the_former_index_can_be_used_again<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let rebuild = fixture.0.rebuild();
    let channel = fixture.channel(&["ada"]).await;
    fixture.say(channel, "ada", &["word one"]).await;
    assert!(matches!(rebuild.roll_back().await, Err(SearchError::Invalid(_))), "there is none");
    for body in ["word two", "word three"] {
        let walks = rebuild.begin().await.unwrap();
        fill(&*rebuild, walks).await;
        rebuild.swap().await.unwrap();
        fixture.index(vec![]).await;
        // Sent by the clock: the former one is older.
        let head = fixture.0.store().channel(channel).await.unwrap().unwrap().last_seq;
        let sent = Message { at: Millis::now(), ..message(channel, head + 1, "ada", Kind::Text, body) };
        fixture.0.store().append(Arc::new(super::batch(channel, vec![sent.clone()]))).await.unwrap();
        fixture.index(vec![sent]).await;
    }
    let all = ["word one", "word three", "word two"];
    assert_eq!(fixture.find("ada", "word").await, all);
    for _there_and_back in 0..2 {
        let live = rebuild.indexes().await.unwrap().live;
        let mending = rebuild.roll_back().await.unwrap();
        mend(&*rebuild, mending.walks, mending.since).await;
        fixture.0.settle().await;
        assert_eq!(fixture.find("ada", "word").await, all);
        let indexes = rebuild.indexes().await.unwrap();
        assert!(indexes.former.is_some() && (indexes.live != live || live == "messages_fts"));
    }
    rebuild.drop_former().await.unwrap();
    assert_eq!(rebuild.indexes().await.unwrap().former, None);
    assert_eq!(fixture.find("ada", "word").await, all);
}

pub async fn it_can_be_given_up<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let rebuild = fixture.0.rebuild();
    let channel = fixture.channel(&["ada"]).await;
    fixture.say(channel, "ada", &["word"]).await;
    assert!(matches!(rebuild.swap().await, Err(SearchError::Invalid(_))), "none is being built");
    let walks = rebuild.begin().await.unwrap();
    fill(&*rebuild, walks).await;
    rebuild.abandon().await.unwrap();
    rebuild.abandon().await.unwrap();
    assert_eq!(rebuild.indexes().await.unwrap().next, None);
    fixture.say(channel, "ada", &["word again"]).await;
    assert_eq!(fixture.find("ada", "word").await, ["word", "word again"]);
}

pub async fn what_the_index_lacks_can_be_put_into_it<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let rebuild = fixture.0.rebuild();
    let channel = fixture.channel(&["ada"]).await;
    // A second apart; the one of the message is its seq.
    let bodies: Vec<String> = (2..=300).map(|seq| format!("word {seq:03}")).collect();
    fixture.store(channel, "ada", &bodies.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let since = Millis(290_000);
    mend(&*rebuild, rebuild.walks().await.unwrap(), Some(since)).await;
    fixture.0.settle().await;
    let found = fixture.find("ada", "word").await;
    // Clocks may be apart by a minute.
    assert!(found.contains(&"word 290".to_owned()) && !found.contains(&"word 200".to_owned()), "{found:?}");
    mend(&*rebuild, rebuild.walks().await.unwrap(), None).await;
    fixture.0.settle().await;
    assert_eq!(fixture.find("ada", "word").await, bodies);
}
