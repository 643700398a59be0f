//! The text form of a probe report.

use std::fmt::Write;

use tidegate_core::{
    events::escape::escaped,
    probe::{AttachScope, BlockErrno, Enforcement, Finding, Plan, Report, SignalSender, Support},
};

/// Names printed for one hint.
const MAX_NAMES: usize = 6;

/// The whole report.
pub(super) fn text(report: &Report) -> String {
    let mut text = format!(
        "Linux {} ({})\n",
        escaped(report.kernel.release.as_bytes()),
        report.kernel.machine
    );
    for (title, findings) in [
        ("Environment", &report.environment),
        ("Hooks", &report.hooks),
        ("Helpers", &report.helpers),
        ("Maps", &report.maps),
        ("Sockets", &report.sockets),
    ] {
        group(&mut text, title, findings);
    }
    plan(&mut text, &report.plan, report.attach_scope);
    let hints = report.hints();
    if !hints.is_empty() {
        text += "\nTo enable more features\n";
        for (hint, names) in hints {
            let named = names
                .iter()
                .take(MAX_NAMES)
                .copied()
                .collect::<Vec<_>>()
                .join(", ");
            let more = match names.len().saturating_sub(MAX_NAMES) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            line(&mut text, &format!("  {hint}\n      for {named}{more}"));
        }
    }
    text
}

/// Writing to a string cannot fail; what comes from outside is escaped.
fn line(text: &mut String, line: &str) {
    for part in line.split('\n') {
        let _ = writeln!(text, "{}", escaped(part.as_bytes()));
    }
}

fn group(text: &mut String, title: &str, findings: &[Finding]) {
    let width = findings
        .iter()
        .map(|finding| finding.name.len())
        .max()
        .unwrap_or(0);
    let _ = writeln!(text, "\n{title}");
    if let [first, others @ ..] = findings
        && first.support == Support::Unknown
        && !others.is_empty()
        && others.iter().all(|other| other.reason == first.reason)
    {
        let why = first.reason.as_deref().unwrap_or_default();
        return line(text, &format!("  none could be tried: {why}"));
    }
    for finding in findings {
        let mut details = String::new();
        if let Some(reached) = finding.reached
            && finding.support == Support::Yes
        {
            details = format!("{}; ", reached.as_str());
        }
        details += match &finding.reason {
            Some(reason) if !reason.is_empty() => reason,
            _ => &finding.purpose,
        };
        if finding.support != Support::Yes && finding.reason.is_some() {
            details += &format!(" [{}]", finding.purpose);
        }
        let (name, support) = (finding.name, finding.support.as_str());
        line(text, &format!("  {name:<width$}  {support:<3}  {details}"));
    }
}

fn plan(text: &mut String, plan: &Plan, attach_scope: AttachScope) {
    text.push_str(match attach_scope {
        AttachScope::None => "\nPlan (assumes that programs that load can be attached)\n",
        AttachScope::System | AttachScope::OwnCgroup => "\nPlan\n",
    });
    for (name, details) in rows(plan) {
        let details = details.as_deref().unwrap_or("-");
        line(text, &format!("  {name:<10} {details}"));
    }
    if !plan.unused_hooks.is_empty() {
        let names = plan.unused_hooks.join(", ");
        line(
            text,
            &format!("  supported here, but not used by this version of tidegate: {names}"),
        );
    }
}

/// What follows for each part of a policy; `None` when nothing can be enforced, or it was not tried.
fn rows(plan: &Plan) -> [(&'static str, Option<String>); 9] {
    let missing = plan.missing.join(", ");
    let enforce = match plan.enforcement {
        Enforcement::Full => "fully: all hooks that deny can be used".to_owned(),
        Enforcement::Partial => format!("partially: some egress paths stay open without {missing}"),
        Enforcement::None => format!("no: nothing can be denied without {missing}"),
    };
    let audit = plan.audit_local_port.map(|port| match port {
        true => "every attempt is reported, TCP connects with their local port",
        false => "every attempt is reported, without local ports",
    });
    let block = plan.block_errno.map(|errno| match errno {
        BlockErrno::Policy => "the call fails with the errno of the policy",
        BlockErrno::Eperm => "the call fails with EPERM, also if the policy names another errno",
    });
    let kill = plan.kill.map(|kill| match kill.by {
        SignalSender::Lsm => "before the call returns, by the LSM programs",
        SignalSender::CgroupHook => "before the call returns, by the cgroup programs",
        SignalSender::UserSpace => "the call is denied at once; user space sends the signal a moment later",
    });
    let choose = |supported: Option<bool>, yes: &'static str, no: &'static str| {
        let supported = supported.filter(|_| plan.enforcement != Enforcement::None);
        supported.map(|supported| if supported { yes } else { no }.to_owned())
    };
    [
        ("enforce", Some(enforce)),
        ("audit", audit.map(str::to_owned)),
        ("block", block.map(str::to_owned)),
        ("kill", kill.map(str::to_owned)),
        (
            "families",
            choose(
                Some(plan.other_families),
                "packet, vsock and other families are checked when a socket is created",
                "only IPv4 and IPv6 are checked; packet, vsock and other families are not",
            ),
        ),
        (
            "unix",
            choose(
                Some(plan.unix_sockets),
                "rules about unix sockets are enforced",
                "policies with rules about unix sockets are rejected",
            ),
        ),
        (
            "packets",
            choose(
                Some(plan.egress_filter),
                "checked at the egress of the cgroup, for every socket",
                "not checked: existing connections continue",
            ),
        ),
        (
            "migrations",
            choose(
                plan.cgroup_migrations,
                "processes that leave the cgroup of an attached policy are reported",
                "processes that leave the cgroup of an attached policy are not reported",
            ),
        ),
        (
            "existing",
            choose(
                plan.destroy_sockets,
                "connections that are older than a policy can be destroyed",
                "connections that are older than a policy cannot be destroyed",
            ),
        ),
    ]
}
