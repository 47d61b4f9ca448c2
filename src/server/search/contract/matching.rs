use super::*;

pub async fn all_words_must_be_there<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let channel = fixture.channel(&["ada", "bob"]).await;
    fixture.say(channel, "ada", &["the difference engine", "the analytical engine", "difference", "an engineer"]).await;
    assert_eq!(fixture.find("bob", "engine").await, ["the analytical engine", "the difference engine"]);
    assert_eq!(fixture.find("bob", "engine difference").await, ["the difference engine"]);
    assert_eq!(fixture.find("bob", "  engine   the  ").await.len(), 2);
    assert_eq!(fixture.find("bob", "engine absent").await.len(), 0);
}

pub async fn phrases_and_endings<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let channel = fixture.channel(&["ada"]).await;
    fixture.say(channel, "ada", &["to be or not to be", "be to", "beware", "nobody"]).await;
    assert_eq!(fixture.find("ada", "\"to be\"").await, ["to be or not to be"]);
    assert_eq!(fixture.find("ada", "to be").await, ["be to", "to be or not to be"]);
    assert_eq!(fixture.find("ada", "be*").await, ["be to", "beware", "to be or not to be"]);
    assert_eq!(fixture.find("ada", "bew* ").await, ["beware"]);
    assert_eq!(fixture.find("ada", "\"not to\" be").await, ["to be or not to be"]);
    assert_eq!(fixture.find("ada", "\"or not").await, ["to be or not to be"]);
}

pub async fn case_and_accents_make_no_difference<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let channel = fixture.channel(&["ada"]).await;
    fixture.say(channel, "ada", &["Zürich café", "ZURICH", "Ελλάδα", "кофе"]).await;
    assert_eq!(fixture.find("ada", "zurich").await, ["ZURICH", "Zürich café"]);
    assert_eq!(fixture.find("ada", "CAFE").await, ["Zürich café"]);
    assert_eq!(fixture.find("ada", "ελλάδα").await, ["Ελλάδα"]);
    assert_eq!(fixture.find("ada", "КОФЕ").await, ["кофе"]);
}

async fn highlight<B: Backend>(body: &str, text: &str) -> String {
    let fixture = Fixture::<B>::new().await;
    let channel = fixture.channel(&["ada"]).await;
    fixture.say(channel, "ada", &[body]).await;
    let hit = fixture.search("ada", query(text)).await.unwrap().hits.remove(0);
    assert_eq!(hit.body, body, "the body is as it was");
    hit.highlight
}

pub async fn matches_are_marked_and_the_rest_is_escaped<B: Backend>() {
    let cases = [
        ("one two three two", "two", "one <mark>two</mark> three <mark>two</mark>"),
        ("Zürich!", "zurich", "<mark>Zürich</mark>!"),
        ("<script>alert('x')</script>", "alert", "&lt;script&gt;<mark>alert</mark>(&#39;x&#39;)&lt;/script&gt;"),
        ("a & b \" <b>", "a", "<mark>a</mark> &amp; b &quot; &lt;b&gt;"),
        ("<script>", "script", "&lt;<mark>script</mark>&gt;"),
        ("</mark>x", "x", "&lt;/mark&gt;<mark>x</mark>"),
    ];
    for (body, text, expected) in cases {
        assert_eq!(highlight::<B>(body, text).await, expected, "{body}");
    }
}

/// Whatever characters mark the matches inside, a sender can write them too.
pub async fn nobody_can_forge_a_mark<B: Backend>() {
    for control in (0..32).chain([0x7f, 0xe000, 0xfdd0, 0xfffd, 0xffff]).filter_map(char::from_u32) {
        let body = format!("{control}forged{control}x real {control}");
        let html = highlight::<B>(&body, "real").await;
        // An index may do without marks where the text has a NUL.
        if control != '\0' {
            assert_eq!(html.matches("<mark>").count(), 1, "{control:?} {html:?}");
            assert!(html.contains("<mark>real</mark>"), "{control:?} {html:?}");
        }
        assert_eq!(html.replace("<mark>", "").replace("</mark>", ""), body, "{control:?} nothing is lost");
    }
}

pub async fn only_texts_are_found<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let channel = fixture.channel(&["ada"]).await;
    let mut entries = Vec::new();
    for (seq, kind) in [(2, Kind::Text), (3, Kind::System), (4, Kind::Media)] {
        entries.push(message(channel, seq, "ada", kind, "word"));
    }
    fixture.0.store().append(Arc::new(batch(channel, entries.clone()))).await.unwrap();
    fixture.index(entries).await;
    let page = fixture.search("ada", query("word")).await.unwrap();
    assert_eq!(page.hits.iter().map(|hit| hit.seq).collect::<Vec<_>>(), [2]);
    assert_eq!(page.total, 1);
}

pub async fn indexing_again_changes_nothing<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let channel = fixture.channel(&["ada"]).await;
    let said = fixture.say(channel, "ada", &["one word", "another word"]).await;
    let before = fixture.search("ada", query("word")).await.unwrap();
    assert_eq!(before.hits.len(), 2);
    for again in [said.clone(), said[1..].to_vec(), [said.clone(), said.clone()].concat(), Vec::new()] {
        fixture.index(again).await;
        assert_eq!(fixture.search("ada", query("word")).await.unwrap(), before);
    }
    // And beside new ones, at once from several sides.
    let more = fixture.store(channel, "ada", &["a third word"]).await;
    let index = fixture.0.index();
    let all = [said, more].concat();
    let tries = (0..4).map(|_| index.index(all.clone()));
    futures_util::future::join_all(tries).await.into_iter().for_each(Result::unwrap);
    fixture.0.settle().await;
    assert_eq!(fixture.find("ada", "word").await, ["a third word", "another word", "one word"]);
}

