//! The scopes that the calling task is in. Programs that run for every task of the machine (LSM, tracing) are not
//! attached to a cgroup: they search the ancestors of the task's cgroup.

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    helpers::{bpf_get_current_task, generated::bpf_get_current_ancestor_cgroup_id},
    macros::btf_map,
};
use engine_common::{limits::MAX_SCOPES, scope::Scope};

use crate::{
    features,
    kernel_memory::{field, read},
};

/// Scopes by cgroup id: a copy of the cgroup storage for programs that cannot access it.
#[btf_map]
static TASK_SCOPES: HashMap<u64, Scope, { MAX_SCOPES as usize }> = HashMap::new();

/// Depths of these cgroups, one bit each ([`Scope::level_bit`]). For most tasks, which are in none of them, the cost
/// is one look-up for each depth in use.
#[btf_map]
static TASK_LEVELS: Array<u64, 1> = Array::new();

/// The depths in use, one bit each.
#[inline(always)]
pub(crate) fn levels() -> u64 {
    match TASK_LEVELS.get(0) {
        Some(levels) => *levels,
        None => Scope::ALL_LEVELS,
    }
}

/// The scope at a depth among the ancestors of the calling task's cgroup.
#[inline(always)]
pub(crate) fn at_level(level: u32) -> Option<&'static Scope> {
    of_cgroup(ancestor_of_task(level))
}

/// The scope of the cgroup with this id; none for 0.
#[inline(always)]
pub(crate) fn of_cgroup(id: u64) -> Option<&'static Scope> {
    if id == 0 {
        return None;
    }
    // SAFETY: user space replaces whole elements; a replaced one lives as long as the program runs (RCU).
    unsafe { TASK_SCOPES.get(id) }
}

/// Id of the ancestor of the calling task's cgroup at a depth (0: the root); 0 if the cgroup is not that deep.
#[inline(always)]
fn ancestor_of_task(level: u32) -> u64 {
    if features::has_ancestor_helper() != 0 {
        // SAFETY: the helper takes an integer.
        return unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
    }
    // SAFETY: the helper has no arguments.
    ancestor_of(cgroup_of(unsafe { bpf_get_current_task() }), level)
}

/// Address of a task's cgroup.
#[inline(always)]
pub(crate) fn cgroup_of(task: u64) -> u64 {
    let css_set: u64 = field(task, features::task_cgroups());
    field(css_set, features::css_set_cgroup())
}

/// Id of the cgroup at an address.
#[inline(always)]
pub(crate) fn id_of(cgroup: u64) -> u64 {
    field(field(cgroup, features::cgroup_kn()), features::kernfs_id())
}

/// Id of a socket's cgroup or its ancestor at a depth; 0 if the cgroup is not that deep, and for
/// sockets without a cgroup.
#[inline(always)]
pub(crate) fn ancestor_of_socket(socket: u64, level: u32) -> u64 {
    let cgroup: u64 = field(socket, features::sock_cgroup());
    // Until 5.14 the field can hold other data, marked by the lowest bits (include/linux/cgroup-defs.h).
    if cgroup & 1 != 0 {
        return 0;
    }
    ancestor_of(cgroup & !3, level)
}

/// Id of a cgroup or its ancestor at a depth; 0 if the cgroup is not that deep.
#[inline(always)]
pub(crate) fn ancestor_of(cgroup: u64, level: u32) -> u64 {
    if cgroup == 0 || level > field::<u32>(cgroup, features::cgroup_level()) {
        return 0;
    }
    let entry = cgroup
        .wrapping_add(features::cgroup_ancestors() as u64)
        .wrapping_add(level as u64 * 8);
    let entry: u64 = read(entry);
    if features::ancestors_are_ids() != 0 {
        // Before 6.1 (commit 7f203bc89eb6).
        return entry;
    }
    id_of(entry)
}
