//! A YAML document as a tree whose parts know their place in the file.

use super::source::Span;

/// A part of the document.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

/// What a part is.
#[derive(Debug)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something a diagnostic was given about; whoever meets it says no more.
    Faulty,
}

/// A text, number or word.
#[derive(Debug)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Written without quotes, so that YAML may take it for a number or a word of its own.
    pub(super) plain: bool,
    /// The variable whose value this is, when it is that and nothing else: in a list, it may stand
    /// for several items.
    pub(super) variable: Option<String>,
}

/// A field of a mapping.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) value: Node,
}

impl Node {
    /// The kind of the value, for messages.
    pub(super) fn describe(&self) -> &'static str {
        match &self.value {
            Value::Null | Value::Faulty => "nothing",
            Value::Scalar(s) => s.describe(),
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

impl Scalar {
    /// The kind of the value as YAML's core schema has it, for messages.
    pub(super) fn describe(&self) -> &'static str {
        match () {
            () if !self.plain => "a text",
            () if matches!(
                self.text.as_str(),
                "true" | "True" | "TRUE" | "false" | "False" | "FALSE"
            ) =>
            {
                "true or false"
            }
            () if self.is_number() => "a number",
            () => "a text",
        }
    }

    fn is_number(&self) -> bool {
        let digits = self.text.trim_start_matches(['+', '-']);
        let radix = |prefix, radix| {
            digits
                .strip_prefix(prefix)
                .is_some_and(|d: &str| !d.is_empty() && d.chars().all(|c| c.is_digit(radix)))
        };
        radix("0x", 16)
            || radix("0o", 8)
            || radix("0b", 2)
            || matches!(digits, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN")
            || (digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
                && digits.ends_with(|c: char| c.is_ascii_digit() || c == '.')
                && digits.parse::<f64>().is_ok())
    }
}
