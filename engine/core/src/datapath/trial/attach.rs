//! Attaches a trial program until its link is dropped.

use std::{
    ffi::CStr,
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use super::{
    hook::HookPoint,
    refusal::{Refusal, Step},
};
use crate::datapath::syscall;

/// The id of the perf event source of kprobes (Linux 4.17, CONFIG_KPROBE_EVENTS).
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";

/// An attached trial program. Dropping it detaches the program.
#[derive(Debug)]
pub struct TrialLink {
    /// A bpf_link, or the perf event of a kprobe.
    link: OwnedFd,
    is_cgroup_link: bool,
    _program: OwnedFd,
}

/// Attaches a program. `cgroup` is required for cgroup hooks only.
pub(super) fn attach(
    point: HookPoint,
    program: OwnedFd,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<TrialLink, Refusal> {
    let refused = |error| Refusal::at(Step::Attach, error);
    let link = match point {
        HookPoint::Cgroup { attach_type, .. } => {
            let Some(cgroup) = cgroup else {
                return Err(Refusal::described(
                    Step::Attach,
                    "internal error: the hook needs a cgroup".to_owned(),
                ));
            };
            syscall::create_link(program.as_fd(), cgroup.as_raw_fd() as u32, attach_type).map_err(refused)?
        }
        // The function was given when the program was loaded.
        HookPoint::Lsm(_) | HookPoint::Fentry(_) => {
            syscall::open_raw_tracepoint(program.as_fd(), None).map_err(refused)?
        }
        HookPoint::RawTracepoint(name) => {
            syscall::open_raw_tracepoint(program.as_fd(), Some(name)).map_err(refused)?
        }
        HookPoint::Kprobe(function) => attach_kprobe(function, program.as_fd())?,
    };
    Ok(TrialLink {
        link,
        is_cgroup_link: matches!(point, HookPoint::Cgroup { .. }),
        _program: program,
    })
}

impl Drop for TrialLink {
    fn drop(&mut self) {
        if self.is_cgroup_link {
            // Before Linux 5.11 closing a link detaches it with a delay. BPF_LINK_DETACH (5.9) detaches immediately;
            // older kernels refuse it, and the link is only closed.
            let _ = syscall::detach_link(self.link.as_fd());
        }
    }
}

/// Opens a perf event for a kprobe at a function and attaches the program to it. Needs no tracefs; closing the descriptor
/// removes the kprobe (perf_event_open(2), `perf_kprobe_init` in kernel/trace/trace_event_perf.c).
fn attach_kprobe(function: &'static CStr, program: BorrowedFd<'_>) -> Result<OwnedFd, Refusal> {
    let kind = fs::read_to_string(KPROBES).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Refusal::described(
            Step::Attach,
            format!("{KPROBES} does not exist: the kernel was built without kprobes"),
        ),
        _ => Refusal::described(Step::Attach, format!("cannot read {KPROBES}: {error}")),
    })?;
    let kind: u32 = kind
        .trim()
        .parse()
        .map_err(|_| Refusal::described(Step::Attach, format!("{KPROBES} does not contain an integer")))?;

    /// `struct perf_event_attr`, its first 72 bytes (PERF_ATTR_SIZE_VER1).
    #[repr(C)]
    #[derive(Default)]
    struct Event {
        kind: u32,
        size: u32,
        config: u64,
        sample_period: u64,
        sample_type: u64,
        read_format: u64,
        flags: u64,
        wakeup_events: u32,
        breakpoint: u32,
        function: u64,
        offset: u64,
    }
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    /// `_IO('$', 0)`: the same value on every supported architecture.
    const PERF_EVENT_IOC_ENABLE: libc::Ioctl = 0x2400;
    /// `_IOW('$', 8, __u32)`.
    const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;

    let event = Event {
        kind,
        size: size_of::<Event>() as u32,
        function: function.as_ptr() as u64,
        ..Event::default()
    };
    let refused = || Refusal::at(Step::Attach, io::Error::last_os_error());
    let (any_process, first_processor, no_group) = (-1, 0, -1);
    // SAFETY: `size` is the size of the attributes; the name is NUL-terminated and static.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const event,
            any_process,
            first_processor,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(refused());
    }
    // SAFETY: a new descriptor without another owner.
    let event = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    // SAFETY: a perf event; the argument is a descriptor, not a pointer.
    if unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()) } != 0 {
        return Err(refused());
    }
    // SAFETY: a perf event; the argument is an integer.
    if unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_ENABLE, 0) } != 0 {
        return Err(refused());
    }
    Ok(event)
}
