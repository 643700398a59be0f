//! Runs the command that was parsed from the command line.

use std::process::ExitCode;

#[cfg(feature = "selftest")]
use super::command::{selftest, selftest_client};
use super::{
    Cli, Exit, Failure, Output,
    args::Command,
    command::{
        apply, attach, check, completions, detach, events, exec, explain, policy, probe, set_mode, status,
    },
    logging,
};

/// Runs the command and returns its exit code; a failure is printed first.
pub fn run(cli: &Cli) -> ExitCode {
    match cli.color {
        clap::ColorChoice::Auto => anstream::ColorChoice::Auto,
        clap::ColorChoice::Always => anstream::ColorChoice::Always,
        clap::ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
    let result = match logging::start(cli.verbose) {
        Ok(()) => command(&cli.command, cli.output),
        Err(message) => Err(Failure::of(Exit::Usage, message).hint(format!(
            "use a level (error, warn, info, debug, trace) or modules with levels, such as {}=tidegate_core::launch=trace,info",
            logging::VARIABLE
        ))),
    };
    result.unwrap_or_else(|failure| failure.report(cli.output))
}

fn command(command: &Command, output: Output) -> Result<ExitCode, Failure> {
    match command {
        Command::Apply(args) => apply::run(args, output),
        Command::Attach(args) => attach::run(args, output),
        Command::Check(args) => Ok(check::run(args, output)),
        Command::Completions(args) => completions::run(args),
        Command::Detach(args) => detach::run(args, output),
        Command::Events(args) => events::run(args, output),
        Command::Exec(args) => exec::run(args, output),
        Command::Explain(args) => explain::run(args, output),
        Command::Policy(args) => policy::run(args, output),
        Command::Probe(args) => probe::run(args, output),
        #[cfg(feature = "selftest")]
        Command::Selftest(args) => selftest::run(args, output),
        Command::SetMode(args) => set_mode::run(args, output),
        Command::Status(args) => status::run(args, output),
        #[cfg(feature = "selftest")]
        Command::SelftestClient(args) => selftest_client::run(args),
    }
}
