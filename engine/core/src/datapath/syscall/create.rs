//! The bpf(2) commands that only trials use: maps of any type, programs of a few instructions, links without a pin.
//! Layouts: `union bpf_attr` in include/uapi/linux/bpf.h.

use std::{
    ffi::{CStr, c_long},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use crate::datapath::syscall::{
    BPF_LINK_CREATE, BPF_MAP_CREATE, BPF_PROG_LOAD, BPF_RAW_TRACEPOINT_OPEN, bpf, bpf_fd,
};

const BPF_LINK_DETACH: c_long = 34;

/// The attributes of a new map.
pub(super) struct MapCreate<'a> {
    /// `enum bpf_map_type`.
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) map_flags: u32,
    /// The template of a map of maps.
    pub(super) inner_map: Option<BorrowedFd<'a>>,
}

/// Creates a map.
pub(super) fn create_map(map: &MapCreate<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
        inner_map_fd: u32,
    }
    let mut create = Create {
        map_type: map.map_type,
        key_size: map.key_size,
        value_size: map.value_size,
        max_entries: map.max_entries,
        map_flags: map.map_flags,
        inner_map_fd: map.inner_map.map_or(0, |inner| inner.as_raw_fd() as u32),
    };
    // SAFETY: the attributes have no pointers.
    unsafe { bpf_fd(BPF_MAP_CREATE, &raw mut create) }
}

/// A program to be loaded.
pub(super) struct ProgramLoad<'a> {
    /// `enum bpf_prog_type`.
    pub(super) program_type: u32,
    /// `enum bpf_attach_type`, or 0.
    pub(super) attach_type: u32,
    /// BTF id of the kernel function that it is attached to, or 0.
    pub(super) attach_btf_id: u32,
    /// `struct bpf_insn` each.
    pub(super) instructions: &'a [u64],
}

/// Loads a program. The verifier writes its log into `log`, terminated by a NUL.
pub(super) fn load_program(program: &ProgramLoad<'_>, log: Option<&mut [u8]>) -> io::Result<OwnedFd> {
    /// The fields up to `attach_prog_fd`.
    #[repr(C)]
    struct Load {
        program_type: u32,
        instruction_count: u32,
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
        btf_fd: u32,
        func_info_size: u32,
        func_info: u64,
        func_info_count: u32,
        line_info_size: u32,
        line_info: u64,
        line_info_count: u32,
        attach_btf_id: u32,
        attach_prog_fd: u32,
        padding: u32,
    }
    let (log_level, log_size, log) = match log {
        Some(log) => (1, log.len() as u32, log.as_mut_ptr() as u64),
        None => (0, 0, 0),
    };
    let mut load = Load {
        program_type: program.program_type,
        instruction_count: program.instructions.len() as u32,
        instructions: program.instructions.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        log_level,
        log_size,
        log,
        kernel_version: 0,
        flags: 0,
        name: *b"tidegate_trial\0\0",
        interface: 0,
        attach_type: program.attach_type,
        btf_fd: 0,
        func_info_size: 0,
        func_info: 0,
        func_info_count: 0,
        line_info_size: 0,
        line_info: 0,
        line_info_count: 0,
        attach_btf_id: program.attach_btf_id,
        attach_prog_fd: 0,
        padding: 0,
    };
    // SAFETY: instructions, license and log live until the call returns, and have the lengths in the attributes.
    unsafe { bpf_fd(BPF_PROG_LOAD, &raw mut load) }
}

/// Attaches a program to a cgroup by a bpf_link (Linux 5.7).
pub(super) fn link_to_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct LinkCreate {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut create = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type,
        flags: 0,
    };
    // SAFETY: the attributes have no pointers.
    unsafe { bpf_fd(BPF_LINK_CREATE, &raw mut create) }
}

/// Detaches a link immediately, even if other descriptors refer to it (Linux 5.9).
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut link = link.as_raw_fd() as u32;
    // SAFETY: the attributes are one integer.
    unsafe { bpf(BPF_LINK_DETACH, &raw mut link) }.map(drop)
}

/// Attaches a program to a raw tracepoint; without a name, to the function it was loaded for (LSM, fentry).
pub(super) fn open_raw_tracepoint(program: BorrowedFd<'_>, name: Option<&CStr>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Open {
        name: u64,
        prog_fd: u32,
        padding: u32,
    }
    let mut open = Open {
        name: name.map_or(0, |name| name.as_ptr() as u64),
        prog_fd: program.as_raw_fd() as u32,
        padding: 0,
    };
    // SAFETY: the name ends with a NUL and lives until the call returns.
    unsafe { bpf_fd(BPF_RAW_TRACEPOINT_OPEN, &raw mut open) }
}
