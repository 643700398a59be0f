//! The syntax of names of policies, rules and sets.

use super::{
    diagnostic::{Code, Reporter, quoted},
    source::Span,
};

/// Maximum length of a name.
const MAX_LENGTH: usize = 63;

/// Whether the string is a valid name: 1 to 63 letters, digits, `.`, `-`, `_`.
pub(super) fn is_name(text: &str) -> bool {
    (1..=MAX_LENGTH).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// Reports an invalid name. `of` is the kind of object, with an article.
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
        format!("write `{suggestion}`: a name has letters, digits, `.`, `-` and `_`")
    } else {
        format!("a name has 1 to {MAX_LENGTH} letters, digits, `.`, `-` and `_`")
    };
    reporter.error(
        Code::BadName,
        span,
        format!("invalid name {} of {of}", quoted(text)),
        help,
    );
    false
}
