//! A cgroup of the tests' own: everything is made below it, and gone with it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use tidegate::cgroup::Hierarchy;

/// Where the tests' processes are; leaves and removes it when dropped.
pub(crate) struct Arena {
    path: PathBuf,
    before: PathBuf,
}

impl Arena {
    pub(crate) fn enter() -> Arena {
        let before = Hierarchy::find().unwrap().own_cgroup();
        let path = before.join(format!("tidegate-launch-test-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let arena = Arena { path, before };
        join(&arena.path);
        arena
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        join(&self.before);
        // What a failed test left running.
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

/// The arena, as seen by a test.
pub(crate) fn path() -> PathBuf {
    Hierarchy::find().unwrap().own_cgroup()
}

/// The transient cgroups that are there.
pub(crate) fn transients(arena: &Path) -> Vec<PathBuf> {
    fs::read_dir(arena)
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
