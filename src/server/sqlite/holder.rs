//! Who is at work on a data directory. Each process locks a file of its own for as long as it lives: the kernel lets
//! go of the lock however the process ends, so a successor needs no waiting time to know that it is dead.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// This process' entry; ends with it.
pub struct Holder {
    name: String,
    path: PathBuf,
    _locked: File,
}

impl Holder {
    /// Registers under `directory/run`. `role` says what the process is, for people: `serve`, `worker`; `note` is for
    /// the others, who find it in [`living`].
    pub fn register(directory: &Path, role: &str, note: &str) -> io::Result<Self> {
        let run = directory.join("run");
        fs::create_dir_all(&run)?;
        let name = format!("{role}-{}-{:08x}", std::process::id(), Uuid::new_v4().as_u128() as u32);
        let path = lock_path(directory, &name);
        // It gets its name when it is locked: a file that nobody has locked is a dead process', and swept away.
        let unnamed = path.with_extension("new");
        let mut file = File::create(&unnamed)?;
        file.lock()?;
        file.write_all(note.as_bytes())?;
        fs::rename(&unnamed, &path)?;
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
        // Shared, so that two who ask at the same time don't take each other for the holder.
        Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The names and notes of the processes at work on the data directory, this one included.
pub fn living(directory: &Path) -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory.join("run"))? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(name) = file_name.to_str().and_then(|name| name.strip_suffix(".lock")) else { continue };
        if is_alive(directory, name) {
            // Gone since: then it has nothing to say.
            let note = fs::read_to_string(entry.path()).unwrap_or_default();
            found.push((name.to_owned(), note));
        }
    }
    Ok(found)
}

fn lock_path(directory: &Path, name: &str) -> PathBuf {
    directory.join("run").join(format!("{name}.lock"))
}

/// Removes the files of processes that were killed. Called once at start; a failure is only untidy.
pub fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory.join("run")) else { return };
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let dead = file_name
            .to_str()
            .and_then(|name| name.strip_suffix(".lock"))
            .is_some_and(|name| !is_alive(directory, name));
        if dead && let Err(error) = fs::remove_file(entry.path()) {
            tracing::debug!(%error, "a dead process' lock file stays behind");
        }
    }
}
