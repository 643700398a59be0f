//! The hooks that are tried: one row each.

use std::{ffi::CStr, ptr};

use aya::programs::{CgroupSockAddrAttachType as AddrAt, CgroupSockAttachType as SockAt};

use crate::{
    datapath::{
        canary::Canary,
        features::KPROBE,
        program::AttachPoint,
        program_group::{ANCHOR, GROUPS},
    },
    instance::Disabled,
};

/// The point in the kernel where a program is called.
#[derive(Clone, Copy, Debug)]
pub enum HookPoint {
    /// A cgroup hook (include/uapi/linux/bpf.h).
    Cgroup {
        /// `enum bpf_prog_type`.
        program_type: u32,
        /// `enum bpf_attach_type`.
        attach_type: u32,
    },
    /// An LSM hook, by its name.
    Lsm(&'static str),
    /// The entry of a kernel function.
    Kprobe(&'static CStr),
    /// The entry of a kernel function, attached by a trampoline; the kernel needs the BTF type of the function.
    Fentry(&'static str),
    /// A tracepoint, with its raw arguments.
    RawTracepoint(&'static CStr),
}

const CGROUP_SKB: u32 = 8;
const CGROUP_SOCK: u32 = 9;
const CGROUP_SOCK_ADDR: u32 = 18;

impl HookPoint {
    /// `enum bpf_prog_type` and `enum bpf_attach_type`.
    pub(super) const fn types(self) -> (u32, u32) {
        match self {
            HookPoint::Cgroup {
                program_type,
                attach_type,
            } => (program_type, attach_type),
            HookPoint::Kprobe(_) => (2, 0),
            HookPoint::RawTracepoint(_) => (17, 0),
            // BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY.
            HookPoint::Fentry(_) => (26, 24),
            // BPF_PROG_TYPE_LSM, BPF_LSM_MAC.
            HookPoint::Lsm(_) => (29, 27),
        }
    }

    /// The build options that a kernel needs for it.
    pub const fn configuration(self) -> &'static str {
        match self {
            HookPoint::Cgroup { .. } => "CONFIG_CGROUP_BPF",
            HookPoint::Lsm(_) => "CONFIG_BPF_LSM",
            HookPoint::Kprobe(_) => "CONFIG_KPROBE_EVENTS",
            HookPoint::RawTracepoint(_) => "CONFIG_BPF_EVENTS",
            HookPoint::Fentry(_) => "CONFIG_DEBUG_INFO_BTF and CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
        }
    }

    /// Whether a program there runs for all processes of the machine, not for those of one cgroup.
    pub const fn is_global(self) -> bool {
        !matches!(self, HookPoint::Cgroup { .. })
    }

    /// The canary that shows whether the kernel calls programs here; `None` where it always does.
    pub const fn canary(self) -> Option<Canary> {
        match self {
            HookPoint::Lsm(_) => Some(Canary::Lsm),
            HookPoint::Fentry(_) => Some(Canary::Fentry),
            HookPoint::Kprobe(_) => Some(Canary::Kprobe),
            HookPoint::Cgroup { .. } | HookPoint::RawTracepoint(_) => None,
        }
    }

    /// Whether this is the attach point of a program of the datapath.
    fn matches(self, attach: AttachPoint) -> bool {
        match (self, attach) {
            (HookPoint::Lsm(hook), AttachPoint::Lsm(other)) => hook == other,
            (HookPoint::Fentry(function), AttachPoint::Fentry(other)) => function == other,
            (HookPoint::Kprobe(function), AttachPoint::Kprobe(other))
            | (HookPoint::RawTracepoint(function), AttachPoint::RawTracepoint(other)) => {
                function.to_bytes() == other.as_bytes()
            }
            (HookPoint::Cgroup { .. }, AttachPoint::CgroupSock(at)) => {
                let expected = match at {
                    SockAt::SockCreate => 2,
                    SockAt::SockRelease => 34,
                    SockAt::PostBind4 | SockAt::PostBind6 => return false,
                };
                self.types() == (CGROUP_SOCK, expected)
            }
            (HookPoint::Cgroup { .. }, AttachPoint::CgroupSockAddr(at)) => {
                let expected = match at {
                    AddrAt::Connect4 => 10,
                    AddrAt::Connect6 => 11,
                    AddrAt::UDPSendMsg4 => 14,
                    AddrAt::UDPSendMsg6 => 15,
                    _ => return false,
                };
                self.types() == (CGROUP_SOCK_ADDR, expected)
            }
            (HookPoint::Cgroup { program_type, .. }, AttachPoint::CgroupSkb(_)) => program_type == CGROUP_SKB,
            _ => false,
        }
    }

    /// The return value that allows everything.
    pub(super) const fn allow_value(self) -> i32 {
        match self {
            HookPoint::Cgroup { .. } => 1,
            HookPoint::Lsm(_) | HookPoint::Kprobe(_) | HookPoint::RawTracepoint(_) | HookPoint::Fentry(_) => {
                0
            }
        }
    }
}

/// A hook that Tidegate uses or could use.
#[derive(Debug)]
pub struct Hook {
    /// Unique name, such as `cgroup/connect4`.
    pub name: &'static str,
    /// What it is used for.
    pub purpose: &'static str,
    /// The first kernel version with it.
    pub since: &'static str,
    /// Where its program is called.
    pub point: HookPoint,
}

impl Hook {
    /// Whether the embedded object has a program for this hook.
    pub fn is_used(&self) -> bool {
        let programs = GROUPS.iter().flat_map(|row| row.programs);
        let mut programs = programs.chain([&ANCHOR]);
        programs.any(|program| self.point.matches(program.attach))
    }

    /// Whether its program or its program group is disabled.
    pub fn is_disabled(&self, disabled: &Disabled) -> bool {
        let row = GROUPS.iter().find(|row| {
            let mut programs = row.programs.iter();
            programs.any(|program| self.point.matches(program.attach))
        });
        let is_kprobe = matches!(self.point, HookPoint::Kprobe(_));
        row.is_some_and(|row| row.is_disabled(disabled)) || is_kprobe && disabled.has(KPROBE)
    }

    /// Its index in [`HOOKS`].
    pub(super) fn index(&self) -> usize {
        HOOKS
            .iter()
            .position(|hook| ptr::eq(hook, self) || hook.name == self.name)
            .unwrap_or_default()
    }
}

/// The IPv4 connect hook.
pub(super) const CONNECT4: HookPoint = address(10);
/// The socket creation hook.
pub(super) const SOCK_CREATE: HookPoint = HookPoint::Cgroup {
    program_type: CGROUP_SOCK,
    attach_type: 2,
};

const fn address(attach_type: u32) -> HookPoint {
    HookPoint::Cgroup {
        program_type: CGROUP_SOCK_ADDR,
        attach_type,
    }
}

const fn hook(name: &'static str, purpose: &'static str, since: &'static str, point: HookPoint) -> Hook {
    Hook {
        name,
        purpose,
        since,
        point,
    }
}

/// All hooks. `probe` tries and reports each row; its plan refers to hooks by name.
pub static HOOKS: [Hook; 19] = [
    hook("cgroup/connect4", "checks IPv4 connects", "4.17", CONNECT4),
    hook("cgroup/connect6", "checks IPv6 connects", "4.17", address(11)),
    hook(
        "cgroup/sendmsg4",
        "checks IPv4 datagrams with an address",
        "4.18",
        address(14),
    ),
    hook(
        "cgroup/sendmsg6",
        "checks IPv6 datagrams with an address",
        "4.18",
        address(15),
    ),
    hook(
        "cgroup/sock_create",
        "checks protocols without an address hook",
        "4.10",
        SOCK_CREATE,
    ),
    hook(
        "cgroup/sock_release",
        "creates the storage with the policies of a cgroup",
        "5.9",
        HookPoint::Cgroup {
            program_type: CGROUP_SOCK,
            attach_type: 34,
        },
    ),
    hook(
        "cgroup_skb/egress",
        "checks packets, for any socket",
        "4.10",
        HookPoint::Cgroup {
            program_type: CGROUP_SKB,
            attach_type: 1,
        },
    ),
    hook(
        "lsm/socket_connect",
        "checks connects by the cgroup of the task, also on older and passed sockets",
        "5.7",
        HookPoint::Lsm("socket_connect"),
    ),
    hook(
        "lsm/socket_sendmsg",
        "checks datagrams and fast open by the cgroup of the task",
        "5.7",
        HookPoint::Lsm("socket_sendmsg"),
    ),
    hook(
        "lsm/socket_create",
        "checks sockets of families without a cgroup hook (packet, vsock)",
        "5.7",
        HookPoint::Lsm("socket_create"),
    ),
    hook(
        "lsm/sctp_bind_connect",
        "checks SCTP addresses",
        "5.7",
        HookPoint::Lsm("sctp_bind_connect"),
    ),
    hook(
        "lsm/unix_stream_connect",
        "checks connects to unix sockets that rules name",
        "5.7",
        HookPoint::Lsm("unix_stream_connect"),
    ),
    hook(
        "lsm/unix_may_send",
        "checks datagrams to unix sockets that rules name",
        "5.7",
        HookPoint::Lsm("unix_may_send"),
    ),
    hook(
        "kprobe/tcp_connect",
        "reports the local port of TCP connects",
        "4.17",
        HookPoint::Kprobe(c"tcp_connect"),
    ),
    hook(
        "raw_tp/inet_sock_set_state",
        "reports state changes of TCP connections",
        "4.17",
        HookPoint::RawTracepoint(c"inet_sock_set_state"),
    ),
    hook(
        "fentry/cgroup_attach_task",
        "reports processes that migrate out of a cgroup with policies",
        "5.7",
        HookPoint::Fentry("cgroup_attach_task"),
    ),
    hook(
        "fentry/cgroup_post_fork",
        "reports processes created outside the cgroup of their parent",
        "5.7",
        HookPoint::Fentry("cgroup_post_fork"),
    ),
    hook(
        "raw_tp/sched_process_exec",
        "reports executed programs",
        "4.17",
        HookPoint::RawTracepoint(c"sched_process_exec"),
    ),
    hook(
        "raw_tp/cgroup_mkdir",
        "reports new cgroups",
        "4.17",
        HookPoint::RawTracepoint(c"cgroup_mkdir"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// `probe` tries every attach point of the datapath.
    #[test]
    fn every_program_has_a_hook_that_is_tried() {
        let programs = GROUPS.iter().flat_map(|row| row.programs);
        for program in programs.chain([&ANCHOR]) {
            let hook = HOOKS.iter().find(|hook| hook.point.matches(program.attach));
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
    fn every_hook_has_its_own_index() {
        let indexes: Vec<usize> = HOOKS.iter().map(Hook::index).collect();
        assert_eq!(indexes, (0..HOOKS.len()).collect::<Vec<_>>());
    }
}
