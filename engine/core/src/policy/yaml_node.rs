//! A YAML document as a tree with source spans.

use super::source::Span;

/// A node of the document.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

/// The value of a node.
#[derive(Debug)]
pub(super) enum Value {
    /// Empty, `~` or `null`.
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// A value with a reported error; it must not be reported again.
    Invalid,
}

/// A string, number or boolean. The type depends on the field.
#[derive(Debug)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Whether it is written without quotes, so that YAML can read it as a number or boolean.
    pub(super) plain: bool,
    /// The variable that was substituted, if the scalar consists of one variable only. In a list, its value
    /// can have several items.
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
    /// The type of the value, for messages.
    pub(super) fn describe(&self) -> &'static str {
        match &self.value {
            Value::Null | Value::Invalid => "nothing",
            Value::Scalar(s) => s.describe(),
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

impl Scalar {
    /// The type of the value by the YAML core schema, for messages.
    pub(super) fn describe(&self) -> &'static str {
        match () {
            () if !self.plain => "a string",
            () if matches!(
                self.text.as_str(),
                "true" | "True" | "TRUE" | "false" | "False" | "FALSE"
            ) =>
            {
                "a boolean"
            }
            () if self.is_number() => "a number",
            () => "a string",
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