pub async fn only_what_was_indexed_is_found<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let channel = fixture.channel(&["ada"]).await;
    fixture.store(channel, "ada", &["word"]).await;
    assert_eq!(fixture.find("ada", "word").await.len(), 0);
    let stored = fixture.0.store().messages(channel, Page::After(0), 10).await.unwrap();
    fixture.index(stored).await;
    assert_eq!(fixture.find("ada", "word").await, ["word"]);
}

pub async fn filters_narrow_it<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let here = fixture.channel(&["ada", "bob"]).await;
    let there = fixture.channel(&["ada", "bob"]).await;
    // Sent at 2 s to 5 s here, at 2 s there.
    fixture.say(here, "ada", &["word ada 2", "word ada 3"]).await;
    fixture.say(here, "bob", &["word bob 4", "word bob 5"]).await;
    fixture.say(there, "bob", &["word there"]).await;
    let find = async |query: Query| {
        let page = fixture.search("ada", query).await.unwrap();
        assert_eq!(page.total, page.hits.len() as u64);
        page.hits.into_iter().map(|hit: Hit| (hit.channel == here, hit.seq)).collect::<Vec<_>>()
    };
    let all = || query("word");
    assert_eq!(find(all()).await.len(), 5);
    assert_eq!(find(Query { channel: Some(there), ..all() }).await, [(false, 2)]);
    assert_eq!(find(Query { channel: Some(here), ..all() }).await.len(), 4);
    assert_eq!(find(Query { from: Some(user("ada")), ..all() }).await, [(true, 3), (true, 2)]);
    assert_eq!(find(Query { from: Some(user("cyd")), ..all() }).await, []);
    let (from, to) = (Some(Millis(2000)), Some(Millis(5000)));
    assert_eq!(find(Query { before: to, after: from, ..all() }).await, [(true, 4), (true, 3)], "both excluded");
    assert_eq!(find(Query { before: from, ..all() }).await, []);
    let narrow = Query { channel: Some(here), from: Some(user("bob")), after: Some(Millis(4000)), ..all() };
    assert_eq!(find(narrow).await, [(true, 5)]);
    let (first, last) = (Some(Millis(i64::MIN)), Some(Millis(i64::MAX)));
    assert_eq!(find(Query { before: last, after: first, ..all() }).await.len(), 5);
}

/// The words of the query language are words, its signs are nothing.
pub async fn no_query_is_an_expression<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let channel = fixture.channel(&["ada"]).await;
    fixture.say(channel, "ada", &["cats", "dogs", "cats or dogs", "cats and dogs", "cats not dogs"]).await;
    assert_eq!(fixture.find("ada", "cats OR dogs").await, ["cats or dogs"]);
    assert_eq!(fixture.find("ada", "cats NOT dogs").await, ["cats not dogs"]);
    assert_eq!(fixture.find("ada", "cats AND dogs").await, ["cats and dogs"]);
    assert_eq!(fixture.find("ada", "(cats) OR (dogs)").await, ["cats or dogs"]);
    assert_eq!(fixture.find("ada", "-cats").await.len(), 4);
    assert_eq!(fixture.find("ada", "body:cats").await.len(), 0);
    assert_eq!(fixture.find("ada", "NEAR(cats dogs)").await.len(), 0);
    assert_eq!(fixture.find("ada", "cats^2 dogs~1").await.len(), 0);
}

pub async fn no_text_breaks_it<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    let channel = fixture.channel(&["ada"]).await;
    fixture.say(channel, "ada", &["cats"]).await;
    let pieces = [
        "\"",
        "'",
        "*",
        "(",
        ")",
        "{",
        "}",
        ":",
        "^",
        "+",
        "-",
        "\\",
        "\0",
        "\u{301}",
        "\u{345}",
        "ⅷ",
        "²",
        "AND",
        "OR",
        "NOT",
        "NEAR",
        "cats",
        "channel",
        "body",
        "é",
        "👩‍👩‍👧",
        "\u{e000}",
        "\u{10ffff}",
        " ",
        "\u{2028}",
        "1",
        ";",
        "--",
        "/*",
        "%",
        "_",
        "[",
        "]",
        "<",
        ">",
        "#",
        "@",
        "rowid",
        "\u{200b}",
        "_exists_",
        "\\u0022",
    ];
    // Fixed, so that what fails once fails again.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..2000 {
        let text: String = (0..1 + random(7)).map(|_| pieces[random(pieces.len())]).collect();
        match fixture.search("ada", query(&text)).await {
            Ok(_) | Err(SearchError::Invalid(_)) => {}
            Err(other) => panic!("{text:?}: {other}"),
        }
    }
}

pub async fn a_query_without_a_word_is_invalid<B: Backend>() {
    let fixture = Fixture::<B>::new().await;
    fixture.channel(&["ada"]).await;
    for text in ["", " ", "*", "\"\"", "?!", "\0", &"word ".repeat(10_000)] {
        let outcome = fixture.search("ada", query(text)).await;
        assert!(matches!(outcome, Err(SearchError::Invalid(_))), "{outcome:?}");
    }
}
