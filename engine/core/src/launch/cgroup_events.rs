//! `cgroup.events` of a cgroup: whether it contains processes, and when that changes.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// The open file. For poll(2): POLLPRI is set when [`populated`](Self::populated) may have changed since the last call.
#[derive(Debug)]
pub(super) struct CgroupEvents {
    file: File,
}

impl CgroupEvents {
    /// The name of the file in the directory of a cgroup.
    pub(super) const NAME: &'static str = "cgroup.events";

    /// Of the cgroup with this directory.
    pub(super) fn open(cgroup: &Path) -> io::Result<CgroupEvents> {
        File::open(cgroup.join(CgroupEvents::NAME)).map(|file| CgroupEvents { file })
    }

    /// Whether the cgroup or a descendant contains a process. A cgroup that was removed contains none.
    pub(super) fn populated(&self) -> io::Result<bool> {
        let mut text = String::new();
        let mut file = &self.file;
        match file.rewind().and_then(|()| file.read_to_string(&mut text)) {
            Ok(_) => Ok(text.lines().any(|line| line == "populated 1")),
            // kernfs: the file of a removed directory.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until [`populated`](Self::populated) is `wanted`, at most for `limit`. Returns whether it is.
    pub(super) fn wait(&self, wanted: bool, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            if self.populated()? == wanted {
                return Ok(true);
            }
            if !wait_readable(self.as_fd(), PollFlags::POLLPRI, deadline)? {
                return Ok(false);
            }
        }
    }
}

impl AsFd for CgroupEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Waits for events of a descriptor. Returns false when the deadline has passed; may return true without an event.
pub(super) fn wait_readable(fd: BorrowedFd<'_>, events: PollFlags, deadline: Instant) -> io::Result<bool> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(false);
    }
    // Rounded up, so that the last wait does not spin.
    let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(fd, events)], timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}
