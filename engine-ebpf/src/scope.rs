//! The scope of the cgroup that a program is attached to.

use core::ptr::{addr_of, null};

use aya_ebpf::{
    bindings::bpf_map_type::BPF_MAP_TYPE_CGROUP_STORAGE,
    helpers::generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_local_storage,
    },
};
use engine_common::scope::Scope;

/// Definition of a cgroup storage map keyed by the cgroup id alone (Linux 5.9), so that all hooks
/// of a cgroup share one value. aya-ebpf only has the older key with the attach type.
#[repr(C)]
struct SharedStorage {
    r#type: *const [i32; BPF_MAP_TYPE_CGROUP_STORAGE as usize],
    key: *const u64,
    value: *const Scope,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; 0],
}

// SAFETY: never read or written as memory; its address identifies the map.
unsafe impl Sync for SharedStorage {}

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "SCOPES")]
static SCOPES: SharedStorage = SharedStorage {
    r#type: null(),
    key: null(),
    value: null(),
    max_entries: null(),
    map_flags: null(),
};

/// The storage of the attachment that is running. All zero until user space has written it.
#[inline(always)]
pub(crate) fn current<'a>() -> &'a Scope {
    // SAFETY: the helper takes the address of a cgroup storage map and returns a pointer to its
    // value, never null, which lives at least as long as the program runs (RCU).
    unsafe { &*bpf_get_local_storage(addr_of!(SCOPES) as *mut _, 0).cast::<Scope>() }
}

/// Whether the calling task is outside the scope.
#[inline(always)]
pub(crate) fn is_task_outside(scope: &Scope) -> bool {
    // SAFETY: the helpers take an integer or nothing.
    let ancestor = unsafe {
        if scope.level == Scope::UNKNOWN_LEVEL {
            bpf_get_current_cgroup_id()
        } else {
            bpf_get_current_ancestor_cgroup_id(scope.level as i32)
        }
    };
    ancestor != scope.cgroup
}
