//! How policies can be enforced, derived from the findings.

use serde::Serialize;

use super::{
    Report,
    finding::{Finding, Support},
};
use crate::{
    datapath::GroupName,
    host::{Capabilities, Requirements, Unmet, unmet},
};

/// Hooks that deny. Without one of them an egress path stays open.
const DENY_HOOKS: [&str; 5] = [
    "cgroup/connect4",
    "cgroup/connect6",
    "cgroup/sendmsg4",
    "cgroup/sendmsg6",
    "cgroup/sock_create",
];
/// What every deny hook needs.
const REQUIRED: [&str; 8] = [
    "cgroup2",
    "BTF",
    "cgroup/sock_release",
    "bpf_get_current_ancestor_cgroup_id",
    "bpf_get_socket_cookie",
    "ring buffer",
    "maps of different size in a map",
    "cgroup storage by cgroup id",
];
/// What a kill by LSM programs needs: they see every connect and datagram, and may send signals.
const LSM_KILL: [&str; 3] = [
    "lsm/socket_connect",
    "lsm/socket_sendmsg",
    "bpf_send_signal in LSM",
];
/// LSM hooks that deny with any errno what a cgroup hook denies with EPERM.
const LSM_DENY_HOOKS: [&str; 2] = ["lsm/socket_connect", "lsm/socket_sendmsg"];
/// LSM hooks that decide by the calling task.
const LSM_HOOKS: [&str; 3] = ["lsm/socket_connect", "lsm/socket_sendmsg", "lsm/socket_create"];
/// Hooks that watch TCP connections; one of them is used.
const TRACER_HOOKS: [&str; 2] = ["kprobe/tcp_connect", "raw_tp/inet_sock_set_state"];
/// Hooks for rules about unix sockets.
const UNIX_HOOKS: [&str; 2] = ["lsm/unix_stream_connect", "lsm/unix_may_send"];
/// Hooks that report tasks that leave a cgroup.
const MIGRATION_HOOKS: [&str; 2] = ["fentry/cgroup_attach_task", "fentry/cgroup_post_fork"];
/// Destroying sockets, by protocol.
const DESTROY_SOCKETS: [&str; 2] = ["destroying TCP sockets", "destroying UDP sockets"];

/// How much of a policy can be enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// Every deny hook can be used.
    Full,
    /// Some deny hooks can be used.
    Partial,
    /// No deny hook can be used, or a requirement of all is missing or could not be tried.
    #[default]
    None,
}

/// When a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KillTime {
    /// Before the denied call returns.
    BeforeReturn,
    /// The call is denied at once; the signal follows a moment later.
    AfterReturn,
}

/// What sends SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalSender {
    /// The program on the cgroup hook.
    CgroupHook,
    /// The LSM program.
    Lsm,
    /// A process that reads the events.
    UserSpace,
}

/// How a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Kill {
    /// When the signal arrives.
    pub when: KillTime,
    /// What sends the signal.
    pub by: SignalSender,
}

/// The errno of a denied call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockErrno {
    /// The one that the policy names.
    Policy,
    /// Always EPERM.
    Eperm,
}

/// How policies can be enforced. `None` means not possible, or not tried where the field says so.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    /// Whether attempts can be denied.
    pub enforcement: Enforcement,
    /// Names of the findings that are missing for full enforcement.
    pub missing: Vec<&'static str>,
    /// Audit: whether events of TCP connections have the local port.
    pub audit_local_port: Option<bool>,
    /// Block: the errno of a denied call.
    pub block_errno: Option<BlockErrno>,
    /// Kill: how the process is killed.
    pub kill: Option<Kill>,
    /// Whether sockets of families without a cgroup hook (packet, vsock) can be denied.
    pub other_families: bool,
    /// Whether rules about unix sockets can be enforced.
    pub unix_sockets: bool,
    /// Whether packets can be filtered at the egress of the cgroup.
    pub egress_filter: bool,
    /// Whether migrations out of a cgroup with an attached policy are reported; `None` when that was not tried.
    pub cgroup_migrations: Option<bool>,
    /// Whether connections that are older than a policy can be destroyed; `None` when that was not tried.
    pub destroy_sockets: Option<bool>,
    /// Requirements of a policy that uses every feature which are not met here. A feature that was not tried is not listed;
    /// empty also where nothing can be enforced.
    pub unmet: Vec<Unmet>,
    /// Names of hooks that the kernel supports and this version of Tidegate does not use.
    pub unused_hooks: Vec<&'static str>,
}

