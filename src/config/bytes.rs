//! Sizes as they are written: `65536`, `64KiB`, `1MiB`; for `#[serde(with = "bytes")]`.

use serde::de::{Error, Unexpected};
use serde::{Deserializer, Serializer};

const EXPECTED: &str = "a size in bytes, such as 65536, 64KiB or 1MiB";

/// Largest first. Only binary units: whether `64KB` means 64,000 or 65,536 depends on who reads it.
const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// The bytes `text` means, or `None` if it isn't a size or doesn't fit.
pub(super) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit))).unwrap_or((text, 1));
    let number = number.trim_end();
    // `u64::from_str` takes a leading plus sign.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// `bytes` in the largest unit that leaves no fraction; a plain number below 1 KiB.
pub(super) fn format(bytes: u64) -> String {
    UNITS
        .iter()
        .find(|(_, unit)| *unit > 1 && bytes > 0 && bytes.is_multiple_of(*unit))
        .map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

pub(super) fn serialize<S: Serializer>(bytes: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    let bytes = *bytes as u64;
    let text = format(bytes);
    if text.ends_with('B') { serializer.serialize_str(&text) } else { serializer.serialize_u64(bytes) }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    struct Visitor;

    impl serde::de::Visitor<'_> for Visitor {
        type Value = usize;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(EXPECTED)
        }

        fn visit_u64<E: Error>(self, bytes: u64) -> Result<usize, E> {
            usize::try_from(bytes).map_err(|_| E::invalid_value(Unexpected::Unsigned(bytes), &self))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<usize, E> {
            parse(text)
                .and_then(|bytes| usize::try_from(bytes).ok())
                .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }
    }

    deserializer.deserialize_any(Visitor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units() {
        let cases = [
            ("0", 0),
            ("65536", 65536),
            ("12B", 12),
            ("64KiB", 65536),
            ("64 KiB", 65536),
            ("1MiB", 1 << 20),
            ("2GiB", 2 << 30),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text), Some(want), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "KiB",
            "-1",
            "+1",
            "1.5MiB",
            "64KB",
            "64k",
            "1_000",
            "64KiBB",
            "99999999999999999999",
            "18014398509481984KiB",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_size_survives(bytes: u64) {
            proptest::prop_assert_eq!(parse(&format(bytes)), Some(bytes));
        }
    }
}
