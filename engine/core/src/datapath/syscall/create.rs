//! Creates maps, programs of a few instructions, and links.

use std::{
    ffi::{CStr, c_long},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use engine_common::image::Page;

use super::{bpf, bpf_fd};

const BPF_MAP_CREATE: c_long = 0;
const BPF_PROG_LOAD: c_long = 5;
const BPF_RAW_TRACEPOINT_OPEN: c_long = 17;
const BPF_LINK_CREATE: c_long = 28;
const BPF_LINK_DETACH: c_long = 34;

/// BPF_MAP_TYPE_ARRAY.
const ARRAY: u32 = 2;
/// BPF_F_INNER_MAP: the flags of every image must equal those of the template (engine-ebpf).
const IMAGE_FLAGS: u32 = 0x1000;

/// The attributes of a new map.
pub(in crate::datapath) struct MapCreate<'a> {
    /// `enum bpf_map_type`.
    pub(in crate::datapath) map_type: u32,
    pub(in crate::datapath) key_size: u32,
    pub(in crate::datapath) value_size: u32,
    pub(in crate::datapath) max_entries: u32,
    pub(in crate::datapath) map_flags: u32,
    /// The template of a map of maps.
    pub(in crate::datapath) inner_map: Option<BorrowedFd<'a>>,
}

/// Creates a map.
pub(in crate::datapath) fn create_map(map: &MapCreate<'_>) -> io::Result<OwnedFd> {
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

/// Creates the map of an image: an array of `pages` pages.
pub(in crate::datapath) fn create_image(pages: u32) -> io::Result<OwnedFd> {
    create_map(&MapCreate {
        map_type: ARRAY,
        key_size: 4,
        value_size: size_of::<Page>() as u32,
        max_entries: pages,
        map_flags: IMAGE_FLAGS,
        inner_map: None,
    })
}

/// A program to be loaded.
pub(in crate::datapath) struct ProgramLoad<'a> {
    /// `enum bpf_prog_type`.
    pub(in crate::datapath) program_type: u32,
    /// `enum bpf_attach_type`, or 0.
    pub(in crate::datapath) attach_type: u32,
    /// BTF id of the kernel function that it is attached to, or 0.
    pub(in crate::datapath) attach_btf_id: u32,
    /// `struct bpf_insn` each.
    pub(in crate::datapath) instructions: &'a [u64],
}

/// Loads a program. The verifier writes its log into `log`, terminated by a NUL.
pub(in crate::datapath) fn load_program(
    program: &ProgramLoad<'_>,
    log: Option<&mut [u8]>,
) -> io::Result<OwnedFd> {
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

/// Attaches a program to `target` by a bpf_link (Linux 5.7): the file descriptor of a cgroup or of a perf event.
pub(in crate::datapath) fn create_link(
    program: BorrowedFd<'_>,
    target: u32,
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
        target_fd: target,
        attach_type,
        flags: 0,
    };
    // SAFETY: the attributes have no pointers.
    unsafe { bpf_fd(BPF_LINK_CREATE, &raw mut create) }
}

/// Detaches a link immediately, even if other descriptors refer to it (Linux 5.9).
pub(in crate::datapath) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut link = link.as_raw_fd() as u32;
    // SAFETY: the attributes are one integer.
    unsafe { bpf(BPF_LINK_DETACH, &raw mut link) }.map(drop)
}

/// Attaches a program to a raw tracepoint; without a name, to the function it was loaded for (LSM, fentry). The program is
/// detached when the last descriptor and pin of the link are closed (`bpf_tracing_prog_attach`, kernel/bpf/syscall.c; LSM
/// programs since 5.7).
pub(in crate::datapath) fn open_raw_tracepoint(
    program: BorrowedFd<'_>,
    name: Option<&CStr>,
) -> io::Result<OwnedFd> {
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
    // SAFETY: the name is null, or ends with a NUL and lives until the call returns.
    unsafe { bpf_fd(BPF_RAW_TRACEPOINT_OPEN, &raw mut open) }
}
