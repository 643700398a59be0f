//! Duplicate suppression: an attempt equal to one reported within a time window is counted and not reported;
//! the next record of such attempts carries the count. The counters per rule include every attempt.

use crate::action::Action;

/// Time windows of a policy within which duplicates are suppressed, by action, in milliseconds. 0
/// reports every attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DedupWindows {
    /// For attempts with the verdict audit.
    pub audit_ms: u32,
    /// For attempts with the verdict block.
    pub block_ms: u32,
    /// For attempts with the verdict kill.
    pub kill_ms: u32,
}

impl DedupWindows {
    /// The longest window: an hour.
    pub const MAX_MS: u32 = 3_600_000;

    /// The window of an action, in nanoseconds; 0 if nothing is suppressed.
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

/// Two attempts with equal keys are duplicates. 56 bytes, no padding: the key of the map `DEDUP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct DedupKey {
    /// Id of the cgroup that the policy is attached to.
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
    /// [`crate::Action`] of the verdict.
    pub verdict: u8,
    /// Family of `destination`: 4, 6, or 0 without destination.
    pub family: u8,
    /// Family of the address as the caller passed it, or of the socket being created: 4 or 6.
    pub original_family: u8,
    /// [`crate::record::attempt_flag`] bits: use of a socket created in another cgroup is a different attempt.
    pub flags: u8,
    /// Reserved, zero.
    pub reserved: u32,
}

impl DedupKey {
    /// All fields zero.
    pub const EMPTY: DedupKey = DedupKey {
        scope: 0,
        executable_device: 0,
        executable_inode: 0,
        destination: [0; 2],
        slot: 0,
        port: 0,
        protocol: 0,
        verdict: 0,
        family: 0,
        original_family: 0,
        flags: 0,
        reserved: 0,
    };
}

/// Duplicates of one attempt. 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DedupEntry {
    /// Start of the window: time of the last record with this key, nanoseconds of CLOCK_BOOTTIME.
    pub since_ns: u64,
    /// Verdict, rule and generation of the last record, in one word. An attempt with another one is reported at once.
    pub verdict: u64,
    /// Suppressed duplicates that no record has reported yet. Signed: two CPUs that report at the same time may both
    /// subtract the count; later duplicates then bring it back above zero.
    pub pending: i64,
}

/// Indexes of the counters of duplicate suppression.
pub mod counter {
    /// Attempts that were suppressed since the programs were loaded.
    pub const SUPPRESSED: u32 = 0;
    /// Suppressed attempts whose count a record has reported. The others are pending.
    pub const REPORTED: u32 = 1;
    /// Number of counters.
    pub const COUNT: u32 = 2;
}

/// Entries of the map `DEDUP`; when it is full, the least recently used ones are evicted.
pub const MAX_DEDUP_KEYS: u32 = 4096;

const _: () = assert!(size_of::<DedupKey>() == 56);
const _: () = assert!(size_of::<DedupEntry>() == 24);
