//! What the running kernel supports, found by loading small programs. The tests expect exactly this. It does not use
//! Tidegate's own detection, so that this is tested too.

use crate::egress_method::{EgressMethod, Family};
use std::{io, os::fd::AsRawFd, sync::OnceLock};

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
    },
    time::{TimeVal, TimeValLike},
};

/// Ids of helper functions (`__BPF_FUNC_MAPPER`, include/uapi/linux/bpf.h).
const SEND_SIGNAL: i32 = 109;
const SET_RETVAL: i32 = 187;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const BPF_CGROUP_INET4_CONNECT: u32 = 10;

/// The first fields of `union bpf_attr`, as BPF_PROG_LOAD reads it.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// Whether a hook can kill the process before the call returns (cgroup hooks: Linux 6.16; LSM programs: any version).
/// Otherwise the hook denies the attempt and user space sends the signal later.
pub fn kills_at_once() -> bool {
    cgroup_hooks_kill() || has_lsm()
}

/// Whether a cgroup hook can kill.
pub fn cgroup_hooks_kill() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| has(SEND_SIGNAL))
}

/// Whether a hook can choose the errno of a denied call (cgroup hooks: Linux 5.18; LSM programs: any version).
/// Otherwise it is EPERM.
pub fn chooses_errno() -> bool {
    cgroup_hooks_choose_errno() || has_lsm()
}

/// Whether a cgroup hook can choose the errno.
pub fn cgroup_hooks_choose_errno() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| has(SET_RETVAL))
}

/// Whether LSM programs run: `bpf` is in the list of active security modules, and ftrace is on. Without securityfs this
/// is unknown, and Tidegate does not use them.
pub fn has_lsm() -> bool {
    has_bpf_module() && is_ftrace_on()
}

/// Whether `bpf` is in the list of active security modules.
pub fn has_bpf_module() -> bool {
    let active = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    active.trim().split(',').any(|name| name == "bpf")
}

/// Whether the kernel calls LSM programs, fentry programs and kprobes.
pub fn is_ftrace_on() -> bool {
    std::fs::read_to_string(FTRACE_ENABLED).is_ok_and(|text| text.trim() != "0")
}

/// The switch for that.
pub const FTRACE_ENABLED: &str = "/proc/sys/kernel/ftrace_enabled";

/// Whether the machine runs only these tests (`cargo xtask vm`), so that they may use what affects all of it: tracing
/// programs, policies on the root cgroup.
pub fn is_dedicated_machine() -> bool {
    std::env::var_os("TIDEGATE_OWN_MACHINE").is_some()
}

/// The features that affect the whole machine (`TIDEGATE_DISABLE`), disabled on a machine with other users.
pub const GLOBAL: &str = "tracer,migration";

/// The hook of the tracer: a kprobe, or a tracepoint where kprobe links are not available (before Linux 5.15) or
/// kprobes are not called.
pub fn tracer_hook() -> &'static str {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let has_kprobes = std::path::Path::new("/sys/bus/event_source/devices/kprobe").exists();
    if has_kprobes && version >= (5, 15) && is_ftrace_on() {
        "tcp_connect"
    } else {
        "sock_state"
    }
}

/// The hook that denies a destination with this errno: an LSM program where the cgroup hook can only return EPERM.
pub fn hook_that_blocks(method: EgressMethod, family: Family, errno: &str) -> Option<&'static str> {
    if errno != "EPERM" && !cgroup_hooks_choose_errno() && has_lsm() {
        return method.lsm_hook();
    }
    method.hook(family)
}

/// The hook that kills: an LSM program where the cgroup hook can only deny.
pub fn hook_that_kills(method: EgressMethod, family: Family) -> Option<&'static str> {
    if !cgroup_hooks_kill() && has_lsm() {
        return method.lsm_hook();
    }
    method.hook(family)
}

/// The errno that the caller sees when the policy chooses this one.
pub fn errno_seen(chosen: &str) -> &str {
    if chooses_errno() { chosen } else { "EPERM" }
}

/// The outcome in events of a policy that kills.
pub fn outcome_of_kill() -> &'static str {
    if kills_at_once() { "killed" } else { "kill_pending" }
}

