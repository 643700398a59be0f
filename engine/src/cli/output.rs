//! What form results are printed in, and printing them.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use super::{exit::Exit, failure::Failure};

/// Form of what a command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Prints a result to standard output. Colours are taken out where the reader does not want them.
/// A reader that has gone (`tidegate ... | head -1`) is no failure: it had what it wanted.
///
/// # Errors
/// When the text cannot be written for another reason, such as a full disk.
pub fn print(text: &str) -> Result<ExitCode, Failure> {
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::of(Exit::CouldNotRun, "cannot write to standard output").because(&error))
        }
        _ => Ok(Exit::Fine.into()),
    }
}
