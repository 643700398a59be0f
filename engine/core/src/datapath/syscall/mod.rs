//! The bpf(2) commands that aya has no function for. Layouts: `union bpf_attr` in include/uapi/linux/bpf.h.

mod create;
mod element;
mod object;
mod support;

use std::{
    ffi::c_long,
    io,
    os::fd::{FromRawFd, OwnedFd},
};

pub(super) use self::{
    create::{
        MapCreate, ProgramLoad, create_image, create_link, create_map, detach_link, load_program,
        open_raw_tracepoint,
    },
    element::{
        delete_inner, inner_of, read_page, read_scope, read_words, remove_scope, scope_after, update_inner,
        update_inner_batch, write_page, write_scope, write_words,
    },
    object::{cgroup_of_link, count_programs, open_pin, pin},
    support::{try_fentry_program, try_kprobe_link, try_lsm_program},
};

/// # Safety
/// `attr` must have the layout that `command` expects, and what it points to must be valid until the call returns.
unsafe fn bpf<T>(command: c_long, attr: *mut T) -> io::Result<c_long> {
    // SAFETY: guaranteed by the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Runs a command that returns a new descriptor.
///
/// # Safety
/// As [`bpf`]; `command` must return a descriptor.
unsafe fn bpf_fd<T>(command: c_long, attr: *mut T) -> io::Result<OwnedFd> {
    // SAFETY: guaranteed by the caller.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: a new descriptor without another owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
