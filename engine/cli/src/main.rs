//! The program `tidegate`.

use std::{io::Write, process::ExitCode};

use clap::{Parser, error::ErrorKind};
use tidegate::{Cli, Exit, Output, dispatch, renamed_commands};

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => dispatch::run(&cli),
        Err(error) => usage(&error),
    }
}

/// Prints help, or an error of the command line in the format of all other errors.
fn usage(error: &clap::Error) -> ExitCode {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if let Some(failure) = renamed_commands::failure(error, words.iter().map(String::as_str)) {
        return failure.report(Output::Text);
    }
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        error.exit();
    }
    // When standard error is closed, only the exit code is left.
    let _ = write!(anstream::stderr(), "tidegate: {}", error.render().ansi());
    Exit::Usage.into()
}
