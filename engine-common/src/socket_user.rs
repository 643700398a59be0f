//! State that the address hooks keep for the egress filter, which checks packets (`strict` in a policy).

/// Shortest window within which duplicates of a dropped packet (retransmissions, a flood) are suppressed.
pub const MIN_WINDOW_NS: u64 = 1_000_000_000;

/// Entries of each map of the egress filter; when one is full, the least recently used entries are evicted.
pub const MAX_SOCKET_ENTRIES: u32 = 4096;

/// The task that connected a socket, or sent from it first: a packet has no process of its own. 64 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SocketUser {
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
    /// 1 if the task is outside the scope of the socket.
    pub foreign: u64,
}

/// A destination of a socket that a policy in audit mode has reported. 40 bytes, no padding.
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

const _: () = assert!(size_of::<SocketUser>() == 64);
const _: () = assert!(size_of::<ReportedKey>() == 40);
