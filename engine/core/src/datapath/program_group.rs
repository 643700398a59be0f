//! The groups of programs, one row each: what a group is for, its programs, what it needs of the kernel, and when it is
//! attached. Loading, attaching, detaching, states and reasons for absence are loops over this table: a new group is a
//! new row, and its programs in engine-ebpf.

use aya::programs::{
    CgroupSkbAttachType as SkbAt, CgroupSockAddrAttachType as AddrAt, CgroupSockAttachType as SockAt,
};
use engine_common::scope::HookSet;

use super::{
    btf::Btf,
    canary::Canary,
    features::{Tracer, lsm_unavailable_reason, tracer_unavailable_reason},
    offsets::{LSM_UNIX_MEMBERS, MIGRATION_MEMBERS, Member, Offsets},
    program::{AttachPoint, ProgramSpec},
    syscall,
};
use crate::instance::{DISABLE_VARIABLE, Disabled};

/// A group of programs that are loaded, attached and detached together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupName {
    /// Decides on addresses and on the creation of sockets, by the socket's cgroup.
    Connect,
    /// Decides on packets, for strict policies.
    EgressFilter,
    /// Watches TCP connections, to report their local address.
    Tracer,
    /// Decides by the calling task, and on other address families.
    Lsm,
    /// Decides on unix sockets, for policies that name such sockets.
    LsmUnix,
    /// Reports tasks that migrate out of a cgroup with policies.
    Migration,
}

impl GroupName {
    /// Its name in paths of pins and in [`DISABLE_VARIABLE`].
    pub const fn as_str(self) -> &'static str {
        match self {
            GroupName::Connect => "connect",
            GroupName::EgressFilter => "egress_filter",
            GroupName::Tracer => "tracer",
            GroupName::Lsm => "lsm",
            GroupName::LsmUnix => "lsm_unix",
            GroupName::Migration => "migration",
        }
    }

    /// Why this kernel cannot run the group; `None` where it can. Tries what loading would do, and takes some
    /// milliseconds.
    pub fn unavailable_reason(self, disabled: &Disabled) -> Option<String> {
        self.row().unavailable_reason(disabled)
    }

    /// Why this kernel cannot run the group, determined without trying its programs; `None` if no reason is found.
    pub fn quick_reason(self, disabled: &Disabled) -> Option<String> {
        self.row().quick_reason(disabled)
    }

    /// Why a set of programs that was loaded on this kernel lacks the group.
    pub fn absence_reason(self, disabled: &Disabled) -> String {
        self.unavailable_reason(disabled).unwrap_or_else(|| {
            "the kernel refused the programs, or did not call them, when they were loaded (TIDEGATE_LOG=debug shows why); \
             `tidegate detach --all` unloads them, and the next command tries again"
                .to_owned()
        })
    }

    /// The groups that enforce for a policy which uses these kinds of hooks, in the order of the table.
    pub fn enforcing(hooks: HookSet, is_strict: bool) -> impl Iterator<Item = GroupName> {
        let needs = ScopeNeeds {
            hooks,
            // Only in scopes with cgroup hooks: the filter looks up their sockets.
            strict: is_strict && hooks.contains(HookSet::CGROUP),
            has_policies: true,
        };
        let rows = GROUPS
            .iter()
            .filter(move |row| row.enforces && (row.wanted_by)(&needs));
        rows.map(|row| row.name)
    }

    /// The groups that some policies require. [`GroupName::Connect`] is not among them: without it nothing loads.
    pub fn optional() -> impl Iterator<Item = GroupName> {
        let rows = GROUPS
            .iter()
            .filter(|row| row.enforces && row.name != GroupName::Connect);
        rows.map(|row| row.name)
    }

    /// The kind of hooks that policies get from it.
    pub fn hooks(self) -> HookSet {
        self.row().hooks
    }

    pub(super) fn row(self) -> &'static ProgramGroup {
        // A test checks this: the table has one row for each name, in the order of the names.
        &GROUPS[self as usize]
    }
}

/// A set of groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupSet(u32);

impl GroupSet {
    /// Whether a group is in the set.
    pub const fn has(self, group: GroupName) -> bool {
        self.0 & 1 << group as u32 != 0
    }

    /// The set with a group.
    #[must_use]
    pub const fn with(self, group: GroupName) -> GroupSet {
        GroupSet(self.0 | 1 << group as u32)
    }

    /// The set without a group.
    #[must_use]
    pub const fn without(self, group: GroupName) -> GroupSet {
        GroupSet(self.0 & !(1 << group as u32))
    }
}

/// What calls the programs of a group once they are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupScope {
    /// Tasks and sockets of one cgroup: attached to each cgroup with policies.
    Cgroup,
    /// The whole machine: attached once, while any cgroup needs it.
    Global,
}

/// What it means that the kernel refuses a program of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nothing is loaded: without the group nothing is enforced; or the group was tried before and must load.
    Fails,
    /// The group is left out; only loading shows whether the kernel accepts its programs.
    LeavesOut,
}

