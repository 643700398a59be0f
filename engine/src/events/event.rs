//! One report of the kernel programs, with every number understood.

use std::{borrow::Cow, net::SocketAddr, num::NonZeroU16};

use engine_common::{Action, ExecutableId, Hook, Mode, Outcome, Protocol, Reason};

use super::target::Target;

/// What one policy had to say about one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds of CLOCK_MONOTONIC; [`Clock`](super::Clock) turns them into wall time.
    pub monotonic_ns: u64,
    /// Slot of the policy; `None` when the scope itself could not be read.
    pub slot: Option<u32>,
    /// Generation of the policy's image; 0 for a fault without image.
    pub generation: u64,
    /// Mode of the policy.
    pub mode: Mode,
    /// What the policy said.
    pub verdict: Action,
    /// Why it said so.
    pub reason: Reason,
    /// What was done.
    pub outcome: Outcome,
    /// Errno the caller sees; `None` when let through.
    pub errno: Option<NonZeroU16>,
    /// Where the attempt was seen.
    pub hook: Hook,
    /// Protocol of the socket.
    pub protocol: Protocol,
    /// Where the attempt wanted to go.
    pub target: Target,
    /// Where the socket sends from; `None` where no hook could tell (yet).
    pub source: Option<SocketAddr>,
    /// Key of the [`Source`](super::Source) that may follow.
    pub awaits: Option<u64>,
    /// Whether calling task and socket belong to different scopes: the one that has the policy, and another.
    pub foreign_socket: bool,
    /// Socket cookie; 0 at sock_create.
    pub socket_cookie: u64,
    /// Id of the cgroup that carries the policy.
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
    /// Attempts of the same kind that were folded since the last event of it.
    pub repeats: u32,
    /// Name of the calling thread.
    pub comm: Comm,
    /// Executable of the calling task; `None` for kernel threads and when it could not be read.
    pub executable: Option<ExecutableId>,
    /// Records lost in this ring before this one, since it was made.
    pub lost: u64,
}

impl Event {
    /// Name of the errno the caller sees, such as `EPERM`; the number in digits where this machine
    /// has no name for it.
    pub fn errno_name(&self) -> Option<Cow<'static, str>> {
        let number = self.errno?.get();
        Some(match nix::errno::Errno::from_raw(i32::from(number)) {
            nix::errno::Errno::UnknownErrno => Cow::Owned(number.to_string()),
            known => Cow::Owned(format!("{known:?}")),
        })
    }
}

/// Name of a thread. The process chooses it, so it is any bytes: print it through
/// [`escape`](super::escape).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Comm(pub(super) [u8; 16]);

impl Comm {
    /// The bytes up to the first NUL.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}
