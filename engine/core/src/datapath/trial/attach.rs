//! Attaching a trial program for a moment.

use std::{
    ffi::CStr,
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use super::{
    hook::Place,
    refusal::{Refusal, Step},
    syscall,
};

/// The id of the perf event source of kprobes (Linux 4.17, CONFIG_KPROBE_EVENTS).
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";

/// An attached program; dropping this detaches it.
#[derive(Debug)]
pub struct Attached {
    /// The link, or the event that calls it.
    held: OwnedFd,
    is_cgroup_link: bool,
    _program: OwnedFd,
}

/// Attaches a program; `cgroup` is needed for hooks of a cgroup only.
pub(super) fn attach(
    place: Place,
    program: OwnedFd,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Attached, Refusal> {
    let refused = |error| Refusal::at(Step::Attach, error);
    let held = match place {
        Place::Cgroup { attach_type, .. } => {
            let Some(cgroup) = cgroup else {
                return Err(Refusal::described(Step::Attach, "a cgroup is needed".to_owned()));
            };
            syscall::link_to_cgroup(program.as_fd(), cgroup, attach_type).map_err(refused)?
        }
        // The program names its function itself.
        Place::Lsm(_) | Place::Function(_) => {
            syscall::open_raw_tracepoint(program.as_fd(), None).map_err(refused)?
        }
        Place::RawTracepoint(name) => {
            syscall::open_raw_tracepoint(program.as_fd(), Some(name)).map_err(refused)?
        }
        Place::Kprobe(function) => attach_kprobe(function, program.as_fd())?,
    };
    Ok(Attached {
        held,
        is_cgroup_link: matches!(place, Place::Cgroup { .. }),
        _program: program,
    })
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.is_cgroup_link {
            // Before Linux 5.11 a link that is only closed is detached some time later. Where this is
            // refused (before 5.9), closing is what is left.
            let _ = syscall::detach_link(self.held.as_fd());
        }
    }
}

/// Opens an event at a function's entry and has it call the program: no tracefs is needed, and it goes
/// with the descriptor (perf_event_open(2), `perf_kprobe_init` in kernel/trace/trace_event_perf.c).
fn attach_kprobe(function: &CStr, program: BorrowedFd<'_>) -> Result<OwnedFd, Refusal> {
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
        .map_err(|_| Refusal::described(Step::Attach, format!("{KPROBES} is not a number")))?;

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
    /// `_IO('$', 0)`: the same number on every architecture that we build for.
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
    // SAFETY: the attributes are of the size they say; the name lives for ever and ends with a NUL.
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
    // SAFETY: a new descriptor, which nothing else owns.
    let event = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    // SAFETY: an event's descriptor; the argument is a descriptor, no pointer.
    if unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()) } != 0 {
        return Err(refused());
    }
    // SAFETY: an event's descriptor; there is no argument.
    if unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_ENABLE, 0) } != 0 {
        return Err(refused());
    }
    Ok(event)
}