impl Plan {
    pub(super) fn new(report: &Report) -> Plan {
        let find = |name: &str| report.findings().find(|finding| finding.name == name);
        let supported = |name: &str| find(name).is_some_and(|finding| finding.support == Support::Yes);
        let effective = |name: &str| find(name).is_some_and(Finding::is_effective);
        let missing: Vec<&'static str> = REQUIRED
            .into_iter()
            .chain(DENY_HOOKS)
            .filter(|name| !effective(name))
            .collect();
        let enforcement = if missing.is_empty() {
            Enforcement::Full
        } else if REQUIRED.into_iter().all(effective) && DENY_HOOKS.into_iter().any(effective) {
            Enforcement::Partial
        } else {
            Enforcement::None
        };
        let unused_hooks = report
            .hooks
            .iter()
            .filter(|hook| hook.support == Support::Yes && !hook.is_effective())
            .map(|hook| hook.name)
            .collect();
        if enforcement == Enforcement::None {
            return Plan {
                missing,
                unused_hooks,
                ..Plan::default()
            };
        }
        let before_return = |by| Kill {
            when: KillTime::BeforeReturn,
            by,
        };
        let kill = if supported("bpf_send_signal") {
            before_return(SignalSender::CgroupHook)
        } else if LSM_KILL.into_iter().all(effective) {
            before_return(SignalSender::Lsm)
        } else {
            Kill {
                when: KillTime::AfterReturn,
                by: SignalSender::UserSpace,
            }
        };
        let migration_hooks = MIGRATION_HOOKS.map(find);
        let cgroup_migrations = if MIGRATION_HOOKS.into_iter().all(effective) {
            Some(true)
        } else {
            let is_unknown = |hook: &&Finding| hook.support == Support::Unknown;
            let untried = migration_hooks.iter().flatten().any(is_unknown);
            (!untried).then_some(false)
        };
        let destroy_sockets = match DESTROY_SOCKETS.map(|name| find(name).map(|finding| finding.support)) {
            [Some(Support::Yes), Some(Support::Yes)] => Some(true),
            supports if supports.contains(&Some(Support::No)) => Some(false),
            _ => None,
        };
        let any_errno = supported("bpf_set_retval") || LSM_DENY_HOOKS.into_iter().all(effective);
        Plan {
            enforcement,
            missing,
            audit_local_port: Some(
                TRACER_HOOKS.into_iter().any(effective) && supported("bpf_probe_read_kernel in a kprobe"),
            ),
            block_errno: Some(match any_errno {
                true => BlockErrno::Policy,
                false => BlockErrno::Eperm,
            }),
            kill: Some(kill),
            other_families: effective("lsm/socket_create"),
            unix_sockets: UNIX_HOOKS.into_iter().all(effective),
            egress_filter: effective("cgroup_skb/egress"),
            cgroup_migrations,
            destroy_sockets,
            unmet: unmet(&Requirements::every(), &capabilities(report)),
            unused_hooks,
        }
    }
}

