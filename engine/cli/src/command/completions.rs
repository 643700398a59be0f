//! `tidegate completions`: shell completion scripts.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{Cli, Exit, Failure, help::HelpEnd, output};

/// Print a completion script for a shell
///
/// Use it once per machine or user, to complete commands and options with the Tab key.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help())]
pub struct CompletionsArgs {
    /// The shell to print the script for
    pub shell: Shell,
}

fn help() -> String {
    HelpEnd {
        examples: &[
            (
                "Install completions for bash, for all users",
                &[
                    "tidegate completions bash |",
                    "  sudo tee /usr/share/bash-completion/completions/tidegate > /dev/null",
                ],
            ),
            (
                "Install completions for fish, for the current user",
                &["tidegate completions fish > ~/.config/fish/completions/tidegate.fish"],
            ),
        ],
        exits: &[
            (Exit::Success, "success"),
            (Exit::CouldNotRun, "the output cannot be written"),
            (Exit::Usage, "invalid command line"),
        ],
        ..HelpEnd::default()
    }
    .text()
}

/// Prints the script.
///
/// # Errors
/// When it cannot be written.
pub fn run(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    output::print(&text(args.shell))
}

fn text(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_knows_the_commands() {
        for shell in Shell::value_variants() {
            let text = text(*shell);
            for word in ["tidegate", "exec", "apply", "explain", "allow"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }
}
