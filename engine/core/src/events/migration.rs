//! A decoded record of a migration out of a cgroup with attached policies.

use jiff::Timestamp;

use super::{event::Comm, names::Names};

/// A process, or one of its threads, was migrated out of a scope, whose policies no longer apply to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupMigration {
    /// Nanoseconds of CLOCK_BOOTTIME.
    pub ktime_ns: u64,
    /// Id of the cgroup that the policies are attached to.
    pub scope: u64,
    /// Id of the previous cgroup: the scope or a descendant.
    pub from: u64,
    /// Id of the new cgroup.
    pub to: u64,
    /// Slots of the policies of the scope.
    pub slots: Vec<u32>,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Thread id; for a whole process, that of its first thread.
    pub tid: u32,
    /// Name of that thread.
    pub comm: Comm,
    /// Whether the whole process was migrated, not only that thread.
    pub is_whole_process: bool,
    /// Whether it was created in the new cgroup (clone3 with CLONE_INTO_CGROUP).
    pub is_clone_into_cgroup: bool,
    /// The task that migrated or created it.
    pub migrated_by: MigratedBy,
    /// Records lost in this ring buffer before this one, since it was created.
    pub lost: u64,
}

/// The task that migrated another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigratedBy {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Name of the thread.
    pub comm: Comm,
}

/// A migration with its names and its wall time.
#[derive(Clone, Debug)]
pub struct NamedMigration<'a> {
    /// The migration.
    pub migration: &'a CgroupMigration,
    /// Wall time of the migration.
    pub time: Timestamp,
    /// Path of the cgroup that the policies are, or were, attached to.
    pub scope: Option<String>,
    /// Path of the previous cgroup, if it still exists.
    pub from: Option<String>,
    /// Path of the new cgroup, if it still exists.
    pub to: Option<String>,
    policies: Vec<Option<&'a str>>,
}

impl<'a> NamedMigration<'a> {
    /// Looks up the names, while the cgroups exist: call it soon after the record was read.
    pub fn new(migration: &'a CgroupMigration, time: Timestamp, names: &'a dyn Names) -> NamedMigration<'a> {
        // Slots are not reused soon: the current or last policy of a slot is the one that applied.
        let name = |slot: &u32| names.policy(*slot, 0).map(|policy| policy.name.as_str());
        NamedMigration {
            migration,
            time,
            scope: names.cgroup(migration.scope),
            from: names.cgroup(migration.from),
            to: names.cgroup(migration.to),
            policies: migration.slots.iter().map(name).collect(),
        }
    }

    /// Names of the policies of the scope; `None` if not known.
    pub fn policies(&self) -> &[Option<&'a str>] {
        &self.policies
    }

    /// The same as text: `slot 5` for a name that is not known.
    pub fn policy_list(&self) -> String {
        let slots = self.policies.iter().zip(&self.migration.slots);
        let names = slots.map(|(name, slot)| name.map_or_else(|| format!("slot {slot}"), str::to_owned));
        names.collect::<Vec<_>>().join(", ")
    }
}