/// What the findings say about the capabilities that policies rely on.
fn capabilities(report: &Report) -> Capabilities {
    let find = |name: &str| report.findings().find(|finding| finding.name == name);
    let supported = |name: &str| find(name).is_some_and(|finding| finding.support == Support::Yes);
    // Each hook of a group is needed; of the tracer, one of two.
    let is_missing = |hook: &&Finding| !hook.is_effective() && hook.support != Support::Unknown;
    let missing = |names: &[&str]| names.iter().filter_map(|name| find(name)).find(is_missing);
    let tracer = TRACER_HOOKS.map(|name| find(name).filter(is_missing));
    let groups = [
        (GroupName::EgressFilter, missing(&["cgroup_skb/egress"])),
        (
            GroupName::Tracer,
            tracer.iter().all(Option::is_some).then_some(tracer[0]).flatten(),
        ),
        (GroupName::Lsm, missing(&LSM_HOOKS)),
        (GroupName::LsmUnix, missing(&UNIX_HOOKS)),
    ];
    let reason = |finding: &Finding| {
        let reason = finding.reason.as_deref().unwrap_or("not supported");
        format!("{}: {reason}", finding.name)
    };
    Capabilities {
        cgroup_hooks_kill: supported("bpf_send_signal"),
        cgroup_hooks_choose_errno: supported("bpf_set_retval"),
        unavailable: groups
            .into_iter()
            .filter_map(|(group, finding)| Some((group, reason(finding?))))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{AttachScope, SCHEMA_VERSION, environment::Kernel};

    /// A report in which every feature is supported and used, except those named.
    fn report(unsupported: &[&'static str], unused: &[&str]) -> Report {
        let all = REQUIRED
            .into_iter()
            .chain(DENY_HOOKS)
            .chain(LSM_KILL)
            .chain([
                "bpf_send_signal",
                "bpf_set_retval",
                "kprobe/tcp_connect",
                "bpf_probe_read_kernel in a kprobe",
                "lsm/socket_create",
                "cgroup_skb/egress",
            ])
            .chain(DESTROY_SOCKETS)
            .chain(UNIX_HOOKS)
            .chain(MIGRATION_HOOKS);
        let finding = |name: &'static str| {
            let support = match unsupported.contains(&name) {
                true => Support::No,
                false => Support::Yes,
            };
            let finding = Finding::new(name, "", support);
            match name.contains('/') {
                true => finding.used(!unused.contains(&name)),
                false => finding,
            }
        };
        Report {
            schema_version: SCHEMA_VERSION,
            kernel: Kernel {
                release: String::new(),
                machine: String::new(),
            },
            attach_scope: AttachScope::System,
            environment: Vec::new(),
            hooks: all.map(finding).collect(),
            helpers: Vec::new(),
            maps: Vec::new(),
            sockets: Vec::new(),
            plan: Plan::default(),
        }
    }

    fn plan(unsupported: &[&'static str], unused: &[&str]) -> Plan {
        Plan::new(&report(unsupported, unused))
    }

    fn kill(unsupported: &[&'static str], unused: &[&str]) -> (KillTime, SignalSender) {
        let kill = plan(unsupported, unused).kill.unwrap();
        (kill.when, kill.by)
    }

    #[test]
    fn the_fastest_supported_and_used_kill_is_chosen() {
        use KillTime::{AfterReturn, BeforeReturn};
        use SignalSender::{CgroupHook, Lsm, UserSpace};
        assert_eq!(kill(&[], &[]), (BeforeReturn, CgroupHook));
        assert_eq!(kill(&["bpf_send_signal"], &[]), (BeforeReturn, Lsm));
        for missing in LSM_KILL {
            assert_eq!(kill(&["bpf_send_signal", missing], &[]), (AfterReturn, UserSpace));
        }
        assert_eq!(
            kill(&["bpf_send_signal"], &["lsm/socket_connect"]),
            (AfterReturn, UserSpace)
        );
    }

    #[test]
    fn everything_supported_is_full_enforcement() {
        let plan = plan(&[], &["lsm/socket_create"]);
        assert_eq!((plan.enforcement, plan.missing.len()), (Enforcement::Full, 0));
        assert_eq!(plan.unused_hooks, ["lsm/socket_create"]);
        assert!(!plan.other_families && plan.egress_filter && plan.unix_sockets);
        assert_eq!(plan.destroy_sockets, Some(true));
        assert_eq!(plan.cgroup_migrations, Some(true));
        assert_eq!(plan.block_errno, Some(BlockErrno::Policy));
        assert_eq!(plan.audit_local_port, Some(true));
    }

    #[test]
    fn a_missing_deny_hook_is_partial_enforcement() {
        for missing in DENY_HOOKS {
            let plan = plan(&[missing], &[]);
            assert_eq!(
                (plan.enforcement, plan.missing),
                (Enforcement::Partial, vec![missing])
            );
        }
        assert_eq!(plan(&DENY_HOOKS, &[]).enforcement, Enforcement::None);
    }

    #[test]
    fn a_missing_requirement_is_no_enforcement() {
        for missing in REQUIRED {
            let plan = plan(&[missing], &[]);
            assert_eq!((plan.enforcement, plan.kill), (Enforcement::None, None));
        }
    }

    #[test]
    fn optional_features_need_all_their_hooks() {
        for missing in UNIX_HOOKS {
            assert!(!plan(&[missing], &[]).unix_sockets);
        }
        for missing in MIGRATION_HOOKS {
            assert_eq!(plan(&[missing], &[]).cgroup_migrations, Some(false));
            assert_eq!(plan(&[], &[missing]).cgroup_migrations, Some(false));
        }
        assert_eq!(
            plan(&["destroying UDP sockets"], &[]).destroy_sockets,
            Some(false)
        );
        let features = |unsupported: &[&'static str]| -> Vec<&'static str> {
            let plan = plan(unsupported, &[]);
            plan.unmet.iter().map(|one| one.code()).collect()
        };
        assert!(features(&[]).is_empty());
        assert_eq!(features(&["cgroup_skb/egress"]), ["strict"]);
        assert_eq!(features(&["lsm/unix_may_send"]), ["unix_sockets"]);
        assert_eq!(
            features(&["lsm/socket_create", "bpf_send_signal"]),
            ["lsm_hooks", "families", "unix_sockets", "kill"]
        );
        let without = plan(&["bpf_set_retval", "kprobe/tcp_connect"], &[]);
        assert_eq!(
            (without.block_errno, without.audit_local_port),
            (Some(BlockErrno::Policy), Some(false))
        );
        for unused in LSM_DENY_HOOKS {
            assert_eq!(
                plan(&["bpf_set_retval"], &[unused]).block_errno,
                Some(BlockErrno::Eperm)
            );
        }
    }
}
