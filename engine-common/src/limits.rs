//! Capacities.

/// Rules in one policy. A rule bitmap has one bit for each: 16 words.
pub const MAX_RULES: usize = 1024;
/// Words of a rule bitmap at [`MAX_RULES`].
pub const MAX_BITMAP_WORDS: usize = MAX_RULES / 64;
/// Addresses and CIDRs in one policy: the sum over all selectors and sets.
pub const MAX_CIDRS: usize = 1_000_000;
/// Policies active at the same time on one machine (slots of the map of images).
pub const MAX_POLICIES: u32 = 4096;
/// Policies attached to one cgroup, without those of its ancestors.
pub const MAX_STACKED: usize = 8;
/// Cgroups with attached policies at the same time.
pub const MAX_SCOPES: u32 = 8192;
/// NAT64 prefixes a policy may define in addition to the well-known one.
pub const MAX_NAT64_PREFIXES: usize = 4;
/// Bytes of the event ring. A power of two and a multiple of the page size.
pub const EVENT_RING_BYTES: u32 = 4 << 20;
