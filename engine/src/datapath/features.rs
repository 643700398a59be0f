//! What the running kernel can do, found by trying, and what the programs are told about it.

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};

use super::btf::{Btf, BtfError};

/// Environment variable that takes abilities away, separated by commas: `send_signal`,
/// `set_retval`, `task_btf`, `packets`. For tests of what an older kernel would do; it can only take, never grant.
pub const DISABLE_VARIABLE: &str = "TIDEGATE_DISABLE";

/// Abilities of the kernel's cgroup hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `bpf_send_signal`: a kill before the call returns (Linux 6.16).
    pub send_signal: bool,
    /// `bpf_set_retval`: an errno of the policy's choice (Linux 5.18); EPERM without.
    pub set_retval: bool,
    /// `bpf_get_current_task_btf`: a faster way to the executable (Linux 5.11).
    pub task_btf: bool,
    /// Whether a program that judges packets is tried at all; whether the kernel takes it, loading tells.
    pub packets: bool,
}

impl Features {
    /// Finds out by loading trial programs.
    pub fn detect() -> Features {
        let disabled = std::env::var(DISABLE_VARIABLE).unwrap_or_default();
        let enabled = |name: &str| !disabled.split(',').any(|d| d.trim() == name);
        Features {
            send_signal: enabled("send_signal") && supported(BpfHelper::BPF_FUNC_send_signal),
            set_retval: enabled("set_retval") && supported(BpfHelper::BPF_FUNC_set_retval),
            task_btf: enabled("task_btf") && supported(BpfHelper::BPF_FUNC_get_current_task_btf),
            packets: enabled("packets"),
        }
    }
}

/// Whether both kinds of program that we attach may call the helper. An error means no.
fn supported(helper: BpfHelper) -> bool {
    [ProgramType::CgroupSockAddr, ProgramType::CgroupSock]
        .iter()
        .all(|&kind| is_helper_supported(kind, helper).unwrap_or(false))
}

/// Member offsets that lead from a task to its executable, and of what the floor asks of a socket, bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offsets {
    pub(super) task_mm: u32,
    pub(super) mm_exe_file: u32,
    pub(super) file_inode: u32,
    pub(super) inode_ino: u32,
    pub(super) inode_sb: u32,
    pub(super) sb_dev: u32,
    pub(super) sock_max_ack_backlog: u32,
    pub(super) sock_socket: u32,
    pub(super) socket_file: u32,
}

impl Offsets {
    pub(super) fn of(btf: &Btf) -> Result<Offsets, BtfError> {
        Ok(Offsets {
            task_mm: btf.offset("task_struct", "mm")?,
            mm_exe_file: btf.offset("mm_struct", "exe_file")?,
            file_inode: btf.offset("file", "f_inode")?,
            inode_ino: btf.offset("inode", "i_ino")?,
            inode_sb: btf.offset("inode", "i_sb")?,
            sb_dev: btf.offset("super_block", "s_dev")?,
            sock_max_ack_backlog: btf.offset("sock", "sk_max_ack_backlog")?,
            sock_socket: btf.offset("sock", "sk_socket")?,
            socket_file: btf.offset("socket", "file")?,
        })
    }
}
