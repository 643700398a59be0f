//! Files that a test and the command under the gate share.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A folder that any user may enter and read; gone with the test.
pub struct SharedFolder(TempDir);

impl SharedFolder {
    /// Makes one.
    ///
    /// # Panics
    /// When there is no place for temporary files.
    pub fn create() -> SharedFolder {
        let folder = tempfile::Builder::new().prefix("tidegate-test-").tempdir();
        let folder = folder.expect("temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("permissions");
        SharedFolder(folder)
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

    /// Writes a program into it.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_program(&self, name: &str, text: &str) -> PathBuf {
        let text = self.write(&format!("{name}.text"), text);
        self.copy_program(&text, name)
    }

    /// Copies a program into it.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn copy_program(&self, from: &Path, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        // Copied by another process: were the file open for writing in this one, a child that another
        // thread starts would hold it open too, and running it would fail (ETXTBSY).
        let status = Command::new("install")
            .arg("--mode=755")
            .arg(from)
            .arg(&path)
            .status();
        assert!(
            status.expect("install").success(),
            "{} is not copied",
            from.display()
        );
        path
    }
}

/// A folder in memory where there is one: for a journal that is written thousands of times, as `/run` has it.
///
/// # Panics
/// When it cannot be made.
pub fn fast_folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.expect("a folder")
}
