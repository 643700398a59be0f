//! Duplicate suppression: an attempt equal to one reported within the policy's window is counted, and the count is
//! reported with the next record.

use aya_ebpf::{
    btf_maps::{Array, LruHashMap},
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::btf_map,
};
use core::ptr::{addr_of_mut, null_mut};
use engine_common::{
    VerdictWord,
    dedup::{DedupEntry, DedupKey, MAX_DEDUP_KEYS, counter},
    image::Header,
};

use crate::{counter::Counter, images::LiveImage};

/// Recently reported attempts. When the map is full, the least recently used are evicted, and their next duplicate
/// is reported.
#[btf_map]
static DEDUP: LruHashMap<DedupKey, DedupEntry, { MAX_DEDUP_KEYS as usize }> = LruHashMap::new();

/// Counters of [`counter`].
#[btf_map]
static DEDUP_COUNTS: Array<u64, { counter::COUNT as usize }> = Array::new();

#[inline(always)]
fn count(index: u32, attempts: u64) {
    if let Some(value) = DEDUP_COUNTS.get_ptr_mut(index) {
        // SAFETY: a value of an array map.
        unsafe { Counter::at(value) }.add(attempts);
    }
}

/// The duplicates of an attempt that were suppressed before it; or that the attempt is one itself. Plain words
/// instead of an `Option`: the compiler copies the uninitialised payload of `None`, and older verifiers (5.10)
/// reject the read.
#[derive(Clone, Copy)]
pub(crate) struct Duplicates {
    /// The count of pending duplicates in the entry; null without an entry.
    pending: *mut u64,
    /// How many; [`SUPPRESSED`] if the attempt is a duplicate itself.
    pub(crate) attempts: u64,
}

/// The attempt is a duplicate.
pub(crate) const SUPPRESSED: u64 = u64::MAX;

impl Duplicates {
    /// No duplicates.
    pub(crate) const NONE: Duplicates = Duplicates {
        pending: null_mut(),
        attempts: 0,
    };

    /// The result of [`record`] again, from its number of attempts: pointers cannot be passed to global functions.
    #[inline(always)]
    pub(crate) fn again(key: &DedupKey, attempts: u64) -> Duplicates {
        if attempts == 0 {
            return Duplicates::NONE;
        }
        let Some(entry) = DEDUP.get_ptr_mut(key) else {
            return Duplicates::NONE;
        };
        Duplicates {
            // SAFETY: a value of the map, as in `record`.
            pending: unsafe { addr_of_mut!((*entry).pending) }.cast(),
            attempts,
        }
    }

    /// Whether the attempt is a duplicate, so that no record is to be written.
    #[inline(always)]
    pub(crate) fn is_suppressed(self) -> bool {
        self.attempts == SUPPRESSED
    }

    /// How many duplicates the next record has to report.
    #[inline(always)]
    pub(crate) fn attempts(self) -> u32 {
        self.attempts as u32
    }

    /// Moves the duplicates from pending to reported. Called once the space for the record is reserved; until then
    /// they stay pending.
    #[inline(always)]
    pub(crate) fn mark_reported(self) {
        if !self.pending.is_null() && self.attempts != 0 {
            // SAFETY: a word of a map value, which lives as long as the program runs (RCU).
            unsafe { Counter::at(self.pending) }.add(self.attempts.wrapping_neg());
            count(counter::REPORTED, self.attempts);
        }
    }
}

/// Records an attempt with this verdict ([`crate::evaluate::PackedVerdict::without_errno`]).
#[inline(always)]
pub(crate) fn record(key: &DedupKey, window_ns: u64, verdict: u64) -> Duplicates {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let Some(entry) = DEDUP.get_ptr_mut(key) else {
        let entry = DedupEntry {
            since_ns: now,
            verdict,
            pending: 0,
        };
        // If the insertion fails, this attempt is reported, and so is the next.
        let _ = DEDUP.insert(key, &entry, 0);
        return Duplicates::NONE;
    };
    // SAFETY: a map value, which lives as long as the program runs (RCU). If the entry is reused for
    // another key meanwhile, one duplicate is counted for the wrong key. Concurrent CPUs may report the same
    // attempt twice.
    unsafe {
        let pending = addr_of_mut!((*entry).pending).cast::<u64>();
        if (*entry).verdict == verdict && now.wrapping_sub((*entry).since_ns) < window_ns {
            Counter::at(pending).add(1);
            count(counter::SUPPRESSED, 1);
            return Duplicates {
                pending,
                attempts: SUPPRESSED,
            };
        }
        (*entry).since_ns = now;
        (*entry).verdict = verdict;
        let attempts = Counter::at(pending).get();
        Duplicates {
            pending,
            // Negative if two CPUs reported the same duplicates, see `DedupEntry::pending`.
            attempts: if (attempts as i64) < 0 { 0 } else { attempts },
        }
    }
}

/// The window within which a policy suppresses duplicates, nanoseconds. It is that of the active version, which
/// may be newer than the one that gave the verdict.
#[inline(always)]
pub(crate) fn window(slot: u32, verdict: VerdictWord) -> u64 {
    let Some(image) = LiveImage::of(slot) else {
        return 0;
    };
    match engine_common::Tables::page(image, 0) {
        Some(root) => Header(root).dedup().nanoseconds(verdict.action()),
        None => 0,
    }
}
