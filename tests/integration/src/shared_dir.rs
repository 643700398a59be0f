//! Files that a test shares with the command under a policy.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A temporary directory that any user may read and write; removed when dropped.
pub struct SharedDir(TempDir);

impl SharedDir {
    /// Creates a directory.
    ///
    /// # Panics
    /// When it cannot be created.
    pub fn create() -> SharedDir {
        let dir = tempfile::Builder::new().prefix("tidegate-test-").tempdir();
        let dir = dir.expect("temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("permissions");
        SharedDir(dir)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file into it.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("file");
        path
    }

    /// Writes an executable script into it.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_program(&self, name: &str, text: &str) -> PathBuf {
        let text = self.write(&format!("{name}.text"), text);
        self.copy_program(&text, name)
    }

    /// Copies an executable into it.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn copy_program(&self, from: &Path, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        // Copied by another process: if this process opened the file for writing, a child that another thread starts
        // could inherit the descriptor, and running the file would fail (ETXTBSY).
        let status = Command::new("install")
            .arg("--mode=755")
            .arg(from)
            .arg(&path)
            .status();
        assert!(
            status.expect("install").success(),
            "failed to copy {}",
            from.display()
        );
        path
    }
}

/// A directory on tmpfs if possible, like `/run`: for a journal that is written thousands of times.
///
/// # Panics
/// When it cannot be created.
pub fn tmpfs_dir() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.expect("a directory")
}
