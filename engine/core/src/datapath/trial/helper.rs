//! The helpers that are tried: one row each.

use super::{
    bytecode::Argument,
    hook::{CONNECT4, HookPoint, SOCK_CREATE},
};

/// A helper function of the kernel, at some hooks.
#[derive(Debug)]
pub struct Helper {
    /// Its name, with the hook unless that is a cgroup hook.
    pub name: &'static str,
    /// What it is used for.
    pub purpose: &'static str,
    /// The first kernel version with it at these hooks.
    pub since: &'static str,
    /// The word in [`DISABLE_VARIABLE`](crate::instance::DISABLE_VARIABLE) that disables it.
    pub feature: Option<&'static str>,
    /// Its id (`__BPF_FUNC_MAPPER`, include/uapi/linux/bpf.h).
    pub(super) id: i32,
    pub(super) first_argument: Argument,
    /// The hooks whose programs must be allowed to call it.
    pub(super) points: &'static [HookPoint],
}

/// Both types of cgroup programs that can deny.
const CGROUP: &[HookPoint] = &[CONNECT4, SOCK_CREATE];
const LSM: &[HookPoint] = &[HookPoint::Lsm("socket_connect")];

/// All helpers. `probe` tries and reports each row.
pub static HELPERS: [Helper; 9] = [
    Helper {
        name: "bpf_set_retval",
        purpose: "a denied call fails with the errno of the policy",
        since: "5.18",
        feature: Some("set_retval"),
        id: 187,
        first_argument: Argument::Zero,
        points: CGROUP,
    },
    Helper {
        name: "bpf_send_signal",
        purpose: "kills the process before the call returns",
        since: "6.16",
        feature: Some("send_signal"),
        id: 109,
        first_argument: Argument::Zero,
        points: CGROUP,
    },
    Helper {
        name: "bpf_send_signal in LSM",
        purpose: "kills the process before the call returns, by an LSM program",
        since: "5.7",
        feature: None,
        id: 109,
        first_argument: Argument::Zero,
        points: LSM,
    },
    Helper {
        name: "bpf_get_current_task_btf",
        purpose: "finds the executable of the calling task faster",
        since: "5.11",
        feature: Some("task_btf"),
        id: 158,
        first_argument: Argument::Zero,
        points: CGROUP,
    },
    Helper {
        name: "bpf_get_current_ancestor_cgroup_id",
        purpose: "finds the cgroup of the calling task",
        since: "5.7",
        feature: None,
        id: 123,
        first_argument: Argument::Zero,
        points: CGROUP,
    },
    Helper {
        name: "bpf_get_current_ancestor_cgroup_id in LSM",
        purpose: "finds the cgroup of the calling task by one look-up",
        since: "6.1",
        feature: None,
        id: 123,
        first_argument: Argument::Zero,
        points: LSM,
    },
    Helper {
        name: "bpf_get_socket_cookie",
        purpose: "identifies a socket in all hooks",
        since: "5.7",
        feature: None,
        id: 46,
        first_argument: Argument::Context,
        points: CGROUP,
    },
    Helper {
        name: "bpf_probe_read_kernel",
        purpose: "finds the executable of the calling task",
        since: "5.8",
        feature: None,
        id: 113,
        first_argument: Argument::Buffer,
        points: CGROUP,
    },
    Helper {
        name: "bpf_probe_read_kernel in a kprobe",
        purpose: "reads the local port of a connection",
        since: "5.5",
        feature: None,
        id: 113,
        first_argument: Argument::Buffer,
        points: &[HookPoint::Kprobe(c"tcp_connect")],
    },
];
