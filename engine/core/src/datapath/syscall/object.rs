//! Pinned objects, and information about links and attached programs.

use std::{
    ffi::{CString, c_long},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use super::{bpf, bpf_fd};

const BPF_OBJ_PIN: c_long = 6;
const BPF_OBJ_GET: c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: c_long = 15;
const BPF_PROG_QUERY: c_long = 16;

/// The attributes of BPF_OBJ_PIN and BPF_OBJ_GET.
#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    file_flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Pins a map, program or link.
pub(in crate::datapath) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut pin = Pin {
        path: path.as_ptr() as u64,
        fd: object.as_raw_fd() as u32,
        file_flags: 0,
    };
    // SAFETY: the path ends with a NUL and lives until the call returns.
    unsafe { bpf(BPF_OBJ_PIN, &raw mut pin) }.map(drop)
}

/// Opens a pinned map, program or link.
pub(in crate::datapath) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut pin = Pin {
        path: path.as_ptr() as u64,
        fd: 0,
        file_flags: 0,
    };
    // SAFETY: the path ends with a NUL and lives until the call returns.
    unsafe { bpf_fd(BPF_OBJ_GET, &raw mut pin) }
}

/// The number of programs attached to a cgroup itself at one attach point (`enum bpf_attach_type`); `None` where the kernel
/// does not know this attach point for cgroups.
pub(in crate::datapath) fn count_programs(
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<Option<u32>> {
    #[repr(C)]
    struct Query {
        target_fd: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_count: u32,
        padding: u32,
    }
    let mut query = Query {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: 0,
        prog_count: 0,
        padding: 0,
    };
    // SAFETY: without an array for ids the kernel only writes the number (`__cgroup_bpf_query`, kernel/bpf/cgroup.c).
    match unsafe { bpf(BPF_PROG_QUERY, &raw mut query) } {
        Ok(_) => Ok(Some(query.prog_count)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The id of the cgroup that a link attaches to: 0 once the cgroup is gone, or the link was detached by force
/// (`bpf_cgroup_link_fill_link_info`, kernel/bpf/cgroup.c).
pub(in crate::datapath) fn cgroup_of_link(link: BorrowedFd<'_>) -> io::Result<u64> {
    /// `struct bpf_link_info` with the fields of links to cgroups.
    #[repr(C)]
    #[derive(Default)]
    struct LinkInfo {
        kind: u32,
        id: u32,
        prog_id: u32,
        padding: u32,
        cgroup_id: u64,
        attach_type: u32,
        rest: [u32; 17],
    }
    #[repr(C)]
    struct GetInfo {
        fd: u32,
        length: u32,
        info: u64,
    }
    let mut info = LinkInfo::default();
    let mut get = GetInfo {
        fd: link.as_raw_fd() as u32,
        length: size_of::<LinkInfo>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes of `info`, which lives until the call returns.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &raw mut get) }?;
    Ok(info.cgroup_id)
}
