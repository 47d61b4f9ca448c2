use std::path::PathBuf;
use std::process::{Command, Stdio};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/centrifuge");

fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("centrifuge")
}

/// Builds it; Go's own cache knows what was built before.
///
/// Errors: there is no Go.
pub fn install() -> Result<(), String> {
    let built = Command::new("go")
        .args(["build", "-trimpath", "-buildvcs=false", "-o"])
        .arg(binary())
        .arg(".")
        .current_dir(SOURCE)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    match built {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => panic!("`go build` in {SOURCE} failed ({status}): repair that, or name others with `--servers`"),
        Err(error) => Err(format!("`go` can't be started ({error})")),
    }
}

pub fn prepare() -> Command {
    Command::new(binary())
}
