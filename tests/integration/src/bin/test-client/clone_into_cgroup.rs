//! A process that is made in another cgroup than this one: clone3(2) with CLONE_INTO_CGROUP.

use std::{fs::File, os::fd::AsRawFd};

use integration::client_result::Step;
use nix::errno::Errno;
use tidegate::selftest::client::Failure;

/// include/uapi/linux/sched.h; wider than the `int` that the C library declares.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Makes one in the cgroup of a directory. It does nothing, and ends with this process.
pub(crate) fn in_cgroup(directory: &str) -> Result<(), Failure> {
    let failed = |_| Failure::of(Step::Preparation, Errno::last());
    let directory = File::open(directory).map_err(failed)?;
    // SAFETY: all fields are numbers, and zero is one.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = directory.as_raw_fd() as u64;
    // SAFETY: without CLONE_VM it is a fork: the new process has a copy of this one's memory, and only makes system
    // calls. The arguments are of the size given.
    match unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut arguments,
            size_of::<libc::clone_args>(),
        )
    } {
        -1 => Err(Failure::of(Step::Preparation, Errno::last())),
        0 => loop {
            // SAFETY: plain numbers. Whoever made it may be gone before this is asked for: then the end of the
            // cgroup is its end.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::pause();
            }
        },
        _ => Ok(()),
    }
}
