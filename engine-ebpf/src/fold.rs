//! Folds repeats: the same attempt within its window is counted, and told with the next record.

use aya_ebpf::{
    btf_maps::{Array, LruHashMap},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};
use core::ptr::addr_of_mut;
use engine_common::fold::{FoldEntry, FoldKey, MAX_FOLDS, counter};

use crate::counter::Counter;

/// What was reported lately. When it is full, the kinds longest unused are forgotten, and their next
/// attempt is reported.
#[btf_map]
static FOLDS: LruHashMap<FoldKey, FoldEntry, { MAX_FOLDS as usize }> = LruHashMap::new();

/// Counters of [`counter`].
#[btf_map]
static FOLD_COUNTS: Array<u64, { counter::COUNT as usize }> = Array::new();

#[inline(always)]
fn count(which: u32, attempts: u64) {
    if let Some(value) = FOLD_COUNTS.get_ptr_mut(which) {
        // SAFETY: a value of an array map.
        unsafe { Counter::at(value) }.add(attempts);
    }
}

/// Repeats that the record about to be written tells.
#[derive(Clone, Copy)]
pub(crate) struct Repeats {
    untold: Option<Counter>,
    attempts: u64,
}

impl Repeats {
    /// None, of an attempt that is never folded.
    pub(crate) const NONE: Repeats = Repeats {
        untold: None,
        attempts: 0,
    };

    /// How many there are.
    #[inline(always)]
    pub(crate) fn attempts(self) -> u32 {
        self.attempts as u32
    }

    /// To be called when the record is sure to be written: until then they wait for the next.
    #[inline(always)]
    pub(crate) fn told(self) {
        if let Some(untold) = self.untold
            && self.attempts != 0
        {
            untold.add(self.attempts.wrapping_neg());
            count(counter::TOLD, self.attempts);
        }
    }
}

/// Takes an attempt in: `None` when it is folded, and no record is to be written.
#[inline(always)]
pub(crate) fn take(key: &FoldKey, window_ns: u64, answer: u64) -> Option<Repeats> {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(entry) = FOLDS.get_ptr_mut(key) else {
        let entry = FoldEntry {
            since_ns: now,
            answer,
            untold: 0,
        };
        // Where there is no room the attempt is reported all the same, and so is the next.
        let _ = FOLDS.insert(key, &entry, 0);
        return Some(Repeats::NONE);
    };
    // SAFETY: a value of the map; it lives as long as the program runs (RCU; an entry taken for
    // another key meanwhile miscounts a repeat, and no more than that). Racing CPUs at worst report
    // twice.
    unsafe {
        let untold = Counter::at(addr_of_mut!((*entry).untold).cast());
        if (*entry).answer == answer && now.wrapping_sub((*entry).since_ns) < window_ns {
            untold.add(1);
            count(counter::FOLDED, 1);
            return None;
        }
        (*entry).since_ns = now;
        (*entry).answer = answer;
        let attempts = untold.get();
        Some(Repeats {
            untold: Some(untold),
            // Negative: another CPU told some of them twice, see `FoldEntry::untold`.
            attempts: if (attempts as i64) < 0 { 0 } else { attempts },
        })
    }
}
