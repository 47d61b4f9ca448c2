//! What clients say, in both encodings.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use crate::message::{ChannelId, Seq};

/// A request of `aula.v1`; the server's own types of them only read.
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Ask<'a> {
    Send {
        #[serde(rename = "ref")]
        reference: u64,
        channel: ChannelId,
        client_id: Uuid,
        body: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        retry: bool,
    },
    History {
        #[serde(rename = "ref")]
        reference: u64,
        channel: ChannelId,
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<Seq>,
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<Seq>,
        limit: u32,
    },
    Resume {
        #[serde(rename = "ref")]
        reference: u64,
        channels: &'a BTreeMap<ChannelId, Seq>,
    },
    CreateChannel {
        #[serde(rename = "ref")]
        reference: u64,
        kind: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<&'a str>,
        members: &'a [&'a str],
    },
    AddMembers {
        #[serde(rename = "ref")]
        reference: u64,
        channel: ChannelId,
        members: &'a [&'a str],
    },
    Leave {
        #[serde(rename = "ref")]
        reference: u64,
        channel: ChannelId,
    },
    Search {
        #[serde(rename = "ref")]
        reference: u64,
        query: &'a str,
        limit: u32,
    },
    Delivered {
        channel: ChannelId,
        seq: Seq,
    },
    Read {
        channel: ChannelId,
        seq: Seq,
    },
    Typing {
        channel: ChannelId,
    },
}

/// How a client writes what it asks; the buffer is used again.
#[derive(Debug, Default)]
pub struct Pen {
    bytes: Vec<u8>,
}

impl Pen {
    /// The request's JSON.
    pub fn json(&mut self, ask: &Ask<'_>) -> Result<&str, String> {
        self.bytes.clear();
        serde_json::to_writer(&mut self.bytes, ask).map_err(|error| error.to_string())?;
        std::str::from_utf8(&self.bytes).map_err(|error| error.to_string())
    }

    /// The request as MessagePack; ids are text there, too.
    pub fn msgpack(&mut self, ask: &Ask<'_>) -> Result<&[u8], String> {
        self.bytes.clear();
        let mut serializer = rmp_serde::Serializer::new(&mut self.bytes).with_struct_map().with_human_readable();
        ask.serialize(&mut serializer).map_err(|error| error.to_string())?;
        Ok(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Request, decode_json, decode_msgpack};

    #[test]
    fn the_server_reads_the_same_in_both_encodings() {
        let channel = ChannelId(Uuid::from_u128(7));
        let channels = BTreeMap::from([(channel, 3)]);
        let asks = [
            Ask::Send { reference: 1, channel, client_id: Uuid::from_u128(9), body: "b", retry: true },
            Ask::Send { reference: 1, channel, client_id: Uuid::from_u128(9), body: "b", retry: false },
            Ask::History { reference: 2, channel, before: None, after: Some(4), limit: 5 },
            Ask::Resume { reference: 3, channels: &channels },
            Ask::CreateChannel { reference: 4, kind: "group", name: Some("g"), members: &["ada"] },
            Ask::CreateChannel { reference: 4, kind: "direct", name: None, members: &["ada"] },
            Ask::AddMembers { reference: 5, channel, members: &["ada"] },
            Ask::Leave { reference: 6, channel },
            Ask::Search { reference: 7, query: "q", limit: 8 },
            Ask::Delivered { channel, seq: 1 },
            Ask::Read { channel, seq: 1 },
            Ask::Typing { channel },
        ];
        let mut pen = Pen::default();
        for ask in asks {
            let json = decode_json(pen.json(&ask).unwrap().as_bytes()).unwrap();
            let msgpack = decode_msgpack(pen.msgpack(&ask).unwrap()).unwrap();
            let request: &Request = json.request.as_ref().unwrap();
            assert_eq!(request, msgpack.request.as_ref().unwrap(), "{ask:?}");
            assert_eq!(json.reference, msgpack.reference);
        }
    }
}
