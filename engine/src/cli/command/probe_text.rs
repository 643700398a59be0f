//! What was found, for people.

use std::fmt::Write;

use crate::{
    events::escape::escaped,
    probe::{Answer, Attach, Enforcement, Finding, KillTime, Plan, Report},
};

/// How many things are named that one change would give.
const NAMED: usize = 6;

/// The whole report.
pub(super) fn text(report: &Report) -> String {
    let mut text = format!(
        "Linux {} ({})\n",
        escaped(report.kernel.release.as_bytes()),
        report.kernel.machine
    );
    for (title, findings) in [
        ("Here", &report.surroundings),
        ("Hooks", &report.hooks),
        ("Helpers", &report.helpers),
        ("Tables and sockets", &report.tables),
    ] {
        group(&mut text, title, findings);
    }
    plan(&mut text, &report.plan, report.attached);
    let advice = report.advice();
    if !advice.is_empty() {
        text += "\nTo get more\n";
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
        && first.answer == Answer::Unknown
        && !others.is_empty()
        && others.iter().all(|other| other.reason == first.reason)
    {
        let why = first.reason.as_deref().unwrap_or_default();
        return line(text, &format!("  none could be tried: {why}"));
    }
    for finding in findings {
        let mut said = String::new();
        if let Some(reached) = finding.reached
            && finding.answer == Answer::Yes
        {
            said = format!("{reached}; ");
        }
        said += match &finding.reason {
            Some(reason) if !reason.is_empty() => reason,
            _ => &finding.purpose,
        };
        if finding.answer != Answer::Yes && finding.reason.is_some() {
            said += &format!(" [{}]", finding.purpose);
        }
        let (name, answer) = (finding.name, finding.answer.as_str());
        line(text, &format!("  {name:<width$}  {answer:<3}  {said}"));
    }
}

fn plan(text: &mut String, plan: &Plan, attached: Attach) {
    text.push_str(match attached {
        Attach::Nothing => "\nPlan, supposing that what loads can be attached\n",
        Attach::Everything | Attach::OwnCgroup => "\nPlan\n",
    });
    let missing = plan.missing.join(", ");
    let enforce = match plan.enforcement {
        Enforcement::Full => "every hook that denies can be used".to_owned(),
        Enforcement::Partial => format!("in part: without {missing}, ways out stay open"),
        Enforcement::None => format!("no: without {missing} nothing can be denied"),
    };
    let nothing = "-".to_owned();
    let audit = plan.audit_source_port.map(|port| match port {
        true => "every attempt is told, TCP connects with their source port",
        false => "every attempt is told, without source ports",
    });
    let block = plan.block_errno.map(|errno| match errno {
        "policy" => "the call fails with the errno of the policy",
        _ => "the call fails with EPERM, whatever the policy says",
    });
    let kill = plan.kill.map(|kill| match (kill.when, kill.by) {
        (KillTime::BeforeReturn, "lsm") => "before the call returns, by the LSM hooks",
        (KillTime::BeforeReturn, _) => "before the call returns, by the cgroup hooks",
        (KillTime::Later, _) => {
            "the call is denied at once; the signal comes a moment later, from user space"
        }
    });
    let either = |can: bool, yes: &str, no: &str| match (plan.enforcement, can) {
        (Enforcement::None, _) => "-".to_owned(),
        (_, true) => yes.to_owned(),
        (_, false) => no.to_owned(),
    };
    let rows = [
        ("enforce", enforce),
        ("audit", audit.map_or(nothing.clone(), str::to_owned)),
        ("block", block.map_or(nothing.clone(), str::to_owned)),
        ("kill", kill.map_or(nothing, str::to_owned)),
        (
            "families",
            either(
                plan.other_families,
                "packet, vsock and others are judged when a socket is made",
                "IPv4 and IPv6 only: packet, vsock and others have no hook that is used",
            ),
        ),
        (
            "unix",
            either(
                plan.unix_sockets,
                "unix sockets that rules name are judged",
                "unix sockets are not judged, and policies with rules about them refused",
            ),
        ),
        (
            "packets",
            either(
                plan.packets,
                "judged at the edge of the cgroup, whatever sent them",
                "not looked at: sockets that are connected go on",
            ),
        ),
        (
            "moves",
            match (plan.enforcement, plan.moves) {
                (Enforcement::None, _) | (_, None) => "-".to_owned(),
                (_, Some(true)) => "who leaves the cgroup of a standing policy is reported".to_owned(),
                (_, Some(false)) => "who leaves the cgroup of a standing policy is not reported".to_owned(),
            },
        ),
        (
            "existing",
            match (plan.enforcement, plan.existing_sockets) {
                (Enforcement::None, _) | (_, None) => "-".to_owned(),
                (_, Some(true)) => "this kernel can cut connections that were there before".to_owned(),
                (_, Some(false)) => "connections that were there before cannot be cut".to_owned(),
            },
        ),
    ];
    for (name, said) in rows {
        line(text, &format!("  {name:<9} {said}"));
    }
    if !plan.not_used.is_empty() {
        let names = plan.not_used.join(", ");
        line(
            text,
            &format!("  works here, but this version of tidegate has no use for it: {names}"),
        );
    }
}
