//! A report as a JSON document: everything that was measured, for scripts, for `--compare`, and for merging.
//!
//! Times are in microseconds (`_us`), memory in bytes, shares of 1. A stage has its percentiles twice: as figures and as a
//! list of `[quantile, microseconds]`, and the histogram itself in the V2 encoding of HdrHistogram as base64, which other
//! tools of that family read and add up. What is derived from other fields (`reach`, the percentiles) is written for
//! readers' convenience and not read again.

use std::io::{self, Read};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::super::measured::Measured;
use super::compare::Comparison;
use super::{Judged, Report};
use document::Run;

mod document;
mod histogram;

/// What a document says that it is.
const KIND: &str = "aula simulate-clients";

/// Raised when a reader of the former version would misunderstand a document; a new field is no reason.
const VERSION: u64 = 1;

/// The largest document that is read: some days of seconds.
const MAX_BYTES: u64 = 256 << 20;

/// `report` as an indented document that ends in a newline.
///
/// Errors: a histogram with more samples than its encoding can say.
pub fn write(report: &Report<'_>) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Written<'a> {
        #[serde(flatten)]
        head: Head,
        aula: &'static str,
        reach: f64,
        errors: u64,
        server_cpu_per_delivery_us: Option<f64>,
        bytes_per_connection: Option<f64>,
        server_share_of_core: Option<f64>,
        own_cpu_per_received_us: Option<f64>,
        own_bytes_per_client: Option<f64>,
        received_per_second: Option<f64>,
        thresholds: &'a [Judged],
        comparison: Option<&'a Comparison>,
        #[serde(flatten)]
        run: Run,
    }
    let run = report.run;
    let mut text = serde_json::to_string_pretty(&Written {
        head: Head { report: Some(KIND.to_owned()), version: Some(VERSION) },
        aula: env!("CARGO_PKG_VERSION"),
        reach: run.reach(),
        errors: run.error_count(),
        server_cpu_per_delivery_us: run.cpu_per_delivery(),
        bytes_per_connection: run.bytes_per_connection(),
        server_share_of_core: run.share_of_core(),
        own_cpu_per_received_us: run.own_cpu_per_received(),
        own_bytes_per_client: run.own_bytes_per_client(),
        received_per_second: run.received_rate(),
        thresholds: &report.judged,
        comparison: report.comparison.as_ref(),
        run: Run::from(run),
    })?;
    text.push('\n');
    Ok(text)
}

/// What was measured by the run that `document` reports.
pub fn read(document: impl Read) -> Result<Measured, ReadError> {
    let mut text = Vec::new();
    document.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(ReadError::TooLarge);
    }
    // The head alone first: the rest of another version may look otherwise.
    let head: Head = serde_json::from_slice(&text).map_err(|error| ReadError::NotAReport(error.to_string()))?;
    if head.report.as_deref() != Some(KIND) {
        return Err(ReadError::NotAReport(format!("it has no `\"report\": \"{KIND}\"`")));
    }
    match head.version {
        Some(VERSION) => {}
        Some(version) => return Err(ReadError::Version(version)),
        None => return Err(ReadError::NotAReport("it has no version".to_owned())),
    }
    let run: Run = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(&text))
        .map_err(|error| ReadError::Damaged(error.to_string()))?;
    Ok(run.into())
}

/// Why a file can't be read as a report.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is larger than {} MiB, which no report is", MAX_BYTES >> 20)]
    TooLarge,
    #[error("it is not a report of `{KIND}`: {0}")]
    NotAReport(String),
    #[error(
        "it is a report of version {0}, and this aula reads version {VERSION}: use the aula that wrote it, or run it anew"
    )]
    Version(u64),
    #[error("the report is damaged: {0}")]
    Damaged(String),
}

#[derive(Serialize, Deserialize)]
struct Head {
    report: Option<String>,
    version: Option<u64>,
}

/// The percentile curve: each quantile at which it is worth looking, and the microseconds within which that share was.
/// Denser towards 1, as many as the samples can tell apart.
pub(super) fn curve(micros: &Histogram<u64>) -> Vec<(f64, u64)> {
    const TICKS_PER_HALVING: u32 = 5;
    micros.iter_quantiles(TICKS_PER_HALVING).map(|at| (at.quantile_iterated_to(), at.value_iterated_to())).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
