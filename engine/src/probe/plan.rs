//! What follows from what was found, action by action.

use serde::Serialize;

use super::{
    Report,
    finding::{Answer, Finding},
};

/// Hooks without which a way out of a cgroup stays open.
const DENYING: [&str; 5] = [
    "cgroup/connect4",
    "cgroup/connect6",
    "cgroup/sendmsg4",
    "cgroup/sendmsg6",
    "cgroup/sock_create",
];
/// What every one of them stands on.
const FOUNDATION: [&str; 8] = [
    "cgroup2",
    "BTF",
    "cgroup/sock_release",
    "bpf_get_current_ancestor_cgroup_id",
    "bpf_get_socket_cookie",
    "ring buffer",
    "maps of different size in a map",
    "cgroup storage by cgroup id",
];
/// Hooks with which a kill by LSM sees every connect and datagram.
const KILLING_LSM: [&str; 3] = [
    "lsm/socket_connect",
    "lsm/socket_sendmsg",
    "bpf_send_signal in LSM",
];

/// Hooks with which an LSM program denies with any errno what a cgroup hook denies with EPERM.
const DENYING_LSM: [&str; 2] = ["lsm/socket_connect", "lsm/socket_sendmsg"];

/// What judges unix sockets.
const UNIX: [&str; 2] = ["lsm/unix_stream_connect", "lsm/unix_may_send"];

/// What tells who leaves a cgroup.
const MOVES: [&str; 2] = ["fentry/cgroup_attach_task", "fentry/cgroup_post_fork"];

const CUTTING: [&str; 2] = ["cutting TCP sockets", "cutting UDP sockets"];

/// How much of a policy can be enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// Every hook that denies can be used.
    Full,
    /// Some can.
    Partial,
    /// None can, or what they stand on is missing, as far as it could be tried.
    #[default]
    None,
}

/// When a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KillTime {
    /// Before the call that was denied returns.
    BeforeReturn,
    /// The call is denied at once; the signal comes a moment later.
    Later,
}

/// How a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Kill {
    /// When.
    pub when: KillTime,
    /// Who sends the signal: `cgroup_hook`, `lsm` or `user_space`.
    pub by: &'static str,
}

/// The plan. What is `null` cannot be done at all.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    /// Whether attempts can be denied.
    pub enforcement: Enforcement,
    /// What is missing for all of it.
    pub missing: Vec<&'static str>,
    /// Audit: whether TCP connections are told with their source port.
    pub audit_source_port: Option<bool>,
    /// Block: `policy` (any errno) or `EPERM`.
    pub block_errno: Option<&'static str>,
    /// Kill.
    pub kill: Option<Kill>,
    /// Whether families without a cgroup hook (packet, vsock) can be judged.
    pub other_families: bool,
    /// Whether unix sockets that rules name can be judged.
    pub unix_sockets: bool,
    /// Whether packets can be judged, whatever sent them.
    pub packets: bool,
    /// Whether processes that leave the cgroup of a standing policy are reported; `null` where that was not tried.
    pub moves: Option<bool>,
    /// Whether connections from before a policy can be ended; `null` where that was not tried.
    pub existing_sockets: Option<bool>,
    /// What this kernel could give and this version of tidegate does not use, by the names of hooks.
    pub not_used: Vec<&'static str>,
}

