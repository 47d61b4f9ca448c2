//! Files that are there whole or not at all, and what they hold by their hash.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek as _, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::manifest::Listed;

/// Read or written at once.
const CHUNK: usize = 256 * 1024;
/// Of a file that isn't whole yet.
pub const PARTIAL: &str = ".partial";

/// The name under which a file grows.
pub fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PARTIAL);
    name.into()
}

/// Whether a relative name stays within its folder.
pub fn is_inside(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Hexadecimal SHA-256.
pub fn digest(bytes: &[u8]) -> String {
    hexadecimal(Sha256::new_with_prefix(bytes))
}

fn hexadecimal(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes what was renamed or removed in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes a file that need not be there.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Synced, then renamed into its place.
pub fn write_whole(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut growing = Growing::create(path, mode)?;
    growing.write(content)?;
    growing.finish().map(drop)
}

/// A file under a temporary name, hashed while it is written.
pub struct Growing {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    hasher: Sha256,
}

/// A length that a [`Growing`] file had.
pub struct Mark {
    bytes: u64,
    hasher: Sha256,
}

impl Growing {
    pub fn create(path: &Path, mode: u32) -> io::Result<Self> {
        let partial = partial(path);
        // Its mode is that of a new file, whatever a killed process left there.
        remove(&partial)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial)?;
        let file = BufWriter::with_capacity(CHUNK, file);
        Ok(Self { path: path.to_owned(), file, bytes: 0, hasher: Sha256::new() })
    }

    pub fn write(&mut self, content: &[u8]) -> io::Result<()> {
        self.hasher.update(content);
        self.bytes += content.len() as u64;
        self.file.write_all(content)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn mark(&self) -> Mark {
        Mark { bytes: self.bytes, hasher: self.hasher.clone() }
    }

    /// As it was then.
    pub fn go_back(&mut self, to: &Mark) -> io::Result<()> {
        self.file.flush()?;
        let file = self.file.get_mut();
        file.set_len(to.bytes)?;
        file.seek(SeekFrom::Start(to.bytes))?;
        (self.bytes, self.hasher) = (to.bytes, to.hasher.clone());
        Ok(())
    }

    /// Durable as far as it has grown, and to be read under its temporary name.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }

    /// The hash of what was written so far.
    pub fn sha256(&self) -> String {
        hexadecimal(self.hasher.clone())
    }

    /// Removes it.
    pub fn discard(self) -> io::Result<()> {
        remove(&partial(&self.path))
    }

    /// Syncs it and gives it its name. Its length and hash.
    pub fn finish(self) -> io::Result<(u64, String)> {
        let Self { path, file, bytes, hasher } = self;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(partial(&path), &path)?;
        sync_folder(path.parent().unwrap_or(Path::new(".")))?;
        Ok((bytes, hexadecimal(hasher)))
    }
}

/// The length and the hash of a file. `look` is told how many bytes were read since the last time.
pub fn measure(path: &Path, mut look: impl FnMut(u64)) -> io::Result<(u64, String)> {
    let (mut file, mut hasher, mut bytes) = (File::open(path)?, Sha256::new(), 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok((bytes, hexadecimal(hasher)));
        }
        hasher.update(&chunk[..read]);
        bytes += read as u64;
        look(read as u64);
    }
}

/// Why a file is not what its manifest says; `None` if it is.
pub fn difference(folder: &Path, listed: &Listed, look: impl FnMut(u64)) -> Option<String> {
    let path = folder.join(&listed.name);
    let (bytes, sha256) = match measure(&path, look) {
        Ok(measured) => measured,
        Err(error) => return Some(format!("{} can't be read: {error}", path.display())),
    };
    if bytes != listed.bytes {
        return Some(format!("{} has {bytes} bytes instead of {}", path.display(), listed.bytes));
    }
    (sha256 != listed.sha256).then(|| format!("{} has other contents than its manifest says", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_and_is_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut growing = Growing::create(&path, 0o600).unwrap();
        growing.write(b"first ").unwrap();
        let mark = growing.mark();
        growing.write(&vec![b'x'; 2 * CHUNK]).unwrap();
        growing.go_back(&mark).unwrap();
        growing.write(b"second").unwrap();
        assert!(!path.exists());
        let (bytes, sha256) = growing.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first second");
        assert_eq!((bytes, &sha256), (12, &digest(b"first second")));
        assert_eq!(measure(&path, |_| ()).unwrap(), (bytes, sha256.clone()));
        let mut listed = Listed { name: "file".to_owned(), bytes, sha256 };
        assert_eq!(difference(folder.path(), &listed, |_| ()), None);
        fs::write(&path, "first secons").unwrap();
        assert!(difference(folder.path(), &listed, |_| ()).unwrap().contains("other contents"));
        fs::write(&path, "first").unwrap();
        assert!(difference(folder.path(), &listed, |_| ()).unwrap().contains("5 bytes instead of 12"));
        listed.name = "none".to_owned();
        assert!(difference(folder.path(), &listed, |_| ()).unwrap().contains("can't be read"));
    }

    #[test]
    fn names_stay_within_the_folder() {
        for good in ["aula.db", "secrets/signing-keys.json"] {
            assert!(is_inside(good), "{good}");
        }
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "."] {
            assert!(!is_inside(bad), "{bad}");
        }
    }
}
