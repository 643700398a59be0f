//! `tidegate selftest`: whether anything gets out.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use serde_json::json;

use super::{attached::require_root, policy_files, status_text::table};
use crate::{
    cli::{Exit, Failure, Output, environment, output::print, variable::VariableArgs},
    events::{escape::escaped, json::document},
    selftest::{
        Progress, built_in,
        report::{Line, Report, Status},
        run as try_all,
    },
};

/// Try every known way out against a receiver of our own, on this kernel
///
/// Makes a network namespace (loopback only) and a cgroup, listens there, and sends something by every way out
/// that this version knows: first without a gate, to see that it arrives, then behind the gate of `exec`. What
/// counts is what arrived at the receiver. Nothing leaves the machine, nothing stays.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
STATUS: blocked (HOOK says by which hook, as its event said); reported (it arrived: the policy only audits);
allowed (it arrived: the policy allows it); OPEN (the policy forbids it, and it arrived; WHY says why); not on
this kernel (it does not arrive without the gate either); failed (nothing arrived, but no hook said so).

Not tried: further subflows of MPTCP, IPv6 routing headers, DCCP, families without IP (vsock and others), unix
sockets, moves between cgroups.

Examples:
  sudo tidegate selftest
  sudo tidegate selftest --policy policies/build-sandbox.yaml
  sudo tidegate selftest --output json | jq '.ways[] | select(.status == \"open\")'

Exit codes:
  0 nothing arrived that the policy forbids; 5 only by ways that are known to be open (SECURITY.md); 6 by others;
  1 could not run; 3 the policy is not valid.")]
pub struct SelftestArgs {
    /// The policy to try; without, one that forbids the receivers
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub policy: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub variables: VariableArgs,
}

/// Tries, and prints.
///
/// # Errors
/// When it could not be tried to the end.
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
                None => return Err(Failure::of(Exit::Usage, "there is no policy")),
            }
        }
    };
    let is_watched = std::io::stderr().is_terminal();
    let tell = |progress: Progress<'_>| {
        if is_watched {
            let Progress { done, all, way } = progress;
            // Where it cannot be written, it is not wanted.
            let _ = write!(std::io::stderr(), "\r\x1b[K{done}/{all} {way}");
        }
    };
    let report = try_all(&environment::instance(Exit::Usage)?, &policy, tell);
    if is_watched {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let report =
        report.map_err(|error| failed(&error).hint("`tidegate probe` tells what this machine lets us do"))?;
    print(&match output {
        Output::Json => document(&json!(report)),
        Output::Text => text(&report),
    })?;
    Ok(exit(&report).into())
}

fn exit(report: &Report) -> Exit {
    match (report.has_escaped(), report.count(Status::Open)) {
        (true, _) => Exit::Escaped,
        (false, 0) => Exit::Fine,
        (false, _) => Exit::Partial,
    }
}

fn text(report: &Report) -> String {
    let header = ["WAY", "DESTINATION", "STATUS", "HOOK", "CALLER SAW", "WHY"];
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
        "{}\nLinux {}, policy {} ({}): {}\n",
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
    fn the_exit_code_is_the_worst() {
        let blocked = (Status::Blocked, false);
        assert_eq!(exit(&report(&[blocked])), Exit::Fine);
        assert_eq!(exit(&report(&[blocked, (Status::Open, true)])), Exit::Partial);
        assert_eq!(
            exit(&report(&[(Status::Open, true), (Status::Open, false), blocked])),
            Exit::Escaped
        );
    }
}
