//! `tidegate selftest`: tests whether an egress path bypasses a policy.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use serde_json::json;

use super::{attached::require_root, policy_files, status_text::table};
use crate::{
    cli::{
        Exit, Failure, Output,
        help::HelpEnd,
        output::{document, print},
        variable::VariableArgs,
    },
    events::escape::escaped,
    selftest::{
        Progress, built_in,
        report::{Line, Report, Status},
        run as try_all,
    },
};

/// Test on this kernel whether any known egress path bypasses a policy
///
/// Use it on a new kernel, or to test a policy of your own. Creates a network namespace with a loopback device and
/// a cgroup, and sends to a receiver there by every egress path that this version knows: first without a policy, to
/// check that it arrives, then under the policy. The result is what the receiver got. No packet leaves the machine,
/// and everything is removed afterwards. Needs root.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help())]
pub struct SelftestArgs {
    /// Policy file to test; default: a policy that denies the receivers
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub policy: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub variables: VariableArgs,
}

fn help() -> String {
    HelpEnd {
        notes: &[
            "STATUS is blocked (HOOK is the hook that denied it), reported (it arrived; the policy only audits), allowed \
             (it arrived; the policy allows it), OPEN (it arrived although the policy denies it), not on this kernel (it \
             does not arrive without a policy either) or failed (it did not arrive, but no hook reported it). CALLER SAW \
             is the errno of the call.",
            "Not tested: further subflows of MPTCP, IPv6 routing headers, DCCP, address families other than IP, unix \
             sockets, and cgroup migrations.",
        ],
        examples: &[
            ("Test this kernel", &["sudo tidegate selftest"]),
            ("Test a policy", &["sudo tidegate selftest --policy shop.yaml"]),
            (
                "List the egress paths that are open",
                &[
                    "sudo tidegate selftest --output json |",
                    "  jq '.. | objects | select(.status? == \"open\")'",
                ],
            ),
        ],
        exits: &[
            (Exit::Success, "nothing arrived that the policy denies"),
            (Exit::CouldNotRun, "could not run"),
            (Exit::Usage, "invalid command line"),
            (Exit::PolicyInvalid, "the policy is not valid"),
            (Exit::Partial, "only paths arrived that SECURITY.md lists as open"),
            (Exit::Bypass, "found a bypass"),
        ],
        ..HelpEnd::default()
    }
    .text()
}

/// Runs the self-test and prints the report.
///
/// # Errors
/// When it could not be completed.
pub fn run(args: &SelftestArgs, output: Output) -> Result<ExitCode, Failure> {
    require_root("selftest")?;
    let failed = |error: &dyn std::error::Error| Failure::by(Exit::CouldNotRun, error);
    let policy = match &args.policy {
        None => built_in().map_err(|error| failed(&error))?,
        Some(file) => {
            let context = args.variables.context();
            let files = std::slice::from_ref(file);
            let mut policies = policy_files::load_all(files, &context, output, Exit::CouldNotRun)?;
            match policies.pop() {
                Some(sourced) => sourced.policy,
                None => return Err(Failure::of(Exit::Usage, "no policy given")),
            }
        }
    };
    let shows_progress = std::io::stderr().is_terminal();
    let progress = |progress: Progress<'_>| {
        if shows_progress {
            let Progress { done, all, way } = progress;
            // Progress is optional.
            let _ = write!(std::io::stderr(), "\r\x1b[K{done}/{all} {way}");
        }
    };
    let report = try_all(&policy, progress);
    if shows_progress {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let report =
        report.map_err(|error| failed(&error).hint("`tidegate probe` shows what this machine supports"))?;
    print(&match output {
        Output::Json => document(&json!(report)),
        Output::Text => text(&report),
    })?;
    Ok(exit(&report).into())
}

fn exit(report: &Report) -> Exit {
    match (report.has_escaped(), report.count(Status::Open)) {
        (true, _) => Exit::Bypass,
        (false, 0) => Exit::Success,
        (false, _) => Exit::Partial,
    }
}

fn text(report: &Report) -> String {
    let header = [
        "EGRESS PATH",
        "DESTINATION",
        "STATUS",
        "HOOK",
        "CALLER SAW",
        "REASON",
    ];
    let nothing = "-".to_owned();
    let row = |line: &Line| {
        [
            line.way.to_owned(),
            line.destination.to_owned(),
            line.status.as_str().to_owned(),
            line.hook.map_or(nothing.clone(), str::to_owned),
            line.errno.clone().unwrap_or_else(|| nothing.clone()),
            line.why.clone().unwrap_or_default(),
        ]
    };
    let counts: Vec<String> = [
        Status::Blocked,
        Status::Reported,
        Status::Allowed,
        Status::Open,
        Status::Failed,
        Status::NotHere,
    ]
    .into_iter()
    .filter(|status| report.count(*status) > 0)
    .map(|status| format!("{} {}", report.count(status), status.as_str()))
    .collect();
    format!(
        "{}\nLinux {}, policy {} (mode {}): {}\n",
        table(header, report.ways.iter().map(row), &[]),
        escaped(report.kernel.as_bytes()),
        report.policy,
        report.mode,
        counts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ways: &[(Status, bool)]) -> Report {
        let line = |&(status, known): &(Status, bool)| Line {
            way: "",
            destination: "",
            status,
            forbidden: true,
            arrived: 0,
            hook: None,
            outcome: None,
            errno: None,
            known,
            why: None,
        };
        Report {
            kernel: String::new(),
            policy: String::new(),
            mode: "enforce",
            ways: ways.iter().map(line).collect(),
        }
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst_status() {
        let blocked = (Status::Blocked, false);
        assert_eq!(exit(&report(&[blocked])), Exit::Success);
        assert_eq!(exit(&report(&[blocked, (Status::Open, true)])), Exit::Partial);
        assert_eq!(
            exit(&report(&[(Status::Open, true), (Status::Open, false), blocked])),
            Exit::Bypass
        );
    }
}
