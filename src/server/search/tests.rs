//! What travels between a gateway and a search worker comes out as it went in.

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::*;
use crate::wire::frame::{ChannelCount, Facets, Hit, SenderCount};

fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T) {
    let compact = rmp_serde::to_vec(&value).unwrap();
    assert_eq!(rmp_serde::from_slice::<T>(&compact).unwrap(), value);
    let named = rmp_serde::to_vec_named(&value).unwrap();
    assert_eq!(rmp_serde::from_slice::<T>(&named).unwrap(), value);
}

#[test]
fn queries_travel() {
    let channel = ChannelId(Uuid::now_v7());
    let bare = Query {
        text: "\"a b\" c*".into(),
        channel: None,
        from: None,
        before: None,
        after: None,
        limit: usize::MAX,
        cursor: None,
        facets: false,
    };
    there_and_back(bare.clone());
    there_and_back(Query {
        channel: Some(channel),
        from: Some(Username::new("ada").unwrap()),
        before: Some(Millis(i64::MAX)),
        after: Some(Millis(i64::MIN)),
        limit: 0,
        cursor: Some("AAAA".into()),
        facets: true,
        ..bare
    });
}

#[test]
fn answers_travel() {
    let channel = ChannelId(Uuid::now_v7());
    let username = Username::new("ada").unwrap();
    let hit = Hit {
        channel,
        seq: u64::MAX,
        id: Uuid::now_v7(),
        sender: username.clone(),
        at: Millis(-1),
        body: "a\0\u{10ffff}".into(),
        highlight: "<mark>a</mark>".into(),
    };
    there_and_back(SearchPage::default());
    there_and_back(SearchPage { hits: vec![hit.clone(), hit], total: 2, cursor: Some("x".into()), facets: None });
    let facets = Facets {
        channels: vec![ChannelCount { channel, count: 2 }],
        senders: vec![SenderCount { username, count: u64::MAX }],
    };
    there_and_back(SearchPage { facets: Some(facets), ..SearchPage::default() });
    for error in [
        SearchError::Invalid("why".into()),
        SearchError::NotAMember,
        SearchError::TooSlow,
        SearchError::Unavailable("why".into()),
    ] {
        there_and_back::<Result<SearchPage, SearchError>>(Err(error));
    }
}