/// What the policies of a cgroup, or of all cgroups together, need attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ScopeNeeds {
    pub(super) hooks: HookSet,
    /// Some policy decides on packets.
    pub(super) strict: bool,
    pub(super) has_policies: bool,
}

/// A row of the table.
pub(super) struct ProgramGroup {
    pub(super) name: GroupName,
    /// The group without which it is not loaded.
    pub(super) part_of: Option<GroupName>,
    pub(super) scope: GroupScope,
    pub(super) refusal: Refusal,
    /// Whether verdicts depend on it. Where not, it may fail to attach: then `status` shows it.
    pub(super) enforces: bool,
    /// The kind of hooks that policies get from it.
    pub(super) hooks: HookSet,
    pub(super) programs: &'static [ProgramSpec],
    /// Members of kernel structures that its programs read, beside those that all programs read.
    pub(super) members: &'static [Member],
    /// Why the kernel cannot run it, determined without loading it; `None` if no reason is found.
    pub(super) check: fn() -> Option<String>,
    pub(super) wanted_by: fn(&ScopeNeeds) -> bool,
}

/// The program that decides nothing. It is attached to a cgroup first and detached last: the storage of a cgroup exists, as
/// zeros, from its first attachment on, and zeros are a fault; so the scope is written between this and the others.
pub(super) const ANCHOR: ProgramSpec =
    ProgramSpec::new("scope_anchor", AttachPoint::CgroupSock(SockAt::SockRelease));

/// All groups, in the order in which they are attached.
pub(super) static GROUPS: [ProgramGroup; 6] = [
    ProgramGroup {
        name: GroupName::Connect,
        part_of: None,
        scope: GroupScope::Cgroup,
        refusal: Refusal::Fails,
        enforces: true,
        hooks: HookSet::CGROUP,
        programs: &[
            ProgramSpec::new("connect4", AttachPoint::CgroupSockAddr(AddrAt::Connect4)),
            ProgramSpec::new("connect6", AttachPoint::CgroupSockAddr(AddrAt::Connect6)),
            ProgramSpec::new("sendmsg4", AttachPoint::CgroupSockAddr(AddrAt::UDPSendMsg4)),
            ProgramSpec::new("sendmsg6", AttachPoint::CgroupSockAddr(AddrAt::UDPSendMsg6)),
            ProgramSpec::new("sock_create", AttachPoint::CgroupSock(SockAt::SockCreate)),
        ],
        members: &[],
        check: || None,
        wanted_by: |needs| needs.hooks.contains(HookSet::CGROUP),
    },
    ProgramGroup {
        name: GroupName::EgressFilter,
        part_of: None,
        scope: GroupScope::Cgroup,
        refusal: Refusal::LeavesOut,
        enforces: true,
        hooks: HookSet::NONE,
        programs: &[ProgramSpec::new("egress", AttachPoint::CgroupSkb(SkbAt::Egress))],
        members: &[],
        check: || None,
        wanted_by: |needs| needs.strict,
    },
    ProgramGroup {
        name: GroupName::Tracer,
        part_of: None,
        scope: GroupScope::Global,
        refusal: Refusal::Fails,
        enforces: true,
        hooks: HookSet::TRACER,
        // One of the two, see `Tracer`.
        programs: &[
            ProgramSpec::alternative("tcp_connect", AttachPoint::Kprobe("tcp_connect"), Tracer::Kprobe),
            ProgramSpec::alternative(
                "sock_state",
                AttachPoint::RawTracepoint("inet_sock_set_state"),
                Tracer::Tracepoint,
            ),
        ],
        members: &[],
        check: tracer_unavailable_reason,
        wanted_by: |needs| needs.hooks.contains(HookSet::TRACER),
    },
    ProgramGroup {
        name: GroupName::Lsm,
        part_of: None,
        scope: GroupScope::Global,
        refusal: Refusal::Fails,
        enforces: true,
        hooks: HookSet::LSM,
        programs: &[
            ProgramSpec::new("lsm_connect", AttachPoint::Lsm("socket_connect")),
            ProgramSpec::new("lsm_sendmsg", AttachPoint::Lsm("socket_sendmsg")),
            ProgramSpec::new("lsm_create", AttachPoint::Lsm("socket_create")),
            ProgramSpec::new("lsm_sctp", AttachPoint::Lsm("sctp_bind_connect")),
        ],
        members: &[],
        check: lsm_unavailable_reason,
        wanted_by: |needs| needs.hooks.contains(HookSet::LSM),
    },
    ProgramGroup {
        name: GroupName::LsmUnix,
        part_of: Some(GroupName::Lsm),
        scope: GroupScope::Global,
        refusal: Refusal::LeavesOut,
        enforces: true,
        hooks: HookSet::UNIX,
        programs: &[
            ProgramSpec::new("lsm_unix_connect", AttachPoint::Lsm("unix_stream_connect")),
            ProgramSpec::new("lsm_unix_send", AttachPoint::Lsm("unix_may_send")),
        ],
        members: &LSM_UNIX_MEMBERS,
        check: || None,
        wanted_by: |needs| needs.hooks.contains(HookSet::UNIX),
    },
    ProgramGroup {
        name: GroupName::Migration,
        part_of: None,
        scope: GroupScope::Global,
        refusal: Refusal::LeavesOut,
        enforces: false,
        hooks: HookSet::NONE,
        programs: &[
            ProgramSpec::new("cgroup_move", AttachPoint::Fentry("cgroup_attach_task")),
            ProgramSpec::new("cgroup_clone", AttachPoint::Fentry("cgroup_post_fork")),
        ],
        members: &MIGRATION_MEMBERS,
        check: || Canary::Fentry.stop_reason(),
        wanted_by: |needs| needs.has_policies,
    },
];