/// Whether the kernel can list sockets of this IP protocol (sock_diag(7)): modules tcp_diag, udp_diag, raw_diag.
pub fn lists_sockets(protocol: i32) -> bool {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLMSG_DONE: u16 = 3;
    // NLM_F_REQUEST | NLM_F_DUMP
    const FLAGS: u16 = 0x301;
    // struct nlmsghdr, then struct inet_diag_req_v2: no socket state selected, so the list is empty.
    let mut request = [0_u8; 72];
    request[0] = 72;
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&FLAGS.to_ne_bytes());
    request[16] = libc::AF_INET as u8;
    request[17] = protocol as u8;
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    );
    let Ok(socket) = socket else { return false };
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(5)).expect("a time limit");
    let mut reply = [0_u8; 4096];
    let sent = send(socket.as_raw_fd(), &request, MsgFlags::empty());
    let received = sent.and_then(|_| recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty()));
    let kind = u16::from_ne_bytes([reply[4], reply[5]]);
    let errno = i32::from_ne_bytes([reply[16], reply[17], reply[18], reply[19]]);
    received.is_ok_and(|length| length >= 20) && kind == NLMSG_DONE && errno == 0
}

fn has(helper: i32) -> bool {
    let _unlimited = LockedMemory::unlimited();
    assert!(
        loads(&[]),
        "a program that allows everything: {}",
        io::Error::last_os_error()
    );
    // r1 = 0; call helper
    loads(&[instruction(0xb7, 1, 0), instruction(0x85, 0, helper)])
}

/// RLIMIT_MEMLOCK, restored when dropped. Before Linux 5.11 programs and maps count against it. Tidegate raises it for
/// itself; the processes of the tests must not inherit a raised limit.
struct LockedMemory(libc::rlimit);

impl LockedMemory {
    fn unlimited() -> LockedMemory {
        let mut before = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the pointer is valid for the result.
        let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut before) };
        assert_eq!(result, 0, "getrlimit: {}", io::Error::last_os_error());
        LockedMemory::set(&libc::rlimit {
            rlim_cur: libc::RLIM_INFINITY,
            rlim_max: libc::RLIM_INFINITY,
        });
        LockedMemory(before)
    }

    fn set(limit: &libc::rlimit) {
        // May fail: newer kernels do not check the limit.
        // SAFETY: the limit lives through the call.
        unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, limit) };
    }
}

impl Drop for LockedMemory {
    fn drop(&mut self) {
        LockedMemory::set(&self.0);
    }
}

/// Whether a program with these instructions, followed by `r0 = 1; exit`, loads.
fn loads(first: &[u64]) -> bool {
    let instructions = [first, &[instruction(0xb7, 0, 1), instruction(0x95, 0, 0)]].concat();
    let load = Load {
        kind: BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        attach_type: BPF_CGROUP_INET4_CONNECT,
        ..Load::default()
    };
    // SAFETY: the attributes have the layout of this command; everything they point to is valid through the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
    if fd < 0 {
        return false;
    }
    // SAFETY: the descriptor is owned here.
    unsafe { libc::close(fd as i32) };
    true
}

/// An instruction: opcode, destination register, immediate (Documentation/bpf/standardization).
fn instruction(opcode: u8, register: u8, value: i32) -> u64 {
    u64::from(opcode) | u64::from(register) << 8 | u64::from(value as u32) << 32
}

/// The name of the programs that `tidegate probe` loads.
pub const TRIAL_PROGRAM: &str = "tidegate_trial";

/// How many loaded programs have this name.
///
/// # Panics
/// When the kernel does not list its programs.
pub fn programs_named(name: &str) -> usize {
    const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;
    const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    /// Offset of `name` (16 bytes) in `struct bpf_prog_info`.
    const NAME: usize = 64;
    let mut found = 0;
    // Id, next id, flags.
    let mut ids = [0u32; 3];
    loop {
        // SAFETY: the attributes have the layout of this command and are valid through the call.
        let more = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_GET_NEXT_ID, &raw mut ids, 12) };
        if more < 0 {
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
            return found;
        }
        ids[0] = ids[1];
        // SAFETY: as before.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_GET_FD_BY_ID, &raw mut ids, 12) };
        // It may have been unloaded in between.
        if fd < 0 {
            continue;
        }
        let mut info = [0u8; 256];
        let mut attributes = [fd as u64 & 0xffff_ffff | 256 << 32, info.as_mut_ptr() as u64];
        // SAFETY: descriptor, length and address of the buffer, which is valid through the call.
        let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw mut attributes, 16) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor is owned here.
        unsafe { libc::close(fd as i32) };
        let program = info[NAME..NAME + 16]
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default();
        found += usize::from(program == name.as_bytes());
    }
}
