//! Which versions of the servers aula is made for.

use super::finding::Finding;

/// Those of a server: from the first, up to before the second.
pub struct Supported {
    pub from: (u32, u32),
    pub before: u32,
    /// The one that the tests run against.
    pub tested: &'static str,
}

/// Static columns, `DELETE` of ranges and paging by token are older; 4.0 is the oldest that is still maintained.
pub const CASSANDRA: Supported = Supported { from: (4, 0), before: 6, tested: "5.0" };
pub const ELASTICSEARCH: Supported = Supported { from: (8, 0), before: 10, tested: "8.19" };
/// Quorum queues with a single active consumer and a delivery limit.
pub const RABBITMQ: Supported = Supported { from: (3, 10), before: 5, tested: "3.10" };

impl Supported {
    /// What is to be said of a server of this version.
    pub fn judge(&self, check: &'static str, version: &str) -> Finding {
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().ok());
        let (Some(major), Some(minor)) = (numbers.next().flatten(), numbers.next().flatten()) else {
            return Finding::unknown(check, format!("version {version} is none that is known"), self.cure());
        };
        if (major, minor) < self.from {
            return Finding::problem(check, format!("version {version} is older than what aula needs"), self.cure());
        }
        if major >= self.before {
            return Finding::warning(check, format!("version {version} is newer than any that was tried"), self.cure());
        }
        Finding::ok(check, format!("version {version}"))
    }

    fn cure(&self) -> String {
        let ((major, minor), before) = (self.from, self.before);
        format!("run a version from {major}.{minor} on, before {before} (tested: {})", self.tested)
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let state = |version: &str| RABBITMQ.judge("version", version).state;
        assert_eq!(state("3.9.27"), State::Problem);
        assert_eq!(state("3.10.8"), State::Ok);
        assert_eq!(state("4.1.0-rc.1"), State::Ok);
        assert_eq!(state("5.0.0"), State::Warning);
        assert_eq!(state("unknown"), State::Unknown);
    }
}