impl Plan {
    pub(super) fn of(report: &Report) -> Plan {
        let find = |name: &str| report.findings().find(|finding| finding.name == name);
        let works = |name: &str| find(name).is_some_and(|finding| finding.answer == Answer::Yes);
        // What works and is not used gives nothing.
        let serves = |name: &str| find(name).is_some_and(Finding::serves);
        let missing: Vec<&'static str> = FOUNDATION
            .into_iter()
            .chain(DENYING)
            .filter(|name| !serves(name))
            .collect();
        let enforcement = if missing.is_empty() {
            Enforcement::Full
        } else if FOUNDATION.into_iter().all(serves) && DENYING.into_iter().any(serves) {
            Enforcement::Partial
        } else {
            Enforcement::None
        };
        let not_used = report
            .hooks
            .iter()
            .filter(|hook| hook.answer == Answer::Yes && !hook.serves())
            .map(|hook| hook.name)
            .collect();
        if enforcement == Enforcement::None {
            return Plan {
                missing,
                not_used,
                ..Plan::default()
            };
        }
        let before_return = |by| Kill {
            when: KillTime::BeforeReturn,
            by,
        };
        let kill = if works("bpf_send_signal") {
            before_return("cgroup_hook")
        } else if KILLING_LSM.into_iter().all(serves) {
            before_return("lsm")
        } else {
            Kill {
                when: KillTime::Later,
                by: "user_space",
            }
        };
        Plan {
            enforcement,
            missing,
            audit_source_port: Some(
                serves("kprobe/tcp_connect") && works("bpf_probe_read_kernel in a kprobe"),
            ),
            block_errno: Some(
                if works("bpf_set_retval") || DENYING_LSM.into_iter().all(serves) {
                    "policy"
                } else {
                    "EPERM"
                },
            ),
            kill: Some(kill),
            other_families: serves("lsm/socket_create"),
            unix_sockets: UNIX.into_iter().all(serves),
            packets: serves("cgroup_skb/egress"),
            moves: match MOVES.map(|name| find(name).map(|finding| (finding.answer, finding.serves()))) {
                [Some((_, true)), Some((_, true))] => Some(true),
                told if told.contains(&Some((Answer::Unknown, false))) => None,
                _ => Some(false),
            },
            existing_sockets: match CUTTING.map(|name| find(name).map(|finding| finding.answer)) {
                [Some(Answer::Yes), Some(Answer::Yes)] => Some(true),
                answers if answers.contains(&Some(Answer::No)) => Some(false),
                _ => None,
            },
            not_used,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Attach, surroundings::Kernel};

    /// A report in which everything works, and is used, but what is named.
    fn report(failing: &[&'static str], unused: &[&str]) -> Report {
        let all = FOUNDATION
            .into_iter()
            .chain(DENYING)
            .chain(KILLING_LSM)
            .chain([
                "bpf_send_signal",
                "bpf_set_retval",
                "kprobe/tcp_connect",
                "bpf_probe_read_kernel in a kprobe",
                "lsm/socket_create",
                "cgroup_skb/egress",
            ])
            .chain(CUTTING)
            .chain(UNIX)
            .chain(MOVES);
        let answer = |name: &'static str| {
            let works = !failing.contains(&name);
            let finding = Finding::new(name, "", if works { Answer::Yes } else { Answer::No });
            match name.contains('/') {
                true => finding.used(!unused.contains(&name)),
                false => finding,
            }
        };
        Report {
            kernel: Kernel {
                release: String::new(),
                machine: String::new(),
            },
            attached: Attach::Everything,
            surroundings: Vec::new(),
            hooks: all.map(answer).collect(),
            helpers: Vec::new(),
            tables: Vec::new(),
            plan: Plan::default(),
        }
    }

    fn kill(failing: &[&'static str], unused: &[&str]) -> (KillTime, &'static str) {
        let kill = Plan::of(&report(failing, unused)).kill.unwrap();
        (kill.when, kill.by)
    }

    #[test]
    fn the_kill_is_by_whoever_can_and_is_used() {
        use KillTime::{BeforeReturn, Later};
        assert_eq!(kill(&[], &[]), (BeforeReturn, "cgroup_hook"));
        assert_eq!(kill(&["bpf_send_signal"], &[]), (BeforeReturn, "lsm"));
        for lacking in KILLING_LSM {
            assert_eq!(kill(&["bpf_send_signal", lacking], &[]), (Later, "user_space"));
        }
        assert_eq!(
            kill(&["bpf_send_signal"], &["lsm/socket_connect"]),
            (Later, "user_space")
        );
    }

    #[test]
    fn one_hook_less_is_a_part_and_no_foundation_is_nothing() {
        let plan = Plan::of(&report(&[], &["lsm/socket_create"]));
        assert_eq!((plan.enforcement, plan.missing.len()), (Enforcement::Full, 0));
        assert_eq!(plan.not_used, ["lsm/socket_create"]);
        assert!(!plan.other_families && plan.packets && plan.existing_sockets == Some(true));
        assert!(plan.unix_sockets && plan.moves == Some(true));
        for lacking in UNIX {
            assert!(!Plan::of(&report(&[lacking], &[])).unix_sockets);
        }
        for lacking in MOVES {
            assert_eq!(Plan::of(&report(&[lacking], &[])).moves, Some(false));
            assert_eq!(Plan::of(&report(&[], &[lacking])).moves, Some(false));
        }
        assert_eq!(
            (plan.block_errno, plan.audit_source_port),
            (Some("policy"), Some(true))
        );
        let plan = Plan::of(&report(&["cutting UDP sockets"], &[]));
        assert_eq!(plan.existing_sockets, Some(false));
        for lacking in DENYING {
            let plan = Plan::of(&report(&[lacking], &[]));
            assert_eq!(
                (plan.enforcement, plan.missing),
                (Enforcement::Partial, vec![lacking])
            );
        }
        for lacking in FOUNDATION {
            let plan = Plan::of(&report(&[lacking], &[]));
            assert_eq!((plan.enforcement, plan.kill), (Enforcement::None, None));
        }
        assert_eq!(Plan::of(&report(&DENYING, &[])).enforcement, Enforcement::None);
        let plan = Plan::of(&report(&["bpf_set_retval", "kprobe/tcp_connect"], &[]));
        assert_eq!(
            (plan.block_errno, plan.audit_source_port),
            (Some("policy"), Some(false))
        );
        for unused in DENYING_LSM {
            let plan = Plan::of(&report(&["bpf_set_retval"], &[unused]));
            assert_eq!(plan.block_errno, Some("EPERM"));
        }
    }
}
