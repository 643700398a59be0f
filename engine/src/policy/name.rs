//! Names of policies, rules and sets.

use super::{
    diagnostic::{Code, Reporter, quoted},
    source::Span,
};

/// Longest name.
const MAX_LENGTH: usize = 63;

/// Whether a text is a name: 1 to 63 letters, digits, `.`, `-`, `_`.
pub(super) fn is_name(text: &str) -> bool {
    (1..=MAX_LENGTH).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// Reports a text that is no name.
pub(super) fn check(text: &str, of: &str, span: Span, reporter: &mut Reporter<'_>) -> bool {
    if is_name(text) {
        return true;
    }
    let suggestion: String = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')))
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-");
    let help = if is_name(&suggestion) {
        format!("write `{suggestion}`: names have letters, digits, `.`, `-` and `_`")
    } else {
        format!("names have 1 to {MAX_LENGTH} letters, digits, `.`, `-` and `_`")
    };
    reporter.error(
        Code::BadName,
        span,
        format!("{} cannot be the name of {of}", quoted(text)),
        help,
    );
    false
}
