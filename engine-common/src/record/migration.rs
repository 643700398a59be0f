//! The record of a cgroup migration.

use super::RecordHeader;
use crate::{limits::MAX_STACKED, scope::SlotRef};

/// A task was migrated out of a cgroup with attached policies: the header's scope. 136 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MigrationRecord {
    /// The header.
    pub header: RecordHeader,
    /// Id of the task's previous cgroup: the scope or a descendant.
    pub from: u64,
    /// Id of the task's new cgroup.
    pub to: u64,
    /// Name of the migrated thread (for a process: of its first thread), NUL padded. The process chooses it.
    pub comm: [u8; 16],
    /// Name of the thread that migrated it, or created it in the other cgroup.
    pub migrated_by_comm: [u8; 16],
    /// The policies of the scope, which no longer apply.
    pub slots: [SlotRef; MAX_STACKED],
    /// Process id (tgid) in the initial pid namespace.
    pub pid: u32,
    /// Thread id of the migrated thread, or of the process's first one.
    pub tid: u32,
    /// Process id of the task that migrated it.
    pub migrated_by_pid: u32,
    /// Real user id of the task that migrated it, in the initial user namespace.
    pub migrated_by_uid: u32,
    /// Bits of [`migration_flag`].
    pub flags: u8,
    /// Reserved, zero.
    pub reserved: [u8; 7],
}

/// Bits of [`MigrationRecord::flags`].
pub mod migration_flag {
    /// A single thread, not the whole process.
    pub const THREAD: u8 = 1;
    /// A thread inside the scope created it in the other cgroup (clone3 with CLONE_INTO_CGROUP).
    pub const CLONE_INTO_CGROUP: u8 = 2;
    /// All defined bits.
    pub const ALL: u8 = 3;
}

const _: () = assert!(size_of::<MigrationRecord>() == 136);
const _: () = assert!(MAX_STACKED == 8);
