//! Offsets of members of kernel structures, which the programs are given as constants when they are loaded.

use super::btf::{Btf, BtfError};

/// A member of a kernel structure: name of the constant in the programs, structure, member.
pub(super) type Member = (&'static str, &'static str, &'static str);

/// Members that all programs are given.
const MEMBERS: [Member; 35] = [
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
    ("INET_SOURCE", "inet_sock", "inet_saddr"),
    ("SOCK_BOUND_DEVICE", "sock_common", "skc_bound_dev_if"),
    ("MSGHDR_NAME", "msghdr", "msg_name"),
    ("MSGHDR_NAMELEN", "msghdr", "msg_namelen"),
    ("MSGHDR_FLAGS", "msghdr", "msg_flags"),
    ("MSGHDR_CONTROLLEN", "msghdr", "msg_controllen"),
    // `__sk_common` is the first member of `sock`, so that offsets in it are offsets in `sock`.
    ("SOCK_COMMON", "sock", "__sk_common"),
];

/// The bit of `sk_userlocks` that bind(2) sets when it fixes the address (include/net/sock.h).
const SOCK_BINDADDR_LOCK: u32 = 2;

/// Members that the programs on unix sockets read.
pub(super) const LSM_UNIX_MEMBERS: [Member; 10] = [
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

/// Members that the programs on cgroup migration read.
pub(super) const MIGRATION_MEMBERS: [Member; 5] = [
    ("TASK_COMM", "task_struct", "comm"),
    ("TASK_PID", "task_struct", "pid"),
    ("TASK_TGID", "task_struct", "tgid"),
    ("CGROUP_ROOT", "cgroup", "root"),
    ("CLONE_CGROUP", "kernel_clone_args", "cgrp"),
];

/// Offsets in bytes, by the names of the constants in the programs.
#[derive(Clone, Debug, Default)]
pub(super) struct Offsets(pub(super) Vec<(&'static str, u32)>);

impl Offsets {
    /// Those that all programs are given.
    ///
    /// # Errors
    /// [`BtfError`] when this kernel lacks one of them.
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
        // A cgroup has pointers to its ancestors since 6.1 (commit 7f203bc89eb6), and had their ids before.
        let (ancestors, are_ids) = match btf.offset("cgroup", "ancestors") {
            Ok(pointers) => (pointers, 0),
            Err(_) => (btf.offset("cgroup", "ancestor_ids")?, 1),
        };
        offsets.extend([("CGROUP_ANCESTORS", ancestors), ("ANCESTORS_ARE_IDS", are_ids)]);
        offsets.push(("SOCK_KERN_BIT", btf.bit("sock", "sk_kern_sock")?));
        let locks = btf.bit("sock", "sk_userlocks")?;
        offsets.push(("SOCK_ADDRESS_LOCK_BIT", locks + SOCK_BINDADDR_LOCK));
        Ok(Offsets(offsets))
    }

    /// Adds the members of a group.
    ///
    /// # Errors
    /// [`BtfError`] when this kernel lacks one of them; then none is added.
    pub(super) fn add(&mut self, members: &[Member], btf: &Btf) -> Result<(), BtfError> {
        let found: Result<Vec<_>, BtfError> = members
            .iter()
            .map(|&(name, structure, member)| Ok((name, btf.offset(structure, member)?)))
            .collect();
        self.0.extend(found?);
        Ok(())
    }
}
