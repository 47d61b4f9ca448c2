//! A channel and how long its messages are kept, as one text: `0192f0c1-7a1e-7cc3-98c4-dc0c0c07398f=90d`.

use std::fmt::{self, Display};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::duration;
use crate::message::ChannelId;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeptFor {
    pub channel: ChannelId,
    /// 0: for ever.
    pub keep: Duration,
}

impl Display for KeptFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.channel, duration::format(self.keep))
    }
}

impl From<KeptFor> for String {
    fn from(kept: KeptFor) -> Self {
        kept.to_string()
    }
}

impl TryFrom<String> for KeptFor {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parsed = text.split_once('=').and_then(|(channel, keep)| {
            Some(Self { channel: ChannelId(Uuid::try_parse(channel).ok()?), keep: duration::parse(keep)? })
        });
        parsed.ok_or_else(|| {
            format!("{text:?} is not CHANNEL=DURATION, such as 0192f0c1-7a1e-7cc3-98c4-dc0c0c07398f=90d")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_it_is_read() {
        for text in ["0192f0c1-7a1e-7cc3-98c4-dc0c0c07398f=90d", "0192f0c1-7a1e-7cc3-98c4-dc0c0c07398f=0s"] {
            let kept: KeptFor = serde_json::from_value(text.into()).unwrap();
            assert_eq!(serde_json::to_value(&kept).unwrap(), text);
        }
        for bad in ["", "=", "90d", "0192f0c1-7a1e-7cc3-98c4-dc0c0c07398f", "0192f0c1=90d"] {
            assert!(KeptFor::try_from(bad.to_owned()).unwrap_err().contains("CHANNEL=DURATION"), "{bad}");
        }
        assert!(KeptFor::try_from("0192f0c1-7a1e-7cc3-98c4-dc0c0c07398f=90".to_owned()).is_err());
    }
}
