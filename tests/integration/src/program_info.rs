//! What the kernel reports about a loaded program, read without Tidegate.

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

/// Index of `verified_insns` in `struct bpf_prog_info` (include/uapi/linux/bpf.h), in units of four bytes.
const VERIFIED_INSTRUCTIONS: usize = 216 / 4;

/// How many instructions the verifier processed for a pinned program; `None` before Linux 5.16.
///
/// # Errors
/// When the pin is not a program, or cannot be opened.
pub fn verified_instructions(pin: &Path) -> io::Result<Option<u32>> {
    let program = open(pin)?;
    // The size of the structure since it has `verified_insns`, and the fields after it.
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
    // SAFETY: the kernel writes at most `length` bytes of `info`, which is valid through the call.
    let result = unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &raw mut get) };
    result?;
    // The kernel sets `length` to the size of its own structure.
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
    // SAFETY: the path ends with a NUL and is valid through the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &raw mut get) }?;
    // SAFETY: the descriptor is new and owned here.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// `attributes` must have the layout of `command`, and everything it points to must be valid through the call.
unsafe fn bpf<T>(command: libc::c_long, attributes: *mut T) -> io::Result<i32> {
    // SAFETY: the caller guarantees it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}
