//! What a cgroup carries: which policies stand on it.

use crate::{
    action::Mode,
    limits::{MAX_POLICIES, MAX_STACKED},
};

/// Value of the cgroup storage: one a cgroup that carries our programs, shared by all its hooks
/// (the map's key is the cgroup id alone, Linux 5.9). 48 bytes. All zero means *not written yet*,
/// which the programs treat as a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Scope {
    /// Id of the cgroup: its inode number in cgroupfs.
    pub cgroup: u64,
    /// Depth of the cgroup below the root of the hierarchy; the root is 0.
    /// [`Scope::UNKNOWN_LEVEL`] where it cannot be known (inside a cgroup namespace).
    pub level: u32,
    /// Bits: [`Scope::NO_CGROUP_HOOKS`], [`Scope::STRICT`], [`Scope::LOCAL_ADDRESSES`]. All but the second follow from
    /// the policies ([`Scope::with_flags`]).
    pub flags: u32,
    /// The policies, in the order they were given. [`SlotRef::NONE`] ends the list.
    pub slots: [SlotRef; MAX_STACKED],
}

impl Scope {
    /// Depth that is not known: only tasks of the cgroup itself then count as its own.
    pub const UNKNOWN_LEVEL: u32 = u32::MAX;

    /// Some policy is not for cgroup hooks: LSM programs do not leave it to them.
    pub const NO_CGROUP_HOOKS: u32 = 1;

    /// A probe tells where connections that were reported send from.
    pub const LOCAL_ADDRESSES: u32 = 2;

    /// Depths that programs look at when they go up from a task; there is no policy on a cgroup that is deeper.
    pub const LEVELS: u32 = 64;

    /// All depths: where one is not known.
    pub const ALL_LEVELS: u64 = u64::MAX;

    /// The bit of this cgroup's depth among those that are in use.
    pub const fn level_bit(&self) -> u64 {
        if self.level < Self::LEVELS {
            1 << self.level
        } else {
            Self::ALL_LEVELS
        }
    }

    /// Flag: a policy that judges packets stands here, or is about to. The address hooks then
    /// remember what the floor will want to know; which policies are strict, their images say.
    pub const STRICT: u32 = 4;

    /// Whether [`Scope::STRICT`] is set.
    #[inline(always)]
    pub const fn is_strict(&self) -> bool {
        self.flags & Self::STRICT != 0
    }

    /// The scope with the flags that follow from its policies.
    #[must_use]
    pub fn with_flags(self) -> Scope {
        let mut flags = self.flags & Self::STRICT;
        for slot in self.slots {
            let hooks = slot.hooks();
            if hooks.has(HookSet::LSM) && !hooks.has(HookSet::CGROUP) {
                flags |= Self::NO_CGROUP_HOOKS;
            }
            if hooks.has(HookSet::CGROUP.and(HookSet::TRACER)) {
                flags |= Scope::LOCAL_ADDRESSES;
            }
        }
        Scope { flags, ..self }
    }

    /// The same cgroup with no policy.
    #[must_use]
    pub fn without_policies(self) -> Scope {
        Scope {
            slots: [SlotRef::NONE; MAX_STACKED],
            ..self
        }
    }

    /// The hooks that its policies are for, all together.
    pub fn hooks(&self) -> HookSet {
        self.slots
            .iter()
            .fold(HookSet::NONE, |hooks, slot| hooks.and(slot.hooks()))
    }
}

/// Kinds of hooks that a policy is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HookSet(u8);

impl HookSet {
    /// None at all.
    pub const NONE: HookSet = HookSet(0);
    /// The hooks of the cgroup.
    pub const CGROUP: HookSet = HookSet(1);
    /// The security modules'.
    pub const LSM: HookSet = HookSet(2);
    /// The probe on TCP connections: beside the cgroup's hooks it tells where a connection sends from, alone
    /// it reports connections.
    pub const TRACER: HookSet = HookSet(4);
    /// Those of the security modules that see unix sockets: only for policies with rules about these.
    pub const UNIX: HookSet = HookSet(8);

    /// These and those.
    #[must_use]
    pub const fn and(self, others: HookSet) -> HookSet {
        HookSet(self.0 | others.0)
    }

    /// Those of these that are among the others.
    #[must_use]
    pub const fn among(self, others: HookSet) -> HookSet {
        HookSet(self.0 & others.0)
    }

