//! The cgroup of the test run: all cgroups of the tests are created below it, and removed with it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use tidegate_core::cgroup::Hierarchy;

/// The cgroup of the test process. Leaves and removes it on drop.
pub(crate) struct TestCgroup {
    path: PathBuf,
    before: PathBuf,
}

impl TestCgroup {
    pub(crate) fn enter() -> TestCgroup {
        let before = Hierarchy::find().unwrap().own_cgroup();
        let path = before.join(format!("tidegate-launch-test-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let cgroup = TestCgroup { path, before };
        join(&cgroup.path);
        cgroup
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        join(&self.before);
        // Processes of a failed test.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        let left: Vec<_> = transients(&self.path);
        if !left.is_empty() {
            eprintln!("left behind: {left:?}");
        }
        for path in left {
            let _ = fs::remove_dir(path);
        }
        if let Err(error) = fs::remove_dir(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn join(cgroup: &Path) {
    fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
}

/// Its directory.
pub(crate) fn path() -> PathBuf {
    Hierarchy::find().unwrap().own_cgroup()
}

/// The transient cgroups below a cgroup.
pub(crate) fn transients(parent: &Path) -> Vec<PathBuf> {
    fs::read_dir(parent)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("tidegate-exec-"))
        })
        .collect()
}

/// A directory for the files of one test, removed afterwards.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("tidegate-launch-")
        .tempdir_in(env::temp_dir())
        .unwrap()
}
