//! The text form of a probe report.

use std::fmt::Write;

use tidegate_core::{
    events::escape::escaped,
    host::{Feature, Unmet},
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
    unmet(&mut text, &report.plan.unmet);
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

/// The requirements of policies that are not met, in the words of the commands that refuse such a policy.
fn unmet(text: &mut String, unmet: &[Unmet]) {
    if unmet.is_empty() {
        return;
    }
    text.push_str("\nRequirements of policies that this machine does not meet\n");
    for one in unmet {
        line(text, &format!("  {one}\n      hint: {}", one.hint()));
    }
}

/// How policies are enforced, one row for each field of the plan. The reasons for a `no` are in [`unmet`] and in the findings.
fn rows(plan: &Plan) -> [(&'static str, String); 9] {
    let missing = plan.missing.join(", ");
    let enforce = match plan.enforcement {
        Enforcement::Full => "fully: all hooks that deny can be used".to_owned(),
        Enforcement::Partial => format!("partially: some egress paths stay open without {missing}"),
        Enforcement::None => format!("no: nothing can be denied without {missing}"),
    };
    let audit = plan.audit_local_port.map(|port| match port {
        true => "every attempt is reported, TCP connects with their local port",
        false => "every attempt is reported",
    });
    let block = plan.block_errno.map(|errno| match errno {
        BlockErrno::Policy => "the call fails with the errno of the policy",
        BlockErrno::Eperm => "the call fails with EPERM",
    });
    let kill = plan.kill.map(|kill| match kill.by {
        SignalSender::Lsm => "before the call returns, by the LSM programs",
        SignalSender::CgroupHook => "before the call returns, by the cgroup programs",
        SignalSender::UserSpace => "after the call returns, by user space",
    });
    // The plan has no `None` for these.
    let tried = |supported: bool, feature: Feature| {
        let is_unmet = plan.unmet.iter().any(|one| one.feature == feature);
        (supported || is_unmet).then_some(supported)
    };
    let yes_or_no = |supported: Option<bool>, yes: &'static str| match supported {
        _ if plan.enforcement == Enforcement::None => "-",
        Some(true) => yes,
        Some(false) => "no",
        None => "not tried",
    };
    let or_dash = |details: Option<&'static str>| details.unwrap_or("-");
    [
        ("enforce", enforce.as_str()),
        ("audit", or_dash(audit)),
        ("block", or_dash(block)),
        ("kill", or_dash(kill)),
        (
            "families",
            yes_or_no(
                tried(plan.other_families, Feature::Families),
                "packet, vsock and other families are checked when a socket is created",
            ),
        ),
        (
            "unix",
            yes_or_no(
                tried(plan.unix_sockets, Feature::UnixSockets),
                "rules about unix sockets are enforced",
            ),
        ),
        (
            "packets",
            yes_or_no(
                tried(plan.egress_filter, Feature::Strict),
                "checked at the egress of the cgroup, for every socket",
            ),
        ),
        (
            "migrations",
            yes_or_no(
                plan.cgroup_migrations,
                "processes that leave the cgroup of an attached policy are reported",
            ),
        ),
        (
            "existing",
            yes_or_no(
                plan.destroy_sockets,
                "connections that are older than a policy can be destroyed",
            ),
        ),
    ]
    .map(|(name, details)| (name, details.to_owned()))
}

#[cfg(test)]
mod tests {
    use tidegate_core::{
        datapath::GroupName,
        host::{self, Capabilities, Requirements},
        probe::{Kernel, Kill, KillTime},
    };

    use super::*;

    fn report(plan: Plan) -> Report {
        Report {
            schema_version: 1,
            kernel: Kernel {
                release: "6.1".to_owned(),
                machine: "x86_64".to_owned(),
            },
            attach_scope: AttachScope::System,
            environment: Vec::new(),
            hooks: Vec::new(),
            helpers: Vec::new(),
            maps: Vec::new(),
            sockets: Vec::new(),
            plan,
        }
    }

    fn row<'a>(text: &'a str, name: &str) -> &'a str {
        let mut rows = text
            .lines()
            .filter_map(|line| line.strip_prefix("  ")?.strip_prefix(name));
        rows.next().unwrap().trim()
    }

    #[test]
    fn unmet_requirements_are_printed_as_other_commands_print_them() {
        let groups = [
            GroupName::EgressFilter,
            GroupName::Tracer,
            GroupName::Lsm,
            GroupName::LsmUnix,
        ];
        let capabilities = Capabilities {
            unavailable: groups
                .map(|group| (group, format!("no {}", group.as_str())))
                .into(),
            ..Capabilities::default()
        };
        let unmet = host::unmet(&Requirements::every(), &capabilities);
        assert_eq!(unmet.len(), 7);
        let text = text(&report(Plan {
            enforcement: Enforcement::Full,
            block_errno: Some(BlockErrno::Eperm),
            kill: Some(Kill {
                when: KillTime::AfterReturn,
                by: SignalSender::UserSpace,
            }),
            unmet: unmet.clone(),
            ..Plan::default()
        }));
        for one in &unmet {
            let expected = format!("\n  {one}\n      hint: {}\n", one.hint());
            assert!(text.contains(&expected), "{expected}{text}");
        }
        for name in ["families", "unix ", "packets"] {
            assert_eq!(row(&text, name), "no", "{text}");
        }
        assert_eq!(row(&text, "block"), "the call fails with EPERM");
    }

    #[test]
    fn features_that_were_not_tried_are_neither_yes_nor_no() {
        let text = text(&report(Plan {
            enforcement: Enforcement::Full,
            unix_sockets: true,
            ..Plan::default()
        }));
        assert_eq!(row(&text, "unix"), "rules about unix sockets are enforced");
        for name in ["families", "packets", "migrations", "existing"] {
            assert_eq!(row(&text, name), "not tried", "{text}");
        }
        assert!(!text.contains("does not meet"), "{text}");
    }
}
