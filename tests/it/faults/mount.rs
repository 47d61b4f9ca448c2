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

    /// ext4 on a file, made so that it becomes read-only at its first error: what a failing disk looks like.
    pub fn ext4(mebibytes: u64) -> Self {
        let image = TempDir::with_prefix("aula-it-image-").unwrap();
        let file = image.path().join("ext4");
        File::create(&file).unwrap().set_len(mebibytes << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", text(&file)]);
        let folder = TempDir::with_prefix("aula-it-mount-").unwrap();
        run("mount", &["-o", "loop,errors=remount-ro", text(&file), text(folder.path())]);
        Self { folder, _image: Some(image) }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), text(self.path())]);
    }

    /// Makes an ext4 read-only as an error of the disk would: even for files that are open for writing, which a
    /// remount refuses.
    pub fn fail_disk(&self) {
        let device = output("findmnt", &["-n", "-o", "SOURCE", text(self.path())]);
        let device = Path::new(device.trim()).file_name().unwrap().to_owned();
        let trigger = Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error");
        std::fs::write(&trigger, "1").unwrap_or_else(|error| panic!("{}: {error}", trigger.display()));
    }

    /// Undoes [`Mount::fail_disk`] when nobody has files open on it any more: repairs and mounts anew.
    pub fn repair_disk(&self) {
        let device = output("findmnt", &["-n", "-o", "SOURCE", text(self.path())]);
        run("mount", &["-o", "remount,ro", text(self.path())]);
        let image = output("losetup", &["-n", "-O", "BACK-FILE", device.trim()]);
        run("umount", &[text(self.path())]);
        // 1: errors were there, and are corrected.
        let status = Command::new("e2fsck").args(["-p", image.trim()]).status().unwrap();
        assert!(matches!(status.code(), Some(0 | 1)), "e2fsck: {status}");
        run("mount", &["-o", "loop,errors=remount-ro", image.trim(), text(self.path())]);
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
