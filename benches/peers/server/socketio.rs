use std::path::PathBuf;
use std::process::{Command, Stdio};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::cast::Cast;

const PACKAGE: [(&str, &str); 3] = [
    ("package.json", include_str!("../socketio/package.json")),
    ("package-lock.json", include_str!("../socketio/package-lock.json")),
    ("server.js", include_str!("../socketio/server.js")),
];
/// The server is started anew for each work, and nobody else can reach it.
const SECRET: &str = "of this benchmark alone";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("socketio")
}

/// Installs what the lock file names, unless that was done before.
pub fn install() {
    let folder = folder();
    std::fs::create_dir_all(&folder).unwrap();
    let is_installed = folder.join("node_modules/.package-lock.json").exists()
        && std::fs::read_to_string(folder.join("package-lock.json")).is_ok_and(|lock| lock == PACKAGE[1].1);
    for (name, content) in PACKAGE {
        std::fs::write(folder.join(name), content).unwrap();
    }
    if is_installed {
        return;
    }
    let npm = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    let without = "name others with `--servers`";
    match npm {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("`npm ci` in {} failed ({status}): repair that, or {without}", folder.display()),
        Err(error) => panic!("npm can't be started ({error}): install Node.js, or {without}"),
    }
}

pub fn prepare(cast: &mut Cast) -> Command {
    for person in &mut cast.people {
        let mut hmac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        hmac.update(person.name.as_bytes());
        let signature = hmac.finalize().into_bytes();
        person.credential = signature.iter().map(|byte| format!("{byte:02x}")).collect();
    }
    let mut command = Command::new("node");
    command.arg("server.js").current_dir(folder()).env("BENCH_SECRET", SECRET).env("NODE_ENV", "production");
    command
}
