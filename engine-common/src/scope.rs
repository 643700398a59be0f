//! A cgroup with attached policies.

use crate::{
    action::Mode,
    limits::{MAX_POLICIES, MAX_STACKED},
};

/// Value of the cgroup storage: one per cgroup to which programs are attached, shared by all its hooks
/// (the map's key is the cgroup id alone, Linux 5.9). 48 bytes. All zero means *not written yet*,
/// which the programs treat as a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Scope {
    /// Id of the cgroup: its inode number in cgroupfs.
    pub cgroup: u64,
    /// Depth of the cgroup below the root of the hierarchy; the root is 0.
    /// [`Scope::UNKNOWN_LEVEL`] inside a cgroup namespace, where it cannot be determined.
    pub level: u32,
    /// Bits: [`Scope::NO_CGROUP_HOOKS`], [`Scope::STRICT`], [`Scope::LOCAL_ADDRESSES`]. All but the second are derived
    /// from the policies ([`Scope::with_flags`]).
    pub flags: u32,
    /// The policies, in the order of attachment. [`SlotRef::NONE`] ends the list.
    pub slots: [SlotRef; MAX_STACKED],
}

impl Scope {
    /// The depth is unknown: only tasks of the cgroup itself, not of its descendants, then count as inside.
    pub const UNKNOWN_LEVEL: u32 = u32::MAX;

    /// Flag: some policy does not use cgroup hooks, so that LSM programs must enforce it.
    pub const NO_CGROUP_HOOKS: u32 = 1;

    /// Flag: the tcp_connect tracer reports the local address of connections that were reported.
    pub const LOCAL_ADDRESSES: u32 = 2;

    /// Depths that programs search when they look up the ancestors of a task; policies cannot be attached deeper.
    pub const LEVELS: u32 = 64;

    /// All depths, used if a scope's depth is unknown.
    pub const ALL_LEVELS: u64 = u64::MAX;

    /// The bit of this cgroup's depth in the bitmap of depths in use.
    pub const fn level_bit(&self) -> u64 {
        if self.level < Self::LEVELS {
            1 << self.level
        } else {
            Self::ALL_LEVELS
        }
    }

    /// Flag: a strict policy is attached, or about to be. The address hooks then
    /// record the state that the egress filter needs; whether a policy is strict is in its image.
    pub const STRICT: u32 = 4;

    /// Whether [`Scope::STRICT`] is set.
    #[inline(always)]
    pub const fn is_strict(&self) -> bool {
        self.flags & Self::STRICT != 0
    }

    /// The scope with the flags that are derived from its policies.
    #[must_use]
    pub fn with_flags(self) -> Scope {
        let mut flags = self.flags & Self::STRICT;
        for slot in self.slots {
            let hooks = slot.hooks();
            if hooks.contains(HookSet::LSM) && !hooks.contains(HookSet::CGROUP) {
                flags |= Self::NO_CGROUP_HOOKS;
            }
            if hooks.contains(HookSet::CGROUP.union(HookSet::TRACER)) {
                flags |= Scope::LOCAL_ADDRESSES;
            }
        }
        Scope { flags, ..self }
    }

    /// The same cgroup without policies.
    #[must_use]
    pub fn without_policies(self) -> Scope {
        Scope {
            slots: [SlotRef::NONE; MAX_STACKED],
            ..self
        }
    }

    /// The union of the hooks that its policies use.
    pub fn hooks(&self) -> HookSet {
        self.slots
            .iter()
            .fold(HookSet::NONE, |hooks, slot| hooks.union(slot.hooks()))
    }
}

/// A set of kinds of hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HookSet(u8);

impl HookSet {
    /// The empty set.
    pub const NONE: HookSet = HookSet(0);
    /// The cgroup hooks.
    pub const CGROUP: HookSet = HookSet(1);
    /// The LSM hooks.
    pub const LSM: HookSet = HookSet(2);
    /// The tcp_connect tracer. Together with the cgroup hooks it reports the local address of connections; alone
    /// it reports connections.
    pub const TRACER: HookSet = HookSet(4);
    /// The LSM hooks for unix sockets: only for policies with rules about them.
    pub const UNIX: HookSet = HookSet(8);

    /// The hooks in either set.
    #[must_use]
    pub const fn union(self, other: HookSet) -> HookSet {
        HookSet(self.0 | other.0)
    }

    /// The hooks in both sets.
    #[must_use]
    pub const fn intersect(self, other: HookSet) -> HookSet {
        HookSet(self.0 & other.0)
    }

    /// Whether every hook of `other` is in this set.
    pub const fn contains(self, other: HookSet) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Reference from a scope to a policy's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct SlotRef(pub u32);

impl SlotRef {
    /// No policy.
    pub const NONE: SlotRef = SlotRef(0);
    const AUDIT: u32 = 1 << 31;
    /// In an argument of the kernel programs' evaluate functions: the verdict is not counted.
    pub const UNCOUNTED: u32 = 1 << 30;
    /// In an argument of the evaluate functions: the hook can return any errno, not only EPERM.
    pub const ANY_ERRNO: u32 = 1 << 29;
    const NOT_CGROUP: u32 = 1 << 28;
    const NOT_LSM: u32 = 1 << 27;
    const TRACER: u32 = 1 << 26;
    const UNIX: u32 = 1 << 25;
    const MARKS: u32 = Self::AUDIT
        | Self::UNCOUNTED
        | Self::ANY_ERRNO
        | Self::NOT_CGROUP
        | Self::NOT_LSM
        | Self::TRACER
        | Self::UNIX;

