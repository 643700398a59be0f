//! Migration of tasks out of a scope: written to `cgroup.procs` of another cgroup, or created in another one. Two
//! programs attached to kernel functions, which run for every task of the machine. They decide nothing: the kernel has
//! checked the permissions before.
//!
//! A task that leaves several nested scopes at once is reported for each of them.

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_get_current_comm, bpf_get_current_task},
    },
    macros::fentry,
    programs::FEntryContext,
};
use engine_common::{
    record::{MigrationRecord, migration_flag},
    scope::Scope,
};

use crate::{
    features,
    kernel_memory::{arguments, field},
    report::write_migration,
    task_scope::{self, ancestor_of, cgroup_of, id_of},
};

/// `int cgroup_attach_task(struct cgroup *dst_cgrp, struct task_struct *leader, bool threadgroup)`
/// (kernel/cgroup/cgroup.c): a task is about to be migrated, with its whole process or alone. Permissions were
/// checked; only a controller may still refuse (`can_attach`). It is also called for cgroup v1 hierarchies.
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
    report_levels(cgroup_of(leader), to, leader, flags);
    0
}

/// `void cgroup_post_fork(struct task_struct *child, struct kernel_clone_args *kargs)` (kernel/cgroup/cgroup.c,
/// with these arguments since 5.7): a task was created and is about to be added to its cgroup: that of the parent,
/// or `cgrp` if the caller of clone3(2) passed CLONE_INTO_CGROUP.
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
    report_levels(
        cgroup_of(parent),
        to,
        child,
        flags | migration_flag::CLONE_INTO_CGROUP,
    );
    0
}

/// Reports the migration for the scope at each depth in use. `from` and `to` are addresses of cgroups.
#[inline(always)]
fn report_levels(from: u64, to: u64, task: u64, flags: u8) {
    let root = |cgroup: u64| field::<u64>(cgroup, features::cgroup_root());
    if root(from) != root(to) {
        return;
    }
    let levels = task_scope::levels();
    let mut level = 0;
    while level < Scope::LEVELS {
        if levels >> level & 1 != 0 {
            report_migration_level(level, from, to, task, flags as u32);
        }
        level += 1;
    }
}

/// Reports that the task leaves the scope at one depth, if it does. A global function: the verifier checks it once,
/// not once per depth.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn report_migration_level(level: u32, from: u64, to: u64, task: u64, flags: u32) -> u64 {
    let level = level & 0xff;
    let id = ancestor_of(from, level);
    if id == ancestor_of(to, level) {
        return 0;
    }
    let Some(scope) = task_scope::of_cgroup(id) else {
        return 0;
    };
    write_migration(id, |record: &mut MigrationRecord| {
        // SAFETY: the helper writes up to 16 bytes, and zeroes them if it fails.
        unsafe { bpf_get_current_comm(record.migrated_by_comm.as_mut_ptr().cast(), 16) };
        record.from = id_of(from);
        record.to = id_of(to);
        let comm: [u64; 2] = field(task, features::task_comm());
        let words = record.comm.as_mut_ptr().cast::<u64>();
        // SAFETY: sixteen bytes of a record, aligned to eight.
        unsafe {
            words.write(comm[0]);
            words.add(1).write(comm[1]);
        }
        record.slots = scope.slots;
        record.pid = field(task, features::task_tgid());
        record.tid = field(task, features::task_pid());
        record.migrated_by_pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        record.migrated_by_uid = bpf_get_current_uid_gid() as u32;
        record.flags = flags as u8;
        record.reserved = [0; 7];
    });
    1
}
