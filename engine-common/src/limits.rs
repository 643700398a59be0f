//! Capacities, one constant each.

/// Rules in one policy. A class bitmap is a bit a rule: 16 words.
pub const MAX_RULES: usize = 1024;
/// Words of a rule bitmap at [`MAX_RULES`].
pub const MAX_BITMAP_WORDS: usize = MAX_RULES / 64;
/// Addresses and CIDRs in one policy, all selectors and sets together.
pub const MAX_CIDRS: usize = 1_000_000;
/// Policies live at one time on one machine (slots of the table of images).
pub const MAX_POLICIES: u32 = 4096;
/// Policies on one cgroup, ancestors not counted.
pub const MAX_STACKED: usize = 8;
/// Cgroups that carry policies at one time.
pub const MAX_SCOPES: u32 = 8192;
/// NAT64 prefixes a policy may name beside the well-known one.
pub const MAX_NAT64_PREFIXES: usize = 4;
/// Bytes of the event ring. A power of two and a multiple of the page size.
pub const EVENT_RING_BYTES: u32 = 4 << 20;
