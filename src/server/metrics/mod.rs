//! The metrics of the process, for Prometheus. The names are listed in `docs/metrics.md`.

pub mod process;

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds in seconds, from a tenth of a millisecond to ten seconds.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const WRITES: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Samples are folded into their buckets this often; until then each takes memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// Begins to count. Call it once, before anything counts.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_writes".into()), &WRITES)?
        .install_recorder()
}

/// Keeps the recorder's memory bounded. Runs until dropped.
pub async fn upkeep(handle: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        handle.run_upkeep();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    type Metrics = BTreeSet<(String, &'static str)>;

    const TYPES: [&str; 3] = ["counter", "gauge", "histogram"];

    fn counted(folder: &Path, found: &mut Metrics) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                counted(&path, found);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            for kind in TYPES {
                // The name may stand on a line of its own.
                for call in source.split(&format!("{kind}!(")).skip(1) {
                    let name = call.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'));
                    let (name, _) = name.unwrap_or_else(|| panic!("a {kind} without a literal name in {path:?}"));
                    found.insert((name.to_owned(), kind));
                }
            }
        }
    }

    fn documented(page: &str, prefix: &str) -> Metrics {
        let rows = page.lines().filter(|line| line.starts_with(&format!("| `{prefix}_")));
        rows.map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let kind = TYPES.into_iter().find(|kind| *kind == cells[2]).unwrap_or_else(|| panic!("no type: {row}"));
            (cells[1].trim_matches('`').to_owned(), kind)
        })
        .collect()
    }

    #[test]
    fn every_metric_is_documented_and_every_documented_metric_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut in_source = Metrics::new();
        counted(&root.join("src/server"), &mut in_source);
        let page = std::fs::read_to_string(root.join("docs/metrics.md")).unwrap();
        let on_page = documented(&page, "aula");
        let undocumented: Vec<_> = in_source.difference(&on_page).collect();
        let gone: Vec<_> = on_page.difference(&in_source).collect();
        assert!(
            undocumented.is_empty() && gone.is_empty(),
            "not on the page: {undocumented:?}; not in the code: {gone:?}"
        );
        assert!(in_source.len() >= 20, "the search for metrics finds too little: {in_source:?}");
        let exposition = super::process::exposition();
        let of_the_process = exposition.lines().filter_map(|line| {
            let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
            Some((name.to_owned(), TYPES.into_iter().find(|known| *known == kind)?))
        });
        assert_eq!(of_the_process.collect::<Metrics>(), documented(&page, "process"));
    }
}
