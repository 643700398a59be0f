//! Atomic counters in map values.

use core::{arch::asm, ptr::read_volatile};

/// A counter in a map value.
#[derive(Clone, Copy)]
pub(crate) struct Counter(*mut u64);

impl Counter {
    /// # Safety
    /// `value` must point to eight aligned bytes of a map value, which lives as long as the program
    /// runs.
    #[inline(always)]
    pub(crate) unsafe fn at(value: *mut u64) -> Counter {
        Counter(value)
    }

    /// Adds one, atomically. (core's `AtomicU64` has no addition on targets without
    /// compare-and-swap, which 5.10 lacks.)
    #[inline(always)]
    pub(crate) fn increment(self) {
        self.add(1);
    }

    /// Adds `value`, atomically and wrapping.
    #[inline(always)]
    pub(crate) fn add(self, value: u64) {
        // SAFETY: writable by the constructor's contract.
        unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) self.0, in(reg) value, options(nostack)) };
    }

    /// The count so far.
    #[inline(always)]
    pub(crate) fn get(self) -> u64 {
        // SAFETY: readable by the constructor's contract; an aligned eight-byte load is atomic.
        unsafe { read_volatile(self.0) }
    }
}
