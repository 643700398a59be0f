//! Text output of `tidegate probe`.

use std::fmt::Write;

use crate::{
    events::escape::escaped,
    probe::{Answer, Attach, Enforcement, Finding, KillTime, Plan, Report},
};

/// Maximum number of features that are listed for one hint.
const NAMED: usize = 6;

/// The whole report.
pub(super) fn text(report: &Report) -> String {
    let mut text = format!(
        "Linux {} ({})\n",
        escaped(report.kernel.release.as_bytes()),
        report.kernel.machine
    );
    for (title, findings) in [
        ("Environment", &report.surroundings),
        ("Hooks", &report.hooks),
        ("Helpers", &report.helpers),
        ("Maps and sockets", &report.tables),
    ] {
        group(&mut text, title, findings);
    }
    plan(&mut text, &report.plan, report.attached);
    let advice = report.advice();
    if !advice.is_empty() {
        text += "\nTo enable more\n";
        for (remedy, names) in advice {
            let named = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
            let more = match names.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            line(&mut text, &format!("  {remedy}\n      for {named}{more}"));
        }
    }
    text
}

/// Appends lines; untrusted text in them is escaped.
fn line(text: &mut String, line: &str) {
    for part in line.split('\n') {
        // Writing to a string cannot fail.
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
        && first.answer == Answer::Unknown
        && !others.is_empty()
        && others.iter().all(|other| other.reason == first.reason)
    {
        let why = first.reason.as_deref().unwrap_or_default();
        return line(text, &format!("  not tested: {why}"));
    }
    for finding in findings {
        let mut detail = String::new();
        if let Some(reached) = finding.reached
            && finding.answer == Answer::Yes
        {
            detail = format!("{reached}; ");
        }
        detail += match &finding.reason {
            Some(reason) if !reason.is_empty() => reason,
            _ => &finding.purpose,
        };
        if finding.answer != Answer::Yes && finding.reason.is_some() {
            detail += &format!(" [{}]", finding.purpose);
        }
        let (name, answer) = (finding.name, finding.answer.as_str());
        line(text, &format!("  {name:<width$}  {answer:<3}  {detail}"));
    }
}

fn plan(text: &mut String, plan: &Plan, attached: Attach) {
    text.push_str(match attached {
        Attach::Nothing => "\nPlan, assuming that programs that load can be attached\n",
        Attach::Everything | Attach::OwnCgroup => "\nPlan\n",
    });
    let missing = plan.missing.join(", ");
    let enforce = match plan.enforcement {
        Enforcement::Full => "full: all hooks that deny are available".to_owned(),
        Enforcement::Partial => {
            format!("partial: egress paths stay open, because these hooks are missing: {missing}")
        }
        Enforcement::None => format!("none: nothing can be denied, because these are missing: {missing}"),
    };
    let nothing = "-".to_owned();
    let audit = plan.audit_source_port.map(|port| match port {
        true => "all attempts are reported, TCP connections with their local port",
        false => "all attempts are reported, without local ports",
    });
    let block = plan.block_errno.map(|errno| match errno {
        "policy" => "the call fails with the errno of the policy",
        _ => "the call always fails with EPERM",
    });
    let kill = plan.kill.map(|kill| match (kill.when, kill.by) {
        (KillTime::BeforeReturn, "lsm") => "the process is killed before the call returns, by LSM programs",
        (KillTime::BeforeReturn, _) => "the process is killed before the call returns, by cgroup hooks",
        (KillTime::Later, _) => "the call is denied; user space kills the process a moment later",
    });
    let either = |can: bool, yes: &str, no: &str| match (plan.enforcement, can) {
        (Enforcement::None, _) => "-".to_owned(),
        (_, true) => yes.to_owned(),
        (_, false) => no.to_owned(),
    };
    let rows = [
        ("enforcement", enforce),
        ("audit", audit.map_or(nothing.clone(), str::to_owned)),
        ("block", block.map_or(nothing.clone(), str::to_owned)),
        ("kill", kill.map_or(nothing, str::to_owned)),
        (
            "families",
            either(
                plan.other_families,
                "packet, vsock and other sockets are checked when they are created",
                "only IPv4 and IPv6; packet, vsock and other sockets are not checked",
            ),
        ),
        (
            "unix",
            either(
                plan.unix_sockets,
                "rules with `unix` are enforced",
                "not available: policies with `unix` rules are refused",
            ),
        ),
        (
            "packets",
            either(
                plan.packets,
                "`strict` policies also check every packet that leaves the cgroup",
                "not available: connected sockets keep their connections",
            ),
        ),
        (
            "migration",
            match (plan.enforcement, plan.moves) {
                (Enforcement::None, _) | (_, None) => "-".to_owned(),
                (_, Some(true)) => "tasks that leave a cgroup with attached policies are reported".to_owned(),
                (_, Some(false)) => {
                    "tasks that leave a cgroup with attached policies are not reported".to_owned()
                }
            },
        ),
        (
            "existing",
            match (plan.enforcement, plan.existing_sockets) {
                (Enforcement::None, _) | (_, None) => "-".to_owned(),
                (_, Some(true)) => "connections older than the policy can be destroyed".to_owned(),
                (_, Some(false)) => "connections older than the policy cannot be destroyed".to_owned(),
            },
        ),
    ];
    for (name, detail) in rows {
        line(text, &format!("  {name:<11} {detail}"));
    }
    if !plan.not_used.is_empty() {
        let names = plan.not_used.join(", ");
        line(
            text,
            &format!("  available, but not used by this version of tidegate: {names}"),
        );
    }
}
