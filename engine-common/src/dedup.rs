//! Folding of repeats: the same attempt, made again within a window, is counted instead of reported,
//! and the count travels with the next record. Counters per rule do not depend on it.

use crate::action::Action;

/// Windows of a policy within which repeats are folded, in milliseconds, by what the policy said. 0
/// reports every attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DedupWindows {
    /// Of attempts to audit.
    pub audit_ms: u32,
    /// Of attempts to block.
    pub block_ms: u32,
    /// Of attempts to kill.
    pub kill_ms: u32,
}

impl DedupWindows {
    /// The longest window: an hour.
    pub const MAX_MS: u32 = 3_600_000;

    /// The window of an action, in nanoseconds; 0 where nothing is folded.
    #[inline(always)]
    pub const fn nanoseconds(self, action: Action) -> u64 {
        let ms = match action {
            Action::Allow => 0,
            Action::Audit => self.audit_ms,
            Action::Block => self.block_ms,
            Action::Kill => self.kill_ms,
        };
        ms as u64 * 1_000_000
    }
}

/// What makes two attempts the same. 56 bytes, no padding: the key of the kernel's table of repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct DedupKey {
    /// Id of the cgroup that carries the policy.
    pub scope: u64,
    /// Executable of the calling task; zero when unreadable.
    pub executable_device: u64,
    /// See [`crate::ExecutableId::inode`].
    pub executable_inode: u64,
    /// Canonical destination as two words in network order; IPv4 in the first four bytes.
    pub destination: [u64; 2],
    /// Slot of the policy.
    pub slot: u32,
    /// Destination port, host order; 0 for protocols without.
    pub port: u16,
    /// [`crate::Protocol`].
    pub protocol: u16,
    /// [`crate::Action`]: what the policy said.
    pub verdict: u8,
    /// Family of `destination`: 4, 6, or 0 where there is none.
    pub family: u8,
    /// Family as the caller spelled it, or of the socket being made: 4 or 6.
    pub original_family: u8,
    /// [`crate::event::flag`] bits: a socket from elsewhere is another attempt.
    pub flags: u8,
    /// Reserved, zero.
    pub reserved: u32,
}

/// Repeats of one kind of attempt. 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DedupEntry {
    /// When the window began: the last record of its kind, CLOCK_MONOTONIC.
    pub since_ns: u64,
    /// What was reported last: an answer with its generation and rule, in one word. Another one is reported at once.
    pub answer: u64,
    /// Repeats that no record has told yet. Signed: two CPUs that report at one moment may both take
    /// the count away, and the next repeats make up for it.
    pub untold: i64,
}

/// Indexes of the counters of folding.
pub mod counter {
    /// Attempts that were folded, since the programs were loaded.
    pub const FOLDED: u32 = 0;
    /// Those of them that a record has told. What is missing waits for the next record of its kind.
    pub const TOLD: u32 = 1;
    /// Number of counters.
    pub const COUNT: u32 = 2;
}

/// Kinds of attempts that are remembered; beyond, the ones longest unused are forgotten.
pub const MAX_DEDUP_KEYS: u32 = 4096;

const _: () = assert!(size_of::<DedupKey>() == 56);
const _: () = assert!(size_of::<DedupEntry>() == 24);
