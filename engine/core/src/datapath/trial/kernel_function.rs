//! The table of helpers that are tried, one entry each.

use super::{
    bytecode::Argument,
    hook::{CONNECT4, Place, SOCK_CREATE},
};

/// A function of the kernel that programs may call, or not.
#[derive(Debug)]
pub struct Helper {
    /// Its name, with the hook if it is not that of cgroups.
    pub name: &'static str,
    /// What it is good for.
    pub purpose: &'static str,
    /// A kernel that has it there.
    pub since: &'static str,
    /// The word in [`DISABLE_VARIABLE`](crate::instance::DISABLE_VARIABLE) that disables it.
    pub ability: Option<&'static str>,
    /// `__BPF_FUNC_MAPPER`, include/uapi/linux/bpf.h.
    pub(super) number: i32,
    pub(super) first_argument: Argument,
    pub(super) places: &'static [Place],
}

/// Both types of program that decide on a cgroup.
const CGROUP: &[Place] = &[CONNECT4, SOCK_CREATE];
const LSM: &[Place] = &[Place::Lsm("socket_connect")];

/// All of them.
pub static HELPERS: [Helper; 9] = [
    Helper {
        name: "bpf_set_retval",
        purpose: "a denied call fails with the errno of the policy",
        since: "5.18",
        ability: Some("set_retval"),
        number: 187,
        first_argument: Argument::Zero,
        places: CGROUP,
    },
    Helper {
        name: "bpf_send_signal",
        purpose: "a kill before the call returns",
        since: "6.16",
        ability: Some("send_signal"),
        number: 109,
        first_argument: Argument::Zero,
        places: CGROUP,
    },
    Helper {
        name: "bpf_send_signal in LSM",
        purpose: "the same by a security module's hook",
        since: "5.7",
        ability: None,
        number: 109,
        first_argument: Argument::Zero,
        places: LSM,
    },
    Helper {
        name: "bpf_get_current_task_btf",
        purpose: "a faster way to the executable",
        since: "5.11",
        ability: Some("task_btf"),
        number: 158,
        first_argument: Argument::Zero,
        places: CGROUP,
    },
    Helper {
        name: "bpf_get_current_ancestor_cgroup_id",
        purpose: "the cgroup of the calling task",
        since: "5.7",
        ability: None,
        number: 123,
        first_argument: Argument::Zero,
        places: CGROUP,
    },
    Helper {
        name: "bpf_get_current_ancestor_cgroup_id in LSM",
        purpose: "the same by one look-up instead of a walk",
        since: "6.1",
        ability: None,
        number: 123,
        first_argument: Argument::Zero,
        places: LSM,
    },
    Helper {
        name: "bpf_get_socket_cookie",
        purpose: "one name for a socket in all hooks",
        since: "5.7",
        ability: None,
        number: 46,
        first_argument: Argument::Context,
        places: CGROUP,
    },
    Helper {
        name: "bpf_probe_read_kernel",
        purpose: "the executable of the calling task",
        since: "5.8",
        ability: None,
        number: 113,
        first_argument: Argument::Buffer,
        places: CGROUP,
    },
    Helper {
        name: "bpf_probe_read_kernel in a kprobe",
        purpose: "the source port of a connection",
        since: "5.5",
        ability: None,
        number: 113,
        first_argument: Argument::Buffer,
        places: &[Place::Kprobe(c"tcp_connect")],
    },
];
