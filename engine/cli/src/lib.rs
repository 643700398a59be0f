//! The command line: arguments, exit codes, output. Each command is a file of `command`.

pub mod args;
pub mod command;
pub mod dispatch;
pub mod environment;
pub mod exit;
pub mod failure;
pub mod help;
pub mod logging;
pub mod output;
pub mod renamed_commands;
pub mod variable_args;

pub use args::Cli;
pub use exit::Exit;
pub use failure::Failure;
pub use output::Output;
