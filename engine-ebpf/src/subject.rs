//! Uid and executable of the calling task.

use core::ptr::read_volatile;

use aya_ebpf::helpers::{
    bpf_get_current_task, bpf_get_current_uid_gid, bpf_probe_read_kernel, generated::bpf_get_current_task_btf,
};
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
/// thread and if it cannot be read; no file has inode 0.
/// (Not an `Option`: the compiler copies the uninitialised payload of `None`, which the verifier
/// rejects.)
#[inline(always)]
pub(crate) fn executable() -> ExecutableId {
    let id = if features::has_task_btf() != 0 {
        load_executable()
    } else {
        read_executable()
    };
    let unknown = bpf_get_current_uid_gid();
    ExecutableId {
        device: forget(id.device, unknown),
        inode: forget(id.inode, unknown),
    }
}

/// The same with direct loads, which the verifier allows through typed pointers: much cheaper than six calls of
/// the helper. A load from an invalid address gives zero (BPF_PROBE_MEM), so that a missing
/// pointer results in inode 0.
#[inline(always)]
fn load_executable() -> ExecutableId {
    // SAFETY: the helper has no arguments; the verifier checks each load against the kernel's own types.
    unsafe {
        let task = bpf_get_current_task_btf() as u64;
        let mm: u64 = load(task, features::task_mm());
        let file: u64 = load(mm, features::mm_exe_file());
        let inode: u64 = load(file, features::file_inode());
        let superblock: u64 = load(inode, features::inode_sb());
        let device: u32 = load(superblock, features::sb_dev());
        ExecutableId {
            device: device as u64,
            inode: load(inode, features::inode_ino()),
        }
    }
}

/// Loads a field of a kernel structure.
///
/// # Safety
/// The address must be derived from a typed pointer of the verifier.
#[inline(always)]
unsafe fn load<T>(structure: u64, offset: u32) -> T {
    // SAFETY: by the caller. Volatile: the compiler must not merge or split the load.
    unsafe { read_volatile((structure as *const u8).add(offset as usize).cast::<T>()) }
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
    let Some(inode) = field::<u64>(inode, features::inode_ino()) else {
        return id;
    };
    id.device = device as u64;
    id.inode = inode;
    id
}

/// Whether the executable could be read.
#[inline(always)]
pub(crate) fn is_known(id: ExecutableId) -> bool {
    id.inode != 0
}
