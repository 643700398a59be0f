//! What the running kernel can do, found by trying, and what the programs are told about it.

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};

use super::{
    btf::{Btf, BtfError},
    lsm,
    tracer::Probe,
};

/// Environment variable that takes abilities away, separated by commas: `send_signal`,
/// `set_retval`, `task_btf`, `lsm`, `probe`, `kprobe`, `packets`, `moves`. For tests of what an older kernel would do; it
/// can only take, never grant.
pub const DISABLE_VARIABLE: &str = "TIDEGATE_DISABLE";

/// Whether [`DISABLE_VARIABLE`] takes an ability away.
pub fn is_taken_away(ability: &str) -> bool {
    let taken = std::env::var(DISABLE_VARIABLE).unwrap_or_default();
    taken.split(',').any(|word| word.trim() == ability)
}

/// Abilities of the kernel's cgroup hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `bpf_send_signal`: a kill before the call returns (Linux 6.16).
    pub send_signal: bool,
    /// `bpf_set_retval`: an errno of the policy's choice (Linux 5.18); EPERM without.
    pub set_retval: bool,
    /// `bpf_get_current_task_btf`: a faster way to the executable (Linux 5.11).
    pub task_btf: bool,
    /// `bpf_get_current_ancestor_cgroup_id` in programs that have no cgroup of their own (not in 5.10).
    pub ancestor_helper: bool,
    /// LSM programs run: sockets made elsewhere and other families are judged, kill and errno work on older kernels
    /// too (Linux 5.7, with `bpf` among the active security modules).
    pub lsm: bool,
    /// Whether a program that judges packets is tried at all; whether the kernel takes it, loading tells.
    pub packets: bool,
    /// Whether programs that tell who leaves a cgroup are tried at all; whether the kernel takes them, loading tells.
    pub moves: bool,
    /// How connections can be watched, for where they send from.
    pub probe: Option<Probe>,
}

impl Features {
    /// Whether a kill is done before the call returns, in one way or the other.
    pub fn kills_at_once(self) -> bool {
        self.send_signal || self.lsm
    }

    /// Whether a denied call fails with the errno of the policy.
    pub fn chooses_errno(self) -> bool {
        self.set_retval || self.lsm
    }

    /// Finds out by loading trial programs.
    pub fn detect() -> Features {
        let enabled = |ability: &str| !is_taken_away(ability);
        Features {
            send_signal: enabled("send_signal") && supported(BpfHelper::BPF_FUNC_send_signal),
            set_retval: enabled("set_retval") && supported(BpfHelper::BPF_FUNC_set_retval),
            task_btf: enabled("task_btf") && supported(BpfHelper::BPF_FUNC_get_current_task_btf),
            ancestor_helper: is_helper_supported(
                ProgramType::RawTracePoint,
                BpfHelper::BPF_FUNC_get_current_ancestor_cgroup_id,
            )
            .unwrap_or(false),
            lsm: enabled("lsm") && lsm::lsm_unavailable_reason().is_none(),
            packets: enabled("packets"),
            moves: enabled("moves"),
            probe: Probe::detect(enabled),
        }
    }
}

/// Whether both kinds of program that we attach to a cgroup may call the helper. An error means no.
fn supported(helper: BpfHelper) -> bool {
    [ProgramType::CgroupSockAddr, ProgramType::CgroupSock]
        .iter()
        .all(|&kind| is_helper_supported(kind, helper).unwrap_or(false))
}

