//! What the kernel tells of a loaded program, asked without Tidegate.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// Where `verified_insns` is in `struct bpf_prog_info` (include/uapi/linux/bpf.h), in words of four bytes.
const VERIFIED_INSTRUCTIONS: usize = 216 / 4;

/// How many instructions the verifier processed for a pinned program; `None` where the kernel does not tell
/// (before Linux 5.16).
///
/// # Errors
/// When the pin is no program that can be asked.
pub fn verified_instructions(pin: &Path) -> io::Result<Option<u32>> {
    let program = open(pin)?;
    // As large as the structure is since `verified_insns` is in it, and a little more for what follows.
    let mut info = [0u32; VERIFIED_INSTRUCTIONS + 4];
    #[repr(C)]
    struct GetInfo {
        fd: u32,
        length: u32,
        info: u64,
    }
    let mut get = GetInfo {
        fd: program.as_raw_fd() as u32,
        length: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes of `info`, which lives until the call returns.
    let answer = unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &raw mut get) };
    answer?;
    // The kernel says how much of it it knows.
    let known = get.length as usize / size_of::<u32>();
    Ok((known > VERIFIED_INSTRUCTIONS).then_some(info[VERIFIED_INSTRUCTIONS]))
}

fn open(pin: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Get {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut get = Get {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    // SAFETY: the path ends with a NUL and lives until the call returns.
    let fd = unsafe { bpf(BPF_OBJ_GET, &raw mut get) }?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// `attributes` must be laid out as `command` wants it, and what it points to must be valid meanwhile.
unsafe fn bpf<T>(command: libc::c_long, attributes: *mut T) -> io::Result<i32> {
    // SAFETY: the caller's.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer as i32)
}
