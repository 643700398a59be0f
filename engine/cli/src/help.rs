//! The parts that every `--help` ends with: notes, examples, exit codes.
//!
//! Notes are one line per paragraph, so that they wrap to the width of the terminal. Examples and exit codes are at
//! most 80 columns wide and are never wrapped.

use super::exit::Exit;

/// What follows the options in a help text.
#[derive(Clone, Copy, Debug, Default)]
pub struct HelpEnd<'a> {
    /// Paragraphs about behaviour, one string each.
    pub notes: &'a [&'a str],
    /// What an example does, and its command lines.
    pub examples: &'a [(&'a str, &'a [&'a str])],
    /// The exit codes of the command and what they mean for it.
    pub exits: &'a [(Exit, &'a str)],
    /// Further rows of the table of exit codes.
    pub other_exits: &'a [(&'a str, &'a str)],
}

impl HelpEnd<'_> {
    /// The text, without the last line feed.
    pub fn text(&self) -> String {
        let mut parts: Vec<String> = self.notes.iter().map(|note| (*note).to_owned()).collect();
        if !self.examples.is_empty() {
            let mut part = "Examples:".to_owned();
            for (about, lines) in self.examples {
                part += &format!("\n  {about}:");
                for line in *lines {
                    part += &format!("\n    {line}");
                }
            }
            parts.push(part);
        }
        let exits = self
            .exits
            .iter()
            .map(|(exit, meaning)| (exit.code().to_string(), *meaning));
        let other = self
            .other_exits
            .iter()
            .map(|(code, meaning)| ((*code).to_owned(), *meaning));
        let exits: Vec<(String, &str)> = exits.chain(other).collect();
        if !exits.is_empty() {
            let width = exits.iter().map(|(code, _)| code.len()).max().unwrap_or(0);
            let mut part = "Exit codes:".to_owned();
            for (code, meaning) in exits {
                part += &format!("\n  {code:<width$}  {meaning}");
            }
            parts.push(part);
        }
        parts.join("\n\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_separated_by_empty_lines() {
        let help = HelpEnd {
            notes: &["A note."],
            examples: &[("Check a policy", &["tidegate check shop.yaml"])],
            exits: &[(Exit::Success, "the policy is valid")],
            other_exits: &[("128+n", "signal n")],
        };
        let expected = "A note.\n\nExamples:\n  Check a policy:\n    tidegate check shop.yaml\n\n\
            Exit codes:\n  0      the policy is valid\n  128+n  signal n";
        assert_eq!(help.text(), expected);
    }
}
