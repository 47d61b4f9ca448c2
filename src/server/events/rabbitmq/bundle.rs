//! What is written on the `events` exchange: a version byte, who published, a number, and the events in compact
//! MessagePack.
//!
//! A publisher's numbers follow each other, so that a gateway sees when the broker has dropped some of its queue.

use bytes::Bytes;
use uuid::Uuid;

use crate::server::events::{BusError, Event};

/// Raised when a field is added or changes; gateways accept every version that was ever released.
const VERSION: u8 = 1;
const HEADER: usize = 1 + 16 + 8;

/// Who published, as the how-manieth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) publisher: Uuid,
    pub(super) number: u64,
}

/// Events as they are written, but for their origin, which is known only when it is their turn.
pub(super) fn encode(events: &[Event]) -> Result<Vec<u8>, BusError> {
    let mut bytes = vec![0; HEADER];
    rmp_serde::encode::write(&mut bytes, events).map_err(|error| BusError(error.to_string()))?;
    Ok(bytes)
}

pub(super) fn stamp(bundle: &mut [u8], origin: Origin) {
    if let Some(header) = bundle.get_mut(..HEADER) {
        header[0] = VERSION;
        header[1..17].copy_from_slice(origin.publisher.as_bytes());
        header[17..].copy_from_slice(&origin.number.to_be_bytes());
    }
}

pub(super) fn decode(bundle: &Bytes) -> Result<(Origin, Vec<Event>), String> {
    let (header, events) = bundle.split_at_checked(HEADER).ok_or("it is too short")?;
    if header[0] != VERSION {
        return Err(format!(
            "it has version {}, this binary reads up to {VERSION}: upgrade the gateways first",
            header[0]
        ));
    }
    let publisher = Uuid::from_slice(&header[1..17]).map_err(|error| error.to_string())?;
    let number = header[17..].try_into().map(u64::from_be_bytes).map_err(|_| "its number is cut off")?;
    let events = rmp_serde::from_slice(events).map_err(|error| error.to_string())?;
    Ok((Origin { publisher, number }, events))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use crate::message::ChannelId;

    #[test]
    fn a_bundle_comes_back_as_it_was() {
        let events = vec![Event::Watermarks { channel: ChannelId(Uuid::from_u128(1)), delivered: Some(7), read: None }];
        let origin = Origin { publisher: Uuid::from_u128(5), number: u64::MAX };
        let mut bundle = encode(&events).unwrap();
        stamp(&mut bundle, origin);
        assert_eq!(decode(&bundle.into()), Ok((origin, events)));
    }

    #[test]
    fn what_is_no_bundle_says_why() {
        assert!(decode(&Bytes::new()).unwrap_err().contains("short"));
        assert!(decode(&vec![9; 40].into()).unwrap_err().contains("version 9"));
        let mut cut = encode(&[]).unwrap();
        stamp(&mut cut, Origin { publisher: Uuid::nil(), number: 1 });
        cut.truncate(HEADER);
        assert!(decode(&cut.into()).is_err());
    }
}
