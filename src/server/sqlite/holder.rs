//! Who is at work on a data directory. Each process locks a file of its own for as long as it lives: the kernel lets
//! go of the lock however the process ends, so a successor needs no waiting time to know that it is dead.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// This process' entry; ends with it.
pub struct Holder {
    name: String,
    path: PathBuf,
    _locked: File,
}

impl Holder {
    /// Registers under `directory/run`. `role` says what the process is, for people: `serve`, `worker`.
    pub fn register(directory: &Path, role: &str) -> io::Result<Self> {
        let run = directory.join("run");
        fs::create_dir_all(&run)?;
        let name = format!("{role}-{}-{:08x}", std::process::id(), Uuid::new_v4().as_u128() as u32);
        let path = lock_path(directory, &name);
        // Under its real name only once it is locked: in between, a `sweep` would take it for a dead process' file.
        let unlocked = run.join(format!(".{name}"));
        let file = File::create(&unlocked)?;
        file.lock()?;
        fs::rename(&unlocked, &path)?;
        Ok(Self { name, path, _locked: file })
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "a lock file stays behind");
        }
    }
}

/// Whether the process registered under this name still lives. When in doubt, yes.
pub fn is_alive(directory: &Path, name: &str) -> bool {
    // Names come out of the database: one that isn't ours must not lead out of the folder.
    if name.contains(['/', '\\']) || name.starts_with('.') {
        return true;
    }
    match File::open(lock_path(directory, name)) {
        Ok(file) => matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The names of all who are at work here.
pub fn living(directory: &Path) -> Vec<String> {
    names(directory).into_iter().filter(|name| is_alive(directory, name)).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory.join("run")) else { return Vec::new() };
    let name = |entry: fs::DirEntry| Some(entry.file_name().to_str()?.strip_suffix(".lock")?.to_owned());
    entries.flatten().filter_map(name).collect()
}

fn lock_path(directory: &Path, name: &str) -> PathBuf {
    directory.join("run").join(format!("{name}.lock"))
}

/// Removes the files of processes that were killed. Called once at start; a failure is only untidy.
pub fn sweep(directory: &Path) {
    for name in names(directory) {
        if !is_alive(directory, &name)
            && let Err(error) = fs::remove_file(lock_path(directory, &name))
        {
            tracing::debug!(%error, "a dead process' lock file stays behind");
        }
    }
}
