//! A load once more, on a server of its own, with everything recorded that its clients see, and judged by aula's oracle.
//!
//! Apart from what is measured: to record and to judge takes the processors that the servers share.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::cast::Cast;
use crate::dialect::BODY_BYTES;
use crate::durable::load::proof::Judged;
use crate::server::Process;

/// Clients that come in a second, while nothing is measured.
const CONNECTED_A_SECOND: u32 = 1_500;

/// Plays this many messages a second to the rooms of a cast, by turns of all their members.
///
/// Panics if a promise was seen broken, or if what was to be judged could not be.
pub fn judge(cast: &Cast, rate: u64, length: Duration) -> Judged {
    let folder = tempfile::tempdir().unwrap();
    let (scenario, report) = (folder.path().join("load.yaml"), folder.path().join("load.json"));
    std::fs::write(&scenario, text(cast, rate, length)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_aula"));
    command.args(["--quiet", "simulate-clients", "--check", "--scenario"]).arg(&scenario).arg("--report").arg(&report);
    let mut run = Process(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    let status = loop {
        if let Some(status) = run.0.try_wait().unwrap() {
            break status;
        }
        crate::pause(crate::LOOK);
    };
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap_or_default()).unwrap_or_default();
    let verdict = &report["verdict"];
    assert!(status.success() && verdict["broken"] == 0, "{status}: the oracle says {verdict}");
    let count = |of: &Value| of.as_u64().unwrap();
    // A load that was refused, or of which something did not come, proves nothing.
    assert_eq!(count(&verdict["attempts"]), count(&verdict["acknowledged"]), "sends, and those acknowledged");
    assert_eq!(count(&report["received"]), count(&report["expected"]), "deliveries, and those expected");
    let offered = &report["offered"];
    assert_eq!(count(&offered["attempted"]), count(&offered["planned"]), "sends, and those planned: {offered}");
    Judged { sends: count(&verdict["attempts"]), deliveries: count(&report["received"]) }
}

/// The scenario: channels with as many members as the rooms have, all alike.
fn text(cast: &Cast, rate: u64, length: Duration) -> String {
    let (rooms, members) = (cast.rooms.len(), cast.rooms[0].members.len());
    let ramp = (cast.len() / CONNECTED_A_SECOND).max(2);
    format!(
        "about: A load of the benchmark\nclients: {}\nrate: {rate}\narrival: even\n\
         channels: [{{shape: group, members: {members}, count: {rooms}}}]\n\
         body: {{min: {BODY_BYTES}, max: {BODY_BYTES}}}\n\
         phases: [{{phase: ramp, duration: {ramp}s}}, {{phase: hold, duration: {}s}}]\n",
        cast.len(),
        length.as_secs()
    )
}
