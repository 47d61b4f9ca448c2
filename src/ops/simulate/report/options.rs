use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};

use super::super::measured::Measured;
use super::{Judged, Report, Threshold, html, json, table};
use crate::ops::exit::{Advise, Exit};
use crate::ops::output::{self, Output};

/// What is to be told about a run, and what it must keep to.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Report")]
pub struct Options {
    /// Write a report to this file: .json for scripts and --compare, .html for people; may be given more than once
    #[arg(long, value_name = "FILE")]
    report: Vec<ReportFile>,
    /// Compare with the JSON report of an earlier run
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Exit with 99 unless this holds, such as 'send_to_receive.p99<50ms' or 'reach>=0.999'; may be given more than once
    #[arg(long = "threshold", value_name = "EXPRESSION")]
    thresholds: Vec<Threshold>,
}

/// A file for a report, in the format that its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ReportFile {
    path: PathBuf,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Html,
}

impl FromStr for ReportFile {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = PathBuf::from(text);
        let format = match path.extension().and_then(OsStr::to_str) {
            Some("json") => Format::Json,
            Some("html") => Format::Html,
            _ => return Err("a report's name ends in .json or .html"),
        };
        Ok(Self { path, format })
    }
}

impl Options {
    /// Reads the earlier report and checks that the new ones can be written: a run of an hour must not end in vain.
    ///
    /// Errors: what can't be read or written, with [`Exit::Usage`].
    pub fn prepare(self) -> anyhow::Result<Reporter> {
        for file in &self.report {
            folder_exists(&file.path).exit(Exit::Usage)?;
        }
        let earlier = self.compare.as_deref().map(read_earlier).transpose().exit(Exit::Usage)?;
        Ok(Reporter { files: self.report, earlier, thresholds: self.thresholds })
    }
}

fn folder_exists(file: &Path) -> anyhow::Result<()> {
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let metadata =
        fs::metadata(folder).with_context(|| format!("can't write {}: {}", file.display(), folder.display()));
    if !metadata.hint("make the folder first, or name another one with --report")?.is_dir() {
        bail!("can't write {}: {} is not a folder", file.display(), folder.display());
    }
    Ok(())
}

fn read_earlier(path: &Path) -> anyhow::Result<Measured> {
    let open = || fs::File::open(path).map_err(json::ReadError::from);
    let read = open().and_then(json::read).with_context(|| format!("can't compare with {}", path.display()));
    read.hint("--compare takes a file that an earlier run wrote with --report FILE.json")
}

/// What the options ask for, ready to be done.
#[derive(Debug, Clone, Default)]
pub struct Reporter {
    files: Vec<ReportFile>,
    earlier: Option<Measured>,
    thresholds: Vec<Threshold>,
}

impl Reporter {
    pub fn thresholds(&self) -> &[Threshold] {
        &self.thresholds
    }

    /// How a run stands to each threshold, for those who look for the largest load that meets them all.
    pub fn judge(&self, run: &Measured) -> Vec<Judged> {
        self.thresholds.iter().map(|threshold| threshold.judge(run)).collect()
    }

    /// Writes the reports, and prints nothing of them.
    ///
    /// Errors: a report that couldn't be written.
    pub fn write(&self, run: &Measured, output: &Output) -> anyhow::Result<()> {
        self.write_files(&Report::of(run, &self.thresholds, self.earlier.as_ref()), output)
    }

    fn write_files(&self, report: &Report<'_>, output: &Output) -> anyhow::Result<()> {
        self.files.iter().try_for_each(|file| {
            file.write(report)?;
            output.note(format_args!("report written to {}", file.path.display()));
            Ok(())
        })
    }

