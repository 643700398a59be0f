//! The program `tidegate`.

use std::process::ExitCode;

use clap::Parser;
use tidegate::cli::{Cli, Output, dispatch, renamed};

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => dispatch::run(&cli),
        Err(error) => {
            let words: Vec<String> = std::env::args_os()
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            match renamed::failure(&error, words.iter().map(String::as_str)) {
                Some(failure) => failure.report(Output::Text),
                // Help exits with 0, every other error with 2.
                None => error.exit(),
            }
        }
    }
}
