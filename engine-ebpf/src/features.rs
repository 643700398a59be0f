//! What user space found out about this kernel. Read-only data, frozen before the programs are
//! loaded: the verifier sees constants and prunes what a kernel does not have.

use core::ptr::{addr_of, read_volatile};

macro_rules! constants {
    ($($(#[$doc:meta])* $name:ident => $get:ident: $type:ty;)*) => {$(
        #[unsafe(no_mangle)]
        static $name: $type = 0;

        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $get() -> $type {
            // SAFETY: a static of ours. Volatile, since the value is put there by the loader and
            // the compiler would fold the zero above.
            unsafe { read_volatile(addr_of!($name)) }
        }
    )*};
}

constants! {
    /// Whether `bpf_send_signal` is allowed in cgroup hooks (Linux 6.16).
    HAS_SEND_SIGNAL => has_send_signal: u32;
    /// Whether `bpf_set_retval` and `bpf_get_retval` are there (Linux 5.18).
    HAS_SET_RETVAL => has_set_retval: u32;
    /// Whether `bpf_get_current_task_btf` is there (Linux 5.11).
    HAS_TASK_BTF => has_task_btf: u32;
    /// Whether the reader is woken for each record: somebody waits for it.
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
    /// Offset of `sk_max_ack_backlog` in `sock` (4 bytes wide).
    SOCK_MAX_ACK_BACKLOG => sock_max_ack_backlog: u32;
    /// Offset of `sk_socket` in `sock`.
    SOCK_SOCKET => sock_socket: u32;
    /// Offset of `file` in `socket`.
    SOCKET_FILE => socket_file: u32;
}
