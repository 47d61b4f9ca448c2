//! Parsers of argument values that more than one command takes.

use std::time::Duration;

/// `30s`, `1m 30s`, `250ms`: a number without a unit is refused, as is a negative one.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = "a duration with its unit is expected, such as 30s, 250ms or 1m 30s";
    let duration: jiff::SignedDuration = text.parse().map_err(|_error| expected.to_owned())?;
    duration.try_into().map_err(|_negative| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
