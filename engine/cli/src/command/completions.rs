//! `tidegate completions`: shell completion scripts.

use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::{Cli, Exit, Failure, help::HelpEnd, output};

/// Name of the command that is completed.
const NAME: &str = "tidegate";

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
                "Install completions for bash (package bash-completion), for all users",
                &[
                    "tidegate completions bash |",
                    "  sudo tee /usr/share/bash-completion/completions/tidegate > /dev/null",
                ],
            ),
            (
                "Install completions for fish, for the current user",
                &[
                    "mkdir -p ~/.config/fish/completions",
                    "tidegate completions fish > ~/.config/fish/completions/tidegate.fish",
                ],
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
    clap_complete::generate(shell, &mut visible(&Cli::command()), NAME, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The arguments and the subcommands that the help lists: `clap_complete` would complete hidden subcommands too.
fn visible(command: &Command) -> Command {
    let subcommands = command.get_subcommands().filter(|one| !one.is_hide_set());
    Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .args(command.get_arguments())
        .subcommands(subcommands)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn commands_and_options_are_completed() {
        for shell in Shell::value_variants() {
            let text = text(*shell);
            for word in [
                "tidegate", "exec", "apply", "explain", "allow", "verbose", "version", "help",
            ] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }

    /// The scripts write the names of subcommands with `-`, `_` or `__`.
    #[test]
    #[cfg(feature = "selftest")]
    fn hidden_commands_are_not_completed() {
        for shell in Shell::value_variants() {
            let text = text(*shell).replace(['-', '_'], "");
            assert!(text.contains("selftest"), "{shell}");
            assert!(!text.contains("selftestclient"), "{shell}");
        }
    }
}
