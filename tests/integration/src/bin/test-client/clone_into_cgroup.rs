//! Creates a process in another cgroup: clone3(2) with CLONE_INTO_CGROUP.

use std::{fs::File, os::fd::AsRawFd};

use integration::client_result::Step;
use integration::selftest::client::Failure;
use nix::errno::Errno;

/// From include/uapi/linux/sched.h; it does not fit the `int` of the C library.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Creates a process in the cgroup of this directory. It sleeps until this process ends.
pub(crate) fn in_cgroup(directory: &str) -> Result<(), Failure> {
    let failed = |_| Failure::of(Step::Preparation, Errno::last());
    let directory = File::open(directory).map_err(failed)?;
    // SAFETY: all fields are integers, for which zero is valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = directory.as_raw_fd() as u64;
    // SAFETY: without CLONE_VM it is a fork: the new process has a copy of the memory, and only makes system calls. The
    // arguments have the size given.
    match unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut arguments,
            size_of::<libc::clone_args>(),
        )
    } {
        -1 => Err(Failure::of(Step::Preparation, Errno::last())),
        0 => loop {
            // SAFETY: integers only. If the parent has already ended, the test kills this process with its cgroup.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::pause();
            }
        },
        _ => Ok(()),
    }
}
