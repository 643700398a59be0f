//! Direct uses of bpf(2): attach an empty program to a hook, check whether a hook is in use, read the memory of maps.
//! Layouts: `union bpf_attr` in include/uapi/linux/bpf.h.

use std::{
    ffi::c_long,
    fs, io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

const BPF_PROG_LOAD: c_long = 5;
const BPF_MAP_GET_NEXT_ID: c_long = 12;
const BPF_MAP_GET_FD_BY_ID: c_long = 14;
const BPF_LINK_CREATE: c_long = 28;
const BPF_LINK_GET_FD_BY_ID: c_long = 30;
const BPF_LINK_GET_NEXT_ID: c_long = 31;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;

/// The hooks that the measured calls pass.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hook {
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
}

/// # Safety
/// `attr` must have the layout of `command`, and everything it points to must be valid through the call.
unsafe fn bpf<T>(command: c_long, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the caller guarantees it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: bpf(2) has just returned this new descriptor.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Attaches `return 1` to a hook of a cgroup, until the returned link is closed.
pub(crate) fn attach_empty(cgroup: BorrowedFd<'_>, hook: Hook) -> Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
    }
    #[repr(C)]
    struct Link {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }
    /// r0 = 1; exit.
    const INSTRUCTIONS: [u64; 2] = [1 << 32 | 0xb7, 0x95];
    let mut load = Load {
        kind: BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        count: 2,
        instructions: INSTRUCTIONS.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"bench_empty\0\0\0\0\0",
        interface: 0,
        attach_type: hook as u32,
    };
    // SAFETY: the first fields of `bpf_attr` for this command; instructions and license are constants.
    let program = unsafe { bpf(BPF_PROG_LOAD, &mut load) }.context("failed to load an empty program")?;
    let program = owned(program);
    let mut link = Link {
        program: program.as_raw_fd() as u32,
        target: cgroup.as_raw_fd() as u32,
        attach_type: hook as u32,
        flags: 0,
    };
    // SAFETY: the first fields of `bpf_attr` for this command.
    let link = unsafe { bpf(BPF_LINK_CREATE, &mut link) }.context("failed to attach an empty program")?;
    Ok(owned(link))
}

/// Whether any link on this machine attaches a program to this hook, of any cgroup.
pub(crate) fn is_in_use(hook: Hook) -> Result<bool> {
    let mut id = 0;
    while let Some(next) = next_id(BPF_LINK_GET_NEXT_ID, id)? {
        id = next;
        let Some(link) = open_id(BPF_LINK_GET_FD_BY_ID, id) else {
            continue;
        };
        let info = FdInfo::of(&link)?;
        // Tracing links have an attach type too, but no cgroup id.
        if info.number("cgroup_id:").is_some() && info.number("attach_type:") == Some(hook as u64) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Memory in bytes that the kernel accounts for the newest map with this value size and number of entries; `None` when
/// there is no such map.
pub(crate) fn memory_of_newest(value_bytes: u64, elements: u64) -> Result<Option<u64>> {
    let (mut found, mut id) = (None, 0);
    while let Some(next) = next_id(BPF_MAP_GET_NEXT_ID, id)? {
        id = next;
        let Some(map) = open_id(BPF_MAP_GET_FD_BY_ID, id) else {
            continue;
        };
        let info = FdInfo::of(&map)?;
        if info.number("value_size:") == Some(value_bytes) && info.number("max_entries:") == Some(elements) {
            found = info.number("memlock:");
        }
    }
    Ok(found)
}

/// The fdinfo of a file descriptor.
struct FdInfo(String);

impl FdInfo {
    fn of(fd: &OwnedFd) -> Result<FdInfo> {
        Ok(FdInfo(fs::read_to_string(format!(
            "/proc/self/fdinfo/{}",
            fd.as_raw_fd()
        ))?))
    }

    fn number(&self, name: &str) -> Option<u64> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().parse().ok()
    }
}

#[repr(C)]
#[derive(Default)]
struct Id {
    start: u32,
    next: u32,
    flags: u32,
}

/// The id after this one; `None` at the end.
fn next_id(command: c_long, after: u32) -> Result<Option<u32>> {
    let mut id = Id {
        start: after,
        ..Id::default()
    };
    // SAFETY: the first fields of `bpf_attr` for this command; the kernel writes to the second.
    match unsafe { bpf(command, &mut id) } {
        Ok(_) => Ok(Some(id.next)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("failed to list BPF objects"),
    }
}

/// `None` when it has been removed in the meantime.
fn open_id(command: c_long, id: u32) -> Option<OwnedFd> {
    let mut id = Id {
        start: id,
        ..Id::default()
    };
    // SAFETY: the first fields of `bpf_attr` for this command.
    unsafe { bpf(command, &mut id) }.ok().map(owned)
}
