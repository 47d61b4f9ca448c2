use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use serde_json::json;

const BINARY: &str = "AULA_BENCH_CENTRIFUGO";

/// Centrifugo 6, wherever it was installed.
///
/// Errors: nobody says where.
pub fn binary() -> Result<OsString, String> {
    std::env::var_os(BINARY).filter(|path| !path.is_empty()).ok_or_else(|| format!("{BINARY} names no binary"))
}

/// Anybody may connect, subscribe and publish, and nothing is kept
/// (<https://centrifugal.dev/docs/server/configuration>). Where it will listen stands beside the command.
pub fn prepare(folder: &Path) -> (Command, SocketAddr) {
    // It can't say which port it was given, so it gets one that is free now.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = json!({
        "http_server": {"address": address.ip().to_string(), "port": address.port()},
        "log": {"level": "error"},
        "client": {"insecure": true},
        "channel": {
            "without_namespace": {
                "allow_subscribe_for_client": true,
                "allow_subscribe_for_anonymous": true,
                "allow_publish_for_client": true,
                "allow_publish_for_anonymous": true,
            },
        },
    });
    let file = folder.join("config.json");
    std::fs::write(&file, config.to_string()).unwrap();
    let mut command = Command::new(binary().unwrap_or_else(|missing| panic!("{missing}")));
    command.arg("--config").arg(file);
    (command, address)
}
