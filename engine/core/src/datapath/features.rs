//! What the running kernel can do, found by trying; the programs are loaded accordingly.

use std::{fs, path::Path};

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};
use engine_common::scope::HookSet;

use super::{
    canary::{Canary, CanaryTrials},
    program_group::{GROUPS, GroupName, GroupSet, ProgramGroup},
    syscall,
};
use crate::instance::Disabled;

/// Words that disable a feature, beside the names of program groups.
pub(super) const WORDS: [&str; 4] = ["send_signal", "set_retval", "task_btf", KPROBE];

/// Disables one of the alternatives of [`Tracer`].
pub(super) const KPROBE: &str = "kprobe";

/// The active security modules (securityfs).
const ACTIVE_LSM: &str = "/sys/kernel/security/lsm";

/// The perf event source of kprobes (`perf_kprobe`, kernel/events/core.c, Linux 4.17).
const KPROBE_SOURCE: &str = "/sys/bus/event_source/devices/kprobe/type";

/// What the programs can use of the running kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `bpf_send_signal` in cgroup hooks: a kill before the call returns (Linux 6.16).
    pub send_signal: bool,
    /// `bpf_set_retval`: an errno of the policy's choice (Linux 5.18); EPERM without.
    pub set_retval: bool,
    /// `bpf_get_current_task_btf`: a faster way to the executable (Linux 5.11).
    pub task_btf: bool,
    /// `bpf_get_current_ancestor_cgroup_id` in programs that are not attached to a cgroup (not in 5.10).
    pub ancestor_helper: bool,
    /// Groups of programs to load. The kernel may still refuse one that only loading tries.
    pub groups: GroupSet,
    /// How TCP connections are watched.
    pub tracer: Option<Tracer>,
}

impl Features {
    /// Whether a kill takes effect before the call returns, by a cgroup hook or an LSM program.
    pub fn kills_at_once(self) -> bool {
        self.send_signal || self.groups.has(GroupName::Lsm)
    }

    /// Whether a denied call fails with the errno of the policy.
    pub fn chooses_errno(self) -> bool {
        self.set_retval || self.groups.has(GroupName::Lsm)
    }

    /// Finds out by loading trial programs.
    pub fn detect(disabled: &Disabled) -> Features {
        let supported = |word: &str, helper| !disabled.has(word) && is_supported(helper);
        let rows = GROUPS.iter();
        let groups = rows
            .filter(|row| row.quick_reason(disabled).is_none())
            .fold(GroupSet::default(), |groups, row| groups.with(row.name));
        Features {
            send_signal: supported("send_signal", BpfHelper::BPF_FUNC_send_signal),
            set_retval: supported("set_retval", BpfHelper::BPF_FUNC_set_retval),
            task_btf: supported("task_btf", BpfHelper::BPF_FUNC_get_current_task_btf),
            ancestor_helper: is_helper_supported(
                ProgramType::RawTracePoint,
                BpfHelper::BPF_FUNC_get_current_ancestor_cgroup_id,
            )
            .unwrap_or(false),
            groups,
            tracer: groups.has(GroupName::Tracer).then(|| Tracer::detect(disabled)),
        }
    }

    /// The features without what the kernel does not call. Attaches a trial program for each canary.
    pub(super) fn without_uncalled(self) -> Features {
        let mut features = self;
        let trials = CanaryTrials::default();
        for row in GROUPS.iter().filter(|row| self.groups.has(row.name)) {
            let Some(error) = self.uncalled_reason(row, &trials) else {
                continue;
            };
            tracing::debug!(
                error,
                group = row.name.as_str(),
                "the kernel does not call the programs of the group"
            );
            if row.name == GroupName::Tracer {
                features.tracer = Some(Tracer::Tracepoint);
                continue;
            }
            let dropped = GROUPS
                .iter()
                .filter(|other| other.name == row.name || other.part_of == Some(row.name));
            features.groups = dropped.fold(features.groups, |groups, row| groups.without(row.name));
        }
        features
    }

