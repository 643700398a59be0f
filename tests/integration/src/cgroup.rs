//! A cgroup of a test's own: what the test starts stays below it, and goes with it.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::Pid,
};

use crate::mount_table::mount_of;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A cgroup. Its processes are killed and it is removed, with all below it, when it is dropped.
pub struct TestCgroup {
    path: PathBuf,
    /// Whether the folder above is to go too, once it is empty.
    last_of_folder: bool,
}

impl TestCgroup {
    /// Makes `tidegate-test-<pid>/<number>` below this process's own cgroup.
    ///
    /// # Panics
    /// Where no cgroup2 is mounted or it cannot be written.
    pub fn create() -> TestCgroup {
        let folder = own_cgroup().join(format!("tidegate-test-{}", process::id()));
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(number.to_string());
        loop {
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    panic!("{}: {error}", folder.display())
                }
                _ => {}
            }
            match fs::create_dir(&path) {
                Ok(()) => {
                    return TestCgroup {
                        path,
                        last_of_folder: true,
                    };
                }
                // Another test of this process removed the empty folder in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    /// Makes one below this one.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn child(&self, name: &str) -> TestCgroup {
        let path = self.path.join(name);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        TestCgroup {
            path,
            last_of_folder: false,
        }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its path below the root of the hierarchy, as the kernel spells it.
    ///
    /// # Panics
    /// Where no cgroup2 is mounted.
    pub fn spelled(&self) -> String {
        let mount = mount_of("cgroup2").expect("a cgroup2 mount");
        let below = self.path.strip_prefix(mount).expect("a cgroup below the mount");
        format!("/{}", below.display())
    }

    /// Moves a process in.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn take_in(&self, process: Pid) {
        fs::write(self.members_file(), process.to_string()).expect("a process that can be moved");
    }

    /// Removes it; nothing may be in it.
    ///
    /// # Panics
    /// When something is.
    pub fn remove(&self) {
        self.wait_until_empty();
        remove(&self.path).expect("an empty cgroup");
    }

    /// The file that moves a process in.
    pub fn members_file(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Cgroups directly below.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn children(&self) -> Vec<PathBuf> {
        folders(&self.path).expect("children of a cgroup")
    }

    /// Processes in it and all below.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        let mut left = vec![self.path.clone()];
        while let Some(folder) = left.pop() {
            // A cgroup that is removed while we look has no processes.
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().map(|line| line.parse::<i32>().expect("process id")));
            left.extend(folders(&folder).unwrap_or_default());
        }
        found
    }

    /// Waits until no process is in it or below.
    ///
    /// # Panics
    /// When that takes more than half a minute.
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
            // Reading arms the poll: a change after it is not missed.
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
        // What fails here is left for whoever looks; the test's own result stands.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        self.is_empty_within(10_000);
        let _ = remove(&self.path);
        if self.last_of_folder
            && let Some(folder) = self.path.parent()
        {
            let _ = fs::remove_dir(folder);
        }
    }
}

fn folders(path: &Path) -> io::Result<Vec<PathBuf>> {
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
    for child in folders(path)? {
        remove(&child)?;
    }
    fs::remove_dir(path)
}

/// This process's cgroup, wherever cgroup2 is mounted.
fn own_cgroup() -> PathBuf {
    let mount = mount_of("cgroup2").expect("a cgroup2 mount");
    let own = fs::read_to_string("/proc/self/cgroup").expect("own cgroup");
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    mount.join(own.expect("a cgroup of the second version"))
}
