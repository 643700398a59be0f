//! `tidegate exec`: one command under its policies.

pub mod args;
mod notes;
mod policies;
pub(crate) mod recorder;
mod session;

use std::{
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    process::ExitCode,
};

use self::{
    args::{ExecArgs, KeptFds, Survivors},
    recorder::Recorder,
    session::Outcome,
};
use crate::{
    cgroup::Hierarchy,
    cli::{Exit, Failure, Output, environment},
    datapath::Features,
    events::{Layout, ReportFile, escape::escaped, json, table},
    launch::{self, CapabilitySet, Command, Descendants, KeepFds, Needs, SignalSource, TargetUser},
};

/// Runs the command and gives its exit code.
///
/// # Errors
/// When it was not started, or cannot be waited for.
pub fn run(args: &ExecArgs, output: Output) -> Result<ExitCode, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::by(Exit::ExecFailed, error);
    let command = command_of(args)?;
    let instance = environment::instance(Exit::ExecFailed)?;
    let policies = policies::gather(args, output)?;
    // Before anything is made that has to be cleaned up: from here on a signal ends the command, and
    // its end ends us.
    let signals = SignalSource::open().map_err(|e| failed(&e))?;
    let hierarchy = Hierarchy::find().map_err(|e| failed(&e))?;
    let needs = Needs::of(&command.user, command.isolates());
    needs.check(&hierarchy).map_err(|e| failed(&e))?;
    let report = args.report.as_deref().map(ReportFile::create).transpose();
    let report = report.map_err(|e| failed(&e))?;
    let mut recorder = Recorder::new(args, output, report).map_err(|e| failed(&e))?;

    let descendants = match args.descendants {
        Survivors::End => Descendants::End,
        Survivors::Wait => Descendants::Wait,
        Survivors::Keep => Descendants::Keep,
    };
    let features = Features::detect(&instance.disabled);
    policies::require_hooks(&policies, features, &instance.disabled)?;
    if !args.quiet {
        for note in notes::notes(&policies, features, &instance.disabled) {
            // Where the reader is gone, the command runs all the same.
            let _ = writeln!(anstream::stderr(), "tidegate: note: {note}");
        }
    }
    let session = session::Session {
        policies: &policies,
        command: &command,
        descendants,
        instance: &instance,
        features,
        signals: &signals,
        hierarchy: &hierarchy,
    };
    let outcome = session::run(&session, &mut recorder)?;
    report_end(args, output, &outcome, &mut recorder);
    Ok(ExitCode::from(outcome.finished.exit.code() as u8))
}

fn command_of(args: &ExecArgs) -> Result<Command, Failure> {
    let Some((program, rest)) = args.command.split_first() else {
        return Err(Failure::of(Exit::Usage, "there is no command"));
    };
    let usage = |error: &dyn std::error::Error| Failure::by(Exit::Usage, error);
    let user = match &args.user {
        Some(user) => TargetUser::parse(user).map_err(|e| usage(&e))?,
        None => TargetUser::invoking().map_err(|e| Failure::by(Exit::ExecFailed, &e))?,
    };
    let mut kept = CapabilitySet::NONE;
    for name in &args.keep_capability {
        let named = name.parse().map_err(|e: launch::UnknownCapability| usage(&e))?;
        kept = kept.union(named);
    }
    let mut command = Command::new(program);
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

/// What is said when the command has ended, all of it on standard error.
fn report_end(args: &ExecArgs, output: Output, outcome: &Outcome, recorder: &mut Recorder) {
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
    let summary = recorder.finish(
        &args.command,
        exit,
        outcome.duration,
        (outcome.lost, outcome.untold),
        &outcome.counters,
    );
    let mut stderr = anstream::stderr();
    // Where the reader is gone, the command's exit code still tells.
    let mut say = |text: &str| {
        let _ = stderr.write_all(text.as_bytes());
    };
    if !args.quiet {
        match output {
            Output::Text => {
                let layout = Layout {
                    styled: true,
                    width: terminal_width(),
                };
                say(&table(recorder.tally(), &outcome.counters, layout));
            }
            Output::Json => {
                if let Ok(line) = json::line(&summary) {
                    say(&format!("{line}\n"));
                }
            }
        }
        if let Some(kept) = &outcome.kept {
            say(&format!(
                "tidegate: processes were left running under the policy in {}\n",
                escaped(kept.as_os_str().as_bytes())
            ));
        }
    }
    if let Some(error) = recorder.failure() {
        say(&format!(
            "tidegate: warning: the report is not complete: {error}\n"
        ));
    }
    if recorder.strange() > 0 {
        say(&format!(
            "tidegate: warning: {} events were not understood\n",
            recorder.strange()
        ));
    }
}

/// Columns of the terminal on standard error.
fn terminal_width() -> Option<u16> {
    let (width, _) = terminal_size::terminal_size_of(io::stderr())?;
    Some(width.0)
}
