//! The program `tidegate`.

use std::process::ExitCode;

use clap::Parser;
use tidegate::cli::{Cli, dispatch};

fn main() -> ExitCode {
    // Usage errors end here, with exit code 2.
    dispatch::run(&Cli::parse())
}
