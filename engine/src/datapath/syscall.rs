//! The few uses of bpf(2) that aya has no function for. Layouts: `union bpf_attr` in
//! include/uapi/linux/bpf.h.

use std::{
    ffi::c_long,
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use engine_common::scope::Scope;

const BPF_MAP_UPDATE_ELEM: c_long = 2;

/// # Safety
/// `attr` must be laid out as `command` wants it, and what it points to must be valid meanwhile.
unsafe fn bpf<T>(command: c_long, attr: &T) -> io::Result<c_long> {
    // SAFETY: the caller's.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Writes the storage of the cgroup that the scope is about. aya's typed map knows only the older
/// kind of key.
pub(super) fn write_scope(map: BorrowedFd<'_>, scope: &Scope) -> io::Result<()> {
    #[repr(C)]
    struct Update {
        map_fd: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let key = scope.cgroup;
    let update = Update {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const key as u64,
        value: &raw const *scope as u64,
        flags: 0,
    };
    // SAFETY: the first four fields of the command's part of `bpf_attr`; key (8 bytes) and value (48
    // bytes, the size of the map's values) live until the call returns.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &update) }.map(drop)
}
