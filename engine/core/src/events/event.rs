//! A decoded record of an attempt.

use std::{borrow::Cow, net::SocketAddr, num::NonZeroU16};

use engine_common::{Action, ExecutableId, Hook, Mode, Outcome, Protocol, Reason};

use super::target::Target;

/// The verdict of one policy on one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds of CLOCK_BOOTTIME; [`Clock`](super::Clock) converts them to wall time.
    pub ktime_ns: u64,
    /// Slot of the policy; `None` if the scope itself could not be read.
    pub slot: Option<u32>,
    /// Generation of the policy's image; 0 for a fault without image.
    pub generation: u64,
    /// Mode of the policy.
    pub mode: Mode,
    /// Action of the rule or default that decided.
    pub verdict: Action,
    /// What decided.
    pub reason: Reason,
    /// What was enforced.
    pub outcome: Outcome,
    /// Errno that the caller gets; `None` if allowed.
    pub errno: Option<NonZeroU16>,
    /// The hook that reported the attempt.
    pub hook: Hook,
    /// Protocol of the socket.
    pub protocol: Protocol,
    /// The destination, or the socket that was being created.
    pub target: Target,
    /// Local address of the socket; `None` if the hook does not know it (yet).
    pub local_address: Option<SocketAddr>,
    /// Key of the [`LocalAddress`](super::LocalAddress) that may follow.
    pub local_address_key: Option<u64>,
    /// Whether the policy's scope contains only one of calling task and socket.
    pub foreign_socket: bool,
    /// Socket cookie; 0 at sock_create.
    pub socket_cookie: u64,
    /// Id of the cgroup that the policy is attached to.
    pub scope: u64,
    /// Id of the calling task's cgroup.
    pub cgroup: u64,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Real group id in the initial user namespace.
    pub gid: u32,
    /// Duplicates that were suppressed since the last event of the same attempt.
    pub repeats: u32,
    /// Name of the calling thread.
    pub comm: Comm,
    /// Executable of the calling task; `None` for kernel threads and if it could not be read.
    pub executable: Option<ExecutableId>,
    /// Records lost in this ring buffer before this one, since it was created.
    pub lost: u64,
}

impl Event {
    /// Name of the errno, such as `EPERM`; its value in digits if this machine
    /// has no name for it.
    pub fn errno_name(&self) -> Option<Cow<'static, str>> {
        let number = self.errno?.get();
        Some(match nix::errno::Errno::from_raw(i32::from(number)) {
            nix::errno::Errno::UnknownErrno => Cow::Owned(number.to_string()),
            known => Cow::Owned(format!("{known:?}")),
        })
    }
}

/// Name of a thread. The process chooses it, and it may be any bytes: escape it for output
/// ([`escape`](super::escape)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Comm(pub(super) [u8; 16]);

impl Comm {
    /// The bytes up to the first NUL.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}