    /// Whether all of these are among them.
    pub const fn has(self, others: HookSet) -> bool {
        self.0 & others.0 == others.0
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
    /// In a question to a policy: what it answers is not counted.
    pub const UNCOUNTED: u32 = 1 << 30;
    /// In a question: the hook that asks can return any errno, whatever the kernel's cgroup hooks can.
    pub const ANY_ERRNO: u32 = 1 << 29;
    const BESIDE_CGROUP: u32 = 1 << 28;
    const BESIDE_LSM: u32 = 1 << 27;
    const TRACER: u32 = 1 << 26;
    const UNIX: u32 = 1 << 25;
    const MARKS: u32 = Self::AUDIT
        | Self::UNCOUNTED
        | Self::ANY_ERRNO
        | Self::BESIDE_CGROUP
        | Self::BESIDE_LSM
        | Self::TRACER
        | Self::UNIX;

    /// Refers to `slot` (below [`MAX_POLICIES`]). `mode` is what a missing image is judged by:
    /// audit mode never denies, not even for a fault.
    pub const fn new(slot: u32, mode: Mode) -> SlotRef {
        let audit = match mode {
            Mode::Audit => Self::AUDIT,
            Mode::Enforce => 0,
        };
        SlotRef((slot % MAX_POLICIES + 1) | audit)
    }

    /// The same for these hooks: unless it is said, a policy is for those of the cgroup and of the security modules.
    #[must_use]
    pub const fn for_hooks(self, hooks: HookSet) -> SlotRef {
        let mut word = self.0 & !(Self::BESIDE_CGROUP | Self::BESIDE_LSM | Self::TRACER | Self::UNIX);
        if !hooks.has(HookSet::CGROUP) {
            word |= Self::BESIDE_CGROUP;
        }
        if !hooks.has(HookSet::LSM) {
            word |= Self::BESIDE_LSM;
        }
        if hooks.has(HookSet::TRACER) {
            word |= Self::TRACER;
        }
        if hooks.has(HookSet::UNIX) {
            word |= Self::UNIX;
        }
        SlotRef(word)
    }

    /// The hooks that the policy is for; none at the end of the list.
    pub fn hooks(self) -> HookSet {
        let mut hooks = HookSet::NONE;
        if self.slot().is_none() {
            return hooks;
        }
        if self.is_for_cgroup() {
            hooks = hooks.and(HookSet::CGROUP);
        }
        if self.is_for_lsm() {
            hooks = hooks.and(HookSet::LSM);
        }
        if self.0 & Self::TRACER != 0 {
            hooks = hooks.and(HookSet::TRACER);
        }
        if self.0 & Self::UNIX != 0 {
            hooks = hooks.and(HookSet::UNIX);
        }
        hooks
    }

    /// Whether the cgroup's hooks ask the policy.
    #[inline(always)]
    pub const fn is_for_cgroup(self) -> bool {
        self.0 & Self::BESIDE_CGROUP == 0
    }

    /// Whether those of the security modules do.
    #[inline(always)]
    pub const fn is_for_lsm(self) -> bool {
        self.0 & Self::BESIDE_LSM == 0
    }

    /// Whether those that see unix sockets do: some rule of the policy may be about these.
    #[inline(always)]
    pub const fn is_for_unix(self) -> bool {
        self.0 & Self::UNIX != 0
    }

    /// Whether the probe does: nothing else is to be attached for the policy.
    #[inline(always)]
    pub const fn is_for_tracer_only(self) -> bool {
        self.0 & (Self::TRACER | Self::BESIDE_CGROUP | Self::BESIDE_LSM)
            == Self::TRACER | Self::BESIDE_CGROUP | Self::BESIDE_LSM
    }

    /// The slot, or `None` at the end of the list.
    #[inline(always)]
    pub const fn slot(self) -> Option<u32> {
        match self.0 & !Self::MARKS {
            0 => None,
            n => Some(n - 1),
        }
    }

    /// Whether the answer is to be counted.
    #[inline(always)]
    pub const fn is_counted(self) -> bool {
        self.0 & Self::UNCOUNTED == 0
    }

    /// Whether whoever asks can return any errno.
    #[inline(always)]
    pub const fn has_any_errno(self) -> bool {
        self.0 & Self::ANY_ERRNO != 0
    }

    /// The mode a fault is judged by when the image itself cannot be found.
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
    fn a_reference_keeps_slot_mode_and_hooks_apart() {
        let every = HookSet::CGROUP
            .and(HookSet::LSM)
            .and(HookSet::TRACER)
            .and(HookSet::UNIX);
        for slot in [0, 7, MAX_POLICIES - 1] {
            for hooks in [
                HookSet::NONE,
                HookSet::CGROUP,
                HookSet::LSM,
                HookSet::TRACER,
                HookSet::LSM.and(HookSet::UNIX),
                every,
            ] {
                let reference = SlotRef::new(slot, Mode::Audit).for_hooks(hooks);
                assert_eq!(reference.slot(), Some(slot));
                assert_eq!((reference.mode(), reference.hooks()), (Mode::Audit, hooks));
                assert_eq!(reference.is_for_tracer_only(), hooks == HookSet::TRACER);
            }
        }
        let plain = SlotRef::new(3, Mode::Enforce);
        assert_eq!(plain.hooks(), HookSet::CGROUP.and(HookSet::LSM));
        assert_eq!(plain.for_hooks(HookSet::TRACER).for_hooks(plain.hooks()), plain);
        assert_eq!(SlotRef::NONE.hooks(), HookSet::NONE);
    }

    #[test]
    fn flags_follow_from_the_policies() {
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
            (Scope::NO_CGROUP_HOOKS, HookSet::CGROUP.and(HookSet::LSM))
        );
        let both = HookSet::CGROUP.and(HookSet::TRACER);
        assert_eq!(with(both), (Scope::LOCAL_ADDRESSES, both));
        assert_eq!(with(HookSet::TRACER), (0, both));
    }
}
