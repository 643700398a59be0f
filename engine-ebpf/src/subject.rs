//! Who is asking: uid and executable of the calling task.

use aya_ebpf::helpers::{bpf_get_current_task, bpf_get_current_uid_gid, bpf_probe_read_kernel};
use engine_common::{ExecutableId, verifier::forget};

use crate::features;

/// Reads a field of a kernel structure; `None` when the address cannot be read.
#[inline(always)]
fn field<T>(structure: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address and fails instead of faulting.
    unsafe { bpf_probe_read_kernel((structure + offset as u64) as *const T) }.ok()
}

#[inline(always)]
fn pointer(structure: u64, offset: u32) -> Option<u64> {
    match field::<u64>(structure, offset) {
        Some(0) | None => None,
        some => some,
    }
}

/// Real uid of the calling task, in the initial user namespace.
#[inline(always)]
pub(crate) fn uid() -> u32 {
    bpf_get_current_uid_gid() as u32
}

/// Executable of the calling task: the file behind `task->mm->exe_file`. All zero for a kernel
/// thread, which has no user-space identity at all, and where it cannot be read; no file is that.
/// (Not an `Option`: the compiler copies the payload of `None`, and the verifier refuses to read
/// what was never written.)
#[inline(always)]
pub(crate) fn executable() -> ExecutableId {
    let id = read_executable();
    let unknown = bpf_get_current_uid_gid();
    ExecutableId {
        device: forget(id.device, unknown),
        inode: forget(id.inode, unknown),
    }
}

#[inline(always)]
fn read_executable() -> ExecutableId {
    let mut id = ExecutableId { device: 0, inode: 0 };
    // SAFETY: the helper has no arguments.
    let task = unsafe { bpf_get_current_task() };
    let Some(mm) = pointer(task, features::task_mm()) else {
        return id;
    };
    let Some(file) = pointer(mm, features::mm_exe_file()) else {
        return id;
    };
    let Some(inode) = pointer(file, features::file_inode()) else {
        return id;
    };
    let Some(superblock) = pointer(inode, features::inode_sb()) else {
        return id;
    };
    let Some(device) = field::<u32>(superblock, features::sb_dev()) else {
        return id;
    };
    let Some(number) = field::<u64>(inode, features::inode_ino()) else {
        return id;
    };
    id.device = device as u64;
    id.inode = number;
    id
}

/// Whether an executable was found.
#[inline(always)]
pub(crate) fn is_known(id: ExecutableId) -> bool {
    id.inode != 0
}