    /// Writes the reports, and prints the end of the run: tables, or with `--output json` the JSON report.
    ///
    /// Returns how the process should exit: [`Exit::Failed`] if a promise was broken, [`Exit::Threshold`] if a threshold
    /// isn't met. Errors: a report that couldn't be written; the rest is printed all the same.
    pub fn conclude(&self, run: &Measured, output: &Output) -> anyhow::Result<Exit> {
        let report = Report::of(run, &self.thresholds, self.earlier.as_ref());
        // Files first: whoever reads stdout may have gone away, and the run is not to be had again.
        let written = self.write_files(&report, output);
        if output.is_json() {
            output.text(&json::write(&report)?)?;
        } else {
            output.text(&table::text(&report, output::stdout_has_colors()))?;
        }
        written?;
        Ok(report.exit())
    }
}

impl ReportFile {
    fn write(&self, report: &Report<'_>) -> anyhow::Result<()> {
        let text = match self.format {
            Format::Json => json::write(report)?,
            Format::Html => html::page(report),
        };
        fs::write(&self.path, text).with_context(|| format!("can't write the report to {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::super::measured::{Verdict, Violation};
    use super::super::fake;
    use super::*;
    use crate::ops::output::tests::Captured;
    use crate::oracle::Counts;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn options(words: &[&str]) -> Result<Options, clap::Error> {
        Command::try_parse_from(["simulate-clients"].iter().chain(words)).map(|command| command.options)
    }

    fn conclude(reporter: &Reporter, run: &Measured, format: output::Format) -> (Exit, String) {
        let out = Captured::default();
        let output = Output::to(format, true, Box::new(out.clone()), Box::new(std::io::sink()));
        (reporter.conclude(run, &output).unwrap(), out.text())
    }

    #[test]
    fn a_report_is_written_and_compared_with() {
        let folder = tempfile::tempdir().unwrap();
        let (json, html) = (folder.path().join("run.json"), folder.path().join("run.html"));
        let (json, html) = (json.to_str().unwrap(), html.to_str().unwrap());
        let run = fake::measured();

        let first = options(&["--report", json, "--report", html]).unwrap().prepare().unwrap();
        assert_eq!(conclude(&first, &run, output::Format::Table).0, Exit::Done);
        assert!(fs::read_to_string(html).unwrap().starts_with("<!DOCTYPE html>"));

        let second = options(&["--compare", json, "--threshold", "reach>=1"]).unwrap().prepare().unwrap();
        let (exit, text) = conclude(&second, &run, output::Format::Json);
        assert_eq!(exit, Exit::Threshold);
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["comparison"]["rows"][0]["change"], "within_noise");
        assert_eq!(document["thresholds"][0]["met"], false);
    }

    #[test]
    fn a_broken_promise_weighs_more_than_a_crossed_threshold() {
        let reporter = options(&["--threshold", "reach>=1"]).unwrap().prepare().unwrap();
        let mut run = fake::measured();
        let seen = "seq 7 is lost".to_owned();
        let violations = vec![Violation { promise: "P1".to_owned(), seen, messages: Vec::new() }];
        run.verdict = Some(Verdict {
            counts: Counts { lost: 1, ..Counts::default() },
            broken: 1,
            violations,
            ..Verdict::default()
        });
        let (exit, text) = conclude(&reporter, &run, output::Format::Table);
        assert_eq!(exit, Exit::Failed);
        assert!(text.contains("seq 7 is lost"), "{text}");
    }

    #[test]
    fn what_can_not_end_well_is_refused_before_it_begins() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("none/run.json");
        let error = options(&["--report", nowhere.to_str().unwrap()]).unwrap().prepare().unwrap_err();
        assert!(format!("{error:#}").contains("can't write"), "{error:#}");

        let text = folder.path().join("notes.json");
        fs::write(&text, "not a report").unwrap();
        let error = options(&["--compare", text.to_str().unwrap()]).unwrap().prepare().unwrap_err();
        assert!(format!("{error:#}").contains("not a report"), "{error:#}");

        let error = options(&["--report", "run.pdf"]).unwrap_err().to_string();
        assert!(error.contains("ends in .json or .html"), "{error}");
        let error = options(&["--threshold", "accepted.p99<5"]).unwrap_err().to_string();
        assert!(error.contains("a duration such as 50ms"), "{error}");
    }
}
