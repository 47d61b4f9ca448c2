//! File systems of a test's own. They need root (or `CAP_SYS_ADMIN`): without it these tests fail and say so.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted file system; unmounted when dropped, which must be after the processes on it have ended.
pub struct Mount {
    // Removed after it is unmounted.
    folder: TempDir,
    /// What backs it, if a file does.
    _image: Option<TempDir>,
}

impl Mount {
    pub fn tmpfs(size: &str) -> Self {
        let folder = TempDir::with_prefix("aula-it-mount-").unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs", text(folder.path())]);
        Self { folder, _image: None }
    }

    /// ext4 on a file.
    pub fn ext4(mebibytes: u64) -> Self {
        let image = TempDir::with_prefix("aula-it-image-").unwrap();
        let file = image.path().join("ext4");
        File::create(&file).unwrap().set_len(mebibytes << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", text(&file)]);
        let folder = TempDir::with_prefix("aula-it-mount-").unwrap();
        run("mount", &["-o", "loop", text(&file), text(folder.path())]);
        Self { folder, _image: Some(image) }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), text(self.path())]);
    }

    /// Makes files of an ext4 unwritable, or writable again, also for those who have them open: a remount is refused
    /// while anybody has (and an ext4 with an error may say that it has synced what it has not).
    pub fn freeze(&self, files: &[PathBuf], frozen: bool) {
        let flag = if frozen { "+i" } else { "-i" };
        let mut args = vec![flag];
        args.extend(files.iter().map(|file| text(file)));
        run("chattr", &args);
    }

    /// Takes all that is free, in a file; removing it frees it again.
    pub fn fill(&self) -> PathBuf {
        let ballast = self.path().join("ballast");
        let mut file = File::create(&ballast).unwrap();
        // Smaller and smaller pieces, so that nothing is left in the end.
        for size in [1 << 20, 64 << 10, 4 << 10, 512, 1] {
            while std::io::Write::write_all(&mut file, &vec![0_u8; size]).is_ok() {}
        }
        ballast
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a failing test may leave a process on it, which its own guard ends later.
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        if !unmounted.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("{} stays mounted: {unmounted:?}", self.path().display());
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, args: &[&str]) {
    output(program, args);
}

fn output(program: &str, args: &[&str]) -> String {
    let done = Command::new(program).args(args).output();
    let done = done.unwrap_or_else(|error| {
        panic!("{program}: {error}; this test needs mount (apt-get install mount) and e2fsprogs, and root")
    });
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {args:?} failed; this test needs root and may not run without: {said}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}
