//! Switches of the kernel that stop programs which stay attached. Only for dedicated machines: they affect all of it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::mount::{MsFlags, mount, umount};
use tempfile::TempDir;

use crate::kernel::FTRACE_ENABLED;

/// The switches, for one test at a time. Dropping it restores them.
pub struct KernelSwitches {
    before: String,
    debugfs: Option<Debugfs>,
    _alone: MutexGuard<'static, ()>,
}

impl KernelSwitches {
    /// Waits for the tests that have them.
    ///
    /// # Panics
    /// When the kernel has no ftrace.
    pub fn take() -> KernelSwitches {
        static ONE: Mutex<()> = Mutex::new(());
        KernelSwitches {
            _alone: ONE.lock().unwrap_or_else(PoisonError::into_inner),
            before: fs::read_to_string(FTRACE_ENABLED).expect("a kernel with ftrace"),
            debugfs: None,
        }
    }

    /// Sets `kernel.ftrace_enabled`.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn set_ftrace(&self, on: bool) {
        write(Path::new(FTRACE_ENABLED), on);
    }

    /// Enables or disables all kprobes. This is a file of debugfs, which is mounted where only the test finds it.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn set_kprobes(&mut self, on: bool) {
        let debugfs = self.debugfs.get_or_insert_with(Debugfs::mount);
        write(&debugfs.kprobes(), on);
    }
}

impl Drop for KernelSwitches {
    fn drop(&mut self) {
        // A test that failed has its own message.
        let _ = fs::write(FTRACE_ENABLED, &self.before);
        if let Some(debugfs) = &self.debugfs {
            let _ = fs::write(debugfs.kprobes(), "1");
        }
    }
}

fn write(switch: &Path, on: bool) {
    let written = fs::write(switch, if on { "1" } else { "0" });
    written.unwrap_or_else(|error| panic!("{}: {error}", switch.display()));
}

/// A mount of debugfs.
struct Debugfs(TempDir);

impl Debugfs {
    fn mount() -> Debugfs {
        let directory = TempDir::new().expect("a directory");
        let nothing: Option<&str> = None;
        let kind = Some("debugfs");
        mount(kind, directory.path(), kind, MsFlags::empty(), nothing).expect("a kernel with debugfs");
        Debugfs(directory)
    }

    fn kprobes(&self) -> PathBuf {
        self.0.path().join("kprobes/enabled")
    }
}

impl Drop for Debugfs {
    fn drop(&mut self) {
        let _ = umount(self.0.path());
    }
}
