//! Features and structure offsets of this kernel, detected in user space. They are read-only data, frozen before the
//! programs are loaded: the verifier sees constants and does not explore code for missing features.

use core::ptr::{addr_of, read_volatile};

macro_rules! constants {
    ($($(#[$doc:meta])* $name:ident => $get:ident: $type:ty;)*) => {$(
        #[unsafe(no_mangle)]
        static $name: $type = 0;

        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $get() -> $type {
            // SAFETY: a static of this crate. Volatile, because the loader writes the value, and
            // the compiler would propagate the constant zero.
            unsafe { read_volatile(addr_of!($name)) }
        }
    )*};
}

constants! {
    /// Whether `bpf_send_signal` is allowed in cgroup hooks (Linux 6.16).
    HAS_SEND_SIGNAL => has_send_signal: u32;
    /// Whether `bpf_set_retval` and `bpf_get_retval` are available (Linux 5.18).
    HAS_SET_RETVAL => has_set_retval: u32;
    /// Whether `bpf_get_current_task_btf` is available (Linux 5.11).
    HAS_TASK_BTF => has_task_btf: u32;
    /// Whether `bpf_get_current_ancestor_cgroup_id` is available to LSM and tracing programs (not in 5.10).
    HAS_ANCESTOR_HELPER => has_ancestor_helper: u32;
    /// Whether `struct cgroup` has ids of its ancestors (before 6.1) instead of pointers.
    ANCESTORS_ARE_IDS => ancestors_are_ids: u32;
    /// Whether each record wakes the reader.
    WAKE_EACH => wake_each: u32;
    /// Offset of `mm` in `task_struct`, bytes; like all below from the running kernel's BTF.
    TASK_MM => task_mm: u32;
    /// Offset of `exe_file` in `mm_struct`.
    MM_EXE_FILE => mm_exe_file: u32;
    /// Offset of `f_inode` in `file`.
    FILE_INODE => file_inode: u32;
    /// Offset of `i_ino` in `inode` (8 bytes wide).
    INODE_INO => inode_ino: u32;
    /// Offset of `i_sb` in `inode`.
    INODE_SB => inode_sb: u32;
    /// Offset of `s_dev` in `super_block` (4 bytes wide).
    SB_DEV => sb_dev: u32;
    /// Offset of `comm` in `task_struct` (16 bytes wide).
    TASK_COMM => task_comm: u32;
    /// Offset of `pid` in `task_struct` (4 bytes wide): the thread's.
    TASK_PID => task_pid: u32;
    /// Offset of `tgid` in `task_struct` (4 bytes wide): the process's.
    TASK_TGID => task_tgid: u32;
    /// Offset of `cgroups` in `task_struct`.
    TASK_CGROUPS => task_cgroups: u32;
    /// Offset of `dfl_cgrp` in `css_set`.
    CSS_SET_CGROUP => css_set_cgroup: u32;
    /// Offset of `level` in `cgroup` (4 bytes wide).
    CGROUP_LEVEL => cgroup_level: u32;
    /// Offset of `ancestors` or `ancestor_ids` in `cgroup`.
    CGROUP_ANCESTORS => cgroup_ancestors: u32;
    /// Offset of `root` in `cgroup`.
    CGROUP_ROOT => cgroup_root: u32;
    /// Offset of `cgrp` in `kernel_clone_args`.
    CLONE_CGROUP => clone_cgroup: u32;
    /// Offset of `kn` in `cgroup`.
    CGROUP_KN => cgroup_kn: u32;
    /// Offset of `id` in `kernfs_node` (8 bytes wide).
    KERNFS_ID => kernfs_id: u32;
    /// Offset of `sk` in `socket`.
    SOCKET_SK => socket_sk: u32;
    /// Offset of `file` in `socket`.
    SOCKET_FILE => socket_file: u32;
    /// Offset of `sk_cgrp_data` in `sock`.
    SOCK_CGROUP => sock_cgroup: u32;
    /// Offset of `sk_type` in `sock` (2 bytes wide).
    SOCK_TYPE => sock_type: u32;
    /// Offset of `sk_protocol` in `sock` (2 bytes wide since 5.6).
    SOCK_PROTOCOL => sock_protocol: u32;
    /// Offset of `sk_max_ack_backlog` in `sock` (4 bytes wide since 5.6).
    SOCK_MAX_BACKLOG => sock_max_backlog: u32;
    /// Offset of `skc_family` in `sock`.
    SOCK_FAMILY => sock_family: u32;
    /// Offset of `skc_state` in `sock` (1 byte wide).
    SOCK_STATE => sock_state: u32;
    /// Offset of `skc_cookie` in `sock` (8 bytes wide).
    SOCK_COOKIE => sock_cookie: u32;
    /// Offset of `skc_daddr` in `sock`.
    SOCK_PEER_V4 => sock_peer_v4: u32;
    /// Offset of `skc_v6_daddr` in `sock`.
    SOCK_PEER_V6 => sock_peer_v6: u32;
    /// Offset of `skc_dport` in `sock`.
    SOCK_PEER_PORT => sock_peer_port: u32;
    /// Offset of `skc_rcv_saddr` in `sock`.
    SOCK_OWN_V4 => sock_own_v4: u32;
    /// Offset of `skc_v6_rcv_saddr` in `sock`.
    SOCK_OWN_V6 => sock_own_v6: u32;
    /// Offset of `skc_num` in `sock`: the port in host order.
    SOCK_OWN_PORT => sock_own_port: u32;
    /// Offset of `inet_sport` in `inet_sock`, which begins with a `sock`.
    INET_SOURCE_PORT => inet_source_port: u32;
    /// Offset of `inet_saddr` in `inet_sock`.
    INET_SOURCE => inet_source: u32;
    /// Offset of `skc_bound_dev_if` in `sock` (4 bytes wide).
    SOCK_BOUND_DEVICE => sock_bound_device: u32;
    /// Offset of SOCK_BINDADDR_LOCK in `sock`, in bits: bind(2) has fixed the address.
    SOCK_ADDRESS_LOCK_BIT => sock_address_lock_bit: u32;
    /// Offset of `msg_name` in `msghdr`.
    MSGHDR_NAME => msghdr_name: u32;
    /// Offset of `msg_flags` in `msghdr` (4 bytes wide).
    MSGHDR_FLAGS => msghdr_flags: u32;
    /// Offset of `msg_controllen` in `msghdr` (8 bytes wide).
    MSGHDR_CONTROLLEN => msghdr_controllen: u32;
    /// Offset of `sk_kern_sock` in `sock`, in bits.
    SOCK_KERN_BIT => sock_kern_bit: u32;
    /// Offset of `msg_namelen` in `msghdr` (4 bytes wide).
    MSGHDR_NAMELEN => msghdr_namelen: u32;
    /// Offset of `sk_socket` in `sock`.
    SOCK_SOCKET => sock_socket: u32;
    /// Offset of `addr` in `unix_sock`, which begins with a `sock`.
    UNIX_ADDR => unix_addr: u32;
    /// Offset of `path` in `unix_sock`.
    UNIX_PATH => unix_path: u32;
    /// Offset of `len` in `unix_address` (4 bytes wide).
    UNIX_ADDRESS_LEN => unix_address_len: u32;
    /// Offset of `name` in `unix_address`.
    UNIX_ADDRESS_NAME => unix_address_name: u32;
    /// Offset of `dentry` in `path`.
    PATH_DENTRY => path_dentry: u32;
    /// Offset of `d_parent` in `dentry`.
    DENTRY_PARENT => dentry_parent: u32;
    /// Offset of `d_name` in `dentry`.
    DENTRY_NAME => dentry_name: u32;
    /// Offset of `d_sb` in `dentry`.
    DENTRY_SB => dentry_sb: u32;
    /// Offset of `name` in `qstr`.
    QSTR_NAME => qstr_name: u32;
    /// Offset of `len` in `qstr` (4 bytes wide).
    QSTR_LEN => qstr_len: u32;
}
