//! JSON and MessagePack carry the same maps under the same names; uuids and times are text in both.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::request::Request;

/// How a connection's frames are written, by the subprotocol it chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Msgpack,
}

/// Bytes that are no frame at all. The connection is closed (RFC 6455 §7.4.1, code 1007).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed frame: {0}")]
pub struct Malformed(pub String);

/// A well-formed frame, whether or not it is a request that can be served.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// Repeated in the reply.
    pub reference: Option<u64>,
    pub request: Result<Request, Unusable>,
}

/// Why a well-formed frame is no request. The connection lives on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// `op` is not one of the known ones.
    UnknownOp(String),
    /// A field is missing, or of the wrong type or range.
    Invalid(String),
}

/// Deeper than any request; nothing nests this far but an attack.
const MAX_DEPTH: usize = 32;
/// No value of MessagePack begins with this byte.
const NEVER_USED: u8 = 0xc1;
/// Of an op's name repeated in an error.
const MAX_ECHO: usize = 32;

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(rename = "ref")]
    reference: Option<u64>,
}

/// The one table of ops: for both encodings, and for [`OPS`].
macro_rules! ops {
    ($then:ident $($args:tt)*) => {
        $then! { [$($args)*]
            "send" => Send, "delivered" => Delivered, "read" => Read, "typing" => Typing, "auth" => Auth,
            "history" => History, "resume" => Resume, "create_channel" => CreateChannel,
            "add_members" => AddMembers, "remove_member" => RemoveMember, "leave" => Leave, "search" => Search,
        }
    };
}

macro_rules! names {
    ([] $($name:literal => $variant:ident,)*) => { &["ping", $($name),*] };
}

macro_rules! by_op {
    ([$op:ident $parse:ident] $($name:literal => $variant:ident,)*) => {
        match $op.as_ref() {
            "ping" => Ok(Request::Ping),
            $($name => $parse!(Request::$variant),)*
            other => Err(Unusable::UnknownOp(other.chars().take(MAX_ECHO).collect())),
        }
    };
}

/// The ops a client may send.
pub const OPS: &[&str] = ops!(names);

/// A text frame. Never recurses deeper than serde_json's limit, allocates at most in proportion to the input.
pub fn decode_json(bytes: &[u8]) -> Result<Incoming, Malformed> {
    let head = match serde_json::from_slice::<Head<'_>>(bytes) {
        Ok(head) => head,
        Err(error) => return Ok(Incoming { reference: None, request: Err(json_error(&error)?) }),
    };
    fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<Result<T, Unusable>, Malformed> {
        serde_json::from_slice(bytes).map(Ok).or_else(|error| json_error(&error).map(Err))
    }
    macro_rules! parse {
        ($variant:path) => {
            body(bytes)?.map($variant)
        };
    }
    let Head { op, reference } = head;
    let request = ops!(by_op op parse);
    Ok(Incoming { reference, request })
}

/// A binary frame: one MessagePack map and nothing behind it.
pub fn decode_msgpack(bytes: &[u8]) -> Result<Incoming, Malformed> {
    let mut rest = bytes;
    let head = {
        let mut reader = rmp_serde::Deserializer::new(&mut rest).with_human_readable();
        reader.set_max_depth(MAX_DEPTH);
        match Head::deserialize(&mut reader) {
            Ok(head) => head,
            Err(error) => return Ok(Incoming { reference: None, request: Err(msgpack_error(&error)?) }),
        }
    };
    if !rest.is_empty() {
        return Err(Malformed(format!("{} bytes behind the map", rest.len())));
    }
    fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<Result<T, Unusable>, Malformed> {
        let mut reader = rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable();
        reader.set_max_depth(MAX_DEPTH);
        T::deserialize(&mut reader).map(Ok).or_else(|error| msgpack_error(&error).map(Err))
    }
    macro_rules! parse {
        ($variant:path) => {
            body(bytes)?.map($variant)
        };
    }
    let Head { op, reference } = head;
    let request = ops!(by_op op parse);
    Ok(Incoming { reference, request })
}

fn json_error(error: &serde_json::Error) -> Result<Unusable, Malformed> {
    let text = error.to_string();
    // Good JSON, though serde_json counts it as a syntax error.
    if error.is_data() || text.starts_with("number out of range") {
        Ok(Unusable::Invalid(text))
    } else {
        Err(Malformed(text))
    }
}

fn msgpack_error(error: &rmp_serde::decode::Error) -> Result<Unusable, Malformed> {
    use rmp_serde::decode::Error;
    match error {
        Error::InvalidMarkerRead(_) | Error::InvalidDataRead(_) | Error::DepthLimitExceeded => {
            Err(Malformed(error.to_string()))
        }
        Error::TypeMismatch(marker) if marker.to_u8() == NEVER_USED => {
            Err(Malformed("the byte 0xc1, which is never used".into()))
        }
        _ => Ok(Unusable::Invalid(error.to_string())),
    }
}

/// A frame as JSON. Our frames have text keys and finite numbers only, so this can't fail in practice; a failure is
/// reported rather than hidden.
pub fn to_json<T: Serialize>(frame: &T) -> Result<String, Malformed> {
    serde_json::to_string(frame).map_err(|error| Malformed(error.to_string()))
}

/// A frame as a MessagePack map.
pub fn to_msgpack<T: Serialize>(frame: &T) -> Result<Vec<u8>, Malformed> {
    let mut bytes = Vec::with_capacity(256);
    let mut writer = rmp_serde::Serializer::new(&mut bytes).with_struct_map().with_human_readable();
    frame.serialize(&mut writer).map_err(|error| Malformed(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
