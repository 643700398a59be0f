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
    /// Bits: [`Scope::NO_CGROUP_HOOKS`], [`Scope::STRICT`].
    pub flags: u32,
    /// The policies, in the order they were given. [`SlotRef::NONE`] ends the list.
    pub slots: [SlotRef; MAX_STACKED],
}

impl Scope {
    /// Depth that is not known: only tasks of the cgroup itself then count as its own.
    pub const UNKNOWN_LEVEL: u32 = u32::MAX;

    /// No cgroup hook is attached to the cgroup: LSM programs leave nothing to them.
    pub const NO_CGROUP_HOOKS: u32 = 1;

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
    pub const STRICT: u32 = 2;

    /// Whether [`Scope::STRICT`] is set.
    #[inline(always)]
    pub const fn is_strict(&self) -> bool {
        self.flags & Self::STRICT != 0
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
    const MARKS: u32 = Self::AUDIT | Self::UNCOUNTED | Self::ANY_ERRNO;

    /// Refers to `slot` (below [`MAX_POLICIES`]). `mode` is what a missing image is judged by:
    /// audit mode never denies, not even for a fault.
    pub const fn new(slot: u32, mode: Mode) -> SlotRef {
        let audit = match mode {
            Mode::Audit => Self::AUDIT,
            Mode::Enforce => 0,
        };
        SlotRef((slot % MAX_POLICIES + 1) | audit)
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
