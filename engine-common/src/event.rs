//! The records the kernel programs write into the ring: one a policy that had something to say, and what belongs
//! to those.

use crate::{limits::MAX_STACKED, scope::SlotRef, unix_socket_id::UNIX_NAME_BYTES};

/// One report. 176 bytes, little endian (the only targets are), no padding. Numbers are plain
/// integers: the reader refuses what it does not know (`events::decode` in the engine).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EventRecord {
    /// Nanoseconds of CLOCK_MONOTONIC (`bpf_ktime_get_ns`).
    pub monotonic_ns: u64,
    /// Generation of the image that decided; 0 for a fault without image.
    pub generation: u64,
    /// Id of the cgroup that carries the policy.
    pub scope: u64,
    /// Id of the calling task's cgroup.
    pub cgroup: u64,
    /// Records lost in this ring before this one, since it was made.
    pub lost: u64,
    /// Socket cookie; 0 at sock_create.
    pub socket_cookie: u64,
    /// Executable of the calling task; zero when unreadable.
    pub executable_device: u64,
    /// See [`crate::ExecutableId::inode`].
    pub executable_inode: u64,
    /// Canonical destination, network order; IPv4 in the first four bytes.
    pub destination: [u8; 16],
    /// Destination as the caller spelled it, network order; IPv4 in the first four bytes.
    pub original: [u8; 16],
    /// Address the socket sends from, network order; IPv4 in the first four bytes. Only with `source_port`. With
    /// [`flag::EXPECTS_LOCAL_ADDRESS`], in the first eight bytes the key of the [`LocalAddressRecord`] that may follow.
    pub source: [u8; 16],
    /// Name of the calling thread, NUL padded; chosen by the process, so never to be trusted.
    pub comm: [u8; 16],
    /// Slot of the policy; `u32::MAX` when the scope itself could not be read.
    pub slot: u32,
    /// Process id (tgid) in the initial pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Attempts of the same kind that were folded since the last record of it ([`crate::dedup`]).
    pub repeats: u32,
    /// Rule index, or fault number, by `reason`.
    pub detail: u16,
    /// Errno the caller sees, positive; 0 when let through.
    pub errno: u16,
    /// Destination port, host order; 0 for protocols without.
    pub port: u16,
    /// [`crate::Protocol`].
    pub protocol: u16,
    /// [`crate::ABI_VERSION`].
    pub abi: u16,
    /// Port the socket sends from, host order; 0 where the hook cannot know it yet.
    pub source_port: u16,
    /// [`crate::Hook`].
    pub hook: u8,
    /// [`crate::Action`]: what the policy said.
    pub verdict: u8,
    /// [`crate::Outcome`]: what was done.
    pub outcome: u8,
    /// [`reason`] numbers.
    pub reason: u8,
    /// Family of `destination`: 4, 6, or 0 where there is none (sock_create, unix sockets).
    pub family: u8,
    /// Family of `original`, or of the socket being made: 4 or 6; 0 for unix sockets.
    pub original_family: u8,
    /// [`flag`] bits.
    pub flags: u8,
    /// Reserved, zero.
    pub reserved: [u8; 5],
}

/// Numbers of [`EventRecord::reason`].
pub mod reason {
    /// A rule; `detail` is its index.
    pub const RULE: u8 = 0;
    /// The default.
    pub const DEFAULT: u8 = 1;
    /// A fault; `detail` is its number.
    pub const FAULT: u8 = 2;
}

/// Bits of [`EventRecord::flags`].
pub mod flag {
    /// The calling task is outside the scope that the socket belongs to.
    pub const FOREIGN_SOCKET: u8 = 1;
    /// The policy is in audit mode.
    pub const AUDIT_MODE: u8 = 2;
    /// `cgroup`, comm or executable are of a kernel thread, or could not be read.
    pub const NO_EXECUTABLE: u8 = 4;
    /// A [`LocalAddressRecord`](super::LocalAddressRecord) may follow, with the key that stands in `source`.
    pub const EXPECTS_LOCAL_ADDRESS: u8 = 8;
    /// All bits there are.
    pub const ALL: u8 = 15;
}

