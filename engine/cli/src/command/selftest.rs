//! `tidegate selftest`: tests whether any egress method bypasses a policy.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use serde_json::json;

use super::{attached::require_root, policy_files, text_table::table};
use crate::{Exit, Failure, Output, environment, help::HelpEnd, output::print, variable_args::VariableArgs};
use tidegate_core::events::{escape::escaped, json::document};
use tidegate_selftest::{
    Progress, built_in,
    report::{CaseResult, Report, TestResult},
    run as run_all,
};

/// Test on this kernel whether a policy stops every egress path that tidegate knows
///
/// An egress path is a way for a process to send data to another host; docs/egress-paths.md lists those that this
/// version tests. selftest creates a network namespace (loopback only) and two cgroups, starts a receiver (a local test
/// server), and sends a message on each path: first without a policy, to check that it arrives, then under the policy,
/// with the programs that `exec` attaches. The result is what arrives at the receiver. Nothing leaves the machine, and
/// everything is removed afterwards. Needs root.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help())]
pub struct SelftestArgs {
    /// The policy to test; by default, one that blocks the receivers
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub policy: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub variables: VariableArgs,
}

fn help() -> String {
    HelpEnd {
        notes: &[
            "RESULT is BLOCKED (nothing arrived; HOOK is the hook that denied it), REPORTED (it arrived; the policy only \
             audits it), ALLOWED (it arrived; the policy allows it), BYPASS (it arrived although the policy denies it; see \
             REASON), UNSUPPORTED (nothing arrives, even without a policy) or FAILED (nothing arrived, but no event reports \
             a denial). FAILED and UNSUPPORTED do not change the exit code.",
            "Not tested: additional MPTCP subflows, IPv6 routing headers, DCCP, address families other than IP and packet, \
             unix sockets, and cgroup migrations.",
        ],
        examples: &[
            ("Test this kernel", &["sudo tidegate selftest"]),
            ("Test a policy", &["sudo tidegate selftest --policy shop.yaml"]),
            (
                "List the bypasses",
                &[
                    "sudo tidegate selftest --output json |",
                    "  jq '.cases[] | select(.result == \"bypass\")'",
                ],
            ),
        ],
        exits: &[
            (Exit::Success, "no bypass"),
            (Exit::CouldNotRun, "could not run, or the result of a case is FAILED"),
            (Exit::Usage, "invalid command line"),
            (Exit::PolicyInvalid, "the policy is not valid"),
            (Exit::Partial, "only bypasses that are known limitations (SECURITY.md)"),
            (Exit::Bypass, "found a bypass"),
        ],
        ..HelpEnd::default()
    }
    .text()
}

/// Runs the self-test and prints its report.
///
/// # Errors
/// When the policy cannot be loaded, or the self-test cannot be run.
pub fn run(args: &SelftestArgs, output: Output) -> Result<ExitCode, Failure> {
    require_root("selftest")?;
    let policy = match &args.policy {
        None => built_in().map_err(|error| Failure::by(Exit::CouldNotRun, &error))?,
        Some(file) => {
            let context = args.variables.context();
            let files = std::slice::from_ref(file);
            let mut policies = policy_files::load_all(files, &context, output, Exit::CouldNotRun)?;
            match policies.pop() {
                Some(sourced) => sourced.policy,
                None => return Err(Failure::of(Exit::Usage, "there is no policy")),
            }
        }
    };
    let is_watched = std::io::stderr().is_terminal();
    let show = |progress: Progress<'_>| {
        if is_watched {
            let Progress { done, total, method } = progress;
            // Progress is optional: ignore a write error.
            let _ = write!(std::io::stderr(), "\r\x1b[K{done}/{total} {method}");
        }
    };
    let instance = environment::instance(Exit::Usage)?;
    let report = run_all(&instance, &environment::variables(), &policy, show);
    if is_watched {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let report = report.map_err(|error| Failure::by(Exit::CouldNotRun, &error))?;
    print(&match output {
        Output::Json => document(&json!(report)),
        Output::Text => text(&report),
    })?;
    Ok(exit(&report).into())
}

fn exit(report: &Report) -> Exit {
    if report.has_unknown_bypass() {
        return Exit::Bypass;
    }
    match (report.count(TestResult::Failed), report.count(TestResult::Bypass)) {
        (0, 0) => Exit::Success,
        (0, _) => Exit::Partial,
        // Nothing arrived and no event says why: that shows nothing.
        _ => Exit::CouldNotRun,
    }
}

fn text(report: &Report) -> String {
    let header = ["METHOD", "DESTINATION", "RESULT", "HOOK", "ERRNO", "REASON"];
    let none = "-".to_owned();
    let row = |case: &CaseResult| {
        [
            case.method.to_owned(),
            case.destination.to_owned(),
            case.result.as_str().to_owned(),
            case.hook.map_or(none.clone(), str::to_owned),
            case.errno.clone().unwrap_or_else(|| none.clone()),
            case.reason.clone().unwrap_or_default(),
        ]
    };
    let counts: Vec<String> = TestResult::ALL
        .into_iter()
        .map(|result| (report.count(result), result.as_str()))
        .filter(|(count, _)| *count > 0)
        .map(|(count, result)| format!("{count} {result}"))
        .collect();
    let unmet: String = report
        .unmet
        .iter()
        .map(|one| format!("partially enforced: {}\n", escaped(one.to_string().as_bytes())))
        .collect();
    format!(
        "{unmet}{}\nLinux {}, policy {} (mode {}): {}\n",
        table(header, report.cases.iter().map(row), &[]),
        escaped(report.kernel.as_bytes()),
        report.policy,
        report.mode,
        counts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(results: &[(TestResult, bool)]) -> Report {
        let case = |&(result, known_limitation): &(TestResult, bool)| CaseResult {
            method: "",
            about: "",
            destination: "",
            result,
            forbidden: true,
            arrived: 0,
            hook: None,
            outcome: None,
            errno: None,
            known_limitation,
            reason: None,
        };
        let policy = built_in().unwrap();
        Report::new(
            String::new(),
            &policy,
            Vec::new(),
            results.iter().map(case).collect(),
        )
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst_result() {
        let blocked = (TestResult::Blocked, false);
        let failed = (TestResult::Failed, false);
        assert_eq!(exit(&report(&[blocked, failed])), Exit::CouldNotRun);
        assert_eq!(
            exit(&report(&[failed, (TestResult::Bypass, true)])),
            Exit::CouldNotRun
        );
        assert_eq!(
            exit(&report(&[failed, (TestResult::Bypass, false)])),
            Exit::Bypass
        );
        let limitation = (TestResult::Bypass, true);
        assert_eq!(exit(&report(&[blocked])), Exit::Success);
        assert_eq!(exit(&report(&[blocked, limitation])), Exit::Partial);
        assert_eq!(
            exit(&report(&[limitation, (TestResult::Bypass, false), blocked])),
            Exit::Bypass
        );
    }
}
