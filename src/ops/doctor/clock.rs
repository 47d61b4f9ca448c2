//! How far a server's clock is from this one's.

use super::finding::Finding;
use crate::message::Millis;

/// People notice: times of messages jump between gateways.
const NOTICED_MS: i64 = 2_000;
/// Owners take clocks to be less than 60 s apart: a send that is repeated could become a second entry.
const DANGEROUS_MS: i64 = 30_000;
const CURE: &str = "let a time service run on all hosts: `timedatectl set-ntp true`, then `timedatectl status`";

/// `theirs` was read between `asked` and `answered`, of our clock, and tells time in steps of `step_ms`.
pub fn judge(check: &'static str, theirs: Millis, asked: Millis, answered: Millis, step_ms: i64) -> Finding {
    // Whatever moment in between it was read at, and however it was rounded down.
    let (early, late) = (asked.0 - theirs.0 - step_ms, answered.0 - theirs.0);
    let apart = if early > 0 {
        early
    } else if late < 0 {
        -late
    } else {
        0
    };
    let direction = if early > 0 { "behind" } else { "ahead of" };
    let said = format!("the server's clock is {}.{:03} s {direction} this one's", apart / 1000, apart % 1000);
    match apart {
        DANGEROUS_MS.. => Finding::problem(check, said, CURE),
        NOTICED_MS.. => Finding::warning(check, said, CURE),
        _ => Finding::ok(check, "the clocks agree"),
    }
}

/// The moment of an HTTP `Date` header: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
pub fn of_header(header: &str) -> Option<Millis> {
    let at = jiff::fmt::rfc2822::parse(&header.replace("GMT", "+0000")).ok()?;
    Some(Millis(at.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn only_what_no_delay_explains_is_skew() {
        let judge = |theirs, asked, answered| judge("clock", Millis(theirs), Millis(asked), Millis(answered), 1_000);
        assert_eq!(judge(5_000, 4_000, 9_000).state, State::Ok, "somewhere in between");
        assert_eq!(judge(5_000, 5_900, 6_000).state, State::Ok, "rounded down");
        assert_eq!(judge(9_500, 5_000, 5_100).state, State::Warning);
        let behind = judge(0, 60_000, 60_100);
        assert_eq!((behind.state, behind.found.contains("59.000 s behind")), (State::Problem, true), "{behind:?}");
    }

    #[test]
    fn dates_of_http_are_read() {
        assert_eq!(of_header("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Millis(784_111_777_000)));
        assert_eq!(of_header("yesterday"), None);
    }
}
