//! The entry formats of interval tables: u32 keys take one word, u128 keys take three.

use engine_common::interval_table::{ENTRY_WORDS_U128, FANOUT_U32, FANOUT_U128, MAX_LEVELS_U128};

use crate::policy::address_set::Key;

/// A key and the entry format of its tables.
pub(super) trait TableKey: Key {
    /// Words per entry.
    const ENTRY_WORDS: usize;
    /// Entries per page.
    const FANOUT: usize;
    /// Tables of up to this many entries get no index; they take at most a quarter of page 0.
    const FEW: usize;
    /// Maximum number of directory levels.
    const LEVELS: u32;
    /// Low bits of the key that an index never uses.
    const LOW_BITS: u32;

    /// Converts from u128; higher bits are discarded.
    fn from_bits(bits: u128) -> Self;

    /// Writes the entry of the interval that ends with this key.
    fn put(self, value: u32, entry: &mut [u64]);

    /// Reads an entry written by [`TableKey::put`]: end and value.
    fn take(entry: &[u64]) -> (Self, u32);
}

impl TableKey for u32 {
    const ENTRY_WORDS: usize = 1;
    const FANOUT: usize = FANOUT_U32;
    const FEW: usize = 64;
    const LEVELS: u32 = 1;
    const LOW_BITS: u32 = 0;

    fn from_bits(bits: u128) -> u32 {
        bits as u32
    }

    fn put(self, value: u32, entry: &mut [u64]) {
        entry[0] = u64::from(self) << 32 | u64::from(value);
    }

    fn take(entry: &[u64]) -> (u32, u32) {
        ((entry[0] >> 32) as u32, entry[0] as u32)
    }
}

impl TableKey for u128 {
    const ENTRY_WORDS: usize = ENTRY_WORDS_U128;
    const FANOUT: usize = FANOUT_U128;
    const FEW: usize = 42;
    const LEVELS: u32 = MAX_LEVELS_U128;
    const LOW_BITS: u32 = 64;

    fn from_bits(bits: u128) -> u128 {
        bits
    }

    fn put(self, value: u32, entry: &mut [u64]) {
        entry[0] = (self >> 64) as u64;
        entry[1] = self as u64;
        entry[2] = u64::from(value);
    }

    fn take(entry: &[u64]) -> (u128, u32) {
        (u128::from(entry[0]) << 64 | u128::from(entry[1]), entry[2] as u32)
    }
}
