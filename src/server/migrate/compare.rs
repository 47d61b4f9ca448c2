//! What this binary knows, beside what a server has recorded.

use super::files::{File, Kind};
use super::report::{State, Step, Target};
use crate::message::Millis;

/// A row of `schema_migrations`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub version: u32,
    pub name: String,
    pub checksum: String,
    pub kind: Kind,
    pub applied_at: Millis,
}

/// Why nothing may be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    #[error("the schema is at version {found}, this binary knows versions up to {known}")]
    Newer { found: u32, known: u32 },
    #[error("version {version} ({name}) was applied from a file with other contents")]
    Changed { version: u32, name: String },
    #[error("version {version} ({name}) is applied, but this binary doesn't have it")]
    Missing { version: u32, name: String },
}

/// Every version of `files` and every one of `rows`, ascending.
pub fn compare(target: Target, files: &[File], rows: &[Row]) -> Vec<Step> {
    let newest = newest(files);
    let known = files.iter().map(|file| {
        let checksum = file.checksum();
        let state = match rows.iter().find(|row| row.version == file.version) {
            None => State::Pending,
            Some(row) if row.checksum != checksum => State::Changed,
            Some(row) => State::Applied { at: row.applied_at },
        };
        Step { target, version: Some(file.version), name: file.name.to_owned(), checksum, state }
    });
    let unknown = rows.iter().filter(|row| files.iter().all(|file| file.version != row.version)).map(|row| Step {
        target,
        version: Some(row.version),
        name: row.name.clone(),
        checksum: row.checksum.clone(),
        state: if row.version > newest { State::Newer { kind: row.kind } } else { State::Missing },
    });
    let mut steps: Vec<Step> = known.chain(unknown).collect();
    steps.sort_by_key(|step| step.version);
    steps
}

/// The files to apply, or why none may be. Newer steps that only expand are no hindrance.
pub fn pending(files: &'static [File], rows: &[Row]) -> Result<Vec<&'static File>, Misfit> {
    let known = newest(files);
    // First, because a newer binary explains everything else that differs.
    let newer = rows.iter().filter(|row| row.version > known && row.kind == Kind::Contract);
    if let Some(found) = newer.map(|row| row.version).max() {
        return Err(Misfit::Newer { found, known });
    }
    let mut sorted: Vec<&Row> = rows.iter().filter(|row| row.version <= known).collect();
    sorted.sort_by_key(|row| row.version);
    for Row { version, name, checksum, .. } in sorted {
        match files.iter().find(|file| file.version == *version) {
            None => return Err(Misfit::Missing { version: *version, name: name.clone() }),
            Some(file) if file.checksum() != *checksum => {
                return Err(Misfit::Changed { version: *version, name: name.clone() });
            }
            Some(_) => {}
        }
    }
    Ok(files.iter().filter(|file| rows.iter().all(|row| row.version != file.version)).collect())
}

fn newest(files: &[File]) -> u32 {
    files.last().map_or(0, |file| file.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: &[File] = &[File { version: 1, name: "one", text: "1" }, File { version: 2, name: "two", text: "2" }];

    fn row(version: u32, text: &'static str, kind: Kind) -> Row {
        let checksum = File { version, name: "", text }.checksum();
        Row { version, name: format!("n{version}"), checksum, kind, applied_at: Millis(0) }
    }

    fn versions(rows: &[Row]) -> Result<Vec<u32>, Misfit> {
        Ok(pending(FILES, rows)?.iter().map(|file| file.version).collect())
    }

    #[test]
    fn what_is_not_recorded_is_pending() {
        assert_eq!(versions(&[]), Ok(vec![1, 2]));
        assert_eq!(versions(&[row(1, "1", Kind::Expand)]), Ok(vec![2]));
        assert_eq!(versions(&[row(2, "2", Kind::Expand), row(1, "1", Kind::Contract)]), Ok(vec![]));
    }

    #[test]
    fn what_contradicts_the_files_is_refused() {
        let changed = [row(1, "other", Kind::Expand)];
        assert_eq!(versions(&changed), Err(Misfit::Changed { version: 1, name: "n1".to_owned() }));
        assert_eq!(compare(Target::Cassandra, FILES, &changed)[0].state, State::Changed);
        let missing = [row(1, "1", Kind::Expand)];
        assert_eq!(pending(&FILES[1..], &missing), Err(Misfit::Missing { version: 1, name: "n1".to_owned() }));
    }

    #[test]
    fn a_newer_schema_is_refused_only_if_it_has_contracted() {
        let applied = [row(1, "1", Kind::Expand), row(2, "2", Kind::Expand)];
        let newer = |kind| [applied.as_slice(), &[row(3, "3", kind), row(4, "4", Kind::Expand)]].concat();
        assert_eq!(versions(&newer(Kind::Expand)), Ok(vec![]));
        assert_eq!(versions(&newer(Kind::Contract)), Err(Misfit::Newer { found: 3, known: 2 }));
        let steps = compare(Target::Cassandra, FILES, &newer(Kind::Contract));
        assert_eq!(steps[2].state, State::Newer { kind: Kind::Contract });
    }
}
