//! The table of hooks that are tried, one entry each.

use std::{ffi::CStr, ptr};

use aya::programs::{CgroupSockAddrAttachType as AddrAt, CgroupSockAttachType as SockAt};

use crate::{
    datapath::{
        features::KPROBE,
        program::AttachPoint,
        program_group::{ANCHOR, GROUPS},
    },
    instance::Disabled,
};

/// The point in the kernel that calls a program.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// A hook of a cgroup: program type and attach type (include/uapi/linux/bpf.h).
    Cgroup {
        /// `enum bpf_prog_type`.
        kind: u32,
        /// `enum bpf_attach_type`.
        attach_type: u32,
    },
    /// A hook of the security modules, by the name of its function.
    Lsm(&'static str),
    /// The entry of a function of the kernel.
    Kprobe(&'static CStr),
    /// The same by a trampoline, for which the kernel must know the function's type.
    Function(&'static str),
    /// A tracepoint, with its raw arguments.
    RawTracepoint(&'static CStr),
}

const CGROUP_SKB: u32 = 8;
const CGROUP_SOCK: u32 = 9;
const CGROUP_SOCK_ADDR: u32 = 18;

impl Place {
    /// `enum bpf_prog_type` and `enum bpf_attach_type`.
    pub(super) const fn numbers(self) -> (u32, u32) {
        match self {
            Place::Cgroup { kind, attach_type } => (kind, attach_type),
            Place::Kprobe(_) => (2, 0),
            Place::RawTracepoint(_) => (17, 0),
            // BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY.
            Place::Function(_) => (26, 24),
            // BPF_PROG_TYPE_LSM, BPF_LSM_MAC.
            Place::Lsm(_) => (29, 27),
        }
    }

    /// What a kernel must be built with to have it.
    pub const fn configuration(self) -> &'static str {
        match self {
            Place::Cgroup { .. } => "CONFIG_CGROUP_BPF",
            Place::Lsm(_) => "CONFIG_BPF_LSM",
            Place::Kprobe(_) => "CONFIG_KPROBE_EVENTS",
            Place::RawTracepoint(_) => "CONFIG_BPF_EVENTS",
            Place::Function(_) => "CONFIG_DEBUG_INFO_BTF and CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
        }
    }

    /// Whether the whole machine calls a program there, not only what is in a cgroup.
    pub const fn is_global(self) -> bool {
        !matches!(self, Place::Cgroup { .. })
    }

    /// Whether a program of the datapath attaches here.
    fn is(self, attach: AttachPoint) -> bool {
        match (self, attach) {
            (Place::Lsm(hook), AttachPoint::Lsm(other)) => hook == other,
            (Place::Function(function), AttachPoint::Fentry(other)) => function == other,
            (Place::Kprobe(function), AttachPoint::Kprobe(other))
            | (Place::RawTracepoint(function), AttachPoint::RawTracepoint(other)) => {
                function.to_bytes() == other.as_bytes()
            }
            (Place::Cgroup { kind, attach_type }, AttachPoint::CgroupSock(at)) => {
                let number = match at {
                    SockAt::SockCreate => 2,
                    SockAt::SockRelease => 34,
                    SockAt::PostBind4 | SockAt::PostBind6 => return false,
                };
                (kind, attach_type) == (CGROUP_SOCK, number)
            }
            (Place::Cgroup { kind, attach_type }, AttachPoint::CgroupSockAddr(at)) => {
                let number = match at {
                    AddrAt::Connect4 => 10,
                    AddrAt::Connect6 => 11,
                    AddrAt::UDPSendMsg4 => 14,
                    AddrAt::UDPSendMsg6 => 15,
                    _ => return false,
                };
                (kind, attach_type) == (CGROUP_SOCK_ADDR, number)
            }
            (Place::Cgroup { kind, .. }, AttachPoint::CgroupSkb(_)) => kind == CGROUP_SKB,
            _ => false,
        }
    }

    /// What a program returns that lets everything pass.
    pub(super) const fn passes(self) -> i32 {
        match self {
            Place::Cgroup { .. } => 1,
            Place::Lsm(_) | Place::Kprobe(_) | Place::RawTracepoint(_) | Place::Function(_) => 0,
        }
    }
}

/// A hook that could be used.
#[derive(Debug)]
pub struct Hook {
    /// Its name.
    pub name: &'static str,
    /// What it is good for.
    pub purpose: &'static str,
    /// The kernel that had it first.
    pub since: &'static str,
    /// Where its program is called from.
    pub place: Place,
}

impl Hook {
    /// Whether the embedded object has a program for this hook.
    pub fn is_used(&self) -> bool {
        let programs = GROUPS.iter().flat_map(|row| row.programs);
        let mut programs = programs.chain([&ANCHOR]);
        programs.any(|program| self.place.is(program.attach))
    }

    /// Whether its program, or the group of programs that it is in, is disabled.
    pub fn is_disabled(&self, disabled: &Disabled) -> bool {
        let row = GROUPS.iter().find(|row| {
            let mut programs = row.programs.iter();
            programs.any(|program| self.place.is(program.attach))
        });
        let is_kprobe = matches!(self.place, Place::Kprobe(_));
        row.is_some_and(|row| row.is_disabled(disabled)) || is_kprobe && disabled.has(KPROBE)
    }

    /// Its place in [`HOOKS`].
    pub(super) fn place(&self) -> usize {
        HOOKS
            .iter()
            .position(|hook| ptr::eq(hook, self) || hook.name == self.name)
            .unwrap_or_default()
    }
}

/// Address hooks of a cgroup.
pub(super) const CONNECT4: Place = address(10);
/// The hook that sees sockets made.
pub(super) const SOCK_CREATE: Place = Place::Cgroup {
    kind: CGROUP_SOCK,
    attach_type: 2,
};

const fn address(attach_type: u32) -> Place {
    Place::Cgroup {
        kind: CGROUP_SOCK_ADDR,
        attach_type,
    }
}

const fn hook(name: &'static str, purpose: &'static str, since: &'static str, place: Place) -> Hook {
    Hook {
        name,
        purpose,
        since,
        place,
    }
}

/// All hooks. A new row is tried and reported; the plan of `probe` refers to hooks by name.
pub static HOOKS: [Hook; 19] = [
    hook("cgroup/connect4", "decides on IPv4 connects", "4.17", CONNECT4),
    hook("cgroup/connect6", "decides on IPv6 connects", "4.17", address(11)),
    hook(
        "cgroup/sendmsg4",
        "decides on IPv4 datagrams with an address",
        "4.18",
        address(14),
    ),
    hook(
        "cgroup/sendmsg6",
        "decides on IPv6 datagrams with an address",
        "4.18",
        address(15),
    ),
    hook(
        "cgroup/sock_create",
        "decides on protocols without an address hook",
        "4.10",
        SOCK_CREATE,
    ),
    hook(
        "cgroup/sock_release",
        "holds a cgroup's list of policies",
        "5.9",
        Place::Cgroup {
            kind: CGROUP_SOCK,
            attach_type: 34,
        },
    ),
    hook(
        "cgroup_skb/egress",
        "decides on packets, whatever sent them",
        "4.10",
        Place::Cgroup {
            kind: CGROUP_SKB,
            attach_type: 1,
        },
    ),
    hook(
        "lsm/socket_connect",
        "decides by the calling task, also on older and passed sockets",
        "5.7",
        Place::Lsm("socket_connect"),
    ),
    hook(
        "lsm/socket_sendmsg",
        "the same for datagrams and fast open",
        "5.7",
        Place::Lsm("socket_sendmsg"),
    ),
    hook(
        "lsm/socket_create",
        "decides on families without a cgroup hook (packet, vsock)",
        "5.7",
        Place::Lsm("socket_create"),
    ),
    hook(
        "lsm/sctp_bind_connect",
        "decides on SCTP's addresses",
        "5.7",
        Place::Lsm("sctp_bind_connect"),
    ),
    hook(
        "lsm/unix_stream_connect",
        "decides on connects to unix sockets that rules name",
        "5.7",
        Place::Lsm("unix_stream_connect"),
    ),
    hook(
        "lsm/unix_may_send",
        "the same for datagrams",
        "5.7",
        Place::Lsm("unix_may_send"),
    ),
    hook(
        "kprobe/tcp_connect",
        "reports the local port of TCP connects",
        "4.17",
        Place::Kprobe(c"tcp_connect"),
    ),
    hook(
        "raw_tp/inet_sock_set_state",
        "reports state changes of TCP connections",
        "4.17",
        Place::RawTracepoint(c"inet_sock_set_state"),
    ),
    hook(
        "fentry/cgroup_attach_task",
        "reports processes that migrate out of a cgroup with policies",
        "5.7",
        Place::Function("cgroup_attach_task"),
    ),
    hook(
        "fentry/cgroup_post_fork",
        "reports processes created outside the cgroup of their parent",
        "5.7",
        Place::Function("cgroup_post_fork"),
    ),
    hook(
        "raw_tp/sched_process_exec",
        "reports executed programs",
        "4.17",
        Place::RawTracepoint(c"sched_process_exec"),
    ),
    hook(
        "raw_tp/cgroup_mkdir",
        "reports new cgroups",
        "4.17",
        Place::RawTracepoint(c"cgroup_mkdir"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What `probe` tries covers what is attached.
    #[test]
    fn every_program_has_a_hook_that_is_tried() {
        let programs = GROUPS.iter().flat_map(|row| row.programs);
        for program in programs.chain([&ANCHOR]) {
            let hook = HOOKS.iter().find(|hook| hook.place.is(program.attach));
            assert!(hook.is_some(), "{}", program.name);
        }
        let unused = HOOKS.iter().filter(|hook| !hook.is_used()).map(|hook| hook.name);
        assert_eq!(
            unused.collect::<Vec<_>>(),
            ["raw_tp/sched_process_exec", "raw_tp/cgroup_mkdir"]
        );
    }

    #[test]
    fn hooks_are_disabled_with_their_group() {
        let disabled = |words: &str, hook: &str| {
            let disabled = Disabled::parse(words, &crate::datapath::disable_words()).unwrap();
            let hook = HOOKS.iter().find(|found| found.name == hook).unwrap();
            hook.is_disabled(&disabled)
        };
        assert!(disabled("lsm", "lsm/unix_may_send"));
        assert!(disabled("lsm_unix", "lsm/unix_may_send"));
        assert!(!disabled("lsm_unix", "lsm/socket_connect"));
        assert!(disabled("kprobe", "kprobe/tcp_connect"));
        assert!(!disabled("kprobe", "raw_tp/inet_sock_set_state"));
        assert!(disabled("tracer", "raw_tp/inet_sock_set_state"));
        assert!(!disabled("tracer", "raw_tp/sched_process_exec"));
        assert!(disabled("egress_filter", "cgroup_skb/egress"));
        assert!(!disabled("egress_filter", "cgroup/connect4"));
    }

    #[test]
    fn every_hook_has_a_mark_of_its_own() {
        let places: Vec<usize> = HOOKS.iter().map(Hook::place).collect();
        assert_eq!(places, (0..HOOKS.len()).collect::<Vec<_>>());
    }
}
