//! Why the kernel does not call programs that are loaded and attached: switches of the administrator.

use std::fs;

/// The switch of ftrace, which patches the calls of LSM and fentry programs into functions, and of kprobes too on most
/// machines (CONFIG_KPROBES_ON_FTRACE).
const FTRACE: &str = "/proc/sys/kernel/ftrace_enabled";

/// The switch of kprobes; in debugfs, which only root can read.
const KPROBES: &str = "/sys/kernel/debug/kprobes/enabled";

/// What stops programs. While it does the kernel still loads and attaches others like them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Ftrace is switched off.
    FtraceOff,
    /// Ftrace has found an error of its own, and patches nothing any more (`ftrace_kill`, kernel/trace/ftrace.c).
    FtraceFailed,
    /// Kprobes are switched off.
    KprobesOff,
}

impl Stop {
    /// What stops programs that ftrace calls; `None` also where the switch does not exist or cannot be read.
    pub(super) fn of_ftrace() -> Option<Stop> {
        match fs::read_to_string(FTRACE) {
            Ok(text) => is_zero(&text).then_some(Stop::FtraceOff),
            Err(error) => (error.raw_os_error() == Some(libc::ENODEV)).then_some(Stop::FtraceFailed),
        }
    }

    /// The same for kprobes.
    pub(super) fn of_kprobes() -> Option<Stop> {
        let is_off = fs::read_to_string(KPROBES).is_ok_and(|text| is_zero(&text));
        is_off.then_some(Stop::KprobesOff).or_else(Stop::of_ftrace)
    }

    /// Why programs of this name are not called, and what enables them.
    pub(super) fn reason(self, programs: &str) -> String {
        let what = match self {
            Stop::FtraceOff => "kernel.ftrace_enabled is 0, so the kernel never calls",
            Stop::FtraceFailed => {
                "ftrace has stopped after an error in the kernel (`dmesg` shows it), so the kernel attaches no"
            }
            Stop::KprobesOff => "/sys/kernel/debug/kprobes/enabled is 0, so the kernel never calls",
        };
        format!("{what} {programs}; {}", self.hint())
    }

    /// What enables them.
    pub const fn hint(self) -> &'static str {
        match self {
            Stop::FtraceOff => "`sysctl kernel.ftrace_enabled=1` enables them",
            Stop::FtraceFailed => "a reboot enables them",
            Stop::KprobesOff => "`echo 1 > /sys/kernel/debug/kprobes/enabled` enables them",
        }
    }
}

fn is_zero(text: &str) -> bool {
    text.trim() == "0"
}
