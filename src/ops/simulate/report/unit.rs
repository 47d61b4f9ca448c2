//! Figures with their units: as people read them, and as they write them in a threshold.

use serde::Serialize;

use crate::config::parse_duration;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Microseconds,
    Bytes,
    Count,
    PerSecond,
    /// Of 1.
    Share,
}

/// Decimal and binary ones are both told by their names here: a figure of memory is compared, never allocated.
const SIZES: [(&str, f64); 7] = [
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("B", 1.0),
];

impl Unit {
    /// `value` for people, in at most eight or so characters: `4.12ms`, `182MiB`, `12,000`, `99.98%`.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Microseconds => duration(value),
            Self::Bytes => bytes(value),
            Self::Count => grouped(value.round()),
            Self::PerSecond => format!("{}/s", rate(value)),
            Self::Share => share(value),
        }
    }

    /// What `text` means, in this unit; `None` if it isn't such a figure.
    pub fn parse(self, text: &str) -> Option<f64> {
        match self {
            Self::Microseconds => parse_duration(text).map(|duration| duration.as_secs_f64() * 1e6),
            Self::Bytes => {
                let (number, size) = SIZES
                    .iter()
                    .find_map(|(name, size)| Some((text.strip_suffix(name)?, *size)))
                    .unwrap_or((text, 1.0));
                Some(number_of(number.trim_end())? * size)
            }
            Self::Count => number_of(text),
            Self::PerSecond => number_of(text.strip_suffix("/s").unwrap_or(text).trim_end()),
            Self::Share => match text.strip_suffix('%') {
                // Shifted in decimal: divided as a binary number, 99.99% would not be quite 0.9999.
                Some(percent) => number_of(percent.trim_end()).and_then(|number| format!("{number}e-2").parse().ok()),
                None => number_of(text),
            },
        }
    }

    /// What [`Unit::parse`] takes, for an error.
    pub const fn expected(self) -> &'static str {
        match self {
            Self::Microseconds => "a duration such as 50ms, 10us or 1.5s",
            Self::Bytes => "a size such as 500MB, 6KiB or 4096",
            Self::Count => "a number such as 10",
            Self::PerSecond => "a rate such as 1000 or 1000/s",
            Self::Share => "a share such as 0.999 or 99.9%",
        }
    }
}

/// Digits and at most one point: neither signs nor `inf`, `nan` and `1e9`, which `f64::from_str` takes.
fn number_of(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let value: f64 = if plain { text.parse().ok()? } else { return None };
    value.is_finite().then_some(value)
}

fn duration(micros: f64) -> String {
    // What rounds to a thousand is one of the next unit.
    let (value, unit) = if micros < 999.5 {
        (micros, "us")
    } else if micros < 999_500.0 {
        (micros / 1e3, "ms")
    } else {
        (micros / 1e6, "s")
    };
    if value.fract() == 0.0 { format!("{value}{unit}") } else { format!("{}{unit}", three_digits(value)) }
}

fn bytes(value: f64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = value;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let number = if value.fract() == 0.0 { value.to_string() } else { three_digits(value) };
    format!("{number}{}", UNITS[unit])
}

/// A number of things a second, without the unit.
pub fn rate(value: f64) -> String {
    if value < 999.5 && value.fract() != 0.0 { three_digits(value) } else { grouped(value.round()) }
}

/// Never rounded up: what lacks anything doesn't read 100 %.
fn share(value: f64) -> String {
    let percent = (value * 1e6 + 1e-6).floor() / 1e4;
    format!("{percent}%")
}

/// A ratio of two figures, such as `0.98` or `12.3`.
pub fn ratio(value: f64) -> String {
    if value < 100.0 { three_digits(value) } else { grouped(value.round()) }
}

fn three_digits(value: f64) -> String {
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// `1234567` as `1,234,567`.
pub fn grouped(whole: f64) -> String {
    let digits = format!("{whole:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Seconds as `1:05` or `1:00:05`.
pub fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let cases = [
            (Unit::Microseconds, 0.0, "0us"),
            (Unit::Microseconds, 0.853, "0.85us"),
            (Unit::Microseconds, 87.0, "87us"),
            (Unit::Microseconds, 999.6, "1.00ms"),
            (Unit::Microseconds, 4_123.0, "4.12ms"),
            (Unit::Microseconds, 50_000.0, "50ms"),
            (Unit::Microseconds, 999_600.0, "1.00s"),
            (Unit::Microseconds, 600_000_000.0, "600s"),
            (Unit::Bytes, 512.0, "512B"),
            (Unit::Bytes, 6144.0, "6KiB"),
            (Unit::Bytes, 190_841_651.0, "182MiB"),
            (Unit::Count, 999.0, "999"),
            (Unit::Count, 59_940_000.0, "59,940,000"),
            (Unit::PerSecond, 12.5, "12.5/s"),
            (Unit::PerSecond, 1_000.2, "1,000/s"),
            (Unit::Share, 1.0, "100%"),
            (Unit::Share, 0.999_999_9, "99.9999%"),
            (Unit::Share, 0.29, "29%"),
            (Unit::Share, 1.002, "100.2%"),
        ];
        for (unit, value, text) in cases {
            assert_eq!(unit.show(value), text, "{unit:?} {value}");
        }
    }

    #[test]
    fn figures_are_read_with_their_units() {
        let cases = [
            (Unit::Microseconds, "50ms", 50_000.0),
            (Unit::Microseconds, "2.5us", 2.5),
            (Unit::Microseconds, "10µs", 10.0),
            (Unit::Microseconds, "1.5s", 1_500_000.0),
            (Unit::Bytes, "4096", 4096.0),
            (Unit::Bytes, "500MB", 5e8),
            (Unit::Bytes, "1.5 KiB", 1536.0),
            (Unit::Count, "10", 10.0),
            (Unit::PerSecond, "1000/s", 1000.0),
            (Unit::Share, "99.9%", 0.999),
            (Unit::Share, "99.99%", 0.9999),
            (Unit::Share, "0.999", 0.999),
        ];
        for (unit, text, value) in cases {
            assert_eq!(unit.parse(text), Some(value), "{unit:?} {text}");
        }
    }

    #[test]
    fn what_is_no_figure_is_refused() {
        let cases = [
            (Unit::Microseconds, "50"),
            (Unit::Microseconds, "-1s"),
            (Unit::Bytes, "5kg"),
            (Unit::Bytes, "KiB"),
            (Unit::Count, ""),
            (Unit::Count, "."),
            (Unit::Count, "-1"),
            (Unit::Count, "+1"),
            (Unit::Count, "inf"),
            (Unit::Count, "NaN"),
            (Unit::Count, "10ms"),
            (Unit::Share, "99.9%%"),
        ];
        for (unit, text) in cases {
            assert_eq!(unit.parse(text), None, "{unit:?} {text}");
        }
    }
}
