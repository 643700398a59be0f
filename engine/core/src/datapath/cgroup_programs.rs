//! Programs of anybody that are attached to a cgroup.

use std::{io, os::fd::BorrowedFd};

use super::syscall;

/// Attach points are numbered from 0; Linux 7.0 has 59 (`enum bpf_attach_type`, include/uapi/linux/bpf.h).
const ATTACH_POINTS: u32 = 64;

/// Whether any BPF program is attached to this cgroup itself, not to an ancestor: one of Tidegate, of systemd, or of
/// another tool.
///
/// # Errors
/// When the kernel refuses to tell (it needs CAP_NET_ADMIN), or the descriptor is not that of a cgroup.
pub fn has_programs(cgroup: BorrowedFd<'_>) -> io::Result<bool> {
    for attach_point in 0..ATTACH_POINTS {
        if syscall::count_programs(cgroup, attach_point)?.is_some_and(|count| count > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}
