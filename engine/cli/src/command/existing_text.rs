//! Text output about sockets that existed when a policy was attached.

use std::fmt::Write;

use super::text_table::table;
use tidegate_core::{
    control::{ExistingReport, ExistingSocket, Fate},
    digits::grouped,
    events::escape::{escaped, word},
};

/// A table of the sockets that are not silently allowed, and a line with counts.
pub(super) fn text(report: &ExistingReport) -> String {
    let header = [
        "PROTO", "LOCAL", "PEER", "STATE", "CGROUP", "PROCESS", "VERDICT", "RULE", "RESULT",
    ];
    let reported: Vec<&ExistingSocket> = report.sockets.iter().filter(|socket| !socket.inbound).collect();
    let mut text = String::new();
    if !reported.is_empty() {
        text += &table(header, reported.iter().map(|socket| row(socket)), &[]);
    }
    let fates = [
        (Fate::Destroyed, "destroyed"),
        (Fate::Disconnected, "only disconnected"),
        (Fate::NotDestroyed, "not destroyed"),
        (Fate::WouldDestroy, "would be destroyed"),
        (Fate::Gone, "closed meanwhile"),
    ];
    let mut parts = vec![format!("{} allowed", grouped(report.allowed as u64))];
    parts.push(format!("{} reported", grouped(reported.len() as u64)));
    for (fate, what) in fates {
        let count = reported.iter().filter(|socket| socket.fate == fate).count();
        if count > 0 {
            parts.push(format!("{} {what}", grouped(count as u64)));
        }
    }
    parts.push(format!("{} inbound, unchanged", grouped(report.inbound as u64)));
    // Writing to a string cannot fail.
    let _ = writeln!(text, "existing sockets: {}", parts.join(", "));
    if !report.unseen.is_empty() {
        let _ = writeln!(
            text,
            "! this kernel cannot list sockets of {}",
            report.unseen.join(" and ")
        );
    }
    for problem in &report.problems {
        let _ = writeln!(text, "! {}", escaped(problem.as_bytes()));
    }
    text
}

fn row(socket: &ExistingSocket) -> [String; 9] {
    let processes: Vec<String> = socket
        .processes
        .iter()
        .map(|process| format!("{}[{}]", word(process.comm.as_bytes()), process.pid))
        .collect();
    let fate = match socket.fate {
        Fate::Left => "-",
        Fate::WouldDestroy => "would be destroyed",
        Fate::Destroyed => "destroyed",
        Fate::Disconnected => "disconnected",
        Fate::NotDestroyed => "NOT DESTROYED",
        Fate::Gone => "closed",
    };
    let cause = socket.cause.as_ref().map(|cause| format!(": {cause}"));
    let rule = match (&socket.rule, socket.fault) {
        (Some(rule), _) => rule.clone(),
        (None, Some(fault)) => format!("({fault})"),
        (None, None) => "(default)".to_owned(),
    };
    let cgroup = match &socket.cgroup {
        Some(cgroup) => escaped(cgroup.as_bytes()).to_string(),
        None => "(removed)".to_owned(),
    };
    [
        socket.protocol.clone(),
        socket.local.clone(),
        socket.peer.clone().unwrap_or_else(|| "-".to_owned()),
        socket.state.to_owned(),
        cgroup,
        if processes.is_empty() {
            format!("(uid {})", socket.uid)
        } else {
            processes.join(", ")
        },
        socket.verdict.unwrap_or_default().to_owned(),
        format!("{}/{rule}", socket.policy.as_deref().unwrap_or_default()),
        format!("{fate}{}", cause.unwrap_or_default()),
    ]
}
