//! Folds repeats: the same attempt within its window is counted, and told with the next record.

use aya_ebpf::{
    btf_maps::{Array, LruHashMap},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};
use core::ptr::{addr_of_mut, null_mut};
use engine_common::dedup::{DedupEntry, DedupKey, MAX_DEDUP_KEYS, counter};

use crate::counter::Counter;

/// What was reported lately. When it is full, the kinds longest unused are forgotten, and their next
/// attempt is reported.
#[btf_map]
static FOLDS: LruHashMap<DedupKey, DedupEntry, { MAX_DEDUP_KEYS as usize }> = LruHashMap::new();

/// Counters of [`counter`].
#[btf_map]
static DEDUP_COUNTS: Array<u64, { counter::COUNT as usize }> = Array::new();

#[inline(always)]
fn count(which: u32, attempts: u64) {
    if let Some(value) = DEDUP_COUNTS.get_ptr_mut(which) {
        // SAFETY: a value of an array map.
        unsafe { Counter::at(value) }.add(attempts);
    }
}

/// What became of an attempt, and the repeats that the record about to be written tells. Plain words, no
/// `Option`: of a payload that is not there the compiler copies bytes that were never written, and
/// older verifiers (5.10) refuse to read those.
#[derive(Clone, Copy)]
pub(crate) struct Repeats {
    /// The entry's count; null where there is none.
    untold: *mut u64,
    /// How many there are; [`FOLDED`] for an attempt that is one of them itself.
    pub(crate) attempts: u64,
}

/// An attempt that is a repeat itself.
pub(crate) const FOLDED: u64 = u64::MAX;

impl Repeats {
    /// None, of an attempt that is never folded.
    pub(crate) const NONE: Repeats = Repeats {
        untold: null_mut(),
        attempts: 0,
    };

    /// What [`take`] has said of a key, by the number of attempts alone.
    #[inline(always)]
    pub(crate) fn again(key: &DedupKey, attempts: u64) -> Repeats {
        if attempts == 0 {
            return Repeats::NONE;
        }
        let Some(entry) = FOLDS.get_ptr_mut(key) else {
            return Repeats::NONE;
        };
        Repeats {
            // SAFETY: a value of the map, as in `take`.
            untold: unsafe { addr_of_mut!((*entry).untold) }.cast(),
            attempts,
        }
    }

    /// Whether the attempt is folded, and no record is to be written.
    #[inline(always)]
    pub(crate) fn is_folded(self) -> bool {
        self.attempts == FOLDED
    }

    /// How many there are.
    #[inline(always)]
    pub(crate) fn attempts(self) -> u32 {
        self.attempts as u32
    }

    /// To be called when the record is sure to be written: until then they wait for the next.
    #[inline(always)]
    pub(crate) fn told(self) {
        if !self.untold.is_null() && self.attempts != 0 {
            // SAFETY: a word of a value of the map, which lives as long as the program runs (RCU).
            unsafe { Counter::at(self.untold) }.add(self.attempts.wrapping_neg());
            count(counter::TOLD, self.attempts);
        }
    }
}

/// Takes an attempt in.
#[inline(always)]
pub(crate) fn take(key: &DedupKey, window_ns: u64, answer: u64) -> Repeats {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(entry) = FOLDS.get_ptr_mut(key) else {
        let entry = DedupEntry {
            since_ns: now,
            answer,
            untold: 0,
        };
        // Where there is no room the attempt is reported all the same, and so is the next.
        let _ = FOLDS.insert(key, &entry, 0);
        return Repeats::NONE;
    };
    // SAFETY: a value of the map; it lives as long as the program runs (RCU; an entry taken for
    // another key meanwhile miscounts a repeat, and no more than that). Racing CPUs at worst report
    // twice.
    unsafe {
        let untold = addr_of_mut!((*entry).untold).cast::<u64>();
        if (*entry).answer == answer && now.wrapping_sub((*entry).since_ns) < window_ns {
            Counter::at(untold).add(1);
            count(counter::FOLDED, 1);
            return Repeats {
                untold,
                attempts: FOLDED,
            };
        }
        (*entry).since_ns = now;
        (*entry).answer = answer;
        let attempts = Counter::at(untold).get();
        Repeats {
            untold,
            // Negative: another CPU told some of them twice, see `DedupEntry::untold`.
            attempts: if (attempts as i64) < 0 { 0 } else { attempts },
        }
    }
}
