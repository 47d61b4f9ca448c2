//! Durations as they are written: `100ms`, `5s`, `15m`, `30d`; for `#[serde(with = "duration")]`.

use std::time::Duration;

use jiff::SpanRelativeTo;
use jiff::fmt::friendly::SpanParser;
use serde::de::{Error, Unexpected};
use serde::{Deserializer, Serializer};

const EXPECTED: &str = "a duration with its unit, such as 100ms, 5s, 15m or 30d";

/// The duration `text` means, or `None` if it isn't one. A day has 24 hours; months and years, which have no fixed length, and
/// numbers without a unit aren't durations.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    // Clock notation would be one more way to read "1:30:00" and mean something else.
    if text.contains(':') {
        return None;
    }
    let span = SpanParser::new().parse_span(text).ok()?;
    let signed = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(signed).ok()
}

/// `duration` in the largest unit that leaves no fraction, in a form that [`parse`] takes.
pub(super) fn format(duration: Duration) -> String {
    const UNITS: [(&str, u128); 7] = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    UNITS
        .iter()
        .find(|(_, unit)| nanos.is_multiple_of(*unit))
        .map_or_else(|| format!("{nanos}ns"), |(name, unit)| format!("{}{name}", nanos / unit))
}

pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Visitor;

    impl serde::de::Visitor<'_> for Visitor {
        type Value = Duration;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(EXPECTED)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }
    }

    deserializer.deserialize_str(Visitor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units() {
        let cases = [
            ("0s", Duration::ZERO),
            ("100ms", Duration::from_millis(100)),
            ("5s", Duration::from_secs(5)),
            ("1.5s", Duration::from_millis(1500)),
            ("15m", Duration::from_secs(900)),
            ("1h 30m", Duration::from_secs(5400)),
            ("30d", Duration::from_secs(30 * 86_400)),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text), Some(want), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in
            ["", "5", "s", "-5s", "5s ago", "5 parsecs", "1mo", "1y", "01:30:00", "5s5s", "99999999999999999999s"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for text in ["0s", "1ns", "5us", "100ms", "1500ms", "90s", "5s", "15m", "90m", "23h", "30d"] {
            assert_eq!(parse(text).map(format).as_deref(), Some(text));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_duration_survives(millis in 0_u64..400 * 86_400_000) {
            let duration = Duration::from_millis(millis);
            proptest::prop_assert_eq!(parse(&format(duration)), Some(duration));
        }

        #[test]
        fn any_text_is_judged(text in ".*") {
            let _ = parse(&text);
        }
    }
}
