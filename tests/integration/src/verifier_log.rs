//! The verifier's statistics of every program that a command loads, for kernels whose program info does not contain
//! them: the command is traced, and each BPF_PROG_LOAD is changed to request a log.

use std::{
    collections::{BTreeMap, HashMap},
    io::{IoSlice, IoSliceMut},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        uio::{RemoteIoVec, process_vm_readv, process_vm_writev},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

const BPF_PROG_LOAD: u64 = 5;
/// BPF_LOG_STATS (include/linux/bpf_verifier.h): statistics only. Linux 5.2.
const STATISTICS: u32 = 4;
const LOG_BYTES: usize = 16 * 1024;
/// Bytes below the stack pointer that a function may use (System V ABI).
const RED_ZONE: u64 = 128;

/// Offset of `log_level`, `log_size` and `log_buf` in `union bpf_attr` of BPF_PROG_LOAD.
const LOG: usize = 24;
/// The bytes of `prog_name`.
const NAME: std::ops::Range<usize> = 48..64;

/// A BPF_PROG_LOAD in progress.
struct Load {
    name: String,
    attributes: u64,
    /// The original 16 bytes at offset `LOG`.
    before: [u8; 16],
    log: u64,
}

/// Runs a command, and returns how many instructions the verifier processed for each program that it loaded, by
/// program name.
///
/// # Panics
/// When the command fails or cannot be traced.
#[expect(clippy::zombie_processes, reason = "waitpid reaps it by its id")]
pub fn counted(command: &mut Command) -> BTreeMap<String, u32> {
    // SAFETY: between fork and exec only ptrace(2) is called.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    let child = command
        .stdout(Stdio::null())
        .spawn()
        .expect("a command that starts");
    let child = Pid::from_raw(child.id().cast_signed());
    // The first stop is after execve(2).
    waitpid(child, None).expect("a child to wait for");
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(child, options).expect("a child that is traced");
    ptrace::syscall(child, None).expect("a child that continues");
    // Including threads of the child, but not children of other threads of this process.
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    let mut counts = BTreeMap::new();
    let mut loads = HashMap::new();
    loop {
        let (thread, signal) = match waitpid(None, Some(flags)).expect("a child to wait for") {
            WaitStatus::Exited(ended, code) if ended == child => {
                assert_eq!(code, 0, "the traced command failed");
                return counts;
            }
            WaitStatus::Signaled(ended, signal, _) if ended == child => panic!("ended by {signal}"),
            WaitStatus::PtraceSyscall(thread) => {
                match loads.remove(&thread) {
                    Some(load) => counts.extend(leave(thread, load)),
                    None => drop(enter(thread).map(|load| loads.insert(thread, load))),
                }
                (thread, None)
            }
            // The first stop of a new thread is not a real signal.
            WaitStatus::Stopped(thread, Signal::SIGSTOP) | WaitStatus::PtraceEvent(thread, ..) => {
                (thread, None)
            }
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            _ => continue,
        };
        match ptrace::syscall(thread, signal) {
            // The thread has exited in the meantime.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => panic!("{thread}: {error}"),
        }
    }
}

/// Changes a BPF_PROG_LOAD to write a log with statistics to memory below the stack of the thread.
fn enter(thread: Pid) -> Option<Load> {
    let info = ptrace::syscall_info(thread).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: `op` says that it is an entry; all fields are integers.
    let call = unsafe { info.u.entry };
    if call.nr != libc::SYS_bpf as u64 || call.args[0] != BPF_PROG_LOAD {
        return None;
    }
    let attributes = call.args[1];
    let mut bytes = [0; NAME.end];
    read(thread, attributes, &mut bytes);
    let name = bytes[NAME].split(|&byte| byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    let mut before = [0; 16];
    before.copy_from_slice(&bytes[LOG..LOG + 16]);
    // Feature tests have no name, and a caller that requests its own log keeps it.
    if name.is_empty() || before[..4] != [0; 4] {
        return None;
    }
    let log = (info.stack_pointer - RED_ZONE - LOG_BYTES as u64) & !7;
    write(thread, log, &[0; LOG_BYTES]);
    let mut requested = [0; 16];
    requested[..4].copy_from_slice(&STATISTICS.to_ne_bytes());
    requested[4..8].copy_from_slice(&(LOG_BYTES as u32).to_ne_bytes());
    requested[8..].copy_from_slice(&log.to_ne_bytes());
    write(thread, attributes + LOG as u64, &requested);
    Some(Load {
        name,
        attributes,
        before,
        log,
    })
}

/// Reads the log when the call returns, and restores the original attributes.
fn leave(thread: Pid, load: Load) -> Option<(String, u32)> {
    write(thread, load.attributes + LOG as u64, &load.before);
    let mut log = vec![0; LOG_BYTES];
    read(thread, load.log, &mut log);
    let log = String::from_utf8_lossy(&log).into_owned();
    // `processed 2193 insns (limit 1000000) ...` (print_verification_stats, kernel/bpf/verifier.c)
    let (_, rest) = log.split_once("processed ")?;
    let count = rest.split(' ').next()?.parse().ok()?;
    Some((load.name, count))
}

fn read(thread: Pid, base: u64, bytes: &mut [u8]) {
    let remote = [RemoteIoVec {
        base: base as usize,
        len: bytes.len(),
    }];
    let read = process_vm_readv(thread, &mut [IoSliceMut::new(bytes)], &remote);
    assert_eq!(read, Ok(remote[0].len), "memory of the traced command");
}

fn write(thread: Pid, base: u64, bytes: &[u8]) {
    let remote = [RemoteIoVec {
        base: base as usize,
        len: bytes.len(),
    }];
    let written = process_vm_writev(thread, &[IoSlice::new(bytes)], &remote);
    assert_eq!(written, Ok(bytes.len()), "memory of the traced command");
}
