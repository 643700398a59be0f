//! `tidegate exec`: runs one command under policies.

pub mod args;
mod policies;
mod recorder;

use std::{
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    process::ExitCode,
};

use self::{
    args::{DescendantsAction, ExecArgs, KeptFds},
    recorder::Recorder,
};
use crate::{Exit, Failure, Output, environment};
use tidegate_core::{
    events::{Clock, Layout, ReportFile, escape::escaped, json, table},
    exec::{ExecError, ExecOutcome, ExecRequest, Session},
    hint::Hint,
    host::PolicyUnmet,
    launch::{self, CapabilitySet, Command, KeepFds, OrphanAction, TargetUser},
};

/// Runs the command and returns its exit code.
///
/// # Errors
/// When the command was not started, or cannot be waited for.
pub fn run(args: &ExecArgs, output: Output) -> Result<ExitCode, Failure> {
    let command = command_of(args)?;
    let instance = environment::instance(Exit::ExecFailed)?;
    let request = ExecRequest {
        policies: policies::gather(args, output)?,
        command,
        orphans: match args.descendants {
            DescendantsAction::End => OrphanAction::Terminate,
            DescendantsAction::Wait => OrphanAction::Wait,
            DescendantsAction::Keep => OrphanAction::Keep,
        },
        best_effort: args.best_effort,
        cgroup_manager: args.cgroup_manager.into(),
    };
    // From here on a signal goes to the command, and tidegate exits when the command does.
    let session = Session::open(instance, request).map_err(failed)?;
    let report = args.report.as_deref().map(ReportFile::create).transpose();
    let report = report.map_err(|error| Failure::by(Exit::ExecFailed, &error))?;
    let clock = Clock::capture().map_err(|error| failed(ExecError::Clock(error)))?;
    let mut recorder = Recorder::new(args.live.then_some(output), report);
    let outcome = session.run(clock, &mut recorder).map_err(failed)?;
    report_end(args, output, &outcome, &mut recorder);
    Ok(ExitCode::from(outcome.finished.exit.code() as u8))
}

fn failed(error: ExecError) -> Failure {
    let exit = match &error {
        ExecError::NoPolicy | ExecError::TooManyPolicies { .. } | ExecError::OnlyReports { .. } => {
            Exit::Usage
        }
        ExecError::Spawn(error) => match error.exit_code() {
            126 => Exit::NotExecutable,
            127 => Exit::NotFound,
            _ => Exit::ExecFailed,
        },
        _ => Exit::ExecFailed,
    };
    Failure::by(exit, &error)
}

fn command_of(args: &ExecArgs) -> Result<Command, Failure> {
    let Some((program, rest)) = args.command.split_first() else {
        return Err(Failure::of(Exit::Usage, "no command given"));
    };
    let usage = |error: &dyn Hint| Failure::by(Exit::Usage, error);
    let environment = environment::variables();
    let user = match &args.user {
        Some(user) => TargetUser::parse(user).map_err(|e| usage(&e))?,
        None => TargetUser::invoking(&environment).map_err(|e| Failure::by(Exit::ExecFailed, &e))?,
    };
    let mut kept = CapabilitySet::NONE;
    for name in &args.keep_capability {
        let named = name.parse().map_err(|e: launch::UnknownCapability| usage(&e))?;
        kept = kept.union(named);
    }
    let mut command = Command::new(program, environment);
    command.args = rest.to_vec();
    command.user = user;
    command.keep_capabilities = kept;
    command.keep_fds = match &args.keep_fds {
        KeptFds::Standard => KeepFds::Standard,
        KeptFds::Also(fds) => KeepFds::Also(fds.clone()),
        KeptFds::All => KeepFds::All,
    };
    Ok(command)
}

/// Prints the report when the command has ended, to standard error.
fn report_end(args: &ExecArgs, output: Output, outcome: &ExecOutcome, recorder: &mut Recorder) {
    let exit = match outcome.finished.exit {
        launch::Exit::Code(code) => json::Exit {
            code: Some(code),
            signal: None,
        },
        launch::Exit::Signal(signal) => json::Exit {
            code: None,
            signal: Some(signal),
        },
    };
    let summary = recorder.finish(&args.command, exit, outcome);
    let mut stderr = anstream::stderr();
    // When standard error is closed, only the exit code of the command is left.
    let mut write = |text: &str| {
        let _ = stderr.write_all(text.as_bytes());
    };
    // Partial enforcement is never silent.
    if output == Output::Text || args.quiet {
        write(&partial_text(&outcome.unmet, args.quiet));
    }
    if !args.quiet {
        match output {
            Output::Text => {
                let layout = Layout {
                    styled: true,
                    width: terminal_width(),
                };
                write(&table(recorder.tally(), &outcome.counters, layout));
            }
            Output::Json => {
                if let Ok(line) = json::line(&summary) {
                    write(&format!("{line}\n"));
                }
            }
        }
        if let Some(kept) = &outcome.kept {
            write(&format!(
                "tidegate: note: processes are still running under the policy in {}\n",
                escaped(kept.as_os_str().as_bytes())
            ));
        }
    }
    if let Some(error) = recorder.failure() {
        write(&format!("tidegate: warning: the report is incomplete: {error}\n"));
    }
    // The loaded programs are of another version.
    let undecodable = outcome.skipped.undecodable + outcome.skipped.unknown_kind;
    if undecodable > 0 {
        write(&format!(
            "tidegate: warning: {undecodable} events could not be decoded\n"
        ));
    }
}

/// What was not enforced: one line for each unmet requirement, or one for all.
fn partial_text(unmet: &[PolicyUnmet], in_one_line: bool) -> String {
    if unmet.is_empty() {
        return String::new();
    }
    if in_one_line {
        let names: Vec<String> = unmet
            .iter()
            .map(|PolicyUnmet { policy, unmet }| format!("{policy}: {}", unmet.code()))
            .collect();
        return format!("tidegate: partially enforced; unmet: {}\n", names.join(", "));
    }
    let line = |PolicyUnmet { policy, unmet }: &PolicyUnmet| {
        let unmet = unmet.to_string();
        format!(
            "tidegate: partially enforced: policy {policy}: {}\n",
            escaped(unmet.as_bytes())
        )
    };
    unmet.iter().map(line).collect()
}

/// Columns of the terminal on standard error.
fn terminal_width() -> Option<u16> {
    let (width, _) = terminal_size::terminal_size_of(io::stderr())?;
    Some(width.0)
}
