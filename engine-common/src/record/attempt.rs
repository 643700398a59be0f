//! The record of an attempt.

use super::RecordHeader;

/// The verdict of one policy on one attempt. 184 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct AttemptRecord {
    /// The header.
    pub header: RecordHeader,
    /// Generation of the image that decided; 0 for a fault without image.
    pub generation: u64,
    /// Id of the calling task's cgroup.
    pub cgroup: u64,
    /// Socket cookie; 0 at sock_create.
    pub socket_cookie: u64,
    /// Executable of the calling task; zero when unreadable.
    pub executable_device: u64,
    /// See [`crate::ExecutableId::inode`].
    pub executable_inode: u64,
    /// Canonical destination, network order; IPv4 in the first four bytes.
    pub destination: [u8; 16],
    /// Destination as the caller passed it, network order; IPv4 in the first four bytes.
    pub original: [u8; 16],
    /// Local address of the socket, network order; IPv4 in the first four bytes. Only valid with `local_port`. With
    /// [`attempt_flag::EXPECTS_LOCAL_ADDRESS`], the first eight bytes are the key of the
    /// [`LocalAddressRecord`](super::LocalAddressRecord) that may follow.
    pub local_address: [u8; 16],
    /// Name of the calling thread, NUL padded. The process chooses it.
    pub comm: [u8; 16],
    /// Slot of the policy; `u32::MAX` if the scope itself could not be read.
    pub slot: u32,
    /// Process id (tgid) in the initial pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Duplicates suppressed since the last record of the same attempt ([`crate::dedup`]).
    pub repeats: u32,
    /// Rule index, or discriminant of the [`crate::Fault`], depending on `reason`.
    pub detail: u16,
    /// Errno that the caller gets, positive; 0 if allowed.
    pub errno: u16,
    /// Destination port, host order; 0 for protocols without.
    pub port: u16,
    /// [`crate::Protocol`].
    pub protocol: u16,
    /// Local port, host order; 0 if the hook cannot know it yet.
    pub local_port: u16,
    /// [`crate::Hook`].
    pub hook: u8,
    /// [`crate::Action`] of the verdict.
    pub verdict: u8,
    /// [`crate::Outcome`]: what was enforced.
    pub outcome: u8,
    /// A constant of [`reason`].
    pub reason: u8,
    /// Family of `destination`: 4, 6, or 0 without destination (sock_create, unix sockets).
    pub family: u8,
    /// Family of `original`, or of the socket being created: 4 or 6; 0 for unix sockets.
    pub original_family: u8,
    /// Bits of [`attempt_flag`].
    pub flags: u8,
    /// Reserved, zero.
    pub reserved: [u8; 7],
}

/// Values of [`AttemptRecord::reason`].
pub mod reason {
    /// A rule; `detail` is its index.
    pub const RULE: u8 = 0;
    /// The default.
    pub const DEFAULT: u8 = 1;
    /// A fault; `detail` is its discriminant.
    pub const FAULT: u8 = 2;
}

/// Bits of [`AttemptRecord::flags`].
pub mod attempt_flag {
    /// The calling task is outside the scope that the socket belongs to.
    pub const FOREIGN_SOCKET: u8 = 1;
    /// The policy is in audit mode.
    pub const AUDIT_MODE: u8 = 2;
    /// The calling task is a kernel thread, or its executable could not be read.
    pub const NO_EXECUTABLE: u8 = 4;
    /// A [`LocalAddressRecord`](crate::record::LocalAddressRecord) may follow; its key is in `local_address`.
    pub const EXPECTS_LOCAL_ADDRESS: u8 = 8;
    /// All defined bits.
    pub const ALL: u8 = 15;
}

const _: () = assert!(size_of::<AttemptRecord>() == 184);