impl ProgramGroup {
    /// Why the kernel cannot run it, determined without loading it; `None` if no reason is found.
    pub(super) fn quick_reason(&self, disabled: &Disabled) -> Option<String> {
        if self.is_disabled(disabled) {
            return Some(format!("disabled by {DISABLE_VARIABLE}"));
        }
        let whole = self.part_of.and_then(|whole| (whole.row().check)());
        whole.or_else(self.check)
    }

    pub(super) fn is_disabled(&self, disabled: &Disabled) -> bool {
        let is_disabled = |group: GroupName| disabled.has(group.as_str());
        is_disabled(self.name) || self.part_of.is_some_and(is_disabled)
    }

    fn unavailable_reason(&self, disabled: &Disabled) -> Option<String> {
        if let Some(reason) = self.quick_reason(disabled) {
            return Some(reason);
        }
        let is_fentry = |program: &ProgramSpec| matches!(program.attach, AttachPoint::Fentry(_));
        if self.members.is_empty() && !self.programs.iter().any(is_fentry) {
            return None;
        }
        let btf = match Btf::of_running_kernel() {
            Ok(btf) => btf,
            Err(error) => return Some(error.to_string()),
        };
        if let Err(error) = Offsets::default().add(self.members, &btf) {
            return Some(error.to_string());
        }
        self.programs.iter().find_map(|program| {
            let AttachPoint::Fentry(function) = program.attach else {
                return None;
            };
            let Some(id) = btf.function_id(function) else {
                return Some(format!("the kernel has no function {function}"));
            };
            let refused = syscall::try_fentry_program(id).err()?;
            Some(format!("the kernel refuses programs at {function}: {refused}"))
        })
    }

    /// The programs to load, where `tracer` is the alternative that the kernel has.
    pub(super) fn programs(
        &self,
        tracer: Option<Tracer>,
    ) -> impl Iterator<Item = &'static ProgramSpec> + use<> {
        self.programs
            .iter()
            .filter(move |program| program.alternative.is_none() || program.alternative == tracer)
    }

    /// The canary that shows whether the kernel calls the programs of which `is_loaded` says so.
    pub(super) fn canary(&self, is_loaded: impl Fn(&ProgramSpec) -> bool) -> Option<Canary> {
        let loaded = self.programs.iter().filter(|program| is_loaded(program));
        loaded.into_iter().find_map(|program| program.attach.canary())
    }
}

/// Words that [`DISABLE_VARIABLE`] accepts: the names of the groups that can be left out, one of two alternatives, and
/// functions of the kernel.
pub fn disable_words() -> Vec<&'static str> {
    let groups = GROUPS.iter().filter(|row| row.name != GroupName::Connect);
    let words = groups.map(|row| row.name.as_str());
    words.chain(super::features::WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_finds_its_row() {
        for row in &GROUPS {
            assert_eq!(row.name.row().name, row.name);
            assert!(!row.programs.is_empty());
            for program in row.programs {
                let is_cgroup = matches!(
                    program.attach,
                    AttachPoint::CgroupSock(_) | AttachPoint::CgroupSockAddr(_) | AttachPoint::CgroupSkb(_)
                );
                assert_eq!(is_cgroup, row.scope == GroupScope::Cgroup, "{}", program.name);
            }
            // One trial shows it for all programs of a group.
            let kinds: Vec<_> = row
                .programs(Some(Tracer::Kprobe))
                .map(|program| program.attach.canary())
                .collect();
            assert!(
                kinds.iter().all(|kind| *kind == kinds[0]),
                "{}",
                row.name.as_str()
            );
        }
    }

    #[test]
    fn set_contains_only_the_groups_that_were_added() {
        let set = GroupSet::default()
            .with(GroupName::Lsm)
            .with(GroupName::Migration);
        assert!(set.has(GroupName::Lsm) && set.has(GroupName::Migration) && !set.has(GroupName::Tracer));
        assert!(!set.without(GroupName::Lsm).has(GroupName::Lsm));
    }

    #[test]
    fn disabled_groups_say_so() {
        let disabled = Disabled::parse("migration", &disable_words()).unwrap();
        assert_eq!(
            GroupName::Migration.unavailable_reason(&disabled).as_deref(),
            Some("disabled by TIDEGATE_DISABLE")
        );
        assert!(Disabled::parse("connect", &disable_words()).is_err());
    }
}
