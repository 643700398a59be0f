//! Output formats, and writing results to standard output.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde::Serialize;
use serde_json::json;

use super::{exit::Exit, failure::Failure};
use tidegate_core::events::json;

/// Version of the JSON that commands print. It grows when a key is removed or changes its meaning; new keys do not
/// change it.
pub const SCHEMA_VERSION: u32 = 1;

/// The format of what a command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Text and tables for a terminal
    #[default]
    Text,
    /// JSON for programs; events are one JSON object per line
    Json,
}

/// Prints a result to standard output. Colors are removed unless the reader wants them.
/// A reader that closed the pipe (`tidegate ... | head -1`) is not an error.
///
/// # Errors
/// When the text cannot be written for another reason, such as a full disk.
pub fn print(text: &str) -> Result<ExitCode, Failure> {
    write(anstream::stdout().lock(), text)
}

/// Prints a text byte for byte, escape sequences included.
///
/// # Errors
/// As [`print`].
pub fn print_unchanged(text: &str) -> Result<ExitCode, Failure> {
    write(io::stdout().lock(), text)
}

fn write(mut stdout: impl Write, text: &str) -> Result<ExitCode, Failure> {
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::of(Exit::CouldNotRun, "cannot write to standard output").because(&error))
        }
        _ => Ok(Exit::Success.into()),
    }
}

/// A JSON object with its `schema_version`, on several lines, with a line feed at the end.
pub fn document(body: &impl Serialize) -> String {
    json::document(&versioned(body))
}

/// The same on one line, without a line feed.
pub fn line(body: &impl Serialize) -> String {
    // Only strings, integers and lists: nothing that JSON cannot represent.
    json::line(&versioned(body)).unwrap_or_default()
}

fn versioned(body: &impl Serialize) -> serde_json::Value {
    let mut value = json!(body);
    if let serde_json::Value::Object(object) = &mut value {
        object.insert("schema_version".to_owned(), json!(SCHEMA_VERSION));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_has_its_schema_version() {
        assert_eq!(line(&json!({"a": 1})), r#"{"a":1,"schema_version":1}"#);
        assert_eq!(document(&json!({})), "{\n  \"schema_version\": 1\n}\n");
    }
}
