//! What the address hooks remember for the floor that judges packets (`strict` in a policy).

/// Repeats of a dropped packet (retransmissions, a flood) are folded within a second at least.
pub const MIN_WINDOW_NS: u64 = 1_000_000_000;

/// Sockets and destinations that are remembered; beyond, those longest unused are forgotten.
pub const MAX_REMEMBERED: u32 = 4096;

/// Who used a socket: whoever connected it, or sent from it first. A packet has no process. 64 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Owner {
    /// Id of the task's cgroup.
    pub cgroup: u64,
    /// Executable of the task; zero when unreadable.
    pub executable_device: u64,
    /// See [`crate::ExecutableId::inode`].
    pub executable_inode: u64,
    /// Name of the thread.
    pub comm: [u8; 16],
    /// Process id (tgid) in the initial pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// 1 where the task uses a socket of another scope.
    pub foreign: u64,
}

/// What a policy in audit mode has reported: a destination of a socket. 40 bytes, no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ReportedKey {
    /// The socket's cookie.
    pub cookie: u64,
    /// Canonical destination as two words in network order; IPv4 in the first four bytes.
    pub destination: [u64; 2],
    /// Slot of the policy.
    pub slot: u32,
    /// Destination port, host order; 0 for protocols without.
    pub port: u16,
    /// [`crate::Protocol`].
    pub protocol: u16,
    /// Family of `destination`: 4 or 6.
    pub family: u64,
}

const _: () = assert!(size_of::<Owner>() == 64);
const _: () = assert!(size_of::<ReportedKey>() == 40);
