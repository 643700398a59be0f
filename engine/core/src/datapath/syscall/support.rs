//! Whether the kernel accepts kinds of programs and links, found by trying. Nothing is attached.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use super::{ProgramLoad, create_link, load_program};

/// Loads a program that does nothing, at the function with this BTF id if it is not 0.
fn load_empty(program_type: u32, attach_type: u32, attach_btf_id: u32) -> io::Result<OwnedFd> {
    let program = ProgramLoad {
        program_type,
        attach_type,
        attach_btf_id,
        // r0 = 0; exit.
        instructions: &[0xb7, 0x95],
    };
    load_program(&program, None)
}

/// Succeeds where kprobes have links, which alone can be pinned (`bpf_perf_link_attach`, kernel/bpf/syscall.c,
/// Linux 5.15). The perf event to be linked is an invalid descriptor, so nothing is attached in any case.
pub(in crate::datapath) fn try_kprobe_link() -> io::Result<()> {
    /// BPF_PROG_TYPE_KPROBE.
    const KPROBE: u32 = 2;
    /// BPF_PERF_EVENT.
    const PERF_EVENT: u32 = 41;
    let program = load_empty(KPROBE, 0, 0)?;
    match create_link(program.as_fd(), u32::MAX, PERF_EVENT) {
        // The error is about the perf event, so the kernel has links for kprobes.
        Err(error) if error.raw_os_error() != Some(libc::EBADF) => Err(error),
        _ => Ok(()),
    }
}

/// Succeeds where the kernel accepts LSM programs at all. The program names no hook and is refused in any case: as
/// invalid where such programs may be loaded (`bpf_prog_load_check_attach`), else for another reason.
pub(in crate::datapath) fn try_lsm_program() -> io::Result<()> {
    /// BPF_PROG_TYPE_LSM.
    const LSM: u32 = 29;
    /// BPF_LSM_MAC.
    const LSM_MAC: u32 = 27;
    match load_empty(LSM, LSM_MAC, 0) {
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(error),
        _ => Ok(()),
    }
}

/// Succeeds where the kernel accepts a program at the entry of one of its functions, named by its BTF id.
pub(in crate::datapath) fn try_fentry_program(function: u32) -> io::Result<()> {
    /// BPF_PROG_TYPE_TRACING.
    const TRACING: u32 = 26;
    /// BPF_TRACE_FENTRY.
    const FENTRY: u32 = 24;
    load_empty(TRACING, FENTRY, function).map(drop)
}