/// Member offsets that the programs are told: name of the constant, structure, member.
const MEMBERS: [(&str, &str, &str); 32] = [
    ("TASK_MM", "task_struct", "mm"),
    ("MM_EXE_FILE", "mm_struct", "exe_file"),
    ("FILE_INODE", "file", "f_inode"),
    ("INODE_INO", "inode", "i_ino"),
    ("INODE_SB", "inode", "i_sb"),
    ("SB_DEV", "super_block", "s_dev"),
    ("TASK_CGROUPS", "task_struct", "cgroups"),
    ("CSS_SET_CGROUP", "css_set", "dfl_cgrp"),
    ("CGROUP_LEVEL", "cgroup", "level"),
    ("CGROUP_KN", "cgroup", "kn"),
    ("KERNFS_ID", "kernfs_node", "id"),
    ("SOCKET_SK", "socket", "sk"),
    ("SOCKET_FILE", "socket", "file"),
    ("SOCK_SOCKET", "sock", "sk_socket"),
    ("SOCK_CGROUP", "sock", "sk_cgrp_data"),
    ("SOCK_TYPE", "sock", "sk_type"),
    ("SOCK_PROTOCOL", "sock", "sk_protocol"),
    ("SOCK_MAX_BACKLOG", "sock", "sk_max_ack_backlog"),
    ("SOCK_FAMILY", "sock_common", "skc_family"),
    ("SOCK_STATE", "sock_common", "skc_state"),
    ("SOCK_COOKIE", "sock_common", "skc_cookie"),
    ("SOCK_PEER_V4", "sock_common", "skc_daddr"),
    ("SOCK_PEER_V6", "sock_common", "skc_v6_daddr"),
    ("SOCK_PEER_PORT", "sock_common", "skc_dport"),
    ("SOCK_OWN_V4", "sock_common", "skc_rcv_saddr"),
    ("SOCK_OWN_V6", "sock_common", "skc_v6_rcv_saddr"),
    ("SOCK_OWN_PORT", "sock_common", "skc_num"),
    // A `sock` is the first member of an `inet_sock`, in all kernels.
    ("INET_SOURCE_PORT", "inet_sock", "inet_sport"),
    ("MSGHDR_NAME", "msghdr", "msg_name"),
    ("MSGHDR_NAMELEN", "msghdr", "msg_namelen"),
    ("MSGHDR_FLAGS", "msghdr", "msg_flags"),
    // `__sk_common` is the first member of `sock`, so that offsets in it are offsets in `sock`.
    ("SOCK_COMMON", "sock", "__sk_common"),
];

/// The same for the programs that see unix sockets, in the same way.
const UNIX_MEMBERS: [(&str, &str, &str); 10] = [
    // A `sock` is the first member of a `unix_sock`, in all kernels.
    ("UNIX_ADDR", "unix_sock", "addr"),
    ("UNIX_PATH", "unix_sock", "path"),
    ("UNIX_ADDRESS_LEN", "unix_address", "len"),
    ("UNIX_ADDRESS_NAME", "unix_address", "name"),
    ("PATH_DENTRY", "path", "dentry"),
    ("DENTRY_PARENT", "dentry", "d_parent"),
    ("DENTRY_NAME", "dentry", "d_name"),
    ("DENTRY_SB", "dentry", "d_sb"),
    ("QSTR_NAME", "qstr", "name"),
    ("QSTR_LEN", "qstr", "len"),
];

/// The same for the programs that tell who leaves a cgroup: what is not there, only they are without.
const MIGRATION_MEMBERS: [(&str, &str, &str); 5] = [
    ("TASK_COMM", "task_struct", "comm"),
    ("TASK_PID", "task_struct", "pid"),
    ("TASK_TGID", "task_struct", "tgid"),
    ("CGROUP_ROOT", "cgroup", "root"),
    ("CLONE_CGROUP", "kernel_clone_args", "cgrp"),
];

/// Member offsets in bytes, by the names of the constants that the programs have for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Offsets(pub(super) Vec<(&'static str, u32)>);

impl Offsets {
    pub(super) fn of(btf: &Btf) -> Result<Offsets, BtfError> {
        let mut offsets = Vec::new();
        for (name, structure, member) in MEMBERS {
            let offset = btf.offset(structure, member)?;
            if name != "SOCK_COMMON" {
                offsets.push((name, offset));
            } else if offset != 0 {
                return Err(BtfError::NotFirst("sock", "__sk_common"));
            }
        }
        // A cgroup knows its ancestors by pointers since 6.1 (commit 7f203bc89eb6), by ids before.
        let (ancestors, are_ids) = match btf.offset("cgroup", "ancestors") {
            Ok(pointers) => (pointers, 0),
            Err(_) => (btf.offset("cgroup", "ancestor_ids")?, 1),
        };
        offsets.extend([("CGROUP_ANCESTORS", ancestors), ("ANCESTORS_ARE_IDS", are_ids)]);
        offsets.push(("SOCK_KERN_BIT", btf.bit("sock", "sk_kern_sock")?));
        Ok(Offsets(offsets))
    }

    /// With those for moves; `Err` where this kernel lacks one of them, and nothing is added.
    pub(super) fn add_migration(&mut self, btf: &Btf) -> Result<(), BtfError> {
        self.add(&MIGRATION_MEMBERS, btf)
    }

    /// With those for unix sockets, in the same way.
    pub(super) fn add_unix(&mut self, btf: &Btf) -> Result<(), BtfError> {
        self.add(&UNIX_MEMBERS, btf)
    }

    fn add(
        &mut self,
        members: &[(&'static str, &'static str, &'static str)],
        btf: &Btf,
    ) -> Result<(), BtfError> {
        let found: Result<Vec<_>, BtfError> = members
            .iter()
            .map(|&(name, structure, member)| Ok((name, btf.offset(structure, member)?)))
            .collect();
        self.0.extend(found?);
        Ok(())
    }
}