    /// Refers to `slot` (below [`MAX_POLICIES`]). `mode` applies if the image is missing:
    /// audit mode never denies, not even for a fault.
    pub const fn new(slot: u32, mode: Mode) -> SlotRef {
        let audit = match mode {
            Mode::Audit => Self::AUDIT,
            Mode::Enforce => 0,
        };
        SlotRef((slot % MAX_POLICIES + 1) | audit)
    }

    /// The same reference for a policy that uses these hooks. [`SlotRef::new`] sets cgroup and LSM hooks.
    #[must_use]
    pub const fn for_hooks(self, hooks: HookSet) -> SlotRef {
        let mut word = self.0 & !(Self::NOT_CGROUP | Self::NOT_LSM | Self::TRACER | Self::UNIX);
        if !hooks.contains(HookSet::CGROUP) {
            word |= Self::NOT_CGROUP;
        }
        if !hooks.contains(HookSet::LSM) {
            word |= Self::NOT_LSM;
        }
        if hooks.contains(HookSet::TRACER) {
            word |= Self::TRACER;
        }
        if hooks.contains(HookSet::UNIX) {
            word |= Self::UNIX;
        }
        SlotRef(word)
    }

    /// The hooks that the policy uses; empty for [`SlotRef::NONE`].
    pub fn hooks(self) -> HookSet {
        let mut hooks = HookSet::NONE;
        if self.slot().is_none() {
            return hooks;
        }
        if self.is_for_cgroup() {
            hooks = hooks.union(HookSet::CGROUP);
        }
        if self.is_for_lsm() {
            hooks = hooks.union(HookSet::LSM);
        }
        if self.0 & Self::TRACER != 0 {
            hooks = hooks.union(HookSet::TRACER);
        }
        if self.0 & Self::UNIX != 0 {
            hooks = hooks.union(HookSet::UNIX);
        }
        hooks
    }

    /// Whether the cgroup hooks evaluate the policy.
    #[inline(always)]
    pub const fn is_for_cgroup(self) -> bool {
        self.0 & Self::NOT_CGROUP == 0
    }

    /// Whether the LSM hooks evaluate the policy.
    #[inline(always)]
    pub const fn is_for_lsm(self) -> bool {
        self.0 & Self::NOT_LSM == 0
    }

    /// Whether the LSM hooks for unix sockets evaluate the policy.
    #[inline(always)]
    pub const fn is_for_unix(self) -> bool {
        self.0 & Self::UNIX != 0
    }

    /// Whether only the tcp_connect tracer evaluates the policy.
    #[inline(always)]
    pub const fn is_for_tracer_only(self) -> bool {
        self.0 & (Self::TRACER | Self::NOT_CGROUP | Self::NOT_LSM)
            == Self::TRACER | Self::NOT_CGROUP | Self::NOT_LSM
    }

    /// The slot; `None` for [`SlotRef::NONE`].
    #[inline(always)]
    pub const fn slot(self) -> Option<u32> {
        match self.0 & !Self::MARKS {
            0 => None,
            n => Some(n - 1),
        }
    }

    /// Whether the verdict is counted.
    #[inline(always)]
    pub const fn is_counted(self) -> bool {
        self.0 & Self::UNCOUNTED == 0
    }

    /// Whether the hook can return any errno.
    #[inline(always)]
    pub const fn has_any_errno(self) -> bool {
        self.0 & Self::ANY_ERRNO != 0
    }

    /// The mode that applies to a fault if the image is missing.
    #[inline(always)]
    pub const fn mode(self) -> Mode {
        if self.0 & Self::AUDIT != 0 {
            Mode::Audit
        } else {
            Mode::Enforce
        }
    }
}

const _: () = assert!(size_of::<Scope>() == 48);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_reference_stores_slot_mode_and_hooks() {
        let every = HookSet::CGROUP
            .union(HookSet::LSM)
            .union(HookSet::TRACER)
            .union(HookSet::UNIX);
        for slot in [0, 7, MAX_POLICIES - 1] {
            for hooks in [
                HookSet::NONE,
                HookSet::CGROUP,
                HookSet::LSM,
                HookSet::TRACER,
                HookSet::LSM.union(HookSet::UNIX),
                every,
            ] {
                let reference = SlotRef::new(slot, Mode::Audit).for_hooks(hooks);
                assert_eq!(reference.slot(), Some(slot));
                assert_eq!((reference.mode(), reference.hooks()), (Mode::Audit, hooks));
                assert_eq!(reference.is_for_tracer_only(), hooks == HookSet::TRACER);
            }
        }
        let plain = SlotRef::new(3, Mode::Enforce);
        assert_eq!(plain.hooks(), HookSet::CGROUP.union(HookSet::LSM));
        assert_eq!(plain.for_hooks(HookSet::TRACER).for_hooks(plain.hooks()), plain);
        assert_eq!(SlotRef::NONE.hooks(), HookSet::NONE);
    }

    #[test]
    fn flags_are_derived_from_the_policies() {
        let mut scope = Scope {
            cgroup: 7,
            level: 1,
            flags: !Scope::STRICT,
            slots: [SlotRef::NONE; MAX_STACKED],
        };
        let mut with = |hooks: HookSet| {
            scope.slots[1] = SlotRef::new(2, Mode::Audit).for_hooks(hooks);
            scope.slots[0] = SlotRef::new(1, Mode::Audit).for_hooks(HookSet::CGROUP);
            (scope.with_flags().flags, scope.hooks())
        };
        assert_eq!(with(HookSet::CGROUP), (0, HookSet::CGROUP));
        assert_eq!(
            with(HookSet::LSM),
            (Scope::NO_CGROUP_HOOKS, HookSet::CGROUP.union(HookSet::LSM))
        );
        let both = HookSet::CGROUP.union(HookSet::TRACER);
        assert_eq!(with(both), (Scope::LOCAL_ADDRESSES, both));
        assert_eq!(with(HookSet::TRACER), (0, both));
    }
}
