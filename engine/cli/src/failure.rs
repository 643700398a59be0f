//! Errors as users and programs read them.

use std::{error::Error, io::Write, process::ExitCode};

use serde::Serialize;

use super::{
    exit::Exit,
    output::{self, Output},
};
use tidegate_core::{events::escape::is_printable, hint::Hint};

/// Why a command failed: a message, its causes, what to do about it, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    exit: Exit,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    causes: &'a [String],
    hint: Option<&'a str>,
    exit_code: u8,
}

impl Failure {
    /// A failure with a message; the program exits with `exit`.
    pub fn of(exit: Exit, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
        }
    }

    /// A failure with the message, the causes and the hint of an error.
    pub fn by(exit: Exit, error: &dyn Hint) -> Failure {
        let mut failure = Failure::of(exit, error.to_string());
        failure.hint = error.hint();
        match error.source() {
            Some(source) => failure.because(source),
            None => failure,
        }
    }

    /// Adds a cause, and the causes of that.
    #[must_use]
    pub fn because(mut self, cause: &dyn Error) -> Failure {
        let mut next = Some(cause);
        while let Some(cause) = next {
            // Some errors repeat their source in their own message.
            let text = cause.to_string();
            if !self.message.contains(&text) {
                self.causes.push(text);
            }
            next = cause.source();
        }
        self
    }

    /// Adds a hint: what the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Puts a position in front of the message, such as `batch.txt:3`.
    #[must_use]
    pub fn at(mut self, position: &str) -> Failure {
        self.message = format!("{position}: {}", self.message);
        self
    }

    /// The code that the program exits with.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The text that is printed, without the last line feed.
    pub fn render(&self, output: Output) -> String {
        match output {
            Output::Text => {
                let bold = anstyle::Style::new()
                    .bold()
                    .fg_color(Some(anstyle::AnsiColor::Red.into()));
                let mut message = self.message.clone();
                for cause in &self.causes {
                    message += &format!(": {cause}");
                }
                let mut text = format!("tidegate: {bold}error:{bold:#} {}", safe(&message));
                if let Some(hint) = &self.hint {
                    text += &format!("\n  hint: {}", safe(hint));
                }
                text
            }
            Output::Json => {
                let document = Document {
                    error: Body {
                        message: &self.message,
                        causes: &self.causes,
                        hint: self.hint.as_deref(),
                        exit_code: self.exit.code(),
                    },
                };
                output::line(&document)
            }
        }
    }

    /// Prints the failure to standard error and returns the exit code.
    pub fn report(&self, output: Output) -> ExitCode {
        // When standard error is closed, only the exit code is left.
        let _ = writeln!(anstream::stderr(), "{}", self.render(output));
        self.exit.into()
    }
}

/// Messages quote untrusted paths and texts: escapes the characters that a terminal interprets.
fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_printable(c) || c == '\n' {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn sample() -> Failure {
        let cause = io::Error::from(io::ErrorKind::PermissionDenied);
        Failure::of(Exit::CouldNotRun, "cannot read \x1b[2Jp.yaml")
            .because(&cause)
            .hint("run it with sudo")
    }

    #[test]
    fn text_escapes_control_characters() {
        let text = anstream::adapter::strip_str(&sample().render(Output::Text)).to_string();
        assert_eq!(
            text,
            "tidegate: error: cannot read \\u{1b}[2Jp.yaml: permission denied\n  hint: run it with sudo"
        );
    }

    #[test]
    fn json_has_message_causes_hint_and_exit_code() {
        let document: serde_json::Value = serde_json::from_str(&sample().render(Output::Json)).unwrap();
        assert_eq!(
            document,
            serde_json::json!({"schema_version": 1, "error": {
                "message": "cannot read \x1b[2Jp.yaml",
                "causes": ["permission denied"],
                "hint": "run it with sudo",
                "exit_code": 1,
            }})
        );
    }

    #[test]
    fn all_causes_and_the_hint_are_kept() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] Inner);
        impl Hint for Outer {
            fn hint(&self) -> Option<String> {
                Some("look inside".to_owned())
            }
        }
        #[derive(Debug, thiserror::Error)]
        #[error("inner")]
        struct Inner(#[source] io::Error);
        let error = Outer(Inner(io::Error::other("innermost")));
        let failure = Failure::by(Exit::ExecFailed, &error);
        assert_eq!(
            (failure.exit(), failure.causes, failure.hint.as_deref()),
            (
                Exit::ExecFailed,
                vec!["inner".into(), "innermost".into()],
                Some("look inside")
            )
        );
    }
}
