//! Sends that are stored: the benchmark `durable`, for aula alone.

use super::{note_judged, row};
use crate::durable::{OPEN_LOOP_RATE, measure};
use crate::figures::Figures;
use crate::peer::Peer;

pub fn run(servers: &[Peer], figures: &mut Figures) {
    if !servers.contains(&Peer::Aula) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let durable = runtime.block_on(async {
        tokio::select! {
            durable = measure() => Some(durable),
            () = interrupted() => None,
        }
    });
    drop(runtime);
    crate::stop_if_interrupted();
    let durable = durable.unwrap();
    note_judged(figures, "durable", "durable sends", durable.judged);
    let mut note = |key: &str, label: &str, decimals, sample: &[f64]| {
        figures.note(&row(key, label, decimals), Peer::Aula, sample);
    };
    note("durable_persisted_per_second", "durable sends, persisted per second", 0, &[durable.persisted_per_second]);
    let label = "… times the rows per second of a bare loop of inserts";
    note("durable_ratio_to_bare_loop", label, 2, &[durable.ratio_to_bare_loop]);
    note("durable_cpu_us_per_message", "… server CPU, µs a message", 1, &[durable.persisted_cpu_us]);
    let label = format!("… at {OPEN_LOOP_RATE}/s, send to receive, ms: p50 / p99 / p99.9");
    note("durable_open_loop_latency_ms", &label, 1, &durable.latency_ms[..3]);
    let label = format!("… at {OPEN_LOOP_RATE}/s, server CPU, µs a message");
    note("durable_open_loop_cpu_us_per_message", &label, 0, &[durable.cpu_us_at_open_loop]);
    let resident = [durable.resident_at_rest_mib, durable.resident_after_load_mib];
    note("durable_resident_mib", "… resident, MiB: at rest / after the load", 1, &resident);
}

async fn interrupted() {
    while !crate::is_interrupted() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
