//! Programs of anybody that are attached to a cgroup.

use std::{io, ops::RangeInclusive, os::fd::BorrowedFd};

use super::syscall;

/// The attach points of cgroups (`enum bpf_attach_type`, include/uapi/linux/bpf.h, Linux 7.0). The kernel takes the
/// target of the other ones for an interface or a map.
const ATTACH_POINTS: [RangeInclusive<u32>; 8] = [
    // BPF_CGROUP_INET_INGRESS to BPF_CGROUP_SOCK_OPS
    0..=3,
    // BPF_CGROUP_DEVICE
    6..=6,
    // BPF_CGROUP_INET4_BIND to BPF_CGROUP_UDP6_SENDMSG, with the connect hooks
    8..=15,
    // BPF_CGROUP_SYSCTL to BPF_CGROUP_SETSOCKOPT
    18..=22,
    // BPF_CGROUP_INET4_GETPEERNAME to BPF_CGROUP_INET6_GETSOCKNAME
    29..=32,
    // BPF_CGROUP_INET_SOCK_RELEASE
    34..=34,
    // BPF_LSM_CGROUP
    43..=43,
    // BPF_CGROUP_UNIX_CONNECT to BPF_CGROUP_UNIX_GETSOCKNAME
    49..=53,
];

/// Whether any BPF program is attached to this cgroup itself, not to an ancestor: one of Tidegate, of systemd, or of
/// another tool.
///
/// # Errors
/// When the kernel refuses to tell (it needs CAP_NET_ADMIN), or the descriptor is not that of a cgroup.
pub fn has_programs(cgroup: BorrowedFd<'_>) -> io::Result<bool> {
    for attach_point in ATTACH_POINTS.into_iter().flatten() {
        if syscall::count_programs(cgroup, attach_point)?.is_some_and(|count| count > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}