/// Where a connection sends from: known when its SYN is about to leave, which is after the attempt was judged
/// and reported. Told apart from a report by its length: 48 bytes, little endian, no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LocalAddressRecord {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub monotonic_ns: u64,
    /// The key that the reports it belongs to have in `source`.
    pub key: u64,
    /// Address, network order; IPv4 in the first four bytes.
    pub address: [u8; 16],
    /// Port, host order.
    pub port: u16,
    /// [`crate::ABI_VERSION`].
    pub abi: u16,
    /// Family of `address`: 4 or 6. That of the socket: the address may be IPv4-mapped.
    pub family: u8,
    /// Reserved, zero.
    pub reserved: [u8; 11],
}

/// A report about a unix socket: `protocol` is [`crate::Protocol::UNIX`], and `destination` has the words of the
/// [`crate::UnixSocketId`], in network order. Told apart by its length: 288 bytes, no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UnixRecord {
    /// The report.
    pub event: EventRecord,
    /// Bytes of `name` that count.
    pub length: u32,
    /// What the socket was bound to, as its owner gave it (`sun_path`): a path, or a NUL and an abstract name.
    pub name: [u8; UNIX_NAME_BYTES],
}

/// A task has left a cgroup that carries policies. Told apart by its length: 128 bytes, little endian, no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MigrationRecord {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub monotonic_ns: u64,
    /// Id of the cgroup that carries the policies.
    pub scope: u64,
    /// Id of the cgroup that the task was in: that one, or one below.
    pub from: u64,
    /// Id of the cgroup that it is in now.
    pub to: u64,
    /// Records lost in this ring before this one, since it was made.
    pub lost: u64,
    /// Name of the thread that was moved (of a process: its first one), NUL padded; chosen by the process.
    pub comm: [u8; 16],
    /// Name of the thread that moved it, or made it elsewhere.
    pub migrated_by_comm: [u8; 16],
    /// The policies that were left behind.
    pub slots: [SlotRef; MAX_STACKED],
    /// Process id (tgid) in the initial pid namespace.
    pub pid: u32,
    /// Thread id of the one that was moved, or of the process's first one.
    pub tid: u32,
    /// Process id of whoever moved it.
    pub migrated_by_pid: u32,
    /// Real user id of whoever moved it, in the initial user namespace.
    pub migrated_by_uid: u32,
    /// [`crate::ABI_VERSION`].
    pub abi: u16,
    /// [`migration_flag`] bits.
    pub flags: u8,
    /// Reserved, zero.
    pub reserved: [u8; 5],
}

/// Bits of [`MigrationRecord::flags`].
pub mod migration_flag {
    /// One thread alone, not its whole process.
    pub const THREAD: u8 = 1;
    /// It was made there (clone3 with CLONE_INTO_CGROUP), by a thread that is inside.
    pub const CLONE_INTO_CGROUP: u8 = 2;
    /// All bits there are.
    pub const ALL: u8 = 3;
}

/// Connections that wait for their source at one time. When there are more, those that waited longest are told
/// without.
pub const MAX_PENDING_LOCAL_ADDRESSES: u32 = 4096;

/// How often a reader of the ring looks by itself, milliseconds: records of what was let through do not
/// wake it up.
pub const READER_PERIOD_MS: u64 = 100;

/// Causes of loss: indexes of the loss counters.
pub mod loss {
    /// The ring was full.
    pub const RING_FULL: u32 = 0;
    /// Number of causes.
    pub const COUNT: u32 = 1;
}

const _: () = assert!(size_of::<EventRecord>() == 176);
const _: () = assert!(size_of::<LocalAddressRecord>() == 48);
const _: () = assert!(size_of::<UnixRecord>() == 288);
const _: () = assert!(size_of::<MigrationRecord>() == 128);
const _: () = assert!(MAX_STACKED == 8);
