//! Parsers of argument values that more than one command takes.

use std::time::Duration;

use crate::message::Millis;

/// `30s`, `1m 30s`, `250ms`: a number without a unit is refused, as is a negative one.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = "a duration with its unit is expected, such as 30s, 250ms or 1m 30s";
    let duration: jiff::SignedDuration = text.parse().map_err(|_error| expected.to_owned())?;
    duration.try_into().map_err(|_negative| expected.to_owned())
}

/// A moment: `2026-11-22T19:45:53Z`, or how long ago: `2h`, `7d`.
pub fn moment(text: &str) -> Result<Millis, String> {
    if let Some(ago) = crate::config::parse_duration(text) {
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        return Ok(Millis(Millis::now().0.saturating_sub(ago)));
    }
    let expected = "a time such as 2026-11-22T19:45:53Z is expected, or how long ago, such as 2h or 7d";
    let at: jiff::Timestamp = text.parse().map_err(|_error| expected.to_owned())?;
    Ok(Millis(at.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_how_long_ago() {
        assert_eq!(moment("2026-11-22T19:45:53Z"), Ok(Millis(1_795_376_753_000)));
        let ago = Millis::now().0 - moment("2h").unwrap().0;
        assert!((7_200_000..7_260_000).contains(&ago), "{ago}");
        for bad in ["", "yesterday", "2026-11-22", "7"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_need_their_unit() {
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "30", "-5s", "5 minutes ago", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
