//! A cgroup for one test. Processes of the test stay below it and are killed with it.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
    unistd::Pid,
};

use crate::{mount_table::mount_of, running_command::TIMEOUT};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A cgroup. Dropping it kills its processes and removes it with its descendants.
pub struct TestCgroup {
    path: PathBuf,
    /// Whether to remove the parent directory too, once it is empty.
    remove_parent: bool,
}

impl TestCgroup {
    /// Creates `tidegate-test-<pid>/<index>` below the cgroup of this process.
    ///
    /// # Panics
    /// When no cgroup2 is mounted, or it is not writable.
    pub fn create() -> TestCgroup {
        let dir = own_cgroup().join(format!("tidegate-test-{}", process::id()));
        let index = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(index.to_string());
        loop {
            match fs::create_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    panic!("{}: {error}", dir.display())
                }
                _ => {}
            }
            match fs::create_dir(&path) {
                Ok(()) => {
                    return TestCgroup {
                        path,
                        remove_parent: true,
                    };
                }
                // Another test of this process removed the empty directory in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    /// Creates a child cgroup.
    ///
    /// # Panics
    /// When it cannot be created.
    pub fn child(&self, name: &str) -> TestCgroup {
        let path = self.path.join(name);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        TestCgroup {
            path,
            remove_parent: false,
        }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its path relative to the root cgroup, as in `/proc/PID/cgroup`.
    ///
    /// # Panics
    /// When no cgroup2 is mounted.
    pub fn cgroup_path(&self) -> String {
        let mount = mount_of("cgroup2").expect("a cgroup2 mount");
        let below = self.path.strip_prefix(mount).expect("a cgroup below the mount");
        format!("/{}", below.display())
    }

    /// Migrates a process into this cgroup.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn add_process(&self, process: Pid) {
        fs::write(self.procs_file(), process.to_string()).expect("a process that can be migrated");
    }

    /// Waits until it is empty and removes it.
    ///
    /// # Panics
    /// When processes are left.
    pub fn remove(&self) {
        self.wait_until_empty();
        remove(&self.path).expect("an empty cgroup");
    }

    /// `cgroup.procs`, which migrates a process when its pid is written.
    pub fn procs_file(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Its child cgroups.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn children(&self) -> Vec<PathBuf> {
        dirs(&self.path).expect("children of a cgroup")
    }

    /// The processes in it and in its descendants.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        let mut left = vec![self.path.clone()];
        while let Some(dir) = left.pop() {
            // A cgroup that is removed in the meantime has no processes.
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().map(|line| line.parse::<i32>().expect("process id")));
            left.extend(dirs(&dir).unwrap_or_default());
        }
        found
    }

    /// Waits until no process is left in it or in its descendants.
    ///
    /// # Panics
    /// After 30 seconds.
    pub fn wait_until_empty(&self) {
        assert!(
            self.is_empty_within(30_000),
            "processes left: {:?}",
            self.processes()
        );
    }

    fn is_empty_within(&self, milliseconds: u16) -> bool {
        let path = self.path.join("cgroup.events");
        let Ok(file) = fs::File::open(&path) else {
            return true;
        };
        loop {
            // Reading arms the poll, so a later change is not missed.
            let text = io::read_to_string(&file).unwrap_or_default();
            if text.contains("populated 0") {
                return true;
            }
            let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
            if poll(&mut fds, PollTimeout::from(milliseconds)).unwrap_or(0) == 0 {
                return false;
            }
            let _ = io::Seek::rewind(&mut &file);
        }
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        // Best effort: a failed cleanup does not change the result of the test.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        self.is_empty_within(10_000);
        let _ = remove(&self.path);
        if self.remove_parent
            && let Some(dir) = self.path.parent()
        {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Waits until the directory of a cgroup is removed.
///
/// # Panics
/// After [`TIMEOUT`].
#[track_caller]
pub fn wait_until_removed(path: &Path) {
    let parent = path.parent().expect("a cgroup below another one");
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).expect("inotify");
    // A parent that is removed too is as good.
    let watched = inotify.add_watch(parent, AddWatchFlags::IN_DELETE | AddWatchFlags::IN_DELETE_SELF);
    let timeout = PollTimeout::try_from(TIMEOUT).expect("a timeout that poll accepts");
    while watched.is_ok() && path.exists() {
        let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        let changed = poll(&mut fds, timeout).expect("poll");
        assert!(changed > 0, "{} is not removed", path.display());
        inotify.read_events().expect("events");
    }
}

fn dirs(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> io::Result<()> {
    for child in dirs(path)? {
        remove(&child)?;
    }
    fs::remove_dir(path)
}

/// The directory of the cgroup of this process.
fn own_cgroup() -> PathBuf {
    let mount = mount_of("cgroup2").expect("a cgroup2 mount");
    let own = fs::read_to_string("/proc/self/cgroup").expect("own cgroup");
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    mount.join(own.expect("a cgroup2 entry"))
}
