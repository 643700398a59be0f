//! Tasks that leave a cgroup that carries policies: written to another's `cgroup.procs`, or made in another one. Two
//! programs at functions of the kernel, called for every task of the machine. They decide nothing: who may move a task
//! has been judged by the kernel before.
//!
//! One that leaves several scopes at once, nested ones, leaves each of them.

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_ns,
        generated::{bpf_get_current_comm, bpf_get_current_task},
    },
    macros::fentry,
    programs::FEntryContext,
};
use engine_common::{
    ABI_VERSION,
    event::{MigrationRecord, migration_flag},
    scope::Scope,
};

use crate::{
    features,
    kernel::{arguments, field},
    report::tell_move,
    task_scope::{self, ancestor_of, cgroup_of, id_of},
};

/// `int cgroup_attach_task(struct cgroup *dst_cgrp, struct task_struct *leader, bool threadgroup)`
/// (kernel/cgroup/cgroup.c): a task is about to be moved, with its whole process or alone. Permissions are checked
/// by then; what may still refuse is a controller (`can_attach`). Hierarchies of the first version come here too.
#[fentry(function = "cgroup_attach_task")]
pub fn cgroup_move(context: FEntryContext) -> i32 {
    if task_scope::levels() == 0 {
        return 0;
    }
    let [to, leader, whole] = arguments(&context);
    let flags = if whole & 0xff == 0 {
        migration_flag::THREAD
    } else {
        0
    };
    leave(cgroup_of(leader), to, leader, flags);
    0
}

/// `void cgroup_post_fork(struct task_struct *child, struct kernel_clone_args *kargs)` (kernel/cgroup/cgroup.c,
/// with these arguments since 5.7): a task was made, and is about to be put into its cgroup. Most are put where
/// their parent is; `cgrp` is another one that the caller of clone3(2) has named.
#[fentry(function = "cgroup_post_fork")]
pub fn cgroup_clone(context: FEntryContext) -> i32 {
    let [child, arguments] = arguments(&context);
    let to: u64 = field(arguments, features::clone_cgroup());
    if to == 0 || task_scope::levels() == 0 {
        return 0;
    }
    let is_thread = field::<u32>(child, features::task_pid()) != field::<u32>(child, features::task_tgid());
    let flags = if is_thread { migration_flag::THREAD } else { 0 };
    // SAFETY: the helper has no arguments.
    let parent = unsafe { bpf_get_current_task() };
    leave(cgroup_of(parent), to, child, flags | migration_flag::BORN);
    0
}

/// Looks at each depth that is in use. `from` and `to` are addresses of cgroups.
#[inline(always)]
fn leave(from: u64, to: u64, task: u64, flags: u8) {
    let root = |cgroup: u64| field::<u64>(cgroup, features::cgroup_root());
    if root(from) != root(to) {
        return;
    }
    let levels = task_scope::levels();
    let mut level = 0;
    while level < Scope::LEVELS {
        if levels >> level & 1 != 0 {
            leave_level(level, from, to, task, flags as u32);
        }
        level += 1;
    }
}

/// Tells that the task leaves the scope at one depth, if it does. A global function: checked once, and not once a
/// depth.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn leave_level(level: u32, from: u64, to: u64, task: u64, flags: u32) -> u64 {
    let level = level & 0xff;
    let id = ancestor_of(from, level);
    if id == ancestor_of(to, level) {
        return 0;
    }
    let Some(scope) = task_scope::of_cgroup(id) else {
        return 0;
    };
    tell_move(|record: &mut MigrationRecord, lost: u64| {
        // SAFETY: the first helper has no arguments; the second one writes up to the 16 bytes given, and zeroes
        // them when it fails.
        unsafe {
            record.monotonic_ns = bpf_ktime_get_ns();
            bpf_get_current_comm(record.migrated_by_comm.as_mut_ptr().cast(), 16);
        }
        record.scope = id;
        record.from = id_of(from);
        record.to = id_of(to);
        record.lost = lost;
        let comm: [u64; 2] = field(task, features::task_comm());
        let place = record.comm.as_mut_ptr().cast::<u64>();
        // SAFETY: sixteen bytes of a record, aligned to eight.
        unsafe {
            place.write(comm[0]);
            place.add(1).write(comm[1]);
        }
        record.slots = scope.slots;
        record.pid = field(task, features::task_tgid());
        record.tid = field(task, features::task_pid());
        record.migrated_by_pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        record.migrated_by_uid = bpf_get_current_uid_gid() as u32;
        record.abi = ABI_VERSION as u16;
        record.flags = flags as u8;
        record.reserved = [0; 5];
    });
    1
}
