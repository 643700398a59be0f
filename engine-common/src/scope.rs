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
    /// [`Scope::STRICT`], or zero.
    pub flags: u32,
    /// The policies, in the order they were given. [`SlotRef::NONE`] ends the list.
    pub slots: [SlotRef; MAX_STACKED],
}

impl Scope {
    /// Depth that is not known: only tasks of the cgroup itself then count as its own.
    pub const UNKNOWN_LEVEL: u32 = u32::MAX;

    /// Flag: a policy that judges packets stands here, or is about to. The address hooks then
    /// remember what the floor will want to know; which policies are strict, their images say.
    pub const STRICT: u32 = 1;

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
        match self.0 & !Self::AUDIT {
            0 => None,
            n => Some(n - 1),
        }
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
