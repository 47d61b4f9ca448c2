use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::exit::Advise;
use super::{Context, Exit};
use crate::oracle::{self, Promise, Record, Verdict, Violation};

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Judge a recorded run: which promises does it show broken?
///
/// The file is one that `aula simulate-clients --record FILE` wrote: everything that each client sent and received, and
/// the channels' histories as they were in the end. What became of the messages is counted, and each promise that was
/// broken is named with the messages concerned. Exits with 1 if there is any, or if the histories are missing without
/// which nothing is known of what was lost, and with 2 if the file can't be read. P12 and P13 leave no trace in a record.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recorded run; `-` reads stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let record = self.read(context).exit(Exit::Usage)?;
        let verdict = oracle::check(&record);
        if context.output.is_json() {
            context.output.json(&verdict)?;
        } else {
            show(context, &verdict)?;
        }
        // Who asks for a proof must not take its absence for one.
        Ok(if verdict.is_clean() && verdict.scope.fault().is_none() { Exit::Done } else { Exit::Failed })
    }

    fn read(&self, context: &Context) -> anyhow::Result<Record> {
        let name = self.file.display();
        let (input, size): (Box<dyn Read>, _) = if self.file == Path::new("-") {
            (Box::new(io::stdin().lock()), None)
        } else {
            let file = File::open(&self.file)
                .with_context(|| format!("can't open {name}"))
                .hint("`aula simulate-clients --record FILE` writes such a file")?;
            let size = file.metadata().ok().map(|metadata| metadata.len());
            (Box::new(file), size)
        };
        let shows = !context.output.is_quiet() && io::stderr().is_terminal();
        let input = Watched { input, read: 0, size, told_at: Instant::now(), shows, is_told: false };
        Record::read(BufReader::with_capacity(1 << 16, input))
            .with_context(|| name.to_string())
            .hint("`aula simulate-clients --record FILE` writes such files: is it one, and was it written to its end?")
    }
}

fn show(context: &Context, verdict: &Verdict) -> io::Result<()> {
    let c = &verdict.counts;
    let counts = [
        ("attempts", c.attempts),
        ("acknowledged", c.acknowledged),
        ("ok", c.ok),
        ("recovered", c.recovered),
        ("lost", c.lost),
        ("duplicated", c.duplicated),
        ("unexpected", c.unexpected),
        ("retold", c.retold),
    ];
    context.output.rows(&counts, ["MESSAGES", "COUNT"], |(name, count)| [(*name).to_owned(), count.to_string()])?;
    context.output.text("\n")?;
    if let Some(fault) = verdict.scope.fault() {
        context.output.text(&format!("nothing is proved: {fault}\n"))?;
    }
    if let Some(unjudged) = verdict.scope.unjudged.text() {
        context.output.text(&format!("not judged: {unjudged}\n"))?;
    }
    if verdict.scope.searches == 0 {
        let text = Promise::P10.text();
        context
            .output
            .text(&format!("P10 ({text}) is not judged: the record has no searches for stored messages\n"))?;
    }
    if verdict.is_clean() {
        return context.output.text("no promise was seen broken\n");
    }
    let broken: Vec<(&Promise, &u64)> = verdict.broken.iter().collect();
    context.output.rows(&broken, ["PROMISE", "BROKEN", "WHICH"], |(promise, count)| {
        [promise.to_string(), count.to_string(), promise.text().to_owned()]
    })?;
    context.output.text("\n")?;
    // A line each: the details are too long for columns.
    context.output.rows(&verdict.violations, ["VIOLATIONS"], |violation: &Violation| [violation.to_string()])?;
    let described = verdict.violations.len() as u64;
    let more = verdict.broken.values().sum::<u64>() - described;
    if more > 0 {
        context.output.text(&format!("and {more} more: of each promise, {} are described\n", oracle::DESCRIBED))?;
    }
    Ok(())
}

/// Tells on a terminal how far a long file is read.
struct Watched<R> {
    input: R,
    read: u64,
    size: Option<u64>,
    told_at: Instant,
    shows: bool,
    is_told: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(bytes)?;
        self.read += count as u64;
        if self.shows && self.told_at.elapsed() >= TELL_EVERY {
            self.told_at = Instant::now();
            self.is_told = true;
            let percent = self.size.filter(|size| *size > 0).map(|size| format!(" ({} %)", self.read * 100 / size));
            tell(&format!("\r{} MiB read{}", self.read >> 20, percent.unwrap_or_default()));
        }
        Ok(count)
    }
}

