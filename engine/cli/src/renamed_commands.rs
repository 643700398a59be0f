//! Errors for commands that were renamed or removed.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Exit, Failure};

/// Former subcommands of `tidegate policy`, and the commands that replace them.
const POLICY: [(&str, &str); 3] = [
    ("apply", "tidegate apply"),
    ("list", "tidegate status"),
    ("stats", "tidegate status --rules"),
];

/// The failure that names the new command, when `error` is about an old one. `words` is the command line.
pub fn failure<'a>(error: &clap::Error, words: impl IntoIterator<Item = &'a str>) -> Option<Failure> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let ContextValue::String(unknown) = error.get(ContextKind::InvalidSubcommand)? else {
        return None;
    };
    let mut words = words.into_iter().skip_while(|word| *word != "policy");
    words.next()?;
    let (old, new) = POLICY.iter().find(|(old, _)| old == unknown)?;
    let message = format!("`policy {old}` is now `{new}`");
    Some(Failure::of(Exit::Usage, message).hint(format!("`{new} --help` describes it")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{Cli, Output};

    fn error_text(line: &str) -> Option<String> {
        let words: Vec<&str> = line.split(' ').collect();
        let error = Cli::try_parse_from(&words).unwrap_err();
        let failure = failure(&error, words.iter().copied())?;
        assert_eq!(failure.exit(), Exit::Usage);
        Some(anstream::adapter::strip_str(&failure.render(Output::Text)).to_string())
    }

    #[test]
    fn old_commands_name_the_new_ones() {
        let text = error_text("tidegate policy apply -f shop.yaml").unwrap();
        assert!(
            text.starts_with("tidegate: error: `policy apply` is now `tidegate apply`\n"),
            "{text}"
        );
        let text = error_text("tidegate policy list").unwrap();
        assert!(text.contains("`policy list` is now `tidegate status`"), "{text}");
        let text = error_text("tidegate -v policy stats shop --output json").unwrap();
        assert!(
            text.contains("`policy stats` is now `tidegate status --rules`"),
            "{text}"
        );
    }

    #[test]
    fn other_errors_are_left_to_clap() {
        for line in [
            "tidegate list",
            "tidegate policy frob",
            "tidegate exec",
            "tidegate stats",
        ] {
            assert_eq!(error_text(line), None, "{line}");
        }
    }
}
