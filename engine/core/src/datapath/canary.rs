//! Shows whether the kernel calls programs: a trial program is attached, and a call is made that it must see.

use std::{cell::OnceCell, io, os::unix::net::UnixDatagram, thread};

use super::{
    program_group::GroupName,
    stop::Stop,
    trial::{HookPoint, Refusal, Trials},
};

/// Name of the thread that makes the calls: eight bytes, by which the trial program recognises it.
const THREAD: &str = "tgcanary";

/// A kind of program of the whole machine that the kernel may load and attach, and never call; and the trial that shows
/// whether it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// LSM programs.
    Lsm,
    /// Programs at the entry of a function of the kernel, by a trampoline.
    Fentry,
    /// Programs at the entry of a function of the kernel, by a kprobe.
    Kprobe,
}

impl Canary {
    const COUNT: usize = Canary::Kprobe as usize + 1;

    /// Such programs, in messages.
    const fn programs(self) -> &'static str {
        match self {
            Canary::Lsm => "LSM programs",
            Canary::Fentry => "fentry programs",
            Canary::Kprobe => "kprobes",
        }
    }

    /// Where the trial program is attached: [`make_calls`] reaches it.
    const fn point(self) -> HookPoint {
        match self {
            Canary::Lsm => HookPoint::Lsm("socket_sendmsg"),
            Canary::Fentry => HookPoint::Fentry("cgroup_post_fork"),
            Canary::Kprobe => HookPoint::Kprobe(c"security_socket_sendmsg"),
        }
    }

    /// What stops such programs now, as far as a switch says it.
    pub fn stop(self) -> Option<Stop> {
        match self {
            Canary::Lsm | Canary::Fentry => Stop::of_ftrace(),
            Canary::Kprobe => Stop::of_kprobes(),
        }
    }

    /// Why such programs are not called, as far as a switch says it.
    pub fn stop_reason(self) -> Option<String> {
        self.stop().map(|stop| stop.reason(self.programs()))
    }

    /// Why such programs are not called, after a call has shown it.
    pub fn not_called_reason(self) -> String {
        self.stop_reason().unwrap_or_else(|| {
            let switch = match self {
                Canary::Lsm | Canary::Fentry => "kernel.ftrace_enabled",
                Canary::Kprobe => "kprobes/enabled of debugfs",
            };
            format!(
                "the kernel accepts {} and never calls them ({switch} is 0?)",
                self.programs()
            )
        })
    }
}

/// Trials of canaries. Each is made once, when it is asked for.
#[derive(Default)]
pub(super) struct CanaryTrials {
    trials: OnceCell<Result<Trials, Refusal>>,
    called: [OnceCell<Result<bool, Refusal>>; Canary::COUNT],
}

impl CanaryTrials {
    /// Whether the kernel calls a trial program of this kind. Where a switch says that it does not, none is attached: a
    /// program that is attached and detached while ftrace is off leaves marks at its function, and ftrace stops for good
    /// when it finds them later (`ftrace_shutdown`, kernel/trace/ftrace.c; seen on Linux 6.12).
    ///
    /// # Errors
    /// [`Refusal`] when the kernel does not load or attach it, or the call cannot be made.
    pub(super) fn is_called(&self, canary: Canary) -> Result<bool, &Refusal> {
        let called = self.called[canary as usize].get_or_init(|| match canary.stop() {
            Some(_) => Ok(false),
            None => self.make(canary),
        });
        called.as_ref().copied()
    }

    fn make(&self, canary: Canary) -> Result<bool, Refusal> {
        let trials = self.trials.get_or_init(|| {
            let mut name = [0; 8];
            name.copy_from_slice(THREAD.as_bytes());
            Trials::begin(name)
        });
        let trials = trials.as_ref().map_err(Clone::clone)?;
        let word = canary as usize;
        let _attached = trials.attach_global(canary.point(), word)?;
        let calls = thread::Builder::new().name(THREAD.to_owned()).spawn(make_calls);
        let made = calls.map(thread::JoinHandle::join);
        made.and_then(|joined| joined.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())))
            .map_err(Refusal::of_call)?;
        trials.has_call(word)
    }
}

/// Starts a thread, and sends a datagram over a pair of unix sockets.
fn make_calls() -> io::Result<()> {
    // The name of this thread is that of the canaries; the kernel is in its context when it makes another one.
    let other = thread::Builder::new().spawn(|| ())?;
    let _ = other.join();
    let (one, _other) = UnixDatagram::pair()?;
    one.send(&[0]).map(drop)
}

/// Whether the kernel calls the programs of a set.
#[derive(Default)]
pub struct Calls {
    /// The groups of the set whose programs may not be called.
    canaries: Vec<(GroupName, Canary)>,
    trials: CanaryTrials,
}

impl Calls {
    pub(super) fn of(canaries: Vec<(GroupName, Canary)>) -> Calls {
        Calls {
            canaries,
            ..Calls::default()
        }
    }

    /// Those of kprobes only.
    pub(super) fn of_kprobes(mut self) -> Calls {
        self.canaries.retain(|(_, canary)| *canary == Canary::Kprobe);
        self
    }

    /// Why the kernel does not call the programs of a group, although they are loaded; `None` where it calls them, where the
    /// set has none, and where no trial can be made. Takes some milliseconds the first time.
    pub fn never_called_reason(&self, group: GroupName) -> Option<String> {
        let (_, canary) = self.canaries.iter().find(|(of, _)| *of == group)?;
        match self.trials.is_called(*canary) {
            Ok(true) => None,
            Ok(false) => Some(canary.not_called_reason()),
            Err(refusal) => {
                tracing::debug!(%refusal, ?canary, "whether the kernel calls such programs is not known");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_thread_fills_the_bytes_that_are_compared() {
        assert_eq!(THREAD.len(), 8);
    }

    #[test]
    fn a_group_without_a_canary_is_not_tried() {
        let calls = Calls::of(Vec::new());
        assert_eq!(calls.never_called_reason(GroupName::Lsm), None);
        assert!(calls.trials.trials.get().is_none());
    }

    #[test]
    fn reasons_name_what_stops_programs_and_what_enables_them() {
        assert_eq!(
            Stop::FtraceOff.reason(Canary::Lsm.programs()),
            "kernel.ftrace_enabled is 0, so the kernel never calls LSM programs; `sysctl kernel.ftrace_enabled=1` \
             enables them"
        );
        assert_eq!(
            Stop::KprobesOff.reason(Canary::Kprobe.programs()),
            "/sys/kernel/debug/kprobes/enabled is 0, so the kernel never calls kprobes; \
             `echo 1 > /sys/kernel/debug/kprobes/enabled` enables them"
        );
    }
}