    fn uncalled_reason(self, row: &ProgramGroup, trials: &CanaryTrials) -> Option<String> {
        // Part of another group, whose canary stands for both.
        if row.part_of.is_some() {
            return None;
        }
        let canary =
            row.canary(|program| program.alternative.is_none() || program.alternative == self.tracer)?;
        match trials.is_called(canary) {
            Ok(true) => None,
            Ok(false) => Some(canary.not_called_reason()),
            Err(refusal) => Some(refusal.to_string()),
        }
    }

    /// The kinds of hooks that this kernel has.
    pub fn hooks(self) -> HookSet {
        let rows = GROUPS.iter().filter(|row| self.groups.has(row.name));
        rows.fold(HookSet::NONE, |hooks, row| hooks.union(row.hooks))
    }

    /// The features that are left with these kinds of hooks only.
    #[must_use]
    pub fn only(self, hooks: HookSet) -> Features {
        let dropped = GROUPS.iter().filter(|row| !hooks.contains(row.hooks));
        let groups = dropped.fold(self.groups, |groups, row| groups.without(row.name));
        Features {
            groups,
            tracer: self.tracer.filter(|_| groups.has(GroupName::Tracer)),
            ..self
        }
    }
}

/// Whether both types of program that are attached to a cgroup may call the helper. An error counts as no.
fn is_supported(helper: BpfHelper) -> bool {
    [ProgramType::CgroupSockAddr, ProgramType::CgroupSock]
        .iter()
        .all(|&kind| is_helper_supported(kind, helper).unwrap_or(false))
}

/// How TCP connections are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tracer {
    /// By a kprobe on `tcp_connect`: the local address is known when the SYN leaves.
    Kprobe,
    /// By the tracepoint `inet_sock_set_state`: the local address is known when the peer has answered, or the attempt
    /// has failed.
    Tracepoint,
}

impl Tracer {
    /// The better one that this kernel has.
    fn detect(disabled: &Disabled) -> Tracer {
        // Attached policies need links that can be pinned; kprobes have such links since Linux 5.15.
        let has_kprobes = !disabled.has(KPROBE)
            && Path::new(KPROBE_SOURCE).exists()
            && Canary::Kprobe.stop().is_none()
            && syscall::try_kprobe_link().is_ok();
        if has_kprobes {
            Tracer::Kprobe
        } else {
            Tracer::Tracepoint
        }
    }
}

/// Why LSM programs are never called here; `None` where they are.
///
/// A kernel loads and attaches them also when `bpf` is not among the active modules, and then never calls them
/// (security/bpf/hooks.c registers its hooks only if it is): so the list is read, and one program tried.
pub(super) fn lsm_unavailable_reason() -> Option<String> {
    let active = match fs::read_to_string(ACTIVE_LSM) {
        Ok(active) => active,
        Err(error) => {
            return Some(format!(
                "the list of active security modules cannot be read ({ACTIVE_LSM}: {error}); mount securityfs: \
                 `mount -t securityfs securityfs /sys/kernel/security`"
            ));
        }
    };
    if !active.trim().split(',').any(|name| name == "bpf") {
        return Some(format!(
            "`bpf` is not among the active security modules ({}); boot with `lsm={},bpf`",
            active.trim(),
            active.trim()
        ));
    }
    match syscall::try_lsm_program() {
        Ok(()) => Canary::Lsm.stop_reason(),
        Err(error) => Some(format!("the kernel refuses LSM programs: {error}")),
    }
}

/// Why TCP connections cannot be watched here; `None` where they can. Raw tracepoints are in every kernel that has what
/// else is needed (Linux 4.17).
pub(super) fn tracer_unavailable_reason() -> Option<String> {
    match aya::sys::is_program_supported(ProgramType::RawTracePoint) {
        Ok(true) => None,
        Ok(false) => Some("this kernel runs no programs on tracepoints".to_owned()),
        Err(error) => Some(format!("the kernel refuses programs on tracepoints: {error}")),
    }
}

/// Whether an LSM or fentry program can be attached again after it was detached. Before Linux 5.14 (commit f3a95075549e)
/// it attaches once in its life. Detected by a helper that came a little later (5.18).
pub(super) fn tracing_programs_reattach() -> bool {
    is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval).unwrap_or(false)
}