impl<R> Drop for Watched<R> {
    fn drop(&mut self) {
        if self.is_told {
            // Overwritten: what follows begins on an empty line.
            tell("\r                              \r");
        }
    }
}

fn tell(text: &str) {
    // Progress that can't be shown is no reason to stop.
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::tests::aula;
    use super::*;
    use crate::oracle::{Verdict, testing};

    fn verify(record: &Record, words: &[&str]) -> (Exit, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.ndjson");
        record.write(File::create(&path).unwrap()).unwrap();
        let words = [&["verify-history", path.to_str().unwrap()], words].concat();
        aula(folder.path(), &words).unwrap()
    }

    #[test]
    fn a_correct_run_is_clean() {
        let record = testing::correct();
        let (exit, text) = verify(&record, &[]);
        assert_eq!(exit, Exit::Done, "{text}");
        assert!(text.contains("no promise was seen broken"), "{text}");
        let Verdict { counts, .. } = oracle::check(&record);
        let attempts = text.lines().find_map(|line| line.strip_prefix("attempts")).unwrap();
        assert_eq!(attempts.trim(), counts.attempts.to_string());
    }

    #[test]
    fn what_is_broken_is_named() {
        let record = testing::with_a_loss();
        let (exit, text) = verify(&record, &[]);
        assert_eq!(exit, Exit::Failed, "{text}");
        assert!(text.contains("P1       1       an accepted message is never lost"), "{text}");
        let (exit, text) = verify(&record, &["--output", "json"]);
        assert_eq!(exit, Exit::Failed, "{text}");
        let verdict: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(verdict["counts"]["lost"], 1, "{text}");
        assert_eq!(verdict["broken"]["P1"], 1, "{text}");
        let lost = &verdict["violations"][0];
        assert_eq!(lost["promise"], "P1", "{text}");
        assert!(lost["messages"][0]["client_id"].is_string(), "{text}");
    }

    #[test]
    fn without_histories_nothing_is_proved() {
        let mut record = testing::correct();
        let kept = record.histories[0].channel;
        record.histories.retain(|history| history.channel == kept);
        let (exit, text) = verify(&record, &[]);
        assert_eq!(exit, Exit::Failed, "{text}");
        assert!(text.contains("nothing is proved: of 2 of 3 channels nobody read the history"), "{text}");
        let (exit, text) = verify(&record, &["--output", "json"]);
        assert_eq!(exit, Exit::Failed, "{text}");
        let verdict: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&verdict["scope"]["channels"], &verdict["scope"]["unread"]), (&3.into(), &2.into()), "{text}");

        let (exit, text) = verify(&Record::default(), &[]);
        assert_eq!(exit, Exit::Failed, "{text}");
        assert!(text.contains("nothing is proved: the record has no channels"), "{text}");
    }

    #[test]
    fn a_record_without_searches_says_nothing_of_them() {
        let mut record = testing::correct();
        assert!(!verify(&record, &[]).1.contains("P10"));
        record.searches.clear();
        let (exit, text) = verify(&record, &[]);
        assert_eq!(exit, Exit::Done, "{text}");
        assert!(text.contains("P10 (search finds what is stored) is not judged"), "{text}");
    }

    #[test]
    fn what_may_still_come_is_said_to_be_not_judged() {
        assert!(!verify(&testing::correct(), &[]).1.contains("not judged"));
        let (exit, text) = verify(&testing::with_an_answer_to_come(), &[]);
        assert_eq!(exit, Exit::Done, "{text}");
        assert!(text.contains("not judged: 1 status that had not come\n"), "{text}");
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "something else\n").unwrap();
        for (file, expected) in
            [(path.to_str().unwrap(), "notes.txt: line 1: column 1"), ("/nowhere", "can't open /nowhere")]
        {
            let error = aula(folder.path(), &["verify-history", file]).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
            assert_eq!(super::super::exit::finish(Err(error)), Exit::Usage.into());
        }
    }
}
